/**
 * What goes into a model and comes out of it: the shapes of the engine's JSON, in the names of Rust's `engine`. What models are
 * themselves is in `model-types.ts`.
 */
export type * from "./model-types.js";

/** A message of a chat. */
export interface Message {
  role: "system" | "user" | "assistant" | "tool" | (string & {});
  /** Null where an assistant said nothing and called tools. */
  content: string | null;
  /** An assistant's calls of tools; their results follow in messages of the role `tool` with the same `tool_call_id`. */
  tool_calls?: readonly MessageToolCall[];
  /** Whatever else the chat template reads (`name`, ...). */
  [extra: string]: unknown;
}

/** A call of a tool as messages have it. */
export interface MessageToolCall {
  id: string;
  type: "function";
  /** The arguments as an object or as its JSON text. */
  function: { name: string; arguments: string | Readonly<Record<string, unknown>> };
}

/** A tool that a model may call. */
export interface ToolDefinition {
  type: "function";
  function: {
    /** 1 to 64 letters, digits, underscores, hyphens and full stops. */
    name: string;
    description?: string;
    /** The JSON Schema of an object. */
    parameters?: Readonly<Record<string, unknown>>;
  };
}

/** A call that a model wrote. Its arguments are JSON, but nothing has compared them with the tool's schema. */
export interface ToolCall {
  readonly id: string;
  readonly name: string;
  readonly arguments: Readonly<Record<string, unknown>>;
}

/** What to go on from: a text as it stands, messages for the model's chat template, or token ids. */
export type Prompt = string | readonly Message[] | readonly number[] | Uint32Array;

/** How far loading is. */
export interface Progress {
  /**
   * With a hub: it is asked, another tab is waited for, what is kept is verified, bytes come. Then headers are read, the
   * device is made ready, weights are on their way to it, the model can be used.
   */
  readonly phase: "resolve" | "wait" | "verify" | "download" | "inspect" | "compile" | "weights" | "ready";
  /** The file that is being read. */
  readonly file: string;
  readonly loadedBytes: number;
  /** 0 while it is not known. */
  readonly totalBytes: number;
  readonly bytesPerSecond: number;
  /** Null while there is nothing to reckon from. */
  readonly etaSecs: number | null;
  /** With a hub: bytes of `file` that are stored, and its size. */
  readonly fileLoadedBytes?: number;
  readonly fileTotalBytes?: number;
}

/** A piece of a reply. */
export interface Piece {
  /** Whole characters only; may be empty. */
  readonly text: string;
  /** What the model thought before it answered, in the same way. */
  readonly reasoning: string;
  /** A call of a tool, whole; each comes in a piece of its own. */
  readonly toolCall?: ToolCall;
  /** The token ids that arrived with it. */
  readonly tokens: readonly number[];
  /** How likely each of them was; with `logprobs`. */
  readonly logprobs?: readonly TokenLogprob[];
  /** Which of several replies it is a part of; see `n`. */
  readonly choice: number;
  /** What the model does not see any more from here on, in all; with `onOverflow`. */
  readonly dropped?: Dropped;
}

/** What left the context because it was full. */
export interface Dropped {
  /** Messages behind those of the system, the oldest. */
  readonly messages: number;
  /** Tokens of prompt and reply. */
  readonly tokens: number;
}

/** A token and how likely the model found it, by its scores as they are: before bias, penalties, temperature and filters. */
export interface TokenLogprob {
  readonly id: number;
  /** What is half a character shows as the replacement character. */
  readonly text: string;
  /** Natural logarithm of its probability. */
  readonly logprob: number;
  /** The likeliest tokens at its place, the likeliest first; with `topLogprobs`. */
  readonly top?: readonly TokenLogprob[];
}

/** What a model thinks of one document. */
export interface Ranked {
  /** Which of the documents. */
  readonly index: number;
  /** How well it answers: from 0 to 1, unless the model's authors want the logit as it is. */
  readonly score: number;
  /** What the model's head gave. */
  readonly logit: number;
}

/** What is scored: a continuation after a context. Both are a text or exactly these token ids. */
export interface ScoreItem {
  /**
   * What comes before; not scored. When empty, what the tokenizer puts before a text takes its place. Messages are written as
   * the chat template does, up to where the reply begins.
   */
  readonly context?: Prompt;
  /** What is scored. */
  readonly continuation: string | readonly number[];
}

/** How likely a model finds a continuation. */
export interface Score {
  /** Natural logarithm of the probability of the whole continuation. */
  readonly logprob: number;
  /** Whether every token of it is the likeliest one at its place. */
  readonly isGreedy: boolean;
  /** `exp(-logprob / tokens)`. */
  readonly perplexity: number;
  /** The tokens of the continuation. */
  readonly tokens: readonly number[];
  /** The logarithm of the probability of each of them. */
  readonly tokenLogprobs: readonly number[];
  /** The likeliest tokens at the place of each, the likeliest first; with `topLogprobs`. */
  readonly topLogprobs?: readonly (readonly TokenLogprob[])[];
}

/** Why a reply ended: the model or a stop text ended it, the limit of its length, or the model waits for results of its calls. */
export type FinishReason = "stop" | "length" | "toolCalls";

/** Exact counts of ids that were expected before they were chosen; see `speculation`. */
export interface Speculation {
  /** Ids that were drafted. */
  readonly drafted: number;
  /** Those that were chosen then. */
  readonly accepted: number;
  /** Steps that computed them; each gave one id more than were right. */
  readonly steps: number;
}

/** A whole reply. */
export interface GenerationResult {
  readonly text: string;
  /** What the model thought before it answered. */
  readonly reasoning: string;
  readonly toolCalls: readonly ToolCall[];
  readonly tokens: readonly number[];
  readonly finishReason: FinishReason;
  /**
   * With `json`, `regex`, `grammar` or a tool that has to be called: whether the reply is all that was asked for. It is not
   * where its length or a stop text ended it.
   */
  readonly constraintComplete?: boolean;
  /** What the model did not see at its end, because the context was full. */
  readonly dropped?: Dropped;
  readonly usage: Usage;
  readonly timings: Timings;
  /** What came of expected ids, where `speculation` asked for them; all 0 where it stepped aside. */
  readonly speculation?: Speculation;
  /** What the randomness began from. */
  readonly seed: number;
  /** How likely each token was; with `logprobs`. */
  readonly logprobs?: readonly TokenLogprob[];
  /** What it was made of and by; see `Model.checkReceipt`. */
  readonly receipt: Receipt;
  /** The second reply and those after it; with `n`. */
  readonly others?: readonly GenerationResult[];
}

/**
 * What a reply was made of and by. Of prompt and reply it has only hashes; hashes are SHA-256 in hexadecimal digits.
 */
export interface Receipt {
  /** The form of this receipt. */
  readonly version: 1;
  /** The engine and its version. */
  readonly engine: string;
  readonly backend: string;
  readonly device: string;
  readonly kvFormat: string;
  /** What activations were rounded to while decoding, where that was asked for. */
  readonly activations?: string;
  /** Of the model: hyperparameters, names, formats, shapes and places of its tensors, and the hashes of its files. */
  readonly model: string;
  /** Whether that covers the weights themselves: models from a hub, whose files were verified. */
  readonly weightsHashed: boolean;
  readonly tokenizer: string;
  readonly template: string | null;
  readonly adapter: { readonly name: string; readonly hash: string; readonly scale: number } | null;
  /** Every option that was given, but prompt and seed. */
  readonly options: Readonly<Record<string, unknown>>;
  readonly seed: number;
  /** Of the prompt's ids, four bytes each, the lowest first. */
  readonly prompt: string;
  /** Of the reply's ids. */
  readonly reply: string;
  /** Of all of the above as JSON. */
  readonly digest: string;
}

/** What came of `Model.checkReceipt`. */
export interface ReceiptCheck {
  /** This model made this reply to this prompt: it made it again. */
  readonly holds: boolean;
  /** What is not as the receipt says; another version or device does no harm where the reply is the same. */
  readonly differences: readonly string[];
}

/** What came of bringing keys and values back. */
export interface Restored {
  /** Tokens whose keys and values are there now. */
  readonly tokens: number;
  /** Why it is none of them, or not all: those are computed with the next reply. */
  readonly note?: string;
}

/** Tokens that a reply took. */
export interface Usage {
  readonly promptTokens: number;
  /** Of those, tokens whose keys and values were still there. */
  readonly cachedTokens: number;
  readonly completionTokens: number;
}

/** How long a reply took. */
export interface Timings {
  /** While other replies had their turn. */
  readonly queuedSecs: number;
  /** From the call to the first token. */
  readonly firstTokenSecs: number;
  /** From the start of the work to the first token. */
  readonly prefillSecs: number;
  /** From the first token to the last. */
  readonly decodeSecs: number;
  /** Tokens a second after the first one; 0 where there is none. */
  readonly tokensPerSecond: number;
}
