/**
 * What callers may ask for. The engine judges the options that reach it, and names those that it does not know or does
 * not have yet; here are the checks of the few that stay on this side (workers, URLs, listeners, signals).
 */
import { HeadwaterError } from "./errors.js";
import type { ModelEvent } from "./events.js";
import type { HubOptions } from "./hub/call.js";
import type { AdapterReference } from "./sources.js";
import type { AdapterChoice, Progress, ToolDefinition } from "./types.js";

/** Where the engine runs. */
export interface WorkerOptions {
  /**
   * In a dedicated worker (`true`, the default), on this thread (`false`), in a worker that you made, or in one for all tabs
   * of the origin that load the same model with the same options (`"shared"`): its weights are there once. Another tab takes
   * over when the one that keeps the worker is closed; what is under way goes on there.
   *
   * Where the worker ends or the graphics device is lost, the model is loaded again (in another worker, unless you made it) and what
   * is under way goes on; see `LoadOptions.onEvent`.
   */
  worker?: boolean | Worker | "shared";
  /** Where `worker.js` lies, when the bundler cannot tell. */
  workerUrl?: string | URL;
  /** Where `headwater_bg.wasm` lies, when the bundler cannot tell; `headwater_deferred_bg.wasm` and `grammar_bg.wasm` are looked for beside it then. */
  wasmUrl?: string | URL;
}

/** Options of `inspect`. */
export interface InspectOptions extends HubOptions, WorkerOptions {
  /** Read the files as this architecture, in the place of the one that they name and that is not known. */
  architecture?: string;
  /** Ends the call with `Aborted`. */
  signal?: AbortSignal;
}

/** Options of `fit`: those of the load that is thought of. */
export interface FitOptions extends InspectOptions, Pick<LoadOptions, "backend" | "context" | "kvFormat" | "quantize" | "exact"> {
  /** What the device has, where the browser's own hint says too little. */
  memoryBytes?: number;
  /** Ask the device for that much memory, and give it back at once; `true` by default. */
  probe?: boolean;
}

/** Options of `load`; those of the hub are for references to a hub. */
export interface LoadOptions extends HubOptions, WorkerOptions {
  /** `"auto"` (the default) takes WebGPU where there is an adapter, else the processor. */
  backend?: "auto" | "webgpu" | "cpu";
  /** Tokens that prompt and reply may have together; by default the model's own length, at most 4096. */
  context?: number;
  /** How keys and values are stored; `"f16"` by default. */
  kvFormat?: "f16" | "f32" | "q8_0" | "q4_0";
  /** What decoding on WebGPU multiplies integer weights with; `"f32"` by default. `"int8"` is faster on some devices; tokens may differ. */
  activations?: "f32" | "int8";
  /** Quantise matrices of floats while loading; norms and other vectors stay as they are. */
  quantize?: "q8_0" | "q4_0" | "q4_1" | "q5_0" | "q5_1" | "q4_k" | "q5_k" | "q6_k";
  /** Read the files as this architecture, in the place of the one that they name and that is not known. */
  architecture?: string;
  /** Float32 arithmetic and storage throughout, for comparing with reference software. */
  exact?: boolean;
  /** Adapters to load beside the model; without a name each is called by its own, its folder's or its file's. */
  adapters?: readonly { readonly source: AdapterReference; readonly name?: string }[];
  /**
   * Whether what the graphics device computes is held against the processor before the model is trusted to it; true by default.
   * Where it is wrong, other kernels are used or the processor is, and `info.warnings` says so.
   */
  selfTest?: boolean;
  /** Told how far loading is. */
  onProgress?: (progress: Progress) => void;
  /**
   * Told what happens to the model, from the beginning of the load until it is disposed of: its device or its worker was lost
   * and it is there again, what was kept is gone, a warning.
   */
  onEvent?: (event: ModelEvent) => void;
  /** Ends the loading with `Aborted`. */
  signal?: AbortSignal;
}

/**
 * Options of `generate` and of `Chat.send`. Where the sampling is left open, the model's own `generation_config.json`
 * decides; where it has none, the likeliest token is taken.
 */
export interface GenerateOptions {
  /** Most tokens to make; the default is what the context has room for. */
  maxTokens?: number;
  /** Divides the scores; 0 takes the likeliest token. */
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
  /** Only the tokens whose surprise is nearest to the expected one, until their probabilities reach it; 1 is off. */
  typicalP?: number;
  /** Only scores within so many standard deviations of the largest; 0 is off. */
  topNSigma?: number;
  /** Excludes top choices: of the tokens at least `threshold` (0.1) likely only the least likely stays, so often. */
  xtc?: { readonly probability: number; readonly threshold?: number };
  /** Makes what would repeat an earlier sequence less likely, the longer it is the more. */
  dry?: DryOptions;
  /** Keeps the surprise of tokens near `tau` bits (5), following at the rate `eta` (0.1). Takes the place of other filters. */
  mirostat?: { readonly tau?: number; readonly eta?: number };
  /** Penalties look at so many of the last tokens; at all by default. */
  penaltyWindow?: number;
  /** Added to the scores of tokens, by id; -100 forbids, 100 forces. */
  logitBias?: Readonly<Record<string | number, number>>;
  /** Tells how likely the model found each token, by its scores before all of these options. */
  logprobs?: boolean;
  /** With `logprobs`: so many of the likeliest tokens at each place too, up to 20. */
  topLogprobs?: number;
  /** Makes several replies, up to 128. They share the prompt; `Piece.choice` tells them apart. */
  n?: number;
  /** The same seed gives the same tokens on the same device; random by default, told in the result. */
  seed?: number;
  /** Texts that end the reply; they are not part of it. */
  stop?: string | readonly string[];
  /** With a prompt of text: special tokens written in it are special tokens. */
  parseSpecial?: boolean;
  /** Go on past the end-of-sequence token. */
  ignoreEos?: boolean;
  /** Variables for the chat template. */
  templateVariables?: Readonly<Record<string, unknown>>;
  /** Tools that the model may call. It decides by itself; nothing is called for it. */
  tools?: readonly ToolDefinition[];
  /** `"none"` leaves the tools out, `"required"` makes the reply a call of one of them, a name makes it a call of that one. */
  toolChoice?: "auto" | "none" | "required" | { readonly name: string };
  /** How the model writes calls, where its chat template does not tell. */
  toolFormat?: "deepseek" | "mistral" | "lfm2" | "phi" | "qwen3-coder" | "glm" | "functiongemma" | "hermes" | "pythonic" | "llama3" | "gemma" | "json" | "any" | "gpt-oss";
  /**
   * Whether the model thinks before it answers, by the switch that its chat template has, and for how many tokens at most:
   * then its reasoning is ended, and it answers.
   */
  reasoning?: { readonly enabled?: boolean; readonly budget?: number };
  /** With a prompt of messages: how the reply begins. It goes on from there, and its text does not repeat this. */
  prefill?: string;
  /**
   * The reply is JSON that is valid under this JSON Schema; `{}` is any JSON. What cannot be guaranteed fails with
   * `SchemaUnsupported` and says where. A reply that `maxTokens` cuts has `constraintComplete: false`.
   */
  json?: Readonly<Record<string, unknown>> | boolean;
  /** The reply is a match of this regular expression, from its first letter to its last. */
  regex?: string;
  /** The reply is a sentence of this grammar: a text in llguidance's dialect of Lark, or one in llama.cpp's GBNF. */
  grammar?: string | { gbnf: string };
  /** The adapter that the reply is made with, by its name, and how much of it (1 by default; 0 is the model alone). */
  adapter?: AdapterChoice;
  /**
   * What happens where the context is full. `"error"`, the default: a prompt without room fails with `ContextFull`, and a reply
   * ends. `"truncate-middle"`, for messages: the oldest turns behind those of the system leave the prompt. `"sliding"`: so they
   * do, and the reply goes on past the end of the context, from the latest part of it. `Piece.dropped` and
   * `GenerationResult.dropped` tell what went.
   */
  onOverflow?: "error" | "truncate-middle" | "sliding";
  /**
   * `"lookup"` expects ids that followed the same ids before, in the prompt or the reply, to follow again, and computes
   * several in a step. The reply is the same, token for token, whatever it is sampled by; it comes sooner where it copies much
   * (quotations, edits, code). It waits until a copy shows, gives up where less than one of four ids was right, and steps
   * aside where several replies are computed side by side, for models with recurrent state, with an `adapter`, penalties, a
   * constraint, `logprobs` and filters that the device has not. `GenerationResult.speculation` counts. `"off"` when absent.
   */
  speculation?: "lookup" | "off";
  /** Ends the reply with `Aborted`; the pieces that came before stand. */
  signal?: AbortSignal;
}

/** See `GenerateOptions.dry`. */
export interface DryOptions {
  /** How strong. */
  readonly multiplier: number;
  /** By how much it grows with each further token of a repetition; 1.75. */
  readonly base?: number;
  /** The longest repetition that costs nothing; 2. */
  readonly allowedLength?: number;
  /** How many of the last tokens are looked through; all. */
  readonly window?: number;
  /** Texts that no repetition goes across; a line break, a colon, a quotation mark and a star. */
  readonly sequenceBreakers?: readonly string[];
}

/** Options of `logits`. */
export interface LogitsOptions {
  /** See `GenerateOptions.adapter`. */
  adapter?: AdapterChoice;
}

/** Options of `embed`. What is left open is as the model's own files say. */
export interface EmbedOptions {
  /** How the states of a text become one vector: their mean, the first one, the last one. */
  pooling?: "mean" | "cls" | "last";
  /** Whether vectors are divided by their length. */
  normalize?: boolean;
  /** Only so many of the first elements, normalised after they are taken; for models that were trained for it (Matryoshka). */
  dimensions?: number;
  /** Take the beginning of a text that is too long, which fails with `ContextFull` otherwise. */
  truncate?: boolean;
  /** See `GenerateOptions.adapter`. */
  adapter?: AdapterChoice;
  /** Ends the work with `Aborted`. */
  signal?: AbortSignal;
}

/** Options of `score`. */
export interface ScoreOptions {
  /** Whether texts begin as the tokenizer begins a text (`<bos>` and such); true by default. */
  addSpecial?: boolean;
  /**
   * Lets an item be longer than the context: it is read in windows as long as the context, each of which scores so many
   * tokens more than the one before. Without it such an item fails with `ContextFull`.
   */
  stride?: number;
  /** So many of the likeliest tokens at each place too, up to 20. */
  topLogprobs?: number;
  /** See `GenerateOptions.adapter`. */
  adapter?: AdapterChoice;
  /** Ends the work with `Aborted`. */
  signal?: AbortSignal;
}

/** Options of `rerank`. */
export interface RerankOptions {
  /** Only so many of the best. */
  topK?: number;
  /** Take the beginnings of a query and a document that are too long together, which fails with `ContextFull` otherwise. */
  truncate?: boolean;
  /** See `GenerateOptions.adapter`. */
  adapter?: AdapterChoice;
  /** Ends the work with `Aborted`. */
  signal?: AbortSignal;
}

/** Options of `tokenize`. */
export interface TokenizeOptions {
  /** Add what the model puts around every text (`<s>`, ...); off by default. */
  addSpecial?: boolean;
  /** Read special tokens out of the text; off by default, so that text stays text. */
  parseSpecial?: boolean;
}

/** An error about one option. */
export function refuse(option: string, words: string): HeadwaterError {
  return new HeadwaterError("InvalidArgument", `${option}: ${words}`, { at: option });
}

/** Fails on what `load` keeps on this side of the border: everything that the engine's JSON cannot carry. */
export function checkLoadOptions(options: LoadOptions): void {
  checkObject("load", options);
  const worker: unknown = options.worker;
  if (worker !== undefined && worker !== "shared" && typeof worker !== "boolean" && !(worker instanceof Worker)) {
    throw refuse("worker", 'takes true, false, "shared" or a Worker');
  }
  if (options.workerUrl !== undefined && worker !== undefined && worker !== true && worker !== "shared") {
    throw refuse("workerUrl", 'used only with worker: true or "shared"');
  }
  for (const option of ["onProgress", "onEvent"] as const) {
    if (options[option] !== undefined && typeof options[option] !== "function") throw refuse(option, "not a function");
  }
  for (const option of ["workerUrl", "wasmUrl"] as const) {
    const url: unknown = options[option];
    if (url !== undefined && !(url instanceof URL) && !(typeof url === "string" && URL.canParse(url, location.href))) {
      throw refuse(option, "not a URL");
    }
  }
  const adapters: unknown = options.adapters;
  if (adapters !== undefined && !(Array.isArray(adapters) && adapters.every(isAdapter))) {
    throw refuse("adapters", "takes a list of { source, name }");
  }
  checkSignal(options.signal);
}

/** A URL as workers, which lie elsewhere, understand it. */
export function absolute(url: string | URL | undefined): string | undefined {
  return url === undefined ? undefined : new URL(url, location.href).href;
}

function isAdapter(adapter: unknown): boolean {
  if (typeof adapter !== "object" || adapter === null || !("source" in adapter)) return false;
  return Object.keys(adapter).every((key) => key === "source" || key === "name");
}

/** Fails on what a verb keeps on this side of the border. */
export function checkCallOptions(verb: string, options: { readonly signal?: AbortSignal | undefined }): void {
  checkObject(verb, options);
  checkSignal(options.signal);
}

function checkObject(verb: string, options: unknown): void {
  if (typeof options !== "object" || options === null) throw refuse("options", `${verb} takes an object`);
}

function checkSignal(signal: unknown): void {
  if (signal !== undefined && !(signal instanceof AbortSignal)) throw refuse("signal", "not an AbortSignal");
}
