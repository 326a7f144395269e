/**
 * A mirror of the hub at the page's own origin, played by the browser's driver: the API and the files of one repository,
 * counted, and bent where a test asks for it. Hubs of other origins, with real sockets, are in `origins.ts`.
 */
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import type { BrowserContext, Route } from "@playwright/test";
import { inTree } from "./golden.js";

/** The model that the mirror has, as the page names it. */
export const REFERENCE = "tiny/assistant:Q8_0";

/** A model card that tells a licence. */
export function card(license: string): Buffer {
  return Buffer.from(`---\nlicense: ${license}\n---\n# Tiny\n`);
}

/** What is sent in place of the right answer; nothing where it is right. */
export type Bend = (path: string, range: readonly [number, number] | undefined, count: number) => { status?: number; body?: Buffer } | undefined;

/** A mirror, once `serve` put it into a context. */
export class Mirror {
  readonly weights = readFileSync(inTree("www/models/tiny-assistant/tiny-assistant-q8_0.gguf"));
  readonly files = new Map([["README.md", card("llama3.2")], ["tiny-Q8_0.gguf", this.weights]]);
  readonly commit = sha256(this.weights).slice(0, 40);
  /** Requests of every kind. */
  requests = 0;
  /** Bytes of weights that were sent. */
  weightBytes = 0;
  bend: Bend = () => undefined;
  /** Awaited before an answer is sent. */
  pause: (path: string, range: readonly [number, number] | undefined) => Promise<void> = () => Promise.resolve();
  readonly #repo: string;

  constructor(repo = "tiny/assistant") {
    this.#repo = repo;
  }

  /** Answers for `/mirror/`, or another folder, in every page and worker of a context. */
  async serve(context: BrowserContext, folder = "mirror"): Promise<void> {
    await context.route(`**/${folder}/**`, (route) => this.#answer(route, folder));
  }

  async #answer(route: Route, folder: string): Promise<void> {
    this.requests += 1;
    const path = new URL(route.request().url()).pathname.slice(1 + folder.length);
    // Another mirror may have its repository in the same folder.
    if (!path.includes(`/${this.#repo}/`)) return route.fallback();
    const header = route.request().headers()["range"];
    const range = header === undefined ? undefined : header.replace("bytes=", "").split("-").map(Number) as [number, number];
    await this.pause(path, range);
    const bent = this.bend(path, range, this.requests);
    if (bent?.status !== undefined) return route.fulfill({ status: bent.status, body: bent.body ?? "" });
    const body = bent?.body ?? this.#body(path);
    if (body === undefined) return route.fulfill({ status: 404, headers: { "X-Error-Code": "EntryNotFound" }, body: "" });
    const part = range === undefined ? body : body.subarray(range[0], range[1] + 1);
    if (path.endsWith(".gguf")) this.weightBytes += part.length;
    const contentRange: Record<string, string> = range === undefined
      ? {}
      : { "Content-Range": `bytes ${range[0]}-${range[0] + part.length - 1}/${body.length}` };
    return route.fulfill({ status: range === undefined ? 200 : 206, headers: contentRange, body: part });
  }

  #body(path: string): Buffer | undefined {
    const json = (value: unknown): Buffer => Buffer.from(JSON.stringify(value));
    const api = `/api/models/${this.#repo}`;
    if (path === `${api}/revision/main` || path === `${api}/revision/${this.commit}`) return json({ sha: this.commit, gated: false });
    if (path === `${api}/tree/${this.commit}`) {
      return json([...this.files].map(([name, bytes]) => ({
        type: "file",
        path: name,
        size: bytes.length,
        oid: createHash("sha1").update(`blob ${bytes.length}\0`).update(bytes).digest("hex"),
        ...(name.endsWith(".gguf") ? { lfs: { oid: sha256(bytes), size: bytes.length } } : {}),
      })));
    }
    const prefix = `/${this.#repo}/resolve/${this.commit}/`;
    return path.startsWith(prefix) ? this.files.get(path.slice(prefix.length)) : undefined;
  }
}

/** SHA-256 in hexadecimal digits. */
export function sha256(bytes: Buffer): string {
  return createHash("sha256").update(bytes).digest("hex");
}
