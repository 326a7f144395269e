/**
 * The caller's side of the protocol: numbers the calls and hands their answers back. With `worker: false` the host is in the
 * same thread and nothing else differs.
 *
 * Where the worker ends, its engine traps or the graphics device is lost, what this client had loaded is loaded again, in
 * another worker if that takes one, and calls under way are made again there: of a reply only what follows is told. What cannot
 * come back (a worker that the caller made, a module on the page's own thread that trapped) fails every open call.
 */
import { makeWorker, toWorker, type Channel } from "./channel.js";
import { HeadwaterError, toHeadwaterError, toWire } from "./errors.js";
import { aborted, unlessAborted, type EngineFile } from "./files.js";
import { Losses, tooMany } from "./losses.js";
import { Told } from "./told.js";
import type { ModelEvent } from "./events.js";
import type { Answers, Call, FromHost, WireSource } from "./protocol.js";
import type { Report } from "./progress.js";
import { canShare, Link } from "./shared/link.js";
import type { Resolved } from "./sources.js";
import type { AdapterInfo, License, ModelInfo, Piece } from "./types.js";

/** What happens beside a call's answer. */
export interface CallEvents {
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((progress: Report) => void) | undefined;
  readonly onPiece?: ((piece: Piece) => void) | undefined;
  readonly onConsent?: ((license: License, reason: string) => boolean | Promise<boolean>) | undefined;
}

/** What another worker needs to be as far as the one that has gone. */
interface Kept {
  readonly call: Call;
  /** Of an adapter. */
  readonly name: string | undefined;
  readonly events: CallEvents;
}

interface Open extends CallEvents {
  readonly call: Call;
  /** A part of bringing the model back, which begins anew where it fails. */
  readonly restores: boolean;
  /** Its number at the host; nothing while there is no host to ask. */
  id: number | undefined;
  /** What of a reply was told. */
  readonly told: Told;
  /** How often it was made again. */
  again: number;
  resolve(value: never): void;
  reject(error: HeadwaterError): void;
}

/** A call that was under way so often when something was lost may be the reason. */
const MOST_AGAIN = 2;

/** Calls one host. */
export class Client {
  readonly #asked: EngineFile[];
  readonly #open = new Map<number, Open>();
  /** Calls that are made again once the model is back. */
  #waiting: Open[] = [];
  #channel: Channel | undefined;
  /** Connects to another worker, where one can be made. */
  #connect: (() => Promise<Channel>) | undefined;
  #shared = false;
  #nextId = 0;
  #ended: HeadwaterError | undefined;
  /** What was loaded, in its order. */
  #kept: Kept[] = [];
  /** While there is nobody to ask. */
  #ready: PromiseWithResolvers<void> | undefined;
  /** Differs from loss to loss. */
  #loss = 0;
  #lostMs = 0;
  readonly #losses = new Losses();
  #info: ModelInfo | undefined;
  #cleared = false;
  readonly #onEvent: ((event: ModelEvent) => void) | undefined;

  /** `asked` are the sources that the host reads by asking back. */
  private constructor(asked: readonly EngineFile[], onEvent: ((event: ModelEvent) => void) | undefined) {
    this.#asked = [...asked];
    this.#onEvent = onEvent;
  }

  /** What the loaded model is. */
  get info(): ModelInfo {
    if (this.#info === undefined) throw new HeadwaterError("Internal", "no model was loaded");
    return this.#info;
  }

  /** Takes further sources that the host reads by asking back: those of `resolve`, which is told the first one's number. */
  lend(resolve: (firstAsked: number) => Resolved): readonly WireSource[] {
    const { wire, asked } = resolve(this.#asked.length);
    this.#asked.push(...asked);
    return wire;
  }

  /** Connects to a host in a worker: an own one at `workerUrl` or where the package has it, or the caller's. */
  static async inWorker(asked: readonly EngineFile[], own: Worker | undefined, workerUrl: string | undefined, onEvent?: (event: ModelEvent) => void): Promise<Client> {
    const client = new Client(asked, onEvent);
    const connect = (): Promise<Channel> => toWorker(own ?? makeWorker(workerUrl), own === undefined, {
      receive: (message) => client.#receive(message),
      gone: (error) => void client.#lose("workerLost", error),
      cleared: () => client.#tellCleared(),
    });
    if (own === undefined) client.#connect = connect;
    client.#channel = await connect();
    return client;
  }

  /** Connects to the host that all clients of this name have together, made by the first of them in a worker at `workerUrl`. */
  static async inShared(name: string, workerUrl: string | undefined, onEvent?: (event: ModelEvent) => void): Promise<Client> {
    if (!canShare()) throw new HeadwaterError("InvalidArgument", "this browser has no locks or no broadcast channels, which sharing takes", { at: "worker" });
    const client = new Client([], onEvent);
    client.#shared = true;
    client.#ready = Promise.withResolvers();
    const link = await Link.open(name, () => makeWorker(workerUrl), {
      joined: () => void client.#restore(),
      lost: () => client.#handedOver(),
      failed: (error) => client.#end(error),
      receive: (message) => client.#receive(message),
    });
    client.#channel = { post: (message) => link.post(message), close: () => link.close() };
    return client;
  }

  /** Connects to a host in this thread. */
  static async inPage(asked: readonly EngineFile[], onEvent?: (event: ModelEvent) => void): Promise<Client> {
    const { Host } = await import("./host.js");
    const client = new Client(asked, onEvent);
    const host = new Host((message) => client.#receive(message), () => {});
    client.#channel = { post: (message) => host.receive(message), close: () => {} };
    return client;
  }

  /** Makes a call. An abort of `signal` is passed on; the host says what becomes of the call. */
  async call<C extends Call>(call: C, events: CallEvents = {}): Promise<Answers[C["call"]]> {
    // Nothing is left to free where there is no host.
    if (call.call === "dispose" && this.#ready !== undefined) return undefined as Answers[C["call"]];
    while (this.#ready !== undefined) {
      const back = this.#ready.promise;
      await (events.signal === undefined ? back : unlessAborted(events.signal, back));
    }
    const answer = await this.#send(call, events);
    this.#keep(call, answer, { ...events, signal: undefined });
    return answer;
  }

  /** Notes what the worker holds for this client now. */
  #keep(call: Call, answer: unknown, events: CallEvents): void {
    if (call.call === "load") {
      this.#kept.push({ call, name: undefined, events });
      this.#loaded(answer as ModelInfo);
    }
    if (call.call === "loadAdapter") this.#kept.push({ call, name: (JSON.parse(String(answer)) as AdapterInfo).name, events });
    if (call.call === "unloadAdapter") this.#kept = this.#kept.filter(({ name }) => name !== call.name);
  }

  /** Notes what was loaded, and tells what its user should know and was not told yet. */
  #loaded(info: ModelInfo): void {
    const known = this.#info?.warnings ?? [];
    this.#info = info;
    for (const message of info.warnings) if (!known.includes(message)) this.#tell({ type: "warning", message });
  }

  #send<C extends Call>(call: C, events: CallEvents, restores = false): Promise<Answers[C["call"]]> {
    if (this.#ended !== undefined) return Promise.reject(this.#ended);
    if (events.signal?.aborted === true) return Promise.reject(aborted());
    const { promise, resolve, reject } = Promise.withResolvers<Answers[C["call"]]>();
    const open: Open = { ...events, call, restores, id: undefined, told: new Told(), again: 0, resolve, reject };
    const onAbort = (): void => {
      if (open.id !== undefined) return this.#channel?.post({ type: "abort", id: open.id });
      this.#waiting = this.#waiting.filter((one) => one !== open);
      reject(aborted());
    };
    events.signal?.addEventListener("abort", onAbort, { once: true });
    this.#begin(open);
    return promise.finally(() => events.signal?.removeEventListener("abort", onAbort));
  }

  #begin(open: Open): void {
    const id = this.#nextId++;
    open.id = id;
    this.#open.set(id, open);
    this.#channel?.post({ type: "call", id, call: open.call });
  }

  /** Lets the host go: open and later calls fail with `error`. */
  close(error: HeadwaterError): void {
    this.#end(error);
    this.#channel?.close();
  }

  #end(error: HeadwaterError): void {
    this.#ended ??= error;
    for (const open of [...this.#open.values(), ...this.#waiting]) open.reject(this.#ended);
    this.#open.clear();
    this.#waiting = [];
    // Whoever waits is told by `#send`.
    this.#ready?.resolve();
    this.#ready = undefined;
  }

  /**
   * Takes note that the model is gone, and brings it back. Says whether it comes back, and what is under way with it; else all
   * of that has failed.
   */
  #lose(type: "deviceLost" | "workerLost", error: HeadwaterError): boolean {
    if (this.#ended !== undefined) return false;
    const comesBack = this.#kept.length > 0 && (this.#shared || type === "deviceLost" || this.#connect !== undefined);
    if (!comesBack) {
      if (type === "workerLost" && !this.#shared) this.#end(error);
      return false;
    }
    const already = this.#ready !== undefined;
    this.#suspend(error);
    if (already) return true;
    if (this.#losses.isTooMany()) {
      this.#end(tooMany(type, error));
      return false;
    }
    this.#tell({ type, message: error.message });
    // A shared worker ends by itself, and its successor makes itself known.
    if (!this.#shared) void this.#bringBack(type);
    return true;
  }

  /** A shared worker has ended, as it does when its tab is closed; another follows. */
  #handedOver(): void {
    const error = new HeadwaterError("WorkerGone", "the tab that kept the model was closed; another one takes its place");
    const told = this.#ready !== undefined;
    this.#suspend(error);
    if (!told && this.#kept.length > 0) this.#tell({ type: "workerLost", message: error.message });
  }

  /** Takes what is under way back, to be made again. */
  #suspend(error: HeadwaterError): void {
    this.#loss += 1;
    if (this.#ready === undefined) this.#lostMs = performance.now();
    this.#ready ??= Promise.withResolvers();
    for (const [id, open] of [...this.#open]) {
      this.#open.delete(id);
      open.id = undefined;
      // The host may be there still.
      this.#channel?.post({ type: "abort", id });
      if (open.call.call === "dispose") open.resolve(undefined as never);
      else if (open.restores || open.again === MOST_AGAIN) open.reject(error);
      else {
        open.again += 1;
        open.told.again();
        this.#waiting.push(open);
      }
    }
  }

  /** Loads the model again, in another worker where this one is gone; tries that as often as it may be lost. */
  async #bringBack(type: "deviceLost" | "workerLost"): Promise<void> {
    let lost = type;
    for (;;) {
      try {
        if (lost === "workerLost") {
          this.#channel?.close();
          const channel = await this.#connect?.();
          if (this.#ended !== undefined) return channel?.close();
          this.#channel = channel;
        } else {
          // The device's own callbacks have their turn first.
          await new Promise((resolve) => setTimeout(resolve));
        }
        return await this.#loadAgain();
      } catch (thrown) {
        if (this.#ended !== undefined) return;
        const error = toHeadwaterError(thrown);
        const ofWorker = error.kind === "WorkerGone" || error.kind === "EnginePoisoned";
        if (!(error.kind === "DeviceLost" || (ofWorker && this.#connect !== undefined))) return this.#end(error);
        lost = ofWorker ? "workerLost" : "deviceLost";
        if (this.#losses.isTooMany()) return this.#end(tooMany(lost, error));
      }
    }
  }

  /** Brings a shared worker that follows another as far as that one was. */
  async #restore(): Promise<void> {
    const loss = this.#loss;
    try {
      await this.#loadAgain();
    } catch (error) {
      // Unless this one has gone too.
      if (this.#loss === loss) this.#end(toHeadwaterError(error));
    }
  }

  /** Loads what was loaded, makes the calls that wait, then lets others through. */
  async #loadAgain(): Promise<void> {
    for (const { call, events } of this.#kept) {
      const answer = await this.#send(call, events, true);
      if (call.call === "load") this.#loaded(answer as ModelInfo);
    }
    if (this.#ended !== undefined) return;
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const open of waiting) this.#begin(open);
    this.#ready?.resolve();
    this.#ready = undefined;
    if (this.#kept.length > 0) {
      this.#tell({ type: "recovered", tookSecs: (performance.now() - this.#lostMs) / 1000, backend: this.info.backend.name });
    }
  }

  #tell(event: ModelEvent): void {
    later(this.#onEvent, event);
  }

  #tellCleared(): void {
    if (this.#cleared) return;
    this.#cleared = true;
    this.#tell({ type: "storageLost", message: "the site's data were cleared; what is loaded goes on" });
  }

  #receive(message: FromHost): void {
    switch (message.type) {
      case "ready":
      case "pong":
        return;
      case "answer":
        this.#take(message.id)?.resolve(message.value as never);
        return;
      case "failed": {
        const error = toHeadwaterError(message.error);
        // What is made again is not open any more.
        if (error.kind === "EnginePoisoned" && this.#open.has(message.id)) this.#lose("workerLost", error);
        this.#take(message.id)?.reject(error);
        return;
      }
      case "deviceLost":
        this.#lose("deviceLost", new HeadwaterError("DeviceLost", message.words));
        return;
      case "storageLost":
        this.#tell({ type: "storageLost", message: message.words });
        return;
      case "progress":
        later(this.#open.get(message.id)?.onProgress, message.progress);
        return;
      case "piece":
        this.#piece(message.id, message.piece);
        return;
      case "consent":
        void this.#consent(message.asked, this.#open.get(message.id)?.onConsent, message.license, message.reason);
        return;
      case "read":
        void this.#read(message.read, message.file, message.offset, message.length);
        return;
      default:
        message satisfies never;
    }
  }

  #piece(id: number, piece: Piece): void {
    const open = this.#open.get(id);
    if (open === undefined) return;
    const fresh = open.told.next(piece);
    if (fresh === "differs") {
      this.#take(id);
      this.#channel?.post({ type: "abort", id });
      open.reject(new HeadwaterError("DeviceLost", "what computed the reply was lost, and what took its place computes another one"));
    } else if (fresh !== undefined) open.onPiece?.(fresh);
  }

  #take(id: number): Open | undefined {
    const call = this.#open.get(id);
    this.#open.delete(id);
    return call;
  }

  async #consent(asked: number, hook: CallEvents["onConsent"], license: License, reason: string): Promise<void> {
    try {
      this.#channel?.post({ type: "consented", asked, accepted: (await hook?.(license, reason)) === true });
    } catch (error) {
      this.#channel?.post({ type: "unasked", asked, error: toWire(toHeadwaterError(error)) });
    }
  }

  async #read(read: number, file: number, offset: number, length: number): Promise<void> {
    const source = this.#asked[file];
    try {
      const bytes: unknown = await source?.read(offset, length);
      if (!(bytes instanceof Uint8Array)) throw new HeadwaterError("Io", `${source?.name}: read() gave no Uint8Array`);
      this.#channel?.post({ type: "bytes", read, bytes });
    } catch (error) {
      this.#channel?.post({ type: "unread", read, error: toWire(toHeadwaterError(error, "Io")) });
    }
  }
}

/** Calls the caller's function outside of the engine's own stack, so that what it throws is its own affair. */
function later<T>(listener: ((value: T) => void) | undefined, value: T): void {
  if (listener !== undefined) queueMicrotask(() => listener(value));
}
