/** What the page says: figures in words, and errors with what to do about them. */
import { HeadwaterError, type ErrorKind, type ModelInfo, type Support } from "../pkg/dist/index.js";

/** What a person can do, by the kind of the error. Kinds that only programmers meet have none. */
const ADVICE: Partial<Record<ErrorKind, string>> = {
  GpuUnavailable: "This browser gives the page no graphics device. A recent Chrome, Edge, Safari or Firefox on a device with up-to-date drivers has one. Without ?backend=webgpu the page uses the processor instead, which is slower.",
  GpuOutOfMemory: "The graphics device has no room for this model. Close other tabs, or take a smaller model.",
  GpuBlocked: "The browser has shut the page out of the graphics device. Reload the page.",
  DeviceLost: "The graphics device was reset. Load the model again.",
  UnsupportedFormat: "This is not a model that can be read here. Take a .gguf file, or all files of a safetensors folder.",
  MalformedGguf: "The file is damaged or was cut short. Download it again.",
  MalformedSafetensors: "The file is damaged or was cut short. Download it again.",
  MalformedModel: "The files do not belong together, or one of them is damaged.",
  MalformedTokenizer: "The tokenizer's file is damaged.",
  SizeMismatch: "The file is not as long as it should be. Download it again.",
  ContextFull: "The conversation is longer than the model can hold. Begin a new chat.",
  EnginePoisoned: "The engine stopped. Load the model again.",
  WorkerGone: "The engine's worker was ended. Load the model again.",
  CspBlocked: "The server of this page must allow 'wasm-unsafe-eval' in its content security policy.",
  Network: "The file could not be fetched. Check the connection and try again.",
};

/** The error's own words, its kind, and the advice that goes with it. */
export function explain(error: unknown): { readonly kind: string; readonly words: string; readonly advice: string } {
  if (!(error instanceof HeadwaterError)) return { kind: "Error", words: String(error), advice: "" };
  return { kind: error.kind, words: error.message, advice: ADVICE[error.kind] ?? "" };
}

/** What the start page says about the device, for the backend that the address insists on; empty when all is well. */
export function deviceNotice({ webgpu, wasmSimd }: Support, backend: string | null): string {
  if (!wasmSimd) return "This browser is too old to run a model: it lacks WebAssembly SIMD.";
  if (!webgpu.available) {
    const instead = backend === "webgpu" ? "" : " The model will run on the processor instead, which is slower.";
    return `No WebGPU here: ${webgpu.reason}.${instead}`;
  }
  if (webgpu.software) return "WebGPU is there, but only as a program on the processor (a software device): answers will be slow.";
  return "";
}

/** What runs the model, in a few words. */
export function deviceWords(info: ModelInfo, { webgpu }: Support): string {
  if (info.backend.name === "cpu") return "Processor (no WebGPU, slower)";
  const told = webgpu.available ? [webgpu.description, `${webgpu.vendor} ${webgpu.architecture}`] : [];
  const device = [...told, info.backend.device].map((name) => name.trim()).find((name) => name !== "");
  return device === undefined ? "WebGPU" : `WebGPU on ${device}`;
}

/** `5.7 MB` */
export function megabytes(bytes: number): string {
  return `${(bytes / 1e6).toFixed(1)} MB`;
}

/** `85 ms`, `1.2 s` */
export function duration(secs: number): string {
  return secs < 1 ? `${Math.round(secs * 1000)} ms` : `${secs.toFixed(1)} s`;
}

/** `1 token`, `12 tokens` */
export function tokens(count: number): string {
  return `${count} ${count === 1 ? "token" : "tokens"}`;
}
