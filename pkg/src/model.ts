/**
 * A loaded model and its verbs. Each checks its options, turns its values into the engine's JSON and makes one call.
 */
import { Adapters } from "./adapters.js";
import { Chat, type ChatOptions } from "./chat.js";
import { HeadwaterError } from "./errors.js";
import { Generation } from "./generation.js";
import { toJson } from "./json.js";
import {
  checkCallOptions,
  type EmbedOptions,
  type GenerateOptions,
  type LogitsOptions,
  type RerankOptions,
  type ScoreOptions,
  type TokenizeOptions,
} from "./options.js";
import type { Client } from "./client.js";
import type {
  BenchOptions,
  BenchReport,
  GenerationResult,
  ModelInfo,
  Piece,
  Prompt,
  Ranked,
  Receipt,
  ReceiptCheck,
  Restored,
  Score,
  ScoreItem,
  Stats,
} from "./types.js";

/** A model on this device, made by `load`. Calls may overlap; generations take turns, first come, first served. */
export class Model {
  /** Loads, lists and unloads adapters, which `GenerateOptions.adapter` chooses from. */
  readonly adapters: Adapters;
  readonly #client: Client;
  #disposing: Promise<void> | undefined;

  /** Made by `load`. */
  constructor(client: Client) {
    this.#client = client;
    this.adapters = new Adapters(client);
  }

  /** What the model is and what runs it. */
  get info(): ModelInfo {
    return this.#client.info;
  }

  /**
   * Begins a reply: iterate it for the pieces, or await its `result()`. When `options.signal` aborts, both fail with
   * `Aborted`.
   */
  generate(prompt: Prompt, options: GenerateOptions = {}): Generation {
    checkCallOptions("generate", options);
    const { signal, ...rest } = options;
    // Drawn here, so that a reply whose worker or device is lost goes on as it began.
    const request = toJson("", { ...rest, seed: rest.seed ?? randomSeed(), prompt });
    const start = async (onPiece: (piece: Piece) => void, both: AbortSignal): Promise<GenerationResult> => {
      const json = await this.#client.call({ call: "generate", request }, { onPiece, signal: both });
      return JSON.parse(json) as GenerationResult;
    };
    return new Generation(start, signal);
  }

  /** A conversation that keeps its messages. */
  chat(options: ChatOptions = {}): Chat {
    return new Chat(this, options);
  }

  /**
   * The vectors of texts, in their order, `info.embeddingSize` long unless `options.dimensions` says less. Instructions that
   * the model wants are a part of the texts.
   */
  async embed(texts: string | readonly string[], options: EmbedOptions = {}): Promise<Float32Array[]> {
    checkCallOptions("embed", options);
    const { signal, ...rest } = options;
    const list = typeof texts === "string" ? [texts] : texts;
    const request = toJson("", { ...rest, texts: list });
    const values = await this.#client.call({ call: "embed", request }, { signal });
    const dimensions = values.length / list.length;
    return list.map((_, index) => values.slice(index * dimensions, (index + 1) * dimensions));
  }

  /** Documents by how well they answer a query, best first; for models that judge pairs (`info.kind` "reranker"). */
  async rerank(query: string, documents: readonly string[], options: RerankOptions = {}): Promise<Ranked[]> {
    checkCallOptions("rerank", options);
    const { signal, ...rest } = options;
    const request = toJson("", { ...rest, query, documents });
    return JSON.parse(await this.#client.call({ call: "rerank", request }, { signal })) as Ranked[];
  }

  /**
   * How likely the model finds continuations, in the order of the items: the requests of evaluation harnesses
   * (loglikelihood; with an empty context and a stride, loglikelihood_rolling). Common beginnings are computed once.
   */
  async score(items: readonly ScoreItem[], options: ScoreOptions = {}): Promise<Score[]> {
    checkCallOptions("score", options);
    const { signal, ...rest } = options;
    const request = toJson("", { ...rest, items });
    return JSON.parse(await this.#client.call({ call: "score", request }, { signal })) as Score[];
  }

  /**
   * Whether a receipt holds: makes its reply again, to the prompt that it is said to answer. Adapters that it names have to be
   * loaded.
   */
  async checkReceipt(receipt: Receipt, prompt: Prompt, options: { readonly signal?: AbortSignal } = {}): Promise<ReceiptCheck> {
    checkCallOptions("checkReceipt", options);
    const call = { call: "checkReceipt", receipt: toJson("receipt", receipt), prompt: toJson("prompt", prompt) } as const;
    return JSON.parse(await this.#client.call(call, { signal: options.signal })) as ReceiptCheck;
  }

  /** Token ids of a text. */
  async tokenize(text: string, options: TokenizeOptions = {}): Promise<number[]> {
    if (typeof text !== "string") throw new HeadwaterError("InvalidArgument", "tokenize takes a text");
    const call = { call: "tokenize", text, options: toJson("", options) } as const;
    return JSON.parse(await this.#client.call(call)) as number[];
  }

  /** The text of token ids. */
  async detokenize(ids: readonly number[] | Uint32Array): Promise<string> {
    return this.#client.call({ call: "detokenize", ids: toJson("ids", ids) });
  }

  /** Tokens that a prompt takes, template and all. */
  async countTokens(prompt: Prompt): Promise<number> {
    return JSON.parse(await this.#client.call({ call: "countTokens", prompt: toJson("prompt", prompt) })) as number;
  }

  /** Scores of every next token after every id: `(ids, info.vocabSize)` in rows. For tests and measurements. */
  async logits(ids: readonly number[] | Uint32Array, options: LogitsOptions = {}): Promise<Float32Array> {
    return this.#client.call({ call: "logits", ids: toJson("ids", ids), options: toJson("", options) });
  }

  /** Times a prefill and a decode of made-up tokens. */
  async bench(options: BenchOptions = {}): Promise<BenchReport> {
    return JSON.parse(await this.#client.call({ call: "bench", request: toJson("", options) })) as BenchReport;
  }

  /**
   * The keys and values that are kept of the beginning of a prompt, as a file for `restoreCache`; `options` are those of the
   * reply that they were computed for. `Chat.save` does this for a conversation.
   */
  saveCache(prompt: Prompt, options: GenerateOptions = {}): Promise<Blob> {
    checkCallOptions("saveCache", options);
    const { signal, ...rest } = options;
    return this.#client.call({ call: "save", request: toJson("", { ...rest, prompt }) }, { signal });
  }

  /**
   * Brings saved keys and values back, so that a prompt which begins with their tokens computes only the rest. What is another
   * model's, format's or adapter's is left alone; what is damaged fails with `IntegrityMismatch` or `SizeMismatch`.
   */
  async restoreCache(saved: Blob, options: { readonly signal?: AbortSignal } = {}): Promise<Restored> {
    checkCallOptions("restoreCache", options);
    if (!(saved instanceof Blob)) throw new HeadwaterError("InvalidArgument", "saved: takes a Blob", { at: "saved" });
    return JSON.parse(await this.#client.call({ call: "restore", saved }, { signal: options.signal })) as Restored;
  }

  /** What it has done since it was loaded, and what it holds. */
  async stats(): Promise<Stats> {
    return JSON.parse(await this.#client.call({ call: "stats" })) as Stats;
  }

  /** Frees the device's memory and ends the worker; open and later calls fail with `Disposed`. */
  dispose(): Promise<void> {
    this.#disposing ??= this.#dispose();
    return this.#disposing;
  }

  async #dispose(): Promise<void> {
    try {
      await this.#client.call({ call: "dispose" });
    } catch {
      // The host is gone or poisoned: nothing is left to free.
    }
    this.#client.close(new HeadwaterError("Disposed", "the model was disposed of"));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.dispose();
  }
}

/** A seed for replies that have none. */
function randomSeed(): number {
  return crypto.getRandomValues(new Uint32Array(1))[0] ?? 0;
}
