/**
 * The engine's side of the protocol: the calls of one client on one model, and their errors. It lives in a worker
 * (`worker.ts`) or beside the client in one thread; it cannot tell which, nor whether others use the model too.
 */
import { noteDeviceLost, whenDeviceLost } from "./device-lost.js";
import { checkPoison, engineError, memoryBytes, startEngine, WebEngine, WebHub, whenPoisoned } from "./engine.js";
import { HeadwaterError, toWire } from "./errors.js";
import { aborted, blobFile, openFiles, type EngineFile } from "./files.js";
import { openStore } from "./hub/store.js";
import { HubTransport } from "./hub/transport.js";
import type { Answers, Call, FromHost, Post, ToHost, WireHub, WireSource } from "./protocol.js";
import { OwnSlot, type Loaded, type Slot } from "./slot.js";
import type { Lost, Report } from "./progress.js";
import type { License, ModelInfo, Origin, Piece } from "./types.js";

interface Waiting<T> {
  resolve(value: T): void;
  reject(error: unknown): void;
}

/** Names and values of a call to the hub. */
interface HubCall {
  readonly reference: string;
  readonly options: string;
  readonly onProgress: (json: string) => void;
  readonly consent: ((license: string, reason: string) => Promise<boolean>) | undefined;
}

/** Answers the calls of one client. */
export class Host {
  readonly #post: Post<FromHost>;
  readonly #whenDone: () => void;
  readonly #calls = new Map<number, AbortController>();
  readonly #readings = new Map<number, Waiting<Uint8Array>>();
  readonly #consents = new Map<number, Waiting<boolean>>();
  #nextReading = 0;
  readonly #slot: Slot;
  #disposed = false;
  readonly #forgetPoison: () => void;
  readonly #forgetLosses: () => void;
  /** The engine whose device was lost, which is told once. */
  #lost: WebEngine | undefined;

  /** Posts with `post`; calls `whenDone` once it has let go of its model, which `slot` holds. */
  constructor(post: Post<FromHost>, whenDone: () => void, slot: Slot = new OwnSlot()) {
    this.#post = post;
    this.#whenDone = whenDone;
    this.#slot = slot;
    // A trap may have left promises of the module that will never settle.
    this.#forgetPoison = whenPoisoned((error) => {
      for (const id of [...this.#calls.keys()]) this.#fail(id, error);
    });
    this.#forgetLosses = whenDeviceLost((words) => this.#tellLost(words));
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
      case "ping":
        this.#post({ type: "pong" });
        return;
      case "bytes":
        this.#takeReading(message.read)?.resolve(message.bytes);
        return;
      case "unread":
        this.#takeReading(message.read)?.reject(message.error);
        return;
      case "consented":
        this.#takeConsent(message.asked)?.resolve(message.accepted);
        return;
      case "unasked":
        this.#takeConsent(message.asked)?.reject(message.error);
        return;
      default:
        message satisfies never;
    }
  }

  async #run(id: number, call: Call): Promise<void> {
    const abort = new AbortController();
    this.#calls.set(id, abort);
    const { engine } = this.#slot;
    try {
      checkPoison();
      const value = await this.#answer(id, call, abort.signal);
      if (!this.#calls.delete(id)) return;
      this.#post({ type: "answer", id, value }, value instanceof Float32Array ? [value.buffer] : []);
      if (call.call === "dispose") this.#whenDone();
    } catch (thrown) {
      const error = engineError(thrown);
      // Not what an engine says that another one has followed.
      if (error.kind === "DeviceLost" && engine !== undefined && engine === this.#slot.engine) noteDeviceLost(error.message);
      this.#fail(id, error);
    }
  }

  /** Tells the client that the model's device is gone, before the calls that fail of it do. */
  #tellLost(words: string): void {
    const { engine } = this.#slot;
    if (engine === undefined || engine === this.#lost || !onGpu(engine)) return;
    this.#lost = engine;
    this.#post({ type: "deviceLost", words });
  }

  #fail(id: number, error: HeadwaterError): void {
    if (this.#calls.delete(id)) this.#post({ type: "failed", id, error: toWire(error) });
  }

  async #answer(id: number, call: Call, signal: AbortSignal): Promise<Answers[Call["call"]]> {
    switch (call.call) {
      case "load":
        return this.#load(id, call, signal);
      case "inspect":
        return this.#inspect(id, call, signal);
      case "store":
        return this.#store(id, call, signal);
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
      case "score":
        return this.#loaded().score(call.request, signal);
      case "checkReceipt":
        return this.#loaded().checkReceipt(call.receipt, call.prompt, signal);
      case "tokenize":
        return this.#loaded().tokenize(call.text, call.options);
      case "detokenize":
        return this.#loaded().detokenize(call.ids);
      case "countTokens":
        return this.#loaded().countTokens(call.prompt);
      case "logits":
        return this.#loaded().logits(call.ids, call.options);
      case "loadAdapter": {
        if (call.hub !== undefined) {
          return this.#withHub(id, call.hub, signal, (hub, { reference, options, onProgress, consent }) =>
            hub.loadAdapter(this.#loaded(), reference, options, call.options, onProgress, consent, signal));
        }
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
      case "save": {
        // A blob of blobs: what came is the browser's to keep, not this thread's.
        const pieces: Blob[] = [];
        await this.#loaded().save(call.request, (bytes: Uint8Array<ArrayBuffer>) => pieces.push(new Blob([bytes])), signal);
        return new Blob(pieces);
      }
      case "restore":
        return this.#loaded().restore(blobFile("keys and values", call.saved), signal);
      case "dispose":
        return this.#dispose(id);
      default:
        return call satisfies never;
    }
  }

  async #load(id: number, call: Call & { call: "load" }, signal: AbortSignal): Promise<ModelInfo> {
    await startEngine(call.wasmUrl);
    return this.#slot.load((onProgress) => this.#make(id, call, signal, onProgress), signal, this.#progress(id));
  }

  async #make(id: number, call: Call & { call: "load" }, signal: AbortSignal, onProgress: (json: string) => void): Promise<Loaded> {
    const engine = call.hub === undefined
      ? await WebEngine.load(await this.#openFiles(call.sources, signal), call.options, onProgress, signal)
      : await this.#withHub(id, call.hub, signal, (hub, { reference, options, consent }) =>
        hub.load(reference, options, call.options, onProgress, consent, signal));
    const told = engine.origin();
    const origin = told === undefined ? null : JSON.parse(told) as Origin;
    const asked = call.sources.flatMap((source) => (source.type === "url" ? [new URL(source.url).host] : []));
    return { engine, info: { ...(JSON.parse(engine.info()) as ModelInfo), origin, hosts: origin?.hosts ?? [...new Set(asked)] } };
  }

  async #inspect(id: number, call: Call & { call: "inspect" }, signal: AbortSignal): Promise<string> {
    await startEngine(call.wasmUrl);
    if (call.hub === undefined) return WebEngine.inspectFiles(await this.#openFiles(call.sources, signal), call.options, call.limits, signal);
    return this.#withHub(id, call.hub, signal, (hub, { reference, options }) => hub.inspect(reference, options, call.options, call.limits, signal));
  }

  async #store(id: number, call: Call & { call: "store" }, signal: AbortSignal): Promise<string | File[]> {
    await startEngine(call.wasmUrl);
    return this.#withHub(id, call.hub, signal, async (hub, { reference, options, onProgress, consent }) => {
      switch (call.verb) {
        case "list":
          return hub.list();
        case "usage":
          return hub.usage();
        case "lock":
          return hub.lock();
        case "clear":
          await hub.clear();
          return "null";
        case "remove":
          return String(await hub.remove(reference, (JSON.parse(options) as { endpoint?: string }).endpoint));
        case "pull":
          return hub.pull(reference, options, onProgress, consent, signal);
        case "import": {
          const files = await this.#openFiles(call.sources, signal);
          return hub.importFiles(reference, files, options, onProgress, consent, signal);
        }
        case "export": {
          const kept = JSON.parse(await hub.keptFiles(reference, options)) as { path: string; name: string }[];
          const store = await openStore();
          return Promise.all(kept.map(async ({ path, name }) => new File([await store.file(name)], path)));
        }
        default:
          return call.verb satisfies never;
      }
    });
  }

  /** A hub for one call: its requests end with the call's signal. */
  async #withHub<T>(id: number, wire: WireHub | undefined, signal: AbortSignal, work: (hub: WebHub, call: HubCall) => Promise<T>): Promise<T> {
    const hub = new WebHub(new HubTransport(signal), await openStore());
    const consent = async (license: string, reason: string): Promise<boolean> =>
      this.#consent(id, JSON.parse(license) as License, reason, signal);
    try {
      return await work(hub, {
        reference: wire?.reference ?? "",
        options: wire?.options ?? "{}",
        onProgress: this.#progress(id),
        consent: wire?.asks === true ? consent : undefined,
      });
    } finally {
      hub.free();
    }
  }

  #progress(id: number): (json: string) => void {
    return (json) => {
      const progress = JSON.parse(json) as Report | Lost;
      if (progress.phase !== "lost") return this.#post({ type: "progress", id, progress });
      this.#post({ type: "storageLost", words: `what was kept on this device is not there any more (${progress.file}); it is fetched again` });
    };
  }

  #openFiles(sources: readonly WireSource[], signal: AbortSignal): Promise<EngineFile[]> {
    return openFiles(sources, (file, offset, length) => this.#ask(file, offset, length), signal);
  }

  #consent(id: number, license: License, reason: string, signal: AbortSignal): Promise<boolean> {
    const asked = this.#nextReading++;
    return new Promise((resolve, reject) => {
      this.#consents.set(asked, { resolve, reject });
      // Whoever gives up does not answer any more.
      signal.addEventListener("abort", () => reject(aborted()), { once: true });
      this.#post({ type: "consent", asked, id, license, reason });
    });
  }

  #takeConsent(asked: number): Waiting<boolean> | undefined {
    const waiting = this.#consents.get(asked);
    this.#consents.delete(asked);
    return waiting;
  }

  #loaded(): WebEngine {
    const { engine } = this.#slot;
    if (engine === undefined || this.#disposed) throw new HeadwaterError("Disposed", "the model was disposed of");
    return engine;
  }

  /** Ends every other call and lets the model go. */
  #dispose(own: number): undefined {
    this.#disposed = true;
    for (const [id, abort] of [...this.#calls]) {
      if (id === own) continue;
      abort.abort();
      this.#fail(id, new HeadwaterError("Disposed", "the model was disposed of"));
    }
    this.#slot.release();
    this.#forgetPoison();
    this.#forgetLosses();
    return undefined;
  }

  /** Ends everything for a client that is gone. */
  drop(): void {
    if (!this.#disposed) this.#dispose(-1);
  }

  #ask(file: number, offset: number, length: number): Promise<Uint8Array> {
    const read = this.#nextReading++;
    return new Promise((resolve, reject) => {
      this.#readings.set(read, { resolve, reject });
      this.#post({ type: "read", read, file, offset, length });
    });
  }

  #takeReading(read: number): Waiting<Uint8Array> | undefined {
    const reading = this.#readings.get(read);
    this.#readings.delete(read);
    return reading;
  }
}

/** Whether a model runs on the graphics device. */
function onGpu(engine: WebEngine): boolean {
  return (JSON.parse(engine.info()) as ModelInfo).backend.name !== "cpu";
}
