/** What models, adapters and devices are, where they came from and what they cost: shapes of the engine's JSON. */

import type { Speculation } from "./types.js";

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
  /** The memory where the processor computes, if that has another limit. */
  readonly cpuMemoryBytes: number | null;
}

/** Something that would fit where what was asked for does not. */
export interface FitChoice {
  /** The options of `load` that are to be changed; none where only the reference is. */
  readonly options: {
    readonly kvFormat?: "q8_0" | "q4_0";
    readonly context?: number;
    readonly quantize?: "q8_0" | "q4_k";
    readonly backend?: "cpu";
  };
  /** The same model in other files of its repository, with fewer bits a weight. */
  readonly reference?: string;
  /** What it would take; an estimate by the size of its files where it is a `reference`. */
  readonly totalBytes: number;
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
  /** What would fit where this does not, the least change first; nothing where it fits. */
  readonly choices: readonly FitChoice[];
  /** What its reader should know. */
  readonly notes: readonly string[];
}

/** What `fit` tells. */
export interface Fit extends FitReport {
  /** What would be fetched and stored: 0 for what is kept already, and for what does not come from a hub. */
  readonly fetchBytes: number;
  /** What the browser says that its storage has left, which is a guess of its own; null where it does not tell. */
  readonly freeBytes: number | null;
  /** How much of `totalBytes` the device gave when it was asked for all of it; null where it was not asked. */
  readonly givenBytes: number | null;
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
  /** What came of expected ids, over all replies; see `GenerateOptions.speculation`. */
  readonly speculation: Speculation;
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
  /** Times that all logits of a place were read to choose one id: what was asked for could not be told from the largest. */
  readonly fullReads: number;
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
  /** Also times a reply that copies and one that does not, each with drafts and without. */
  speculation?: boolean;
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
  /** Seconds of all kernels of the whole prompt. */
  readonly promptSecs: number;
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

/** A reply with drafts and without, in turns, the best of each: the tokens after the first one. */
export interface SpeculationRates {
  readonly plain: Rate;
  readonly drafted: Rate;
  /** What came of the drafts in one reply. */
  readonly counts: Speculation;
}

/** What `Model.bench` measured. */
export interface BenchReport {
  readonly model: string;
  readonly backend: BackendInfo;
  readonly depth: number;
  readonly prefill: Rate;
  readonly decode: Rate;
  /** The same prompt again with all but its last tokens cached: those that were computed. */
  readonly cached: Rate;
  /** The tokens of all replies that were generated side by side, if that was asked for. */
  readonly together?: Rate;
  /** A reply that copies and one that does not, if that was asked for. */
  readonly speculation?: readonly [SpeculationRates, SpeculationRates];
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
