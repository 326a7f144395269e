/**
 * A hub and what is around it as servers of their own, each on a port of the loopback address and so of an origin of its
 * own: a site whose pages use the package, the hub, the host that has its files behind signed addresses that expire, and a
 * stranger that only writes down who asks. Every fault is a switch.
 */
import { createHash } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { createServer, type IncomingHttpHeaders, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { extname } from "node:path";
import { gzipSync } from "node:zlib";
import type { Page } from "@playwright/test";
import type * as Headwater from "headwater";
import { inTree } from "./golden.js";
import { card, sha256 } from "./mirror.js";

/** The model that the hub has. */
export const REFERENCE = "acme/noise:Q8_0";
/** What requests of the hub need where `needsToken` is on. */
export const TOKEN = "hf_vErYsEcReTtOkEn0123456789";

/** Bytes that are written at once where a rate is kept. */
const PIECE_BYTES = 64 * 1024;
const TYPES: Record<string, string> = { ".html": "text/html", ".js": "text/javascript", ".wasm": "application/wasm" };

/** A request as a server got it. */
export interface Seen {
  readonly method: string;
  readonly url: string;
  readonly headers: IncomingHttpHeaders;
}

/** What a server does instead of the right thing. */
export interface Faults {
  /** The hub answers requests for weights with this status. */
  hubStatus: number | undefined;
  /** So many of them; then all is well. */
  hubFailures: number;
  retryAfter: string | undefined;
  /** So many answers of the file host let pages of other origins read them. */
  corsAnswers: number;
  /** Requests that one signed address is good for. */
  signedUses: number;
  /** One byte of the weights is wrong. */
  wrongByte: boolean;
  /** The file host sends so many bytes of its next answer and then no more, once. */
  stallAfter: number | undefined;
  /** The hub sends weights' requests to the stranger. */
  toStranger: boolean;
  /** The hub wants the token. */
  needsToken: boolean;
  /** The file host packs what it sends, and so sends all of it to every request. */
  gzip: boolean;
  /** Bytes a second of each connection of the file host. */
  rate: number;
}

const NONE: Faults = {
  hubStatus: undefined, hubFailures: Infinity, retryAfter: undefined, corsAnswers: Infinity, signedUses: Infinity, wrongByte: false,
  stallAfter: undefined, toStranger: false, needsToken: false, gzip: false, rate: Infinity,
};

/** The servers, once `start` brought them up. */
export class Origins {
  readonly weights: Buffer;
  readonly commit: string;
  readonly faults: Faults = { ...NONE };
  readonly seen: Record<"hub" | "files" | "stranger", Seen[]> = { hub: [], files: [], stranger: [] };
  /** Bytes of weights that the file host wrote. */
  weightBytes = 0;
  site = "";
  hub = "";
  files = "";
  stranger = "";
  /** Where nobody listens. */
  dead = "";
  readonly #repo = "acme/noise";
  readonly #servers: Server[] = [];
  readonly #signatures = new Map<string, number>();

  /** With so many bytes of weights, which may begin with a header. */
  constructor(sizeBytes: number, header: Buffer = Buffer.alloc(0)) {
    this.weights = noise(sizeBytes);
    header.copy(this.weights);
    this.commit = sha256(this.weights).slice(0, 40);
  }

  async start(): Promise<void> {
    this.hub = await this.#listen((request, response) => this.#answerHub(request, response));
    this.files = await this.#listen((request, response) => this.#answerFiles(request, response));
    this.stranger = await this.#listen((request, response) => {
      this.#note("stranger", request);
      response.writeHead(200, { "Access-Control-Allow-Origin": "*" }).end("hello");
    });
    this.dead = await this.#listen(() => {});
    this.#servers.pop()?.close();
    this.site = await this.#listen((request, response) => this.#answerSite(request, response));
  }

  stop(): void {
    this.cut();
    for (const server of this.#servers) server.close();
  }

  /** Cuts every connection. */
  cut(): void {
    for (const server of this.#servers) server.closeAllConnections();
  }

  /** Ends all faults and forgets what was counted. */
  reset(): void {
    Object.assign(this.faults, NONE);
    for (const seen of Object.values(this.seen)) seen.length = 0;
    this.weightBytes = 0;
  }

  /** How the package is to be told of these hosts. */
  get options(): { endpoint: string; policy: { hosts: string[] } } {
    return { endpoint: this.hub, policy: { hosts: [new URL(this.files).host] } };
  }

  /** Requests of all kinds. */
  get requests(): number {
    return this.seen.hub.length + this.seen.files.length + this.seen.stranger.length;
  }

  async #listen(answer: (request: IncomingMessage, response: ServerResponse) => void): Promise<string> {
    const server = createServer(answer);
    this.#servers.push(server);
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  }

  #note(server: keyof Origins["seen"], { method = "", url = "", headers }: IncomingMessage): void {
    this.seen[server].push({ method, url, headers });
  }

  /** The site: an empty page and the package, with a policy that names whom its pages may ask. */
  #answerSite(request: IncomingMessage, response: ServerResponse): void {
    const path = new URL(request.url ?? "/", this.site).pathname;
    const file = inTree(path === "/" ? "tests/browser/blank.html" : path.slice(1));
    if (!/^\/(pkg\/|$)/.test(path) || path.includes("..") || !existsSync(file)) return void response.writeHead(404).end();
    response.writeHead(200, {
      "Content-Type": TYPES[extname(file)] ?? "application/octet-stream",
      "Content-Security-Policy": `default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; connect-src 'self' ${this.hub} ${this.files} ${this.stranger} ${this.dead}`,
    }).end(readFileSync(file));
  }

  #answerHub(request: IncomingMessage, response: ServerResponse): void {
    this.#note("hub", request);
    const cors = {
      "Access-Control-Allow-Origin": "*", "Access-Control-Allow-Headers": "authorization, range",
      "Access-Control-Expose-Headers": "X-Error-Code, X-Error-Message, Content-Range, Retry-After, Link",
    };
    if (request.method === "OPTIONS") return void response.writeHead(204, cors).end();
    if (this.faults.needsToken && request.headers.authorization !== `Bearer ${TOKEN}`) return void response.writeHead(401, cors).end();
    const path = new URL(request.url ?? "/", this.hub).pathname;
    const api = `/api/models/${this.#repo}`;
    const json = (value: unknown): void => void response.writeHead(200, { ...cors, "Content-Type": "application/json" }).end(JSON.stringify(value));
    if (path === `${api}/revision/main`) return json({ sha: this.commit, gated: false });
    const readme = card("apache-2.0");
    if (path === `${api}/tree/${this.commit}`) {
      return json([
        { type: "file", path: "README.md", size: readme.length, oid: createHash("sha1").update(`blob ${readme.length}\0`).update(readme).digest("hex") },
        { type: "file", path: "noise-Q8_0.gguf", size: this.weights.length, oid: "0".repeat(40), lfs: { oid: sha256(this.weights), size: this.weights.length } },
      ]);
    }
    const resolve = `/${this.#repo}/resolve/${this.commit}`;
    if (path === `${resolve}/README.md`) return void response.writeHead(200, cors).end(readme);
    if (path !== `${resolve}/noise-Q8_0.gguf`) return void response.writeHead(404, { ...cors, "X-Error-Code": "EntryNotFound" }).end();
    if (this.faults.hubStatus !== undefined && this.faults.hubFailures-- > 0) {
      const after: Record<string, string> = this.faults.retryAfter === undefined ? {} : { "Retry-After": this.faults.retryAfter };
      return void response.writeHead(this.faults.hubStatus, { ...cors, ...after }).end(`refused; ${request.headers.authorization ?? ""}`);
    }
    const signature = sha256(Buffer.from(`${this.commit} ${this.#signatures.size}`));
    this.#signatures.set(signature, 0);
    const to = this.faults.toStranger ? this.stranger : this.files;
    response.writeHead(302, { ...cors, Location: `${to}/blob?X-Signature=${signature}` }).end();
  }

  #answerFiles(request: IncomingMessage, response: ServerResponse): void {
    this.#note("files", request);
    const cors: Record<string, string> = this.faults.corsAnswers-- > 0
      ? { "Access-Control-Allow-Origin": "*", "Access-Control-Allow-Headers": "range", "Access-Control-Expose-Headers": "Content-Range" }
      : {};
    if (request.method !== "GET") return void response.writeHead(204, cors).end();
    const signature = new URL(request.url ?? "/", this.files).searchParams.get("X-Signature") ?? "";
    const uses = this.#signatures.get(signature);
    if (uses === undefined || uses >= this.faults.signedUses) return void response.writeHead(403, cors).end("Request has expired");
    this.#signatures.set(signature, uses + 1);
    const [first = 0, last = this.weights.length - 1] = (request.headers.range ?? "").replace("bytes=", "").split("-").filter((text) => text !== "").map(Number);
    let body = this.weights.subarray(first, last + 1);
    if (this.faults.wrongByte && first === 0) {
      body = Buffer.from(body);
      body[100] = (body[100] ?? 0) ^ 1;
    }
    if (this.faults.gzip) {
      body = gzipSync(this.weights, { level: 1 });
      response.writeHead(200, { ...cors, "Content-Encoding": "gzip", "Content-Length": body.length });
    } else {
      response.writeHead(request.headers.range === undefined ? 200 : 206, {
        ...cors, "Content-Length": body.length, "Content-Range": `bytes ${first}-${first + body.length - 1}/${this.weights.length}`,
      });
    }
    void this.#send(body, response);
  }

  /** Writes a body, as fast as it may come. */
  async #send(body: Buffer, response: ServerResponse): Promise<void> {
    // As they are when the answer begins: one that nobody reads any more must not become faster with the next.
    const { rate, stallAfter: stall } = this.faults;
    this.faults.stallAfter = undefined;
    const closed = new Promise<void>((resolve) => response.once("close", () => resolve()));
    for (let at = 0; at < body.length && !response.destroyed; at += PIECE_BYTES) {
      if (stall !== undefined && at >= stall) return;
      const piece = body.subarray(at, at + PIECE_BYTES);
      this.weightBytes += piece.length;
      await Promise.race([closed, new Promise<void>((resolve) => response.write(piece, () => resolve()))]);
      if (rate !== Infinity) await new Promise((resolve) => setTimeout(resolve, (piece.length / rate) * 1000));
    }
    response.end();
  }
}

/** Bytes that look like nothing, the same ones every time. */
function noise(sizeBytes: number): Buffer {
  const bytes = Buffer.alloc(sizeBytes);
  let state = 0x2545f491;
  for (let at = 0; at + 4 <= sizeBytes; at += 4) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    bytes.writeInt32LE(state | 0, at);
  }
  return bytes;
}

/** Makes a page of the site one that has the package at hand, as `lab.ts` does for the demo's origin. */
export async function openSite(page: Page, origins: Origins): Promise<void> {
  await page.goto(origins.site);
  await page.evaluate(async () => {
    const url = "/pkg/dist/index.js";
    globalThis.headwater = (await import(url)) as typeof Headwater;
  });
}
