/**
 * A model on a server of OpenAI's interface (vLLM, SGLang, Ray Serve, llama.cpp, Ollama, LM Studio), in the shape of one of
 * this page, for what does not fit on the device. Prompts leave the page for the host that you name, and for no other.
 */
import { HeadwaterError, toHeadwaterError } from "../errors.js";
import { Generation } from "../generation.js";
import { toJson } from "../json.js";
import { checkCallOptions, refuse, type EmbedOptions, type GenerateOptions } from "../options.js";
import { isObject } from "../openai/request.js";
import type { Prompt } from "../types.js";
import { events } from "./events.js";
import { Reply, type RemotePiece, type RemoteResult } from "./reply.js";
import { requestBody } from "./request.js";

export type { RemotePiece, RemoteResult } from "./reply.js";

/** Where the server is, and what it calls the model. */
export interface RemoteOptions {
  /** The address up to `/v1`. */
  url: string | URL;
  model: string;
  /** Sent in a header, to this host only. */
  token?: string | (() => string | Promise<string>);
  /** Used in the place of the page's own `fetch`. */
  fetch?: typeof fetch;
}

/** What is known of a model elsewhere. */
export interface RemoteInfo {
  readonly name: string;
  readonly backend: { readonly name: "remote"; readonly device: string };
  /** Hosts that are asked. */
  readonly hosts: readonly string[];
}

const OPTIONS = ["url", "model", "token", "fetch"];

/** A model on a server. Nothing is asked before the first call. */
export function remote(options: RemoteOptions): RemoteModel {
  const unknown = Object.keys(options).find((key) => !OPTIONS.includes(key));
  if (unknown !== undefined) throw refuse(unknown, "remote has no such option");
  const { url, model } = options;
  if (typeof model !== "string" || model === "") throw refuse("model", "names no model");
  if (!URL.canParse(String(url)) || !/^https?:$/.test(new URL(url).protocol)) throw refuse("url", "not an address of http or https");
  return new RemoteModel(options);
}

/** Made by `remote`. */
export class RemoteModel {
  readonly info: RemoteInfo;
  readonly #options: RemoteOptions;
  readonly #base: string;
  readonly #disposed = new AbortController();

  /** Made by `remote`. */
  constructor(options: RemoteOptions) {
    const { host, href } = new URL(options.url);
    this.#options = options;
    this.#base = href.replace(/\/+$/, "");
    this.info = { name: options.model, backend: { name: "remote", device: host }, hosts: [host] };
  }

  /** As `Model.generate`; options that no such server has are refused by name. */
  generate(prompt: Prompt, options: GenerateOptions = {}): Generation<RemotePiece, RemoteResult> {
    checkCallOptions("generate", options);
    const { signal, ...rest } = options;
    const isChat = Array.isArray(prompt) && typeof prompt[0] === "object";
    const asked = isChat ? { messages: prompt } : { prompt };
    const body = toJson("", { ...requestBody(rest), ...asked, model: this.#options.model, stream: true, stream_options: { include_usage: true } });
    const start = async (onPiece: (piece: RemotePiece) => void, both: AbortSignal): Promise<RemoteResult> => {
      const reply = new Reply(onPiece);
      await this.#ask(isChat ? "chat/completions" : "completions", body, both, async (answer) => {
        if (answer.body === null) throw new HeadwaterError("Io", "the server's answer is empty");
        for await (const event of events(answer.body)) {
          const error = isObject(event) ? event["error"] : undefined;
          if (error !== undefined) throw failure(undefined, { error });
          reply.take(event);
        }
      });
      return reply.finish();
    };
    return new Generation(start, signal);
  }

  /** As `Model.embed`; of its options, `dimensions` and `signal`. */
  async embed(texts: string | readonly string[], options: EmbedOptions = {}): Promise<Float32Array[]> {
    checkCallOptions("embed", options);
    const { signal, dimensions, ...rest } = options;
    const other = Object.entries(rest).find(([, value]) => value !== undefined);
    if (other !== undefined) throw refuse(other[0], "not supported by a model on a server");
    const input = typeof texts === "string" ? [texts] : texts;
    const body = toJson("", { model: this.#options.model, input, dimensions, encoding_format: "float" });
    const vectors = new Map<number, Float32Array>();
    await this.#ask("embeddings", body, signal, async (answer) => {
      const read = (await answer.json()) as { data?: readonly { index: number; embedding: readonly number[] }[] };
      for (const { index, embedding } of read.data ?? []) vectors.set(index, Float32Array.from(embedding));
    });
    return input.map((_, index) => {
      const vector = vectors.get(index);
      if (vector === undefined) throw new HeadwaterError("Io", `the server gave no vector of text ${index}`);
      return vector;
    });
  }

  /** Ends open calls; later ones fail with `Disposed`. */
  async dispose(): Promise<void> {
    this.#disposed.abort();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.dispose();
  }

  async #ask(path: string, body: string, signal: AbortSignal | undefined, read: (answer: Response) => Promise<void>): Promise<void> {
    const { token, fetch: ask = fetch } = this.#options;
    const ended = signal === undefined ? this.#disposed.signal : AbortSignal.any([signal, this.#disposed.signal]);
    try {
      ended.throwIfAborted();
      const key = typeof token === "function" ? await token() : token;
      const headers = { "Content-Type": "application/json", ...(key === undefined ? {} : { Authorization: `Bearer ${key}` }) };
      // A redirection would carry the prompt to a host that nobody named.
      const init: RequestInit = { method: "POST", headers, body, signal: ended, redirect: "error", credentials: "omit", referrerPolicy: "no-referrer" };
      const answer = await ask(`${this.#base}/${path}`, init);
      if (!answer.ok) throw failure(answer.status, await answer.json().catch(() => undefined));
      await read(answer);
    } catch (thrown) {
      if (this.#disposed.signal.aborted) throw new HeadwaterError("Disposed", "the model was disposed of");
      if (signal?.aborted === true) throw new HeadwaterError("Aborted", "the caller ended the reply");
      if (thrown instanceof TypeError) throw new HeadwaterError("Network", `${this.info.backend.device} could not be asked: ${thrown.message}`);
      throw toHeadwaterError(thrown);
    }
  }
}

/** An answer that is an error; without a status, one in the middle of a stream. */
function failure(status: number | undefined, body: unknown): HeadwaterError {
  const error = isObject(body) && isObject(body["error"]) ? body["error"] : {};
  const words = typeof error["message"] === "string" ? error["message"] : "the server gave no reason";
  const details = { ...(status === undefined ? {} : { status }), ...(typeof error["param"] === "string" ? { at: error["param"] } : {}) };
  if (error["code"] === "context_length_exceeded") return new HeadwaterError("ContextFull", words, details);
  if (status === undefined) return new HeadwaterError("Io", `the server ended the reply: ${words}`, details);
  if (status === 400 || status === 422) return new HeadwaterError("InvalidArgument", words, details);
  if (status === 401 || status === 403) return new HeadwaterError("AuthRequired", words, details);
  if (status === 404) return new HeadwaterError("NotFound", words, details);
  return new HeadwaterError("HttpStatus", `the server answered with ${status}: ${words}`, details);
}
