/**
 * A `fetch` that answers requests to `/v1/...` from models of this page, so that clients of OpenAI's interface work as they
 * are by being handed it. Nothing leaves the page; the host of the address does not matter.
 */
import { HeadwaterError, toHeadwaterError } from "../errors.js";
import { chat, embeddings, text, type Served } from "./completions.js";
import { RequestError, toAnswer } from "./errors.js";
import { isObject, type Body } from "./request.js";
import { find, list, named } from "./served.js";
import type { CallOptions, ServedModel, ServedModels } from "./types.js";

type Answer = object | AsyncGenerator<object>;
type Post = (served: Served, body: Body, call: CallOptions) => Promise<Answer>;

const POSTS: Readonly<Record<string, Post>> = { "chat/completions": chat, completions: text, embeddings };

/** A `fetch` over `models`: one, which requests call by its own name, or several by yours. */
export function createFetch(models: ServedModels): typeof fetch {
  const byName = named(models);
  return async (input, init) => {
    const request = new Request(input, init);
    const { signal } = request;
    const path = pathOf(request);
    try {
      signal.throwIfAborted();
      const answer = await serve(byName, path, request);
      return Symbol.asyncIterator in answer ? await stream(answer, path, signal) : json(200, answer);
    } catch (thrown) {
      // As `fetch` itself ends.
      if (signal.aborted) throw signal.reason;
      return failed(toHeadwaterError(thrown), path);
    }
  };
}

/** What follows `/v1/`, if anything does. */
function pathOf(request: Request): string {
  return /\/v1\/(.+?)\/?$/.exec(new URL(request.url).pathname)?.[1] ?? "";
}

async function serve(models: ReadonlyMap<string, ServedModel>, path: string, request: Request): Promise<Answer> {
  const post = Object.hasOwn(POSTS, path) ? POSTS[path] : undefined;
  if (post !== undefined) {
    checkMethod(request, "POST");
    const body: unknown = await request.json().catch(() => undefined);
    if (!isObject(body)) throw new RequestError("invalid_value", "", "The body of the request is not a JSON object.");
    return post(find(models, body["model"]), body, { signal: request.signal });
  }
  if (path === "models" || path.startsWith("models/")) {
    checkMethod(request, "GET");
    if (path === "models") return list(models);
    const { name } = find(models, decodeURIComponent(path.slice("models/".length)));
    return list(models).data.find(({ id }) => id === name) ?? {};
  }
  throw new RequestError("unknown_url", "", `Unknown request URL: ${request.method} ${new URL(request.url).pathname}.`);
}

function checkMethod(request: Request, method: string): void {
  if (request.method !== method) {
    throw new RequestError("method_not_supported", "", `Not allowed to ${request.method} here; use ${method}.`);
  }
}

/** Server-sent events. The first part is awaited, so that what fails before it has a status of its own. */
async function stream(parts: AsyncGenerator<object>, path: string, signal: AbortSignal): Promise<Response> {
  const encoder = new TextEncoder();
  const event = (data: string): Uint8Array => encoder.encode(`data: ${data}\n\n`);
  let next: IteratorResult<object> | undefined = await parts.next();
  const body = new ReadableStream<Uint8Array>({
    async pull(controller) {
      try {
        const part = next ?? await parts.next();
        next = undefined;
        if (part.done !== true) return controller.enqueue(event(JSON.stringify(part.value)));
        controller.enqueue(event("[DONE]"));
      } catch (thrown) {
        if (signal.aborted) return controller.error(signal.reason);
        controller.enqueue(event(JSON.stringify(toAnswer(toHeadwaterError(thrown), path).body)));
      }
      controller.close();
    },
    async cancel() {
      await parts.return(undefined);
    },
  });
  return new Response(body, { headers: { "Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-cache" } });
}

function json(status: number, body: object, headers: Readonly<Record<string, string>> = {}): Response {
  return new Response(JSON.stringify(body), { status, headers: { "Content-Type": "application/json", ...headers } });
}

function failed(error: HeadwaterError, path: string): Response {
  const { status, body } = toAnswer(error, path);
  // Clients would try a failure of the server again by themselves.
  return json(status, body, { "x-should-retry": String(error.retryable) });
}
