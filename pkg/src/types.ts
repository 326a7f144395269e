/** What the engine tells: the shapes of its JSON, in the names of Rust's `engine`. */

/** A message of a chat. */
export interface Message {
  role: "system" | "user" | "assistant" | "tool" | (string & {});
  content: string;
  /** Whatever else the chat template reads (`name`, `tool_calls`, ...). */
  [extra: string]: unknown;
}

/** What to go on from: a text as it stands, messages for the model's chat template, or token ids. */
export type Prompt = string | readonly Message[] | readonly number[] | Uint32Array;

/** How far loading is. */
export interface Progress {
  /** What is being done: `"header"`, `"weights"`, `"prepare"`, ... */
  readonly phase: string;
  /** The file that is being read. */
  readonly file: string;
  readonly loadedBytes: number;
  /** 0 while it is not known. */
  readonly totalBytes: number;
  readonly bytesPerSecond: number;
  /** Null while there is nothing to reckon from. */
  readonly etaSecs: number | null;
}

/** A piece of a reply. */
export interface Piece {
  /** Whole characters only; may be empty. */
  readonly text: string;
  /** The token ids that arrived with it. */
  readonly tokens: readonly number[];
}

/** Why a reply ended: an end token or stop text, the length limit, or the caller's signal. */
export type FinishReason = "stop" | "length" | "abort";

/** A whole reply. */
export interface GenerationResult {
  readonly text: string;
  readonly tokens: readonly number[];
  readonly finishReason: FinishReason;
  readonly usage: Usage;
  readonly timings: Timings;
  /** What the randomness began from. */
  readonly seed: number;
}

/** Tokens that a reply took. */
export interface Usage {
  readonly promptTokens: number;
  /** Of those, tokens whose keys and values were still there. */
  readonly cachedTokens: number;
  readonly completionTokens: number;
}

/** What a reply cost in time. */
export interface Timings {
  /** From the call to the first token. */
  readonly firstTokenSecs: number;
  readonly prefillSecs: number;
  readonly decodeSecs: number;
  readonly tokensPerSecond: number;
}

/** What a loaded model is and what runs it. */
export interface ModelInfo {
  readonly name: string;
  readonly architecture: string;
  readonly parameters: number;
  /** Bytes of weights by number format. */
  readonly formats: Readonly<Record<string, number>>;
  readonly context: number;
  readonly vocabSize: number;
  readonly backend: BackendInfo;
  /** Where the chat template came from and its hash; null when the model has none. */
  readonly template: { readonly source: string; readonly hash: string } | null;
  readonly warnings: readonly string[];
}

/** What computes. */
export interface BackendInfo {
  /** `"webgpu"` or `"cpu"`. */
  readonly name: string;
  /** The adapter's own name, where it tells one. */
  readonly device: string;
  /** What is used of it. */
  readonly features: readonly string[];
}

/** Counts since the model was loaded. */
export interface Stats {
  readonly counters: Counters;
  /** Size of the engine's linear memory, which never shrinks: its peak. */
  readonly memoryBytes: number;
}

/** Exact counts of what was asked of the device. */
export interface Counters {
  readonly dispatches: number;
  readonly passes: number;
  readonly submits: number;
  readonly writes: number;
  readonly writeBytes: number;
  readonly readBytes: number;
  readonly buffers: number;
  readonly bindGroups: number;
  readonly pipelines: number;
}
