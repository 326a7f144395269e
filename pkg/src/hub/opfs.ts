/**
 * The origin's private file system. Written through sync access handles, whose bytes outlive a tab that crashes; read as
 * `File`s, which any number of tabs may do at once.
 */
import { HeadwaterError } from "../errors.js";
import { found, freeBytes, guarded, HubStore, lost, ReadFile, words, type HubFile } from "./base.js";

/** Everything of ours lies in this folder. */
const FOLDER = "headwater";
/** What the room for a model is tried with. */
const PROBE = "probe";
/** Chromium takes room ahead of what is written: as much again, 128 MiB at most. */
const MAX_SLACK_BYTES = 128 * 1024 * 1024;

/** What Chromium's store in memory counts as written to a file that was cleared: its `base::File::FILE_ERROR_NOT_FOUND`. */
const NOT_FOUND = -4;

/** A handle that this thread writes by; not in every browser's types. */
interface SyncHandle {
  read(buffer: Uint8Array, options: { at: number }): number;
  write(buffer: Uint8Array, options: { at: number }): number;
  truncate(size: number): void;
  getSize(): number;
  flush(): void;
  close(): void;
}

type Handle = FileSystemFileHandle & { createSyncAccessHandle(): Promise<SyncHandle> };

export class OpfsStore extends HubStore {
  readonly #root: FileSystemDirectoryHandle;

  private constructor(root: FileSystemDirectoryHandle) {
    super();
    this.#root = root;
  }

  /** Opens it; `undefined` where this browser or thread has none to write to. */
  static async open(): Promise<OpfsStore | undefined> {
    const handles = (globalThis as { FileSystemFileHandle?: { prototype: object } }).FileSystemFileHandle;
    if (handles === undefined || !("createSyncAccessHandle" in handles.prototype)) return undefined;
    try {
      const root = await navigator.storage.getDirectory();
      return new OpfsStore(await root.getDirectoryHandle(FOLDER, { create: true }));
    } catch {
      // Private windows of some browsers have the interface and refuse its use.
      return undefined;
    }
  }

  async read(name: string): Promise<HubFile | undefined> {
    const handle = await this.#handle(name, false);
    return handle === undefined ? undefined : new ReadFile(await guarded(name, () => handle.getFile()));
  }

  async write(name: string): Promise<HubFile> {
    return new WrittenFile(name, await this.#sync(name));
  }

  async list(prefix: string): Promise<string[]> {
    const parts = prefix.split("/").slice(0, -1);
    const folder = await this.#folder(parts, false);
    const names: string[] = [];
    if (folder !== undefined) await walk(folder, parts.map((part) => `${part}/`).join(""), names);
    return names.filter((name) => name.startsWith(prefix) && name !== PROBE);
  }

  async remove(name: string): Promise<void> {
    const parts = name.split("/");
    const folder = await this.#folder(parts.slice(0, -1), false);
    if (folder === undefined) return;
    await guarded(name, () => folder.removeEntry(parts.at(-1) ?? "")).catch((error: unknown) => {
      if (!(error instanceof HeadwaterError && error.kind === "NotFound")) throw error;
    });
  }

  /** One after another, whichever tab asks: there is one file to try with, so that a crash leaves one at most. */
  async checkRoom(bytes: number): Promise<void> {
    const locks = (navigator as { locks?: LockManager }).locks;
    await (locks === undefined ? this.#tryRoom(bytes) : locks.request("headwater-probe", () => this.#tryRoom(bytes)));
  }

  async #tryRoom(bytes: number): Promise<void> {
    const handle = await this.#sync(PROBE);
    try {
      handle.truncate(bytes + Math.min(bytes, MAX_SLACK_BYTES));
    } catch (error) {
      const free = await freeBytes();
      const told = free === undefined ? "" : `; the browser speaks of ${free} bytes free`;
      throw new HeadwaterError("QuotaExceeded", `${bytes} bytes have to be kept, and this device's storage refuses them (${words(error)})${told}`);
    } finally {
      handle.truncate(0);
      handle.close();
      await this.remove(PROBE);
    }
  }

  async file(name: string): Promise<Blob> {
    const handle = await this.#handle(name, false);
    if (handle === undefined) throw lost(name);
    return handle.getFile();
  }

  async #sync(name: string): Promise<SyncHandle> {
    const handle = await this.#handle(name, true) as Handle;
    return guarded(name, () => handle.createSyncAccessHandle());
  }

  async #handle(name: string, create: boolean): Promise<FileSystemFileHandle | undefined> {
    const parts = name.split("/");
    const folder = await this.#folder(parts.slice(0, -1), create);
    if (folder === undefined) return undefined;
    return found(() => guarded(name, () => folder.getFileHandle(parts.at(-1) ?? "", { create })));
  }

  async #folder(parts: readonly string[], create: boolean): Promise<FileSystemDirectoryHandle | undefined> {
    let folder = this.#root;
    for (const part of parts) {
      const next = await found(() => guarded(part, () => folder.getDirectoryHandle(part, { create })));
      if (next === undefined) return undefined;
      folder = next;
    }
    return folder;
  }
}

async function walk(folder: FileSystemDirectoryHandle, prefix: string, names: string[]): Promise<void> {
  for await (const [name, entry] of folder.entries()) {
    if (entry.kind === "directory") await walk(entry as FileSystemDirectoryHandle, `${prefix}${name}/`, names);
    else names.push(prefix + name);
  }
}

/** A file that is written, by its one writer. */
class WrittenFile implements HubFile {
  readonly #name: string;
  #handle: SyncHandle | undefined;

  constructor(name: string, handle: SyncHandle) {
    this.#name = name;
    this.#handle = handle;
  }

  size(): Promise<number> {
    return this.#with((handle) => handle.getSize());
  }

  read(offset: number, length: number): Promise<Uint8Array> {
    return this.#with((handle) => {
      const bytes = new Uint8Array(length);
      return bytes.subarray(0, handle.read(bytes, { at: offset }));
    });
  }

  write(offset: number, bytes: Uint8Array): Promise<void> {
    return this.#with((handle) => {
      // A full store in memory (a private window) does not throw: it returns a count that cannot be.
      const written = handle.write(bytes, { at: offset });
      if ((written | 0) === NOT_FOUND) throw lost(this.#name);
      if (written !== bytes.length) throw new HeadwaterError("QuotaExceeded", `the storage took ${written | 0} of ${bytes.length} bytes`);
    });
  }

  resize(size: number): Promise<void> {
    return this.#with((handle) => handle.truncate(size));
  }

  flush(): Promise<void> {
    return this.#with((handle) => handle.flush());
  }

  close(): Promise<void> {
    const handle = this.#handle;
    this.#handle = undefined;
    return guarded(this.#name, () => Promise.resolve(handle?.close()));
  }

  #with<T>(work: (handle: SyncHandle) => T): Promise<T> {
    return guarded(this.#name, async () => {
      if (this.#handle === undefined) throw new HeadwaterError("Internal", "the file is closed");
      return work(this.#handle);
    });
  }
}
