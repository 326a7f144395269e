/**
 * A client's side of a shared model. The clients of a name stand in line for a lock; whoever has it keeps the worker that
 * serves them all. When that tab is closed its worker goes too, the next in line makes another, and the others join it.
 */
import { HeadwaterError } from "../errors.js";
import { hold, randomName, whenReleased } from "./locks.js";
import type { FromHost, FromShared, Share, ToClient, ToHost, ToShared } from "../protocol.js";

/** What a link tells. */
export interface LinkEvents {
  /** A worker serves this client, for the first time or after another one has gone. */
  joined(): void;
  /** The worker has gone; another one follows. */
  lost(): void;
  /** No worker could be started here. */
  failed(error: HeadwaterError): void;
  receive(message: FromHost): void;
}

/** Whether this browser has what sharing takes. */
export function canShare(): boolean {
  return "locks" in navigator && "BroadcastChannel" in globalThis;
}

/** A client's way to the worker of the moment. */
export class Link {
  readonly #name: string;
  readonly #client = `headwater-client ${randomName()}`;
  readonly #events: LinkEvents;
  readonly #shared: BroadcastChannel;
  readonly #own: BroadcastChannel;
  readonly #line = new AbortController();
  #letGo: () => void = () => {};
  /** The lock of the worker that serves; its name differs from worker to worker. */
  #served: string | undefined;
  #closed = false;
  /** Ends the worker that this tab keeps for all. */
  #endWorker: ((follows: boolean) => void) | undefined;

  private constructor(name: string, events: LinkEvents) {
    this.#name = `headwater ${name}`;
    this.#events = events;
    this.#shared = new BroadcastChannel(this.#name);
    this.#own = new BroadcastChannel(this.#client);
    this.#shared.onmessage = ({ data }: MessageEvent<FromShared | ToShared>) => {
      if (data.type === "here") {
        this.#join();
        this.#askWhetherNeeded();
      }
      else if (data.type === "over") this.#endWorker?.(data.follows);
    };
    this.#own.onmessage = ({ data }: MessageEvent<ToClient>) => {
      if (data.type === "message") events.receive(data.message);
      else this.#joined(data.lock);
    };
  }

  /** Stands in line for the model `name` and joins whoever serves it. */
  static async open(name: string, makeWorker: () => Worker, events: LinkEvents): Promise<Link> {
    const link = new Link(name, events);
    // Held from before the worker hears of this client, which it drops when the lock is free.
    link.#letGo = await hold(link.#client);
    link.#join();
    link.#stand(makeWorker);
    return link;
  }

  /** Stands in line; again where the worker that it kept has to be followed by another one. */
  #stand(makeWorker: () => Worker): void {
    navigator.locks.request(`${this.#name} keeper`, { signal: this.#line.signal }, () => this.#keep(makeWorker)).then(
      (follows) => {
        if (follows && !this.#closed) this.#stand(makeWorker);
      },
      () => {
        // Closed before its turn came.
      },
    );
  }

  post(message: ToHost): void {
    this.#tell({ type: "message", client: this.#client, message });
  }

  /** Lets the model go. A worker that this tab keeps lives on until nobody needs it. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#letGo();
    this.#line.abort();
    this.#own.close();
    if (this.#endWorker === undefined) this.#shared.close();
    this.#askWhetherNeeded();
  }

  /** A worker that this tab began to keep when its own client was leaving may have nobody, and would wait for ever. */
  #askWhetherNeeded(): void {
    if (this.#closed && this.#endWorker !== undefined) this.#tell({ type: "needed?" });
  }

  /** Keeps a worker for all clients, until it says that it is over, and whether another one has to follow. */
  async #keep(makeWorker: () => Worker): Promise<boolean> {
    if (this.#closed) return false;
    const over = Promise.withResolvers<boolean>();
    this.#endWorker = over.resolve;
    let worker: Worker | undefined;
    try {
      worker = makeWorker();
      worker.addEventListener("error", (event) => {
        this.#fail(new HeadwaterError("WorkerGone", `the worker failed: ${event.message || "its script could not be loaded"}`));
        over.resolve(false);
      });
      worker.postMessage({ type: "headwater-share", name: this.#name } satisfies Share);
      return await over.promise;
    } catch (error) {
      this.#fail(error as HeadwaterError);
      return false;
    } finally {
      worker?.terminate();
      this.#endWorker = undefined;
      if (this.#closed) this.#shared.close();
    }
  }

  #fail(error: HeadwaterError): void {
    if (!this.#closed) this.#events.failed(error);
  }

  #join(): void {
    if (!this.#closed) this.#tell({ type: "join", client: this.#client });
  }

  #joined(lock: string): void {
    if (this.#closed || this.#served === lock) return;
    this.#served = lock;
    whenReleased(lock, () => {
      if (this.#closed || this.#served !== lock) return;
      this.#served = undefined;
      this.#events.lost();
    });
    this.#events.joined();
  }

  #tell(message: ToShared): void {
    this.#shared.postMessage(message);
  }
}
