/**
 * The caller's side of the protocol: numbers the calls, hands their answers back, and turns the end of the worker into
 * an error of every open call. With `worker: false` the host is in the same thread and nothing else differs. A shared
 * worker that ends is followed by another, in which what this client had loaded is loaded again; calls that had told nothing
 * yet are made again there.
 */
import { HeadwaterError, toHeadwaterError, toWire } from "./errors.js";
import { aborted, unlessAborted, type EngineFile } from "./files.js";
import type { Answers, Call, Connect, FromHost, Post, ToHost, WireSource } from "./protocol.js";
import type { Report } from "./progress.js";
import { canShare, Link } from "./shared/link.js";
import { randomName } from "./shared/locks.js";
import type { Resolved } from "./sources.js";
import type { AdapterInfo, License, Piece } from "./types.js";

/** A way to a host. */
interface Channel {
  readonly post: Post<ToHost>;
  /** Lets the host go; a worker that the caller made lives on. */
  close(): void;
}

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
  /** Pieces were handed out, which cannot be taken back. */
  told?: boolean;
  resolve(value: never): void;
  reject(error: HeadwaterError): void;
}

/** Tells when a worker that holds a lock has ended: only then is the lock granted to anybody else. */
async function watch(lock: string, gone: () => void): Promise<void> {
  // Once its site's data was cleared a page sees other locks than the workers that it makes: one that is free now tells nothing.
  const isHeld = await navigator.locks.request(lock, { ifAvailable: true }, (granted) => granted === null);
  if (isHeld) await navigator.locks.request(lock, gone);
}

/** Calls one host. */
export class Client {
  readonly #asked: EngineFile[];
  readonly #open = new Map<number, Open>();
  #channel: Channel | undefined;
  #nextId = 0;
  #ended: HeadwaterError | undefined;
  /** With a shared worker: what was loaded in it, and when the present one is as far. */
  #kept: Kept[] | undefined;
  #ready: PromiseWithResolvers<void> | undefined;
  /** Whether there is a worker at this moment. */
  #served = true;

  /** `asked` are the sources that the host reads by asking back. */
  private constructor(asked: readonly EngineFile[]) {
    this.#asked = [...asked];
  }

  /** Takes further sources that the host reads by asking back: those of `resolve`, which is told the first one's number. */
  lend(resolve: (firstAsked: number) => Resolved): readonly WireSource[] {
    const { wire, asked } = resolve(this.#asked.length);
    this.#asked.push(...asked);
    return wire;
  }

  /** Connects to a host in a worker: an own one at `workerUrl` or where the package has it, or the caller's. */
  static async inWorker(asked: readonly EngineFile[], own: Worker | undefined, workerUrl: string | undefined): Promise<Client> {
    const client = new Client(asked);
    const worker = own ?? makeWorker(workerUrl);
    const { port1, port2 } = new MessageChannel();
    const lock = `headwater-${randomName()}`;
    const ready = Promise.withResolvers<void>();
    const gone = (words: string): void => {
      const error = new HeadwaterError("WorkerGone", words);
      ready.reject(error);
      client.#end(error);
    };
    worker.addEventListener("error", (event) => gone(`the worker failed: ${event.message || "its script could not be loaded"}`));
    port1.onmessage = ({ data }: MessageEvent<FromHost>) => {
      if (data.type !== "ready") return client.#receive(data);
      ready.resolve();
      if (data.locked) void watch(lock, () => gone("the worker has ended"));
    };
    client.#channel = {
      post: (message, transfer = []) => port1.postMessage(message, transfer),
      close: () => {
        port1.close();
        if (own === undefined) worker.terminate();
      },
    };
    worker.postMessage({ type: "headwater-connect", port: port2, lock } satisfies Connect, [port2]);
    await ready.promise;
    return client;
  }

  /** Connects to the host that all clients of this name have together, made by the first of them in a worker at `workerUrl`. */
  static async inShared(name: string, workerUrl: string | undefined): Promise<Client> {
    if (!canShare()) throw new HeadwaterError("InvalidArgument", "this browser has no locks or no broadcast channels, which sharing takes", { at: "worker" });
    const client = new Client([]);
    client.#kept = [];
    client.#ready = Promise.withResolvers();
    client.#served = false;
    const link = await Link.open(name, () => makeWorker(workerUrl), {
      joined: () => {
        client.#served = true;
        void client.#restore();
      },
      lost: () => {
        client.#served = false;
        client.#ready = Promise.withResolvers();
        const gone = new HeadwaterError("WorkerGone", "the tab that kept the model was closed; another one takes its place");
        client.#failOpen(gone, ({ call, told }) => told === true || call.call === "dispose");
      },
      failed: (error) => client.#end(error),
      receive: (message) => client.#receive(message),
    });
    client.#channel = { post: (message) => link.post(message), close: () => link.close() };
    return client;
  }

  /** Connects to a host in this thread. */
  static async inPage(asked: readonly EngineFile[]): Promise<Client> {
    const { Host } = await import("./host.js");
    const client = new Client(asked);
    const host = new Host((message) => client.#receive(message), () => {});
    client.#channel = { post: (message) => host.receive(message), close: () => {} };
    return client;
  }

  /** Makes a call. An abort of `signal` is passed on; the host says what becomes of the call. */
  async call<C extends Call>(call: C, events: CallEvents = {}): Promise<Answers[C["call"]]> {
    if (call.call === "dispose") return this.#served ? this.#send(call, events) : Promise.resolve(undefined as Answers[C["call"]]);
    if (this.#ready !== undefined) await (events.signal === undefined ? this.#ready.promise : unlessAborted(events.signal, this.#ready.promise));
    const answer = await this.#send(call, events);
    this.#keep(call, answer, { ...events, signal: undefined });
    return answer;
  }

  /** Notes what the worker holds for this client now. */
  #keep(call: Call, answer: unknown, events: CallEvents): void {
    if (this.#kept === undefined) return;
    if (call.call === "load") this.#kept.push({ call, name: undefined, events });
    if (call.call === "loadAdapter") this.#kept.push({ call, name: (JSON.parse(String(answer)) as AdapterInfo).name, events });
    if (call.call === "unloadAdapter") this.#kept = this.#kept.filter(({ name }) => name !== call.name);
  }

  /** Brings a worker that follows another as far as that one was, then lets calls through. */
  async #restore(): Promise<void> {
    const ready = this.#ready;
    try {
      const again = [...this.#open];
      for (const { call, events } of this.#kept ?? []) await this.#send(call, events);
      for (const [id, { call }] of again) if (this.#open.has(id)) this.#channel?.post({ type: "call", id, call });
      ready?.resolve();
    } catch (error) {
      // Unless this one has gone too.
      if (this.#ready === ready) this.#end(toHeadwaterError(error));
    }
  }

  #send<C extends Call>(call: C, events: CallEvents): Promise<Answers[C["call"]]> {
    if (this.#ended !== undefined) return Promise.reject(this.#ended);
    if (events.signal?.aborted === true) return Promise.reject(aborted());
    const id = this.#nextId++;
    const onAbort = (): void => this.#channel?.post({ type: "abort", id });
    events.signal?.addEventListener("abort", onAbort, { once: true });
    const { promise, resolve, reject } = Promise.withResolvers<Answers[C["call"]]>();
    this.#open.set(id, { ...events, call, resolve, reject });
    this.#channel?.post({ type: "call", id, call });
    return promise.finally(() => events.signal?.removeEventListener("abort", onAbort));
  }

  /** Lets the host go: open and later calls fail with `error`. */
  close(error: HeadwaterError): void {
    this.#end(error);
    this.#channel?.close();
  }

  #end(error: HeadwaterError): void {
    this.#ended ??= error;
    this.#failOpen(this.#ended);
    // Whoever waits for another worker is told by `#send`.
    this.#ready?.resolve();
  }

  #failOpen(error: HeadwaterError, which: (open: Open) => boolean = () => true): void {
    for (const [id, open] of [...this.#open]) {
      if (!which(open)) continue;
      this.#open.delete(id);
      open.reject(error);
    }
  }

  #receive(message: FromHost): void {
    switch (message.type) {
      case "ready":
        return;
      case "answer":
        this.#take(message.id)?.resolve(message.value as never);
        return;
      case "failed": {
        const error = toHeadwaterError(message.error);
        this.#take(message.id)?.reject(error);
        if (error.kind === "EnginePoisoned" && this.#kept === undefined) this.#end(error);
        return;
      }
      case "progress":
        later(this.#open.get(message.id)?.onProgress, message.progress);
        return;
      case "piece": {
        const open = this.#open.get(message.id);
        if (open === undefined) return;
        open.told = true;
        open.onPiece?.(message.piece);
        return;
      }
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

function makeWorker(workerUrl: string | undefined): Worker {
  try {
    // Written out in full, because bundlers find the worker by these very words.
    return workerUrl === undefined
      ? new Worker(new URL("./worker.js", import.meta.url), { type: "module" })
      : new Worker(workerUrl, { type: "module" });
  } catch (error) {
    // Another origin, or a policy (worker-src, trusted types) that forbids it.
    const words = error instanceof Error ? error.message : String(error);
    throw new HeadwaterError("CspBlocked", `the browser refused the worker (${words}); see the options workerUrl and worker`);
  }
}

