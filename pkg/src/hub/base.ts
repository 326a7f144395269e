/** What the hub's logic asks of a store of named files, and what all stores have in common. See `Store` in `src/hub/edge.rs`. */
import { HeadwaterError } from "../errors.js";
import { findShared, share } from "./shared.js";

/** An open file. */
export interface HubFile {
  size(): Promise<number>;
  read(offset: number, length: number): Promise<Uint8Array>;
  /** The bytes are another call's as soon as this one returns, before its promise is kept. */
  write(offset: number, bytes: Uint8Array): Promise<void>;
  resize(size: number): Promise<void>;
  flush(): Promise<void>;
  close(): Promise<void>;
}

/** A lock that is held. */
export interface HubLock {
  release(): void;
}

/** Named files; names are paths of plain parts. */
export abstract class HubStore {
  abstract read(name: string): Promise<HubFile | undefined>;
  abstract write(name: string): Promise<HubFile>;
  abstract list(prefix: string): Promise<string[]>;
  abstract remove(name: string): Promise<void>;
  abstract checkRoom(bytes: number): Promise<void>;
  /** The file itself, to be handed to the page. */
  abstract file(name: string): Promise<Blob>;

  async replace(name: string, bytes: Uint8Array): Promise<void> {
    const file = await this.write(name);
    try {
      // Emptied first: what a crash leaves is the beginning of a record, which is none.
      await file.resize(0);
      await file.write(0, bytes);
      await file.flush();
    } finally {
      await file.close();
    }
  }

  tryLock(name: string): Promise<HubLock | undefined> {
    return tryLock(name);
  }

  /** What other sites shared under that SHA-256; nothing vouches for it. */
  async findShared(sha256: string): Promise<HubFile | undefined> {
    const found = await findShared(sha256);
    return found && new ReadFile(found);
  }

  /** Offers a verified file to other sites: to all of them where `isPublic`, else to those of this site. */
  async share(name: string, sha256: string, isPublic: boolean): Promise<void> {
    await share(sha256, isPublic, () => this.file(name));
  }
}

/** A file that is only read. */
export class ReadFile implements HubFile {
  readonly #blob: Blob;

  constructor(blob: Blob) {
    this.#blob = blob;
  }

  size(): Promise<number> {
    return Promise.resolve(this.#blob.size);
  }

  async read(offset: number, length: number): Promise<Uint8Array> {
    return guarded("a stored file", async () => new Uint8Array(await this.#blob.slice(offset, offset + length).arrayBuffer()));
  }

  write(): Promise<void> {
    return Promise.reject(new HeadwaterError("Internal", "the file is open for reading"));
  }

  resize(): Promise<void> {
    return this.write();
  }

  flush(): Promise<void> {
    return Promise.resolve();
  }

  close(): Promise<void> {
    return Promise.resolve();
  }
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

/** What the browser throws, by its meaning. */
const KINDS = {
  NotFoundError: "NotFound",
  QuotaExceededError: "QuotaExceeded",
  NoModificationAllowedError: "StorageBusy",
  InvalidStateError: "StorageLost",
  NotReadableError: "StorageLost",
  SecurityError: "StorageUnavailable",
  NotAllowedError: "StorageUnavailable",
} as const satisfies Record<string, HeadwaterError["kind"]>;

export async function guarded<T>(name: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof HeadwaterError) throw error;
    const kind = error instanceof Error && Object.hasOwn(KINDS, error.name) ? KINDS[error.name as keyof typeof KINDS] : "Io";
    throw new HeadwaterError(kind, `${name}: ${words(error)}`);
  }
}

/** The result, or `undefined` where there is none. */
export async function found<T>(work: () => Promise<T>): Promise<T | undefined> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof HeadwaterError && error.kind === "NotFound") return undefined;
    throw error;
  }
}

/** The error for a file that was there once. */
export function lost(name: string): HeadwaterError {
  return new HeadwaterError("StorageLost", `${name}: it is not there any more (was the site's data cleared?)`);
}

/** Bytes that the browser speaks of as free: a guess, and `undefined` where it makes none. */
export async function freeBytes(): Promise<number | undefined> {
  const estimate = await (navigator as { storage?: StorageManager }).storage?.estimate().catch(() => undefined);
  return estimate?.quota === undefined ? undefined : estimate.quota - (estimate.usage ?? 0);
}

export function words(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
