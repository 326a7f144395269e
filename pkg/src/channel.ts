/** A client's way to a host in a worker, and how it learns that the worker has ended. */
import { HeadwaterError } from "./errors.js";
import type { Connect, FromHost, Post, ToHost } from "./protocol.js";
import { randomName } from "./shared/locks.js";

/** A way to a host. */
export interface Channel {
  readonly post: Post<ToHost>;
  /** Lets the host go; a worker that the caller made lives on. */
  close(): void;
}

/** What a channel tells. */
export interface ChannelEvents {
  receive(message: FromHost): void;
  /** The worker has ended. */
  gone(error: HeadwaterError): void;
  /** The site's data were cleared, locks with them. */
  cleared(): void;
}

/** A worker that does not answer within this time has ended, or is too busy to be told from one that has. */
const ANSWER_MS = 500;

/** Connects to a worker, which ends with the channel if it is `ours`. */
export async function toWorker(worker: Worker, ours: boolean, events: ChannelEvents): Promise<Channel> {
  const { port1, port2 } = new MessageChannel();
  const lock = `headwater-${randomName()}`;
  const ready = Promise.withResolvers<void>();
  let state: "starting" | "open" | "closed" = "starting";
  let heard: (() => void) | undefined;

  const gone = (words: string): void => {
    const error = new HeadwaterError("WorkerGone", words);
    if (state === "open") events.gone(error);
    state = "closed";
    ready.reject(error);
  };
  const answers = (): Promise<boolean> => new Promise((resolve) => {
    heard = () => resolve(true);
    setTimeout(resolve, ANSWER_MS, false);
    port1.postMessage({ type: "ping" } satisfies ToHost);
  });
  const watch = async (): Promise<void> => {
    // Granted only once the worker, which holds it, has ended. Or the site's data were cleared: then the page sees other locks
    // than its workers until it is loaded anew, and nothing tells of this worker's end.
    await navigator.locks.request(lock, () => undefined);
    if (state !== "open") return;
    if (await answers()) events.cleared();
    else gone("the worker has ended");
  };

  worker.addEventListener("error", (event) => gone(`the worker failed: ${event.message || "its script could not be loaded"}`));
  port1.onmessage = ({ data }: MessageEvent<FromHost>) => {
    if (data.type === "pong") return heard?.();
    if (data.type !== "ready") return events.receive(data);
    state = "open";
    ready.resolve();
    if (data.locked) void watch();
  };
  worker.postMessage({ type: "headwater-connect", port: port2, lock } satisfies Connect, [port2]);
  const close = (): void => {
    state = "closed";
    port1.close();
    if (ours) worker.terminate();
  };
  try {
    await ready.promise;
  } catch (error) {
    close();
    throw error;
  }
  return { post: (message, transfer = []) => port1.postMessage(message, transfer), close };
}

/** A worker of the package's script, at `workerUrl` or where the package has it. */
export function makeWorker(workerUrl: string | undefined): Worker {
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
