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
import type { Asked, FromPage, ToPage } from "./protocol.js";

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

/** Answers the site's requests to `/v1/...` from these models for as long as this page lives, or until it is stopped. */
export async function serve(models: ServedModels, options: ServeOptions = {}): Promise<Serving> {
  const { script, scope, ...unknown } = options;
  const [stray] = Object.keys(unknown);
  if (stray !== undefined) throw new HeadwaterError("InvalidArgument", `${stray}: not an option of serve`, { at: stray });
  const container = (navigator as { serviceWorker?: ServiceWorkerContainer }).serviceWorker;
  if (container === undefined) {
    throw new HeadwaterError("InvalidArgument", "this browser, or this page (https and localhost only), has no service workers");
  }
  const answer = createFetch(models);
  if (script !== undefined) {
    await container.register(script, { type: "module", updateViaCache: "none", ...(scope === undefined ? {} : { scope }) }).catch((error: unknown) => {
      throw new HeadwaterError("Network", `the service worker ${String(script)} could not be registered: ${String(error)}`, { at: "script" });
    });
  }
  const registration = await container.ready;
  const open = new Set<AbortController>();
  const onMessage = ({ data, ports: [port] }: MessageEvent<ToPage | undefined>): void => {
    if (data?.type !== "headwater-request" || port === undefined) return;
    const abort = new AbortController();
    open.add(abort);
    void reply(answer, data.asked, port, abort).finally(() => open.delete(abort));
  };
  const tell = (message: FromPage): void => {
    for (const worker of new Set([registration.active, container.controller])) worker?.postMessage(message);
  };
  // A service worker that was started anew has forgotten who serves, and asks.
  const onWanted = ({ data }: MessageEvent<ToPage | undefined>): void => {
    if (data?.type === "headwater-who") tell({ type: "headwater-serves" });
  };
  container.addEventListener("message", onMessage);
  container.addEventListener("message", onWanted);
  container.startMessages();
  const controlled = new Promise<void>((resolve) => {
    if (container.controller !== null) resolve();
    else container.addEventListener("controllerchange", () => resolve(), { once: true });
  });
  // It claims the pages of its scope when it hears this, so that this page's own requests reach it from now on.
  tell({ type: "headwater-serves" });
  await controlled;
  return {
    stop: () => {
      tell({ type: "headwater-stops" });
      container.removeEventListener("message", onMessage);
      container.removeEventListener("message", onWanted);
      for (const abort of open) abort.abort();
    },
  };
}

/** Answers one request over its port, part by part; a message on the port says that the reader has gone. */
async function reply(answer: typeof fetch, asked: Asked, port: MessagePort, abort: AbortController): Promise<void> {
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
  }
}
