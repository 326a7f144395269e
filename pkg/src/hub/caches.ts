/**
 * Files in the browser's caches, where it has no private file system: a file is cut into chunks, each an entry of its own,
 * because entries are written whole. A chunk that is being written stays in memory until another one is, or until a flush, so
 * that a crash may cost what came since; the log of a transfer knows nothing of it then either.
 */
import { HeadwaterError } from "../errors.js";
import { freeBytes, guarded, HubStore, lost, type HubFile } from "./base.js";

const CACHE = "headwater";
/** Entries are requests; nobody ever sends these. The name's path is the file's, `?n` its n-th chunk, no query its size. */
const ROOT = "https://headwater.invalid/";
/** As long as the blocks in which a transfer writes. */
const CHUNK_BYTES = 1 << 20;

export class CacheStore extends HubStore {
  readonly #cache: Cache;

  private constructor(cache: Cache) {
    super();
    this.#cache = cache;
  }

  /**
   * Opens it; `undefined` where this browser has none, or where it has a private file system: a page's own thread that cannot
   * write there must not fill another place that workers do not see.
   */
  static async open(): Promise<CacheStore | undefined> {
    const { caches } = globalThis as { caches?: CacheStorage };
    const hasFiles = (navigator as { storage?: Partial<StorageManager> }).storage?.getDirectory !== undefined;
    const inPage = "document" in globalThis;
    if (caches === undefined || (hasFiles && inPage)) return undefined;
    try {
      const cache = await caches.open(CACHE);
      // Some private windows have the interface and keep nothing.
      await cache.put(`${ROOT}probe`, new Response("0"));
      return (await cache.match(`${ROOT}probe`)) === undefined ? undefined : new CacheStore(cache);
    } catch {
      return undefined;
    }
  }

  async read(name: string): Promise<HubFile | undefined> {
    const size = await this.#size(name);
    return size === undefined ? undefined : new CacheFile(this.#cache, name, size);
  }

  async write(name: string): Promise<HubFile> {
    const size = await this.#size(name);
    const file = new CacheFile(this.#cache, name, size ?? 0);
    if (size === undefined) await file.resize(0);
    return file;
  }

  async list(prefix: string): Promise<string[]> {
    const keys = await guarded(prefix, () => this.#cache.keys());
    const names = keys.filter(({ url }) => !url.includes("?")).map(({ url }) => url.slice(ROOT.length));
    return names.filter((name) => name.startsWith(prefix) && name !== "probe");
  }

  async remove(name: string): Promise<void> {
    // The size first: without it the file is not there, whatever is left of it.
    await guarded(name, () => this.#cache.delete(ROOT + name));
    await guarded(name, async () => {
      for (const { url } of await this.#cache.keys()) {
        if (url.startsWith(`${ROOT}${name}?`)) await this.#cache.delete(url);
      }
    });
  }

  /** Browsers only guess here, so that a guess of too little is believed and nothing else is. */
  async checkRoom(bytes: number): Promise<void> {
    const free = await freeBytes();
    if (free !== undefined && bytes > free) throw new HeadwaterError("QuotaExceeded", `${bytes} bytes have to be kept, and the browser speaks of ${free} bytes free`);
  }

  /** Put together of the chunks' own blobs, which lie on the disk. */
  async file(name: string): Promise<Blob> {
    const size = await this.#size(name);
    if (size === undefined) throw lost(name);
    const chunks: Blob[] = [];
    for (let n = 0; n * CHUNK_BYTES < size; n++) chunks.push(await this.#chunk(name, n));
    return new Blob(chunks).slice(0, size);
  }

  async #chunk(name: string, n: number): Promise<Blob> {
    const entry = await guarded(name, () => this.#cache.match(chunkUrl(name, n)));
    if (entry === undefined) throw new HeadwaterError("StorageLost", `${name}: a part of it is not there any more`);
    return entry.blob();
  }

  async #size(name: string): Promise<number | undefined> {
    const entry = await guarded(name, () => this.#cache.match(ROOT + name));
    return entry && Number(await entry.text());
  }
}

function chunkUrl(name: string, n: number): string {
  return `${ROOT}${name}?${n}`;
}

/** An open file. One writer at a time: see `HubStore.tryLock`. */
class CacheFile implements HubFile {
  readonly #cache: Cache;
  readonly #name: string;
  #size: number;
  /** The size that is written down. */
  #told: number;
  /** The chunk that is being written. */
  #open: { readonly n: number; readonly bytes: Uint8Array<ArrayBuffer> } | undefined;
  /** Writes wait for each other: each may begin with a chunk that the one before has to put away. */
  #turn: Promise<unknown> = Promise.resolve();

  constructor(cache: Cache, name: string, size: number) {
    this.#cache = cache;
    this.#name = name;
    this.#size = size;
    this.#told = size;
  }

  size(): Promise<number> {
    return Promise.resolve(this.#size);
  }

  read(offset: number, length: number): Promise<Uint8Array> {
    return this.#inTurn(async () => {
      const end = Math.min(offset + length, this.#size);
      const bytes = new Uint8Array(Math.max(end - offset, 0));
      for (let at = offset; at < end;) {
        const n = Math.floor(at / CHUNK_BYTES);
        const from = at - n * CHUNK_BYTES;
        const part = (await this.#chunk(n)).subarray(from, from + end - at);
        bytes.set(part, at - offset);
        // What was never written is zero.
        at += Math.max(part.length, Math.min(CHUNK_BYTES - from, end - at));
      }
      return bytes;
    });
  }

  write(offset: number, given: Uint8Array): Promise<void> {
    const bytes = given.slice();
    return this.#inTurn(async () => {
      for (let at = 0; at < bytes.length;) {
        const n = Math.floor((offset + at) / CHUNK_BYTES);
        const from = offset + at - n * CHUNK_BYTES;
        const part = bytes.subarray(at, at + CHUNK_BYTES - from);
        if (this.#open?.n !== n) {
          await this.#putAway();
          const chunk = new Uint8Array(CHUNK_BYTES);
          if (part.length < CHUNK_BYTES) chunk.set(await this.#chunk(n));
          this.#open = { n, bytes: chunk };
        }
        this.#open.bytes.set(part, from);
        at += part.length;
        this.#size = Math.max(this.#size, offset + at);
      }
    });
  }

  resize(size: number): Promise<void> {
    return this.#inTurn(async () => {
      await this.#putAway();
      for (let n = Math.ceil(size / CHUNK_BYTES); n * CHUNK_BYTES < this.#size; n++) await this.#cache.delete(chunkUrl(this.#name, n));
      const last = Math.floor(size / CHUNK_BYTES);
      if (size < this.#size && size % CHUNK_BYTES !== 0) await this.#put(last, (await this.#chunk(last)).slice(0, size % CHUNK_BYTES));
      this.#size = size;
      await this.#tell();
    });
  }

  flush(): Promise<void> {
    return this.#inTurn(async () => {
      await this.#putAway();
      if (this.#told !== this.#size) await this.#tell();
    });
  }

  close(): Promise<void> {
    return this.flush();
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const done = this.#turn.then(() => guarded(this.#name, work));
    this.#turn = done.catch(() => undefined);
    return done;
  }

  /** The bytes of a chunk; none where nothing of it was written. */
  async #chunk(n: number): Promise<Uint8Array> {
    if (this.#open?.n === n) return this.#open.bytes;
    const entry = await this.#cache.match(chunkUrl(this.#name, n));
    return entry === undefined ? new Uint8Array() : new Uint8Array(await entry.arrayBuffer());
  }

  async #putAway(): Promise<void> {
    const open = this.#open;
    if (open === undefined) return;
    await this.#put(open.n, open.bytes.subarray(0, Math.min(CHUNK_BYTES, this.#size - open.n * CHUNK_BYTES)));
    this.#open = undefined;
  }

  async #put(n: number, bytes: Uint8Array<ArrayBuffer>): Promise<void> {
    await this.#cache.put(chunkUrl(this.#name, n), new Response(bytes));
  }

  async #tell(): Promise<void> {
    await this.#cache.put(ROOT + this.#name, new Response(String(this.#size)));
    this.#told = this.#size;
  }
}
