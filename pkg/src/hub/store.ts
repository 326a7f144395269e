/**
 * Named files for the hub: what the engine's logic writes to and reads from. The origin's private file system where the
 * browser lets this thread write there, else memory.
 */
import { MemoryStore } from "./memory.js";
import { OpfsStore } from "./opfs.js";

/** An open file. */
export interface HubFile {
  size(): Promise<number>;
  read(offset: number, length: number): Promise<Uint8Array>;
  write(offset: number, bytes: Uint8Array): Promise<void>;
  resize(size: number): Promise<void>;
  flush(): Promise<void>;
  close(): Promise<void>;
}

/** A lock that is held. */
export interface HubLock {
  release(): void;
}

/** Named files; names are paths of plain parts. See `Store` in `src/hub/edge.rs`. */
export interface HubStore {
  /** Whether what is stored outlives this thread. */
  readonly lasting: boolean;
  read(name: string): Promise<HubFile | undefined>;
  write(name: string): Promise<HubFile>;
  replace(name: string, bytes: Uint8Array): Promise<void>;
  list(prefix: string): Promise<string[]>;
  remove(name: string): Promise<void>;
  checkRoom(bytes: number): Promise<void>;
  tryLock(name: string): Promise<HubLock | undefined>;
  /** The file itself, to be handed to the page. */
  file(name: string): Promise<Blob>;
}

let opened: Promise<HubStore> | undefined;

/** The store of this thread. */
export function openStore(): Promise<HubStore> {
  opened ??= OpfsStore.open().then((store) => store ?? new MemoryStore());
  return opened;
}

const held = new Set<string>();

/** A lock among all tabs and workers of the origin; among this thread's calls where the browser has no locks. */
export async function tryLock(name: string): Promise<HubLock | undefined> {
  const locks = (navigator as { locks?: LockManager }).locks;
  if (locks === undefined) {
    if (held.has(name)) return undefined;
    held.add(name);
    return { release: () => held.delete(name) };
  }
  const { promise, resolve, reject } = Promise.withResolvers<HubLock | undefined>();
  locks.request(`headwater-store-${name}`, { ifAvailable: true }, (lock) => {
    if (lock === null) return resolve(undefined);
    // Held until it is released; a thread that ends lets go of it.
    const done = Promise.withResolvers<void>();
    resolve({ release: done.resolve });
    return done.promise;
  }).catch(reject);
  return promise;
}
