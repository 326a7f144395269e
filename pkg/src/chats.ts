/**
 * Conversations that are kept on this device, by name, in the origin's caches: any thread can write there, and an entry is kept
 * whole or not at all. They are the user's own, so `store.clear` leaves them.
 */
import { HeadwaterError, toHeadwaterError } from "./errors.js";

/** A kept conversation. */
export interface StoredChat {
  readonly name: string;
  readonly sizeBytes: number;
  /** Seconds since 1970. */
  readonly storedAt: number;
}

const CACHE = "headwater-chats";
/** Entries are requests; nobody ever sends these. */
const ROOT = "https://headwater.invalid/chats/";
const STORED = "x-stored-at";
const SIZE = "x-size";

/** See `store.chats`. */
export const chats = {
  /** Keeps what `Chat.save` gave under a name, in the place of what had it. */
  async keep(name: string, saved: Blob): Promise<void> {
    if (!(saved instanceof Blob)) throw new HeadwaterError("InvalidArgument", "saved: takes a Blob", { at: "saved" });
    const headers = { [STORED]: String(Date.now() / 1000), [SIZE]: String(saved.size) };
    await within(async (cache) => cache.put(url(name), new Response(saved, { headers })));
  },

  /** What is kept under a name, for `Chat.restore`; fails with `NotFound`. */
  async open(name: string): Promise<Blob> {
    const found = await within(async (cache) => (await cache.match(url(name)))?.blob());
    if (found === undefined) throw new HeadwaterError("NotFound", `no chat is kept as ${JSON.stringify(name)}`);
    return found;
  },

  /** All that are kept, the latest first. */
  async list(): Promise<StoredChat[]> {
    return within(async (cache) => {
      const found = await Promise.all((await cache.keys()).map(async (request) => {
        const headers = (await cache.match(request))?.headers;
        const name = decodeURIComponent(request.url.slice(ROOT.length));
        return { name, sizeBytes: Number(headers?.get(SIZE) ?? 0), storedAt: Number(headers?.get(STORED) ?? 0) };
      }));
      return found.toSorted((a, b) => b.storedAt - a.storedAt);
    });
  },

  /** Forgets one; says whether there was one. */
  async remove(name: string): Promise<boolean> {
    return within(async (cache) => cache.delete(url(name)));
  },
} as const;

function url(name: string): string {
  if (typeof name !== "string" || name === "") throw new HeadwaterError("InvalidArgument", "name: takes a text", { at: "name" });
  return ROOT + encodeURIComponent(name);
}

async function within<T>(work: (cache: Cache) => Promise<T>): Promise<T> {
  const { caches } = globalThis as { caches?: CacheStorage };
  if (caches === undefined) throw new HeadwaterError("StorageUnavailable", "this page has no caches to keep chats in");
  try {
    return await work(await caches.open(CACHE));
  } catch (thrown) {
    if (thrown instanceof DOMException && thrown.name === "QuotaExceededError") {
      throw new HeadwaterError("QuotaExceeded", "there is no room for the chat");
    }
    throw toHeadwaterError(thrown, "Io");
  }
}
