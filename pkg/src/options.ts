/**
 * What callers may ask for, and the check that nothing is ignored: an option that is unknown, or that this version does
 * not have, is an error that names it. Ranges of values are the engine's to judge.
 */
import { HeadwaterError } from "./errors.js";
import type { Progress } from "./types.js";

/** Options of `load`. */
export interface LoadOptions {
  /** `"auto"` (the default) takes WebGPU where there is an adapter, else the processor. */
  backend?: "auto" | "webgpu" | "cpu";
  /** Positions to keep room for; the default is the model's own context, up to a bound the engine states in `info`. */
  context?: number;
  /** How keys and values are stored; `"f16"` by default. */
  kvFormat?: "f16" | "f32";
  /** Float32 arithmetic and storage throughout, for comparing with reference software. */
  exact?: boolean;
  /** In a dedicated worker (`true`, the default), on this thread (`false`), or in a worker that you made. */
  worker?: boolean | Worker;
  /** Where `worker.js` lies, when the bundler cannot tell. */
  workerUrl?: string | URL;
  /** Where `headwater_bg.wasm` lies, when the bundler cannot tell. */
  wasmUrl?: string | URL;
  /** Told how far loading is. */
  onProgress?: (progress: Progress) => void;
  /** Ends the loading with `Aborted`. */
  signal?: AbortSignal;
}

/** Options of `generate` and of `Chat.send`. */
export interface GenerateOptions {
  /** Most tokens to make; the default is what the context has room for. */
  maxTokens?: number;
  /** 0 (the default) is greedy. */
  temperature?: number;
  /** Only the k likeliest; 0 is off. */
  topK?: number;
  /** Only the smallest set whose probabilities reach p; 1 is off. */
  topP?: number;
  /** Only tokens at least this many times as likely as the likeliest; 0 is off. */
  minP?: number;
  /** Divides the scores of tokens that occurred; 1 is off. */
  repetitionPenalty?: number;
  /** Taken from a score once for each time the token was generated; 0 is off. */
  frequencyPenalty?: number;
  /** Taken from a score once if the token was generated at all; 0 is off. */
  presencePenalty?: number;
  /** The same seed gives the same tokens on the same device; random by default, told in the result. */
  seed?: number;
  /** Texts that end the reply; they are not part of it. */
  stop?: string | readonly string[];
  /** Go on past the end-of-sequence token. */
  ignoreEos?: boolean;
  /** Variables for the chat template. */
  templateVariables?: Readonly<Record<string, unknown>>;
  /** Tool descriptions for the chat template. */
  tools?: readonly unknown[];
  /** What to do when the context is full; only `"error"` in this version. */
  onOverflow?: "error";
  /** Ends the generation; what was made by then is the result, with the finish reason `"abort"`. */
  signal?: AbortSignal;
}

/** Options of `tokenize`. */
export interface TokenizeOptions {
  /** Add what the model puts around every text (`<s>`, ...); off by default. */
  addSpecial?: boolean;
  /** Read special tokens out of the text; off by default, so that text stays text. */
  parseSpecial?: boolean;
}

const LOAD = ["backend", "context", "kvFormat", "exact", "worker", "workerUrl", "wasmUrl", "onProgress", "signal"];
const LOAD_LATER = ["revision", "token", "endpoint", "policy", "lock", "adapters", "persist", "onEvent", "selfTest"];
const GENERATE = [
  "maxTokens", "temperature", "topK", "topP", "minP", "repetitionPenalty", "frequencyPenalty", "presencePenalty",
  "seed", "stop", "ignoreEos", "templateVariables", "tools", "onOverflow", "signal",
];
const GENERATE_LATER = [
  "typicalP", "topNSigma", "xtc", "dry", "mirostat", "penaltyWindow", "logitBias", "n", "logprobs", "topLogprobs", "json",
  "regex", "grammar", "toolChoice", "reasoning", "adapter", "prefill",
];
const TOKENIZE = ["addSpecial", "parseSpecial"];

/** An error about one option. */
export function refuse(option: string, words: string): HeadwaterError {
  return new HeadwaterError("InvalidArgument", `${option}: ${words}`, { option });
}

function check(verb: string, options: object, known: readonly string[], later: readonly string[]): void {
  if (typeof options !== "object" || options === null) throw refuse("options", `${verb} takes an object`);
  for (const key of Object.keys(options)) {
    if (known.includes(key)) continue;
    throw refuse(key, later.includes(key) ? "not supported yet" : `${verb} has no such option`);
  }
}

/** Fails unless `value` is one of `allowed` or left out. */
function oneOf(option: string, value: unknown, allowed: readonly string[]): void {
  if (value !== undefined && !allowed.includes(value as string)) {
    throw refuse(option, `${display(value)} is not one of ${allowed.join(", ")}`);
  }
}

function checkSignal(signal: unknown): void {
  if (signal !== undefined && !(signal instanceof AbortSignal)) throw refuse("signal", "not an AbortSignal");
}

/** Fails on any option of `load` that is unknown, not supported yet or of the wrong type. */
export function checkLoadOptions(options: LoadOptions): void {
  check("load", options, LOAD, LOAD_LATER);
  oneOf("backend", options.backend, ["auto", "webgpu", "cpu"]);
  const kvFormat: unknown = options.kvFormat;
  if (kvFormat === "q8_0" || kvFormat === "q4_0") throw refuse("kvFormat", `${kvFormat} is not supported yet`);
  oneOf("kvFormat", kvFormat, ["f16", "f32"]);
  const worker: unknown = options.worker;
  if (worker === "shared") throw refuse("worker", '"shared" is not supported yet');
  if (worker !== undefined && typeof worker !== "boolean" && !(worker instanceof Worker)) {
    throw refuse("worker", "takes true, false or a Worker");
  }
  if (options.onProgress !== undefined && typeof options.onProgress !== "function") {
    throw refuse("onProgress", "not a function");
  }
  for (const option of ["workerUrl", "wasmUrl"] as const) {
    const url: unknown = options[option];
    if (url !== undefined && typeof url !== "string" && !(url instanceof URL)) throw refuse(option, "not a URL");
  }
  checkSignal(options.signal);
}

/** Fails on any option of `generate` that is unknown or not supported yet. */
export function checkGenerateOptions(options: GenerateOptions): void {
  check("generate", options, GENERATE, GENERATE_LATER);
  oneOf("onOverflow", options.onOverflow, ["error"]);
  checkSignal(options.signal);
}

/** Fails on any option of `tokenize` that is unknown or of the wrong type. */
export function checkTokenizeOptions(options: TokenizeOptions): void {
  check("tokenize", options, TOKENIZE, []);
  for (const option of ["addSpecial", "parseSpecial"] as const) {
    const value: unknown = options[option];
    if (value !== undefined && typeof value !== "boolean") throw refuse(option, "takes true or false");
  }
}

function display(value: unknown): string {
  return typeof value === "string" ? `"${value}"` : String(value);
}
