/**
 * `/v1/...` of OpenAI's interface for a whole site, from models of one of its pages: a service worker takes the site's own
 * requests and hands them to a page that serves. Nothing leaves the browser, and whoever asks needs no import at all.
 *
 * The page: `await serve(models, { script: "/sw.js" })`. The script `/sw.js` is yours, with one line:
 * `import "headwater/service-worker/worker";`.
 */
import { HeadwaterError } from "../errors.js";
import { createFetch } from "../openai/fetch.js";
import type { ServedModels } from "../openai/types.js";
import type { Asked, FromPage, Part, ToPage } from "./protocol.js";

/** Options of `serve`. */
export interface ServeOptions {
  /** Registers this script as the service worker; without it the one that controls the site already is meant. */
  script?: string | URL;
  /** What the script's registration is for; the folder of the script by default. */
  scope?: string;
}

/** What is served, until it is stopped. */
export interface Serving {
  /** Requests are not answered by this page any more; those under way end. */
  stop(): void;
}

/** One call of `serve`: what answers, and what it is answering. */
interface Server {
  readonly answer: typeof fetch;
  readonly open: Set<AbortController>;
}

/** Those of this page, the latest last; the latest answers. */
const servers: Server[] = [];

/** Answers the site's requests to `/v1/...` from these models for as long as this page lives, or until it is stopped. */
export async function serve(models: ServedModels, options: ServeOptions = {}): Promise<Serving> {
  const { script, scope, ...unknown } = options;
  const [stray] = Object.keys(unknown);
  if (stray !== undefined) throw new HeadwaterError("InvalidArgument", `${stray}: not an option of serve`, { at: stray });
  const container = (navigator as { serviceWorker?: ServiceWorkerContainer }).serviceWorker;
  if (container === undefined) {
    throw new HeadwaterError("InvalidArgument", "this browser, or this page (https and localhost only), has no service workers");
  }
  const server: Server = { answer: createFetch(models), open: new Set() };
  if (script !== undefined) {
    await container.register(script, { type: "module", updateViaCache: "none", ...(scope === undefined ? {} : { scope }) }).catch((error: unknown) => {
      throw new HeadwaterError("Network", `the service worker ${String(script)} could not be registered: ${String(error)}`, { at: "script" });
    });
  }
  const { active } = await container.ready;
  const controlled = new Promise<void>((resolve) => {
    if (container.controller !== null) resolve();
    else container.addEventListener("controllerchange", () => resolve(), { once: true });
  });
  // The same function each time, which a container takes once. It stays: a request may be on its way when the last stops.
  container.addEventListener("message", onMessage);
  container.startMessages();
  servers.push(server);
  // It claims the pages of its scope when it hears this, so that this page's own requests reach it from now on.
  tell({ type: "headwater-serves" }, active);
  await controlled;
  return {
    stop: () => {
      const at = servers.indexOf(server);
      if (at < 0) return;
      servers.splice(at, 1);
      if (servers.length === 0) tell({ type: "headwater-stops" }, active);
      for (const abort of server.open) abort.abort();
    },
  };
}

/** To the service worker of `serve`, and to the one that controls this page, should it be another. */
function tell(message: FromPage, active?: ServiceWorker | null): void {
  for (const worker of new Set([active, navigator.serviceWorker.controller])) worker?.postMessage(message);
}

function onMessage({ data, source, ports: [port] }: MessageEvent<ToPage | undefined>): void {
  const server = servers.at(-1);
  switch (data?.type) {
    case "headwater-who":
      // It was started anew and has forgotten who serves.
      if (server !== undefined) tell({ type: "headwater-serves" }, source as ServiceWorker | null);
      return;
    case "headwater-request":
      // Requests and messages reach the worker in no certain order: it may not have heard yet that this page stopped.
      if (server === undefined) port?.postMessage({ type: "gone" } satisfies Part);
      else if (port !== undefined) void reply(server, data.asked, port);
      return;
    case undefined:
    default:
      return;
  }
}

/** Answers one request over its port, part by part; a message on the port says that the reader has gone. */
async function reply({ answer, open }: Server, asked: Asked, port: MessagePort): Promise<void> {
  const abort = new AbortController();
  open.add(abort);
  port.onmessage = () => abort.abort();
  try {
    const { url, method, headers, body } = asked;
    const response = await answer(url, { method, headers: new Headers(headers.map(([name, value]) => [name, value])), body: body ?? null, signal: abort.signal });
    port.postMessage({ type: "head", status: response.status, headers: [...response.headers] });
    for (let reader = response.body?.getReader(); reader !== undefined;) {
      const { done, value } = await reader.read();
      if (done) break;
      port.postMessage({ type: "bytes", bytes: value });
    }
    port.postMessage({ type: "end" });
  } catch (error) {
    port.postMessage({ type: "failed", words: error instanceof Error ? error.message : String(error) });
  } finally {
    open.delete(abort);
  }
}
