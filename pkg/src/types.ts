/** What the engine tells: the shapes of its JSON, in the names of Rust's `engine`. */

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
}

/** Why a reply ended: the model or a stop text ended it, the limit of its length, or the model waits for results of its calls. */
export type FinishReason = "stop" | "length" | "toolCalls";

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

/** What a loaded model is and what runs it. */
export interface ModelInfo {
  /** Its own name, or its first file's. */
  readonly name: string;
  readonly architecture: string;
  /** What it is for: continuing texts (embeddings too), embeddings, judging pairs of texts. */
  readonly kind: "generator" | "embedder" | "reranker";
  /** How `embed` makes one vector of a text's states; null where the model makes no embeddings. */
  readonly pooling: "mean" | "cls" | "last" | null;
  /** Elements of an embedding; 0 where the model makes none. */
  readonly embeddingSize: number;
  /** Numbers in all tensors. */
  readonly parameters: number;
  /** Transformer blocks. */
  readonly layers: number;
  readonly vocabSize: number;
  /** Tokens that prompt and reply may have together. */
  readonly context: number;
  /** Positions that the model was made for. */
  readonly trainedContext: number;
  /** Bytes of tensors by the format they are stored in. */
  readonly formats: Readonly<Record<string, number>>;
  readonly files: readonly { readonly name: string; readonly sizeBytes: number }[];
  /** Ids that end a reply. */
  readonly stopIds: readonly number[];
  /** The file or key that the chat template came from, and a hash of its text; null when there is none. */
  readonly template: { readonly source: string; readonly hash: string } | null;
  readonly license: string | null;
  /** Sampling where a request is silent. */
  readonly sampling: Sampling;
  readonly backend: BackendInfo;
  /** Where it came from; null for files that the caller brought. */
  readonly origin: Origin | null;
  /** Hosts that were asked for it. */
  readonly hosts: readonly string[];
  /** What its user should know. */
  readonly warnings: readonly string[];
}

/** What a licence asks for. */
export type Obligation =
  | "attribution" | "naming" | "notice" | "user-count" | "revenue-limit" | "acceptable-use" | "non-commercial" | "share-alike" | "region";

/** A model's licence, as its card or its files tell it. A summary to decide by; the text behind `link` is what counts. */
export interface License {
  /** The identifier in lower case; null where none is told. */
  readonly id: string | null;
  readonly name: string | null;
  readonly link: string | null;
  readonly spdx: string | null;
  /** Whether what it asks for is known here. */
  readonly known: boolean;
  readonly obligations: readonly Obligation[];
  /** The text that has to be shown. */
  readonly attribution: string | null;
  /** Where the obligations were read. */
  readonly summarySource: string | null;
  /** Terms have to be accepted on the hub. */
  readonly gated: boolean;
  readonly baseModels: readonly string[];
  /** How it was made from them: `finetune`, `quantized`, `adapter`, `merge`. */
  readonly baseRelation: string | null;
  /** The licences of those, and of what they were made from; empty unless the policy looks at them. */
  readonly bases: readonly { readonly repo: string; readonly license: License }[];
  readonly toldBy: "card" | "metadata" | null;
}

/** A file that was verified. */
export interface StoredFile {
  readonly path: string;
  readonly sizeBytes: number;
  readonly sha256: string;
}

/** A model of a hub that is kept. */
export interface Origin {
  /** The reference without a revision, as lock files have it. */
  readonly reference: string;
  readonly hub: string;
  readonly repo: string;
  readonly revision: string | null;
  readonly commit: string;
  readonly files: readonly StoredFile[];
  /** Files whose hash nobody told beforehand. */
  readonly unverified: readonly string[];
  readonly license: License;
  readonly templateHash: string | null;
  /** Hosts that were asked by this call; none where the model was kept already. */
  readonly hosts: readonly string[];
  /** Bytes that this call fetched. */
  readonly fetchedBytes: number;
}

/** A kept model as `store.list()` tells it. */
export interface StoredModel extends Omit<Origin, "license" | "fetchedBytes"> {
  readonly license: Pick<License, "id" | "name" | "link" | "attribution"> | null;
  readonly sizeBytes: number;
  /** Seconds since 1970. */
  readonly storedAt: number;
  readonly usedAt: number | null;
}

/** The room that is taken. */
export interface StoreUsage {
  readonly models: number;
  readonly modelBytes: number;
  /** Of what was begun and not finished. */
  readonly partialBytes: number;
}

/** What `inspect` tells: headers only, no weight was read. */
export interface Inspection extends Omit<ModelInfo, "backend" | "origin" | "hosts"> {
  /** For a model on a hub: where it is and what its files must be (`sha256:...`, `git:...`). */
  readonly origin?: {
    readonly hub: string;
    readonly repo: string;
    readonly revision: string | null;
    readonly commit: string;
    readonly files: readonly { readonly path: string; readonly sizeBytes: number; readonly expected?: string; readonly sha256?: string }[];
    readonly license: License;
    readonly hosts: readonly string[];
    /** Whether it is stored on this device, so that nothing would be fetched. */
    readonly kept: boolean;
  };
}

/** What is known of the device that a model is to fit; null where it is not known. */
export interface DeviceLimits {
  /** The largest buffer that a kernel can bind. */
  readonly bindingBytes: number | null;
  readonly memoryBytes: number | null;
}

/** Whether a model fits, in figures. */
export interface FitReport {
  /** `"tight"` leaves less than a fifth of the memory. */
  readonly verdict: "fits" | "tight" | "no";
  /** Tokens of context that were reckoned with. */
  readonly context: number;
  readonly weightBytes: number;
  /** Keys and values of that context, and states. */
  readonly kvBytes: number;
  readonly activationBytes: number;
  readonly otherBytes: number;
  readonly totalBytes: number;
  /** The largest buffer that cannot be split. */
  readonly largestBufferBytes: number;
  readonly limits: DeviceLimits;
  /** The longest context that would fit, where this one does not and a shorter one does. */
  readonly fittingContext: number | null;
  /** What its reader should know. */
  readonly notes: readonly string[];
}

/** What `fit` tells. */
export interface Fit extends FitReport {
  /** What would be fetched and stored: 0 for what is kept already, and for what does not come from a hub. */
  readonly fetchBytes: number;
  /** What the browser's storage has left; null where it does not tell. */
  readonly freeBytes: number | null;
  readonly model: Inspection;
}

/** An adapter that is loaded. */
export interface AdapterInfo {
  /** What replies call it. */
  readonly name: string;
  readonly kind: "lora" | "dora";
  /** The largest rank of its matrices. */
  readonly rank: number;
  /** Matrices of the model that it changes. */
  readonly matrices: number;
  readonly sizeBytes: number;
  /** What its files say that it was made for. */
  readonly baseModel: string | null;
  /** Of its settings and tensors, and of its files where their hashes were verified: SHA-256 in hexadecimal digits. */
  readonly hash: string;
  /** With an adapter of a hub, as `load` gives it: where it came from. */
  readonly origin?: Origin;
  /** Likewise: whether its card names this model, or what that was made from; null where either of them tells nothing. */
  readonly madeFor?: boolean | null;
}

/** An adapter by its name, or by its name and how much of it: 1 as it was trained, 0 nothing. */
export type AdapterChoice = string | { readonly name: string; readonly scale?: number };

/** How tokens are chosen; see `GenerateOptions`. */
export interface Sampling {
  readonly temperature: number;
  readonly topK: number;
  readonly topP: number;
  readonly minP: number;
  readonly repetitionPenalty: number;
}

/** What computes. */
export interface BackendInfo {
  /** `"webgpu"` or `"cpu"`. */
  readonly name: string;
  /** The adapter's own name, where it tells one. */
  readonly device: string;
  /** What is used of it. */
  readonly features: readonly string[];
  /** How keys and values are stored. */
  readonly kvFormat: string;
}

/** What a model has done since it was loaded, and what it holds. */
export interface Stats {
  /** Replies that came to their end. */
  readonly replies: number;
  readonly promptTokens: number;
  readonly cachedTokens: number;
  readonly completionTokens: number;
  readonly weightBytes: number;
  readonly kvBytes: number;
  readonly counters: Counters;
  /** Size of the engine's linear memory, which never shrinks: its peak. */
  readonly memoryBytes: number;
}

/** Exact counts of what was asked of the device. */
export interface Counters {
  /** Kernel launches. */
  readonly dispatches: number;
  /** Compute passes. */
  readonly passes: number;
  /** Queue submits. */
  readonly submits: number;
  /** Uploads. */
  readonly writes: number;
  readonly writeBytes: number;
  /** Bytes mapped for reading. */
  readonly readBytes: number;
  readonly buffers: number;
  /** Bytes of the buffers that were made. */
  readonly bufferBytes: number;
  readonly bindGroups: number;
  readonly pipelines: number;
}

/** What `Model.bench` measures. */
export interface BenchOptions {
  /** Tokens of the prompt that is timed; 512 by default. */
  prefill?: number;
  /** Tokens that are generated and timed; 128 by default. */
  decode?: number;
  /** Tokens that are in the cache before either begins; 0 by default. */
  depth?: number;
  /** Replies that are generated side by side and timed after that, up to 8; 1 by default, which leaves it out. */
  replies?: number;
  /** Also times each kernel, of a chunk of the prompt and of one token. `GpuFeatureMissing` where the device tells no times. */
  profile?: boolean;
}

/** Time of the launches of one kernel in a step, each launch by itself. */
export interface KernelTime {
  readonly kernel: string;
  /** How its matrix is stored, where it has one. */
  readonly format?: string;
  /** Rows and columns of that matrix, or of the part that one launch takes. */
  readonly shape?: readonly [number, number];
  readonly dispatches: number;
  readonly secs: number;
}

/** Where the time goes. The sum is more than a step takes where launches overlap. */
export interface Profile {
  /** Tokens of the chunk of the prompt. */
  readonly prefillTokens: number;
  readonly prefill: readonly KernelTime[];
  readonly decode: readonly KernelTime[];
}

/** Tokens and the time they took. */
export interface Rate {
  readonly tokens: number;
  readonly elapsedSecs: number;
  readonly tokensPerSecond: number;
}

/** Counts over the timed tokens, divided by their number. */
export interface CountersPerToken {
  readonly dispatches: number;
  readonly passes: number;
  readonly submits: number;
  readonly writes: number;
  readonly writeBytes: number;
  readonly readBytes: number;
  /** Buffers, bind groups and pipelines made. */
  readonly objects: number;
}

/** What `Model.bench` measured. */
export interface BenchReport {
  readonly model: string;
  readonly backend: BackendInfo;
  readonly depth: number;
  readonly prefill: Rate;
  readonly decode: Rate;
  /** The tokens of all replies that were generated side by side, if that was asked for. */
  readonly together?: Rate;
  /** Tokens that were submitted at once, at most. */
  readonly chain: number;
  /** Bytes of weights, keys and values that one generated token needs at least. */
  readonly bytesPerToken: number;
  readonly prefillCounters: CountersPerToken;
  readonly decodeCounters: CountersPerToken;
  readonly profile?: Profile;
  /** What was made smaller than asked. */
  readonly notes: readonly string[];
}
