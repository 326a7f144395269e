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
  HttpStatus: "The server is busy or in trouble. Try again in a while; what has come is kept.",
  Stalled: "Nothing came for a long time. Try again; what has come is kept.",
  CorsBlocked: "That server does not let pages of other sites read its files. Another mirror may.",
  AuthRequired: "Check the spelling. If the model is private or gated, give an access token below the list.",
  Gated: "Accept the model's terms on the hub's own page, then give an access token below the list.",
  PolicyRefused: "Nothing was fetched. Check the model again to see its present terms.",
  NotFound: "Check the spelling, and that the repository has a file of that kind.",
  IntegrityMismatch: "The bytes are not those that the hub promises, so they were not used. Try again later.",
  QuotaExceeded: "The browser's storage is full. Remove a kept model, or take a smaller one.",
  StorageLost: "The browser let go of what was kept. Fetch the model again.",
  StorageBusy: "Another tab is at work with the same files. Close it or wait.",
  StorageUnavailable: "This browser lets the page keep nothing (a private window, perhaps).",
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

/** `850 kB`, `5.7 MB`, `1.83 GB` */
export function bytes(count: number): string {
  if (count >= 1e9) return `${(count / 1e9).toFixed(2)} GB`;
  if (count >= 1e6) return `${(count / 1e6).toFixed(count >= 1e8 ? 0 : 1)} MB`;
  return `${Math.round(count / 1e3)} kB`;
}

/** `40 s left`, `6 min left`, `1.5 h left` */
export function left(secs: number): string {
  if (secs < 90) return `${Math.max(1, Math.round(secs))} s left`;
  return secs < 5400 ? `${Math.round(secs / 60)} min left` : `${(secs / 3600).toFixed(1)} h left`;
}

/** The day of a moment (seconds since 1970), as the reader's language writes it. */
export function day(secs: number): string {
  return new Date(secs * 1000).toLocaleDateString(undefined, { day: "numeric", month: "short", year: "numeric" });
}

/** `85 ms`, `1.2 s` */
export function duration(secs: number): string {
  return secs < 1 ? `${Math.round(secs * 1000)} ms` : `${secs.toFixed(1)} s`;
}

/** `1 token`, `12 tokens` */
export function tokens(count: number): string {
  return `${count} ${count === 1 ? "token" : "tokens"}`;
}
