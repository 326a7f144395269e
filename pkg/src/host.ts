/**
 * The engine's side of the protocol: one model, its calls, its errors. It lives in a worker (`worker.ts`) or beside the
 * client in one thread; it cannot tell which.
 */
import { checkPoison, engineError, memoryBytes, startEngine, WebEngine, whenPoisoned } from "./engine.js";
import { HeadwaterError, toWire } from "./errors.js";
import { aborted, openFiles } from "./files.js";
import type { Answers, Call, FromHost, Post, ToHost } from "./protocol.js";
import type { Report } from "./progress.js";
import type { ModelInfo, Piece } from "./types.js";

interface Reading {
  resolve(bytes: Uint8Array): void;
  reject(error: unknown): void;
}

/** Answers the calls of one client. */
export class Host {
  readonly #post: Post<FromHost>;
  readonly #whenDone: () => void;
  readonly #calls = new Map<number, AbortController>();
  readonly #readings = new Map<number, Reading>();
  #nextReading = 0;
  #engine: WebEngine | undefined;
  #disposed = false;
  readonly #forgetPoison: () => void;

  /** Posts with `post`; calls `whenDone` once it has disposed of its model. */
  constructor(post: Post<FromHost>, whenDone: () => void) {
    this.#post = post;
    this.#whenDone = whenDone;
    // A trap may have left promises of the module that will never settle.
    this.#forgetPoison = whenPoisoned((error) => {
      for (const id of [...this.#calls.keys()]) this.#fail(id, error);
    });
  }

  /** Takes a message of the client. */
  receive(message: ToHost): void {
    switch (message.type) {
      case "call":
        void this.#run(message.id, message.call);
        return;
      case "abort":
        this.#calls.get(message.id)?.abort();
        return;
      case "bytes":
        this.#takeReading(message.read)?.resolve(message.bytes);
        return;
      case "unread":
        this.#takeReading(message.read)?.reject(message.error);
        return;
      default:
        message satisfies never;
    }
  }

  async #run(id: number, call: Call): Promise<void> {
    const abort = new AbortController();
    this.#calls.set(id, abort);
    try {
      checkPoison();
      const value = await this.#answer(id, call, abort.signal);
      if (!this.#calls.delete(id)) return;
      this.#post({ type: "answer", id, value }, value instanceof Float32Array ? [value.buffer] : []);
      if (call.call === "dispose") this.#whenDone();
    } catch (thrown) {
      this.#fail(id, engineError(thrown));
    }
  }

  #fail(id: number, error: HeadwaterError): void {
    if (this.#calls.delete(id)) this.#post({ type: "failed", id, error: toWire(error) });
  }

  async #answer(id: number, call: Call, signal: AbortSignal): Promise<Answers[Call["call"]]> {
    switch (call.call) {
      case "load":
        return this.#load(id, call, signal);
      case "generate": {
        const onPiece = (json: string): void => {
          this.#post({ type: "piece", id, piece: JSON.parse(json) as Piece });
        };
        return this.#loaded().generate(call.request, onPiece, signal);
      }
      case "embed":
        return this.#loaded().embed(call.request, signal);
      case "rerank":
        return this.#loaded().rerank(call.request, signal);
      case "tokenize":
        return this.#loaded().tokenize(call.text, call.options);
      case "detokenize":
        return this.#loaded().detokenize(call.ids);
      case "countTokens":
        return this.#loaded().countTokens(call.prompt);
      case "logits":
        return this.#loaded().logits(call.ids, call.options);
      case "loadAdapter": {
        const files = await openFiles(call.sources, (file, offset, length) => this.#ask(file, offset, length), signal, "adapter");
        return this.#loaded().loadAdapter(files, call.options, signal);
      }
      case "unloadAdapter":
        await this.#loaded().unloadAdapter(call.name);
        return undefined;
      case "adapters":
        return this.#loaded().adapters();
      case "bench":
        return this.#loaded().bench(call.request);
      case "stats":
        return JSON.stringify({ ...(JSON.parse(this.#loaded().stats()) as object), memoryBytes: memoryBytes() });
      case "dispose":
        return this.#dispose(id);
      default:
        return call satisfies never;
    }
  }

  async #load(id: number, call: Call & { call: "load" }, signal: AbortSignal): Promise<ModelInfo> {
    await startEngine(call.wasmUrl);
    const files = await openFiles(call.sources, (file, offset, length) => this.#ask(file, offset, length), signal);
    const onProgress = (json: string): void => {
      this.#post({ type: "progress", id, progress: JSON.parse(json) as Report });
    };
    const engine = await WebEngine.load(files, call.options, onProgress, signal);
    if (signal.aborted || this.#disposed) {
      engine.dispose();
      throw aborted();
    }
    this.#engine = engine;
    return JSON.parse(engine.info()) as ModelInfo;
  }

  #loaded(): WebEngine {
    if (this.#engine === undefined) throw new HeadwaterError("Disposed", "the model was disposed of");
    return this.#engine;
  }

  /** Ends every other call and lets the engine go. */
  #dispose(own: number): undefined {
    this.#disposed = true;
    for (const [id, abort] of [...this.#calls]) {
      if (id === own) continue;
      abort.abort();
      this.#fail(id, new HeadwaterError("Disposed", "the model was disposed of"));
    }
    this.#engine?.dispose();
    this.#engine = undefined;
    this.#forgetPoison();
    return undefined;
  }

  #ask(file: number, offset: number, length: number): Promise<Uint8Array> {
    const read = this.#nextReading++;
    return new Promise((resolve, reject) => {
      this.#readings.set(read, { resolve, reject });
      this.#post({ type: "read", read, file, offset, length });
    });
  }

  #takeReading(read: number): Reading | undefined {
    const reading = this.#readings.get(read);
    this.#readings.delete(read);
    return reading;
  }
}
