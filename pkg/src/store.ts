/**
 * What is kept on this device: models that came from hubs, verified, shared by all tabs of the origin. Each call runs in a
 * worker of its own, because only workers may write to the origin's file system.
 */
import { archived, unarchived } from "./archive.js";
import { chats } from "./chats.js";
import { Client, type CallEvents } from "./client.js";
import { HeadwaterError } from "./errors.js";
import { isHubReference, persist, splitOptions, wireHub, type HubOptions } from "./hub/call.js";
import { absolute, checkCallOptions, type WorkerOptions } from "./options.js";
import { withRate } from "./progress.js";
import { resolve, type CustomSource } from "./sources.js";
import type { StoreVerb, WireHub } from "./protocol.js";
import type { Origin, Progress, StoredModel, StoreUsage } from "./types.js";

/** Options of every verb. */
export interface StoreOptions extends WorkerOptions {
  /** Ends the call with `Aborted`. */
  signal?: AbortSignal;
}

/** Options of the verbs that take a reference. */
export interface PullOptions extends StoreOptions, HubOptions {
  /** Told how far it is. */
  onProgress?: (progress: Progress) => void;
}

/** See `store`. */
export const store = {
  /** Every model that is kept, the last used first. */
  async list(options: StoreOptions = {}): Promise<StoredModel[]> {
    return JSON.parse(await text("list", options)) as StoredModel[];
  },

  /** The room that is taken. */
  async usage(options: StoreOptions = {}): Promise<StoreUsage> {
    return JSON.parse(await text("usage", options)) as StoreUsage;
  },

  /** Fetches a model to be kept, without loading it. */
  async pull(reference: string, options: PullOptions = {}): Promise<Origin> {
    return JSON.parse(await text("pull", { refresh: true, ...options }, reference)) as Origin;
  },

  /** Frees what a reference has kept; gives the bytes. */
  async remove(reference: string, options: StoreOptions & Pick<HubOptions, "endpoint"> = {}): Promise<number> {
    return JSON.parse(await text("remove", options, reference)) as number;
  },

  /** Removes everything. */
  async clear(options: StoreOptions = {}): Promise<void> {
    await text("clear", options);
  },

  /** A lock file (`headwater.lock.json`) of everything that is kept. */
  lock(options: StoreOptions = {}): Promise<string> {
    return text("lock", options);
  },

  /** The files of a kept model, each named by its path in the repository; nothing is copied. */
  async export(reference: string, options: PullOptions = {}): Promise<File[]> {
    return (await run("export", options, reference)) as File[];
  },

  /**
   * Writes a kept model to one file, such as one from `showSaveFilePicker()`: a single `.gguf` as it is, several files as a tar
   * archive. Nothing of it is in memory as a whole. Gives the name that fits what was written.
   */
  async exportTo(reference: string, to: FileSystemFileHandle | WritableStream<Uint8Array>, options: PullOptions = {}): Promise<string> {
    if (!(to instanceof WritableStream) && typeof (to as Partial<FileSystemFileHandle> | undefined)?.createWritable !== "function") {
      throw new HeadwaterError("InvalidArgument", "to: takes a file handle or a WritableStream", { at: "to" });
    }
    const { signal } = options;
    const files = await this.export(reference, options);
    const [only] = files;
    const asItIs = files.length === 1 && only?.name.toLowerCase().endsWith(".gguf") === true;
    const stream: ReadableStream<Uint8Array> = asItIs ? only.stream() : archived(files);
    const sink = to instanceof WritableStream ? to : await to.createWritable() as WritableStream<Uint8Array>;
    try {
      await stream.pipeTo(sink, signal === undefined ? {} : { signal });
    } catch (error) {
      if (signal?.aborted === true) throw new HeadwaterError("Aborted", "ended by the caller's signal");
      throw new HeadwaterError("Io", `the file cannot be written: ${error instanceof Error ? error.message : String(error)}`);
    }
    return asItIs ? only.name : `${reference.replace(/^hf:/, "").replace(/[^\w.-]+/g, "-")}.tar`;
  },

  /** Keeps a model from its files, or from an archive of `exportTo`, once they are verified by the lock file or by the hub. */
  async import(reference: string, files: readonly (File | CustomSource)[], options: PullOptions = {}): Promise<Origin> {
    const [only] = files;
    const isArchive = files.length === 1 && only instanceof File && only.name.toLowerCase().endsWith(".tar");
    return JSON.parse(await text("import", options, reference, isArchive ? await unarchived(only) : files)) as Origin;
  },

  /** Conversations of this origin, by name: `keep` what `Chat.save` gave, `open` it for `Chat.restore`, `list`, `remove`. */
  chats,

  /** Asks the browser not to evict what is kept; says whether it agreed. */
  persist,
} as const;

async function text(verb: StoreVerb, options: PullOptions, reference?: string, files?: readonly (File | CustomSource)[]): Promise<string> {
  return (await run(verb, options, reference, files)) as string;
}

async function run(verb: StoreVerb, options: PullOptions, reference?: string, files: readonly (File | CustomSource)[] = []): Promise<string | File[]> {
  checkCallOptions(`store.${verb}`, options);
  const { hub: hubOptions, rest } = splitOptions(options);
  const { signal, onProgress, worker = true, workerUrl, wasmUrl, ...unknown } = rest;
  const [stray] = Object.keys(unknown);
  if (stray !== undefined) throw new HeadwaterError("InvalidArgument", `${stray}: not an option of store.${verb}`, { at: stray });
  let hub: WireHub | undefined;
  if (reference !== undefined) {
    if (!isHubReference(reference, hubOptions) && !/^https?:\/\//.test(String(reference))) {
      throw new HeadwaterError("InvalidArgument", `${String(reference)}: write hf:owner/name, or name an endpoint`, { at: "reference" });
    }
    hub = await wireHub(reference, hubOptions);
    if (hubOptions.persist !== false && (verb === "pull" || verb === "import")) void persist();
  }
  const { wire, asked } = files.length === 0 ? { wire: [], asked: [] } : resolve(files);
  const client = worker === false
    ? await Client.inPage(asked)
    : await Client.inWorker(asked, worker instanceof Worker ? worker : undefined, absolute(workerUrl));
  try {
    const url = absolute(wasmUrl);
    const call = {
      call: "store", verb, sources: wire,
      ...(hub === undefined ? {} : { hub }),
      ...(url === undefined ? {} : { wasmUrl: url }),
    } as const;
    const events: CallEvents = { signal, onProgress: onProgress && withRate(onProgress), onConsent: hubOptions.consent };
    return await client.call(call, events);
  } finally {
    client.close(new HeadwaterError("Disposed", "the call has ended"));
  }
}
