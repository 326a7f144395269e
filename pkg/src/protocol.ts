/**
 * What passes between a `Client` (the caller's side) and a `Host` (the engine's side): two discriminated unions, the
 * same over a worker's port and in one thread. Calls carry an `id`; their answer carries the same one.
 */
import type { WireError } from "./errors.js";
import type { Report } from "./progress.js";
import type { License, ModelInfo, Piece } from "./types.js";

/** A file of a model as it is named across the border. */
export type WireSource =
  | { readonly type: "blob"; readonly name: string; readonly blob: Blob }
  | { readonly type: "url"; readonly url: string }
  /** Read by asking back; `file` numbers it. */
  | { readonly type: "asked"; readonly name: string; readonly size: number; readonly file: number };

/** A model on a hub as it is named across the border. */
export interface WireHub {
  readonly reference: string;
  /** JSON of what is asked beside it (token, policy, lock, ...). */
  readonly options: string;
  /** Whether the client wants to be asked before weights are fetched. */
  readonly asks: boolean;
}

/** What can be done with what is kept. */
export type StoreVerb = "list" | "usage" | "remove" | "clear" | "lock" | "pull" | "export" | "import";

/** What the host can be asked for; each names the type of its answer in `Answers`. */
export type Call =
  | { readonly call: "load"; readonly sources: readonly WireSource[]; readonly hub?: WireHub; readonly options: string; readonly wasmUrl?: string }
  | { readonly call: "inspect"; readonly sources: readonly WireSource[]; readonly hub?: WireHub; readonly options: string; readonly limits?: string; readonly wasmUrl?: string }
  | { readonly call: "store"; readonly verb: StoreVerb; readonly sources: readonly WireSource[]; readonly hub?: WireHub; readonly wasmUrl?: string }
  | { readonly call: "generate"; readonly request: string }
  | { readonly call: "embed"; readonly request: string }
  | { readonly call: "rerank"; readonly request: string }
  | { readonly call: "score"; readonly request: string }
  | { readonly call: "checkReceipt"; readonly receipt: string; readonly prompt: string }
  | { readonly call: "tokenize"; readonly text: string; readonly options: string }
  | { readonly call: "detokenize"; readonly ids: string }
  | { readonly call: "countTokens"; readonly prompt: string }
  | { readonly call: "logits"; readonly ids: string; readonly options: string }
  | { readonly call: "loadAdapter"; readonly sources: readonly WireSource[]; readonly hub?: WireHub; readonly options: string }
  | { readonly call: "unloadAdapter"; readonly name: string }
  | { readonly call: "adapters" }
  | { readonly call: "bench"; readonly request: string }
  | { readonly call: "stats" }
  | { readonly call: "save"; readonly request: string }
  | { readonly call: "restore"; readonly saved: Blob }
  | { readonly call: "dispose" };

/** The answer to each call; text is JSON of the engine's. */
export interface Answers {
  load: ModelInfo;
  inspect: string;
  store: string | File[];
  generate: string;
  /** All vectors, one after another. */
  embed: Float32Array;
  rerank: string;
  score: string;
  checkReceipt: string;
  tokenize: string;
  detokenize: string;
  countTokens: string;
  logits: Float32Array;
  loadAdapter: string;
  unloadAdapter: undefined;
  adapters: string;
  bench: string;
  stats: string;
  save: Blob;
  restore: string;
  dispose: undefined;
}

/** From the client to the host. */
export type ToHost =
  | { readonly type: "call"; readonly id: number; readonly call: Call }
  | { readonly type: "abort"; readonly id: number }
  /** Asks for a `pong`, at once. */
  | { readonly type: "ping" }
  /** The answer to `read`. */
  | { readonly type: "bytes"; readonly read: number; readonly bytes: Uint8Array }
  | { readonly type: "unread"; readonly read: number; readonly error: WireError }
  /** The answer to `consent`. */
  | { readonly type: "consented"; readonly asked: number; readonly accepted: boolean }
  | { readonly type: "unasked"; readonly asked: number; readonly error: WireError };

/** From the host to the client. */
export type FromHost =
  /** The first message; `locked` says whether the lock of `Connect` is held. */
  | { readonly type: "ready"; readonly locked: boolean }
  | { readonly type: "pong" }
  /** The device that the model is on is gone: the model has to be loaded again, and calls under way fail. */
  | { readonly type: "deviceLost"; readonly words: string }
  /** What was kept of a model is not there any more. */
  | { readonly type: "storageLost"; readonly words: string }
  | { readonly type: "answer"; readonly id: number; readonly value: Answers[keyof Answers] }
  | { readonly type: "failed"; readonly id: number; readonly error: WireError }
  | { readonly type: "progress"; readonly id: number; readonly progress: Report }
  | { readonly type: "piece"; readonly id: number; readonly piece: Piece }
  /** Asks whether weights under this licence may be fetched, for call `id`. */
  | { readonly type: "consent"; readonly asked: number; readonly id: number; readonly license: License; readonly reason: string }
  /** Asks for bytes of an `asked` source. */
  | { readonly type: "read"; readonly read: number; readonly file: number; readonly offset: number; readonly length: number };

/** Posts a message; `transfer` names what moves instead of being copied. */
export type Post<Message> = (message: Message, transfer?: Transferable[]) => void;

/** What a worker is sent first: the port of one client, and the lock whose release tells that the worker is gone. */
export interface Connect {
  readonly type: "headwater-connect";
  readonly port: MessagePort;
  readonly lock: string;
}

/** What a worker is sent that is to serve all clients of the channel `name` of this origin, in whichever tab they are. */
export interface Share {
  readonly type: "headwater-share";
  readonly name: string;
}

/** On the channel of a shared model, from its clients; a client is named by the channel that it listens to. */
export type ToShared =
  | { readonly type: "join"; readonly client: string }
  | { readonly type: "message"; readonly client: string; readonly message: ToHost }
  /** From the tab that keeps the worker, whose own client has left. */
  | { readonly type: "needed?" };

/** On the channel of a shared model, from its worker. */
export type FromShared =
  /** It serves from now on. */
  | { readonly type: "here" }
  /** It serves nobody any more and may be ended; `follows` says whether those that it served need another one. */
  | { readonly type: "over"; readonly follows: boolean };

/** On the channel of a client. */
export type ToClient =
  /** It is served for as long as the worker holds `lock`. */
  | { readonly type: "joined"; readonly lock: string }
  | { readonly type: "message"; readonly message: FromHost };
