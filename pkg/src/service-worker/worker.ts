/**
 * The service worker's side: importing it makes the worker take the site's own requests to `/v1/...` and hand each to a page
 * that serves (`serve` of `headwater/service-worker`). All other requests go on as if it were not there.
 */
import type { Asked, FromPage, Part, ToPage } from "./protocol.js";

/** What there is of the service worker's own scope; the standard library knows it only instead of the page's. */
interface Scope {
  readonly location: Location;
  readonly registration: { readonly scope: string };
  readonly clients: {
    get(id: string): Promise<Client | undefined>;
    matchAll(options: { includeUncontrolled: boolean; type: "window" }): Promise<readonly Client[]>;
    claim(): Promise<void>;
  };
  skipWaiting(): Promise<void>;
  addEventListener(type: "fetch", listener: (event: FetchEvent) => void): void;
  addEventListener(type: "message", listener: (event: Event & { readonly data: unknown; readonly source: Client | null }) => void): void;
  addEventListener(type: "install" | "activate", listener: (event: Extended) => void): void;
}
interface Client {
  readonly id: string;
  postMessage(message: ToPage, transfer?: Transferable[]): void;
}
interface Extended extends Event {
  waitUntil(work: Promise<unknown>): void;
}
interface FetchEvent extends Extended {
  readonly request: Request;
  respondWith(answer: Promise<Response>): void;
}

/** How long pages have to say that they serve, after a start of this worker; milliseconds. */
const CALL_MS = 1000;
/** How often it is looked whether a page that answers is still there; milliseconds. */
const LOOK_MS = 1000;

const scope = globalThis as unknown as Scope;
/** Pages that serve, the latest last. They are not kept when the browser ends this worker, which then asks anew. */
const serving = new Set<string>();
let called: Promise<void> | undefined;
let heard: () => void = () => {};

scope.addEventListener("install", (event) => event.waitUntil(scope.skipWaiting()));
scope.addEventListener("message", ({ data, source }) => {
  if (source === null) return;
  const { type } = (data ?? {}) as Partial<FromPage>;
  if (type === "headwater-serves") {
    serving.add(source.id);
    heard();
    // Pages that were open before this worker, or were reloaded past it, are served too.
    void scope.clients.claim();
  } else if (type === "headwater-stops") serving.delete(source.id);
});
scope.addEventListener("fetch", (event) => {
  const { origin, pathname } = new URL(event.request.url);
  const own = [new URL("v1/", scope.registration.scope).pathname, "/v1/"];
  if (origin !== scope.location.origin || !own.some((start) => pathname.startsWith(start))) return;
  const done = Promise.withResolvers<void>();
  event.respondWith(answer(event.request, done.resolve));
  // The browser may end this worker once nothing is open any more, a body that is being read included.
  event.waitUntil(done.promise);
});

async function answer(request: Request, whenDone: () => void): Promise<Response> {
  try {
    return await handedOver(request, whenDone);
  } catch (error) {
    whenDone();
    throw error;
  }
}

async function handedOver(request: Request, whenDone: () => void): Promise<Response> {
  const body = request.method === "GET" || request.method === "HEAD" ? undefined : await request.blob();
  const asked: Asked = { url: request.url, method: request.method, headers: [...request.headers], ...(body === undefined ? {} : { body }) };
  for (;;) {
    const page = await whoServes();
    if (page === undefined) {
      whenDone();
      return refused();
    }
    const response = await handOver(page, asked, request.signal, whenDone);
    if (response !== undefined) return response;
    serving.delete(page.id);
  }
}

/** The page that began to serve last and is still there. */
async function whoServes(): Promise<Client | undefined> {
  for (const id of [...serving].reverse()) {
    const page = await scope.clients.get(id);
    if (page !== undefined) return page;
    serving.delete(id);
  }
  called ??= call().finally(() => {
    called = undefined;
  });
  await called;
  const [id] = [...serving].slice(-1);
  return id === undefined ? undefined : scope.clients.get(id);
}

/** Asks all pages whether they serve; one that does answers at once. */
async function call(): Promise<void> {
  const answered = new Promise<void>((resolve) => {
    heard = resolve;
    setTimeout(resolve, CALL_MS);
  });
  for (const page of await scope.clients.matchAll({ includeUncontrolled: true, type: "window" })) page.postMessage({ type: "headwater-who" });
  await answered;
}

/** The answer of a page, as it comes; none when the page says that it stopped. */
function handOver(page: Client, asked: Asked, signal: AbortSignal, whenDone: () => void): Promise<Response | undefined> {
  const { port1, port2 } = new MessageChannel();
  const { promise, resolve, reject } = Promise.withResolvers<Response | undefined>();
  let controller: ReadableStreamDefaultController<Uint8Array> | undefined;
  const close = (): void => {
    clearInterval(looking);
    signal.removeEventListener("abort", giveUp);
    port1.close();
  };
  const end = (): void => {
    close();
    whenDone();
  };
  const fail = (words: string): void => {
    const error = new TypeError(words);
    controller?.error(error);
    reject(error);
    end();
  };
  const giveUp = (): void => {
    port1.postMessage("gone");
    end();
  };
  const looking = setInterval(async () => {
    if (await scope.clients.get(page.id) === undefined) fail("the page that served the model was closed");
  }, LOOK_MS);
  signal.addEventListener("abort", giveUp, { once: true });
  const body = new ReadableStream<Uint8Array>({
    start: (own) => {
      controller = own;
    },
    cancel: giveUp,
  });
  port1.onmessage = ({ data }: MessageEvent<Part>) => {
    switch (data.type) {
      case "head":
        return resolve(new Response(body, { status: data.status, headers: data.headers.map(([name, value]) => [name, value]) }));
      case "bytes":
        return controller?.enqueue(data.bytes);
      case "end":
        controller?.close();
        return end();
      case "gone":
        close();
        return resolve(undefined);
      case "failed":
        return fail(data.words);
      default:
        return data satisfies never;
    }
  };
  page.postMessage({ type: "headwater-request", asked }, [port2]);
  return promise;
}

function refused(): Response {
  const error = { message: "No page of this site serves a model at the moment.", type: "server_error", param: null, code: "model_not_loaded" };
  return new Response(JSON.stringify({ error }), { status: 503, headers: { "Content-Type": "application/json", "x-should-retry": "false" } });
}
