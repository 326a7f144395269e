/**
 * Where this thread keeps the hub's files: in the origin's private file system; where the browser has none, in its caches;
 * where it has neither, or this is a page's own thread that may not write there, in memory.
 */
import type { HubStore } from "./base.js";
import { CacheStore } from "./caches.js";
import { MemoryStore } from "./memory.js";
import { OpfsStore } from "./opfs.js";

let opened: Promise<HubStore> | undefined;

/** The store of this thread. */
export function openStore(): Promise<HubStore> {
  opened ??= probe();
  return opened;
}

async function probe(): Promise<HubStore> {
  return await OpfsStore.open() ?? await CacheStore.open() ?? new MemoryStore();
}
