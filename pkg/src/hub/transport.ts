/**
 * Requests of the hub, by fetch. What may be asked, what an answer means and when to try again is the engine's affair; here
 * are only the wires: nothing is cached, no cookie goes along, no page is named to whoever is asked.
 */
import { HeadwaterError } from "../errors.js";
import { words } from "./base.js";

/** The most that one read brings: as long as the blocks in which a transfer writes. */
const READ_BYTES = 1 << 20;

/** Nothing is cached, nothing else goes along. */
const QUIETLY = { cache: "no-store", credentials: "omit", referrerPolicy: "no-referrer" } as const;

/** An answer whose body is taken part by part. */
export class HubResponse {
  readonly status: number;
  /** The address that answered, after any redirect. */
  readonly url: string;
  readonly headers: readonly (readonly [string, string])[];
  readonly #abort: AbortController;
  readonly #read: (() => Promise<Uint8Array | undefined>) | undefined;

  constructor(answer: Response, abort: AbortController) {
    this.status = answer.status;
    this.url = answer.url;
    this.headers = [...answer.headers];
    this.#abort = abort;
    this.#read = answer.body === null ? undefined : reading(answer.body);
  }

  /** The next bytes, until they are asked for again; `undefined` at the end. */
  async next(): Promise<Uint8Array | undefined> {
    try {
      return await this.#read?.();
    } catch (error) {
      throw new HeadwaterError("Network", `the connection broke: ${words(error)}`);
    }
  }

  /** Ends the transfer. */
  cancel(): void {
    this.#abort.abort();
  }
}

/** Sends requests and sleeps. */
export class HubTransport {
  /** Aborts with `signal`, whatever is under way. */
  readonly #signal: AbortSignal;

  constructor(signal: AbortSignal) {
    this.#signal = signal;
  }

  async get(url: string, range: string | undefined, authorization: string | undefined): Promise<HubResponse> {
    const abort = new AbortController();
    const headers: Record<string, string> = {};
    if (range !== undefined) headers["Range"] = range;
    if (authorization !== undefined) headers["Authorization"] = authorization;
    const signal = AbortSignal.any([abort.signal, this.#signal]);
    let answer: Response;
    try {
      answer = await fetch(url, { ...QUIETLY, headers, signal });
    } catch (error) {
      if (this.#signal.aborted) throw new HeadwaterError("Aborted", "ended by the caller's signal");
      throw await this.#why(new URL(url), headers, error);
    }
    return new HubResponse(answer, abort);
  }

  sleep(ms: number): Promise<void> {
    return new Promise((resolve) => setTimeout(resolve, ms));
  }

  /** Browsers do not tell a missing permission from a dead wire or a broken answer; requests that ask for nothing do. */
  async #why(url: URL, headers: Record<string, string>, error: unknown): Promise<HeadwaterError> {
    const reaches = (more: RequestInit): Promise<boolean> =>
      fetch(url, { ...QUIETLY, method: "HEAD", signal: this.#signal, ...more }).then(() => true, () => false);
    if (url.origin !== location.origin && navigator.onLine) {
      if (await reaches({ mode: "no-cors" }) && !await reaches({ headers })) {
        return new HeadwaterError("CorsBlocked", `${url.origin}, or a host that it redirects to, does not allow this page to read its answer (CORS)`);
      }
    }
    return new HeadwaterError("Network", `${url.origin}: ${words(error)}`);
  }
}

/** Reads into one piece of memory again and again: memory of its own for each part would take as long as the bytes. */
function reading(body: ReadableStream<Uint8Array<ArrayBuffer>>): () => Promise<Uint8Array | undefined> {
  let reader: ReadableStreamBYOBReader;
  try {
    reader = body.getReader({ mode: "byob" });
  } catch {
    // Not every browser's answers are streams of bytes.
    const parts = body.getReader();
    return async () => (await parts.read()).value;
  }
  let room = new ArrayBuffer(READ_BYTES);
  return async () => {
    const { value, done } = await reader.read(new Uint8Array(room));
    if (value !== undefined) room = value.buffer;
    return done ? undefined : value;
  };
}
