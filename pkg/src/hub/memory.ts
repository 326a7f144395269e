/** Files in this thread's memory, where the browser has no better place: they go with the thread. */
import { HeadwaterError } from "../errors.js";
import { HubStore, lost, type HubFile } from "./base.js";

/** Bytes that grow. */
class Content {
  bytes = new Uint8Array();
  size = 0;

  resize(size: number): void {
    if (size > this.bytes.length) {
      let grown: Uint8Array<ArrayBuffer>;
      try {
        grown = new Uint8Array(Math.max(size, 2 * this.bytes.length));
      } catch {
        throw new HeadwaterError("QuotaExceeded", `this browser keeps files in memory only, and has no room for ${size} bytes`);
      }
      grown.set(this.bytes.subarray(0, this.size));
      this.bytes = grown;
    }
    if (size < this.size) this.bytes.fill(0, size, this.size);
    this.size = size;
  }
}

export class MemoryStore extends HubStore {
  readonly #files = new Map<string, Content>();

  read(name: string): Promise<HubFile | undefined> {
    const content = this.#files.get(name);
    return Promise.resolve(content && new MemoryFile(content));
  }

  write(name: string): Promise<HubFile> {
    const content = this.#files.get(name) ?? new Content();
    this.#files.set(name, content);
    return Promise.resolve(new MemoryFile(content));
  }

  override async replace(name: string, bytes: Uint8Array): Promise<void> {
    const content = new Content();
    await new MemoryFile(content).write(0, bytes);
    this.#files.set(name, content);
  }

  list(prefix: string): Promise<string[]> {
    return Promise.resolve([...this.#files.keys()].filter((name) => name.startsWith(prefix)));
  }

  remove(name: string): Promise<void> {
    this.#files.delete(name);
    return Promise.resolve();
  }

  /** A browser does not tell how much memory it would give. */
  checkRoom(): Promise<void> {
    return Promise.resolve();
  }

  file(name: string): Promise<Blob> {
    const content = this.#files.get(name);
    if (content === undefined) return Promise.reject(lost(name));
    return Promise.resolve(new Blob([content.bytes.subarray(0, content.size)]));
  }
}

class MemoryFile implements HubFile {
  readonly #content: Content;

  constructor(content: Content) {
    this.#content = content;
  }

  size(): Promise<number> {
    return Promise.resolve(this.#content.size);
  }

  read(offset: number, length: number): Promise<Uint8Array> {
    return Promise.resolve(this.#content.bytes.slice(offset, Math.min(offset + length, this.#content.size)));
  }

  async write(offset: number, bytes: Uint8Array): Promise<void> {
    this.#content.resize(Math.max(this.#content.size, offset + bytes.length));
    this.#content.bytes.set(bytes, offset);
  }

  async resize(size: number): Promise<void> {
    this.#content.resize(size);
  }

  flush(): Promise<void> {
    return Promise.resolve();
  }

  close(): Promise<void> {
    return Promise.resolve();
  }
}
