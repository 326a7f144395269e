/**
 * The host's side of sources: files that the engine reads in ranges, whatever they lie in. Bytes are read when they are
 * asked for and never kept.
 */
import { HeadwaterError, toHeadwaterError } from "./errors.js";
import type { WireSource } from "./protocol.js";

/** What the engine reads from. */
export interface EngineFile {
  readonly name: string;
  readonly size: number;
  /** Exactly `length` bytes from `offset`. */
  read(offset: number, length: number): Promise<Uint8Array>;
}

/** Reads an `asked` source by asking the client. */
export type Ask = (file: number, offset: number, length: number) => Promise<Uint8Array>;

/** The files of a folder on a hub that are read where they exist; weights are named by the index or are one file. */
const FOLDER_CONFIG = "config.json";
const FOLDER_OPTIONAL = [
  "tokenizer.json", "tokenizer_config.json", "generation_config.json", "special_tokens_map.json", "chat_template.jinja",
];
/** Models for embeddings list what is behind them; a module's configuration is in a folder of its own. */
const FOLDER_MODULES = "modules.json";
const FOLDER_TRANSFORMER = "sentence_bert_config.json";
const FOLDER_INDEX = "model.safetensors.index.json";
const FOLDER_WEIGHTS = "model.safetensors";

/** The files of an adapter, as peft writes them. */
const ADAPTER_FILES = ["adapter_config.json", "adapter_model.safetensors"];

/** What the files are for. */
type Purpose = "model" | "adapter";

/** Largest index that is read here (its shards' names are all that is taken from it). */
const MAX_INDEX_BYTES = 64 * 1024 * 1024;
/** Largest list of modules. */
const MAX_MODULES_BYTES = 64 * 1024;

/** Opens every source; a URL that is not a `.gguf` is taken for a folder. */
export async function openFiles(
  sources: readonly WireSource[], ask: Ask, signal: AbortSignal, purpose: Purpose = "model",
): Promise<EngineFile[]> {
  const files = await Promise.all(sources.map((source) => openSource(source, ask, signal, purpose)));
  return files.flat();
}

async function openSource(source: WireSource, ask: Ask, signal: AbortSignal, purpose: Purpose): Promise<EngineFile[]> {
  switch (source.type) {
    case "blob":
      return [blobFile(source.name, source.blob)];
    case "asked":
      return [{
        name: source.name,
        size: source.size,
        read: (offset, length) => unlessAborted(signal, ask(source.file, offset, length)),
      }];
    case "url": {
      const url = new URL(source.url);
      if (/\.gguf$/i.test(url.pathname)) return [await urlFile(url, signal)];
      return purpose === "model" ? openFolder(url, signal) : openAdapter(url, signal);
    }
    default:
      return source satisfies never;
  }
}

/** A blob under a name. */
export function blobFile(name: string, blob: Blob): EngineFile {
  return {
    name,
    size: blob.size,
    read: async (offset, length) => {
      try {
        return new Uint8Array(await blob.slice(offset, offset + length).arrayBuffer());
      } catch (error) {
        // The file behind a picker's handle may have been moved or changed since.
        throw new HeadwaterError("Io", `${name}: ${toHeadwaterError(error).message}`);
      }
    },
  };
}

/** Where the files of a folder lie. */
function folderAt(url: URL): (name: string) => URL {
  const folder = new URL(url.pathname.endsWith("/") ? url.href : `${url.href}/`);
  return (name) => new URL(name, folder);
}

/** The two files of an adapter, called after their folder, which is the adapter's name where it is given no other. */
async function openAdapter(url: URL, signal: AbortSignal): Promise<EngineFile[]> {
  const inFolder = folderAt(url);
  const folder = decodeURIComponent(url.pathname.split("/").findLast((part) => part !== "") ?? "adapter");
  const files = await Promise.all(ADAPTER_FILES.map((name) => urlFile(inFolder(name), signal)));
  return files.map((file) => ({ ...file, name: `${folder}/${file.name}` }));
}

async function openFolder(url: URL, signal: AbortSignal): Promise<EngineFile[]> {
  const inFolder = folderAt(url);
  const config = await urlFile(inFolder(FOLDER_CONFIG), signal);
  const optional = await Promise.all(FOLDER_OPTIONAL.map((name) => urlFileIfThere(inFolder(name), signal)));
  const modules = await urlFileIfThere(inFolder(FOLDER_MODULES), signal);
  const ofModules = modules === undefined ? [] : [FOLDER_TRANSFORMER, ...await moduleConfigs(modules)];
  optional.push(modules, ...await Promise.all(ofModules.map((name) => urlFileIfThere(inFolder(name), signal, name))));
  const index = await urlFileIfThere(inFolder(FOLDER_INDEX), signal);
  const weights = index === undefined ? [FOLDER_WEIGHTS] : await shardNames(index);
  const shards = await Promise.all(weights.map((name) => urlFile(inFolder(name), signal)));
  return [config, ...optional, index, ...shards].filter((file) => file !== undefined);
}

/** The configurations that modules may have; a folder that leaves the model's is refused. */
async function moduleConfigs(file: EngineFile): Promise<string[]> {
  if (file.size > MAX_MODULES_BYTES) {
    throw new HeadwaterError("LimitExceeded", `${file.name}: ${file.size} bytes, more than ${MAX_MODULES_BYTES}`);
  }
  let modules: unknown;
  try {
    modules = JSON.parse(new TextDecoder().decode(await file.read(0, file.size)));
  } catch (error) {
    throw new HeadwaterError("MalformedModel", `${file.name}: ${toHeadwaterError(error).message}`);
  }
  if (!Array.isArray(modules)) throw new HeadwaterError("MalformedModel", `${file.name}: not a list`);
  const paths = modules.map((module) => (module as { path?: unknown } | null)?.path).filter((path) => path !== "");
  for (const path of paths) {
    if (typeof path !== "string" || !/^[\w][\w.-]*$/.test(path)) {
      throw new HeadwaterError("MalformedModel", `${file.name}: ${JSON.stringify(path)} is not a folder of the model`);
    }
  }
  return paths.map((path) => `${String(path)}/${FOLDER_CONFIG}`);
}

/** The shards an index names; a name that leaves the folder is refused. */
async function shardNames(index: EngineFile): Promise<string[]> {
  if (index.size > MAX_INDEX_BYTES) {
    throw new HeadwaterError("LimitExceeded", `${index.name}: ${index.size} bytes, more than ${MAX_INDEX_BYTES}`);
  }
  const text = new TextDecoder().decode(await index.read(0, index.size));
  let map: unknown;
  try {
    map = (JSON.parse(text) as { weight_map?: unknown } | null)?.weight_map;
  } catch (error) {
    throw new HeadwaterError("MalformedSafetensors", `${index.name}: ${toHeadwaterError(error).message}`);
  }
  if (typeof map !== "object" || map === null) {
    throw new HeadwaterError("MalformedSafetensors", `${index.name}: no weight_map`);
  }
  const names = [...new Set(Object.values(map))];
  for (const name of names) {
    if (typeof name !== "string" || !/^[\w][\w.-]*$/.test(name)) {
      throw new HeadwaterError("MalformedSafetensors", `${index.name}: ${JSON.stringify(name)} is not a file of the folder`);
    }
  }
  return names as string[];
}

async function urlFileIfThere(url: URL, signal: AbortSignal, name?: string): Promise<EngineFile | undefined> {
  try {
    return await urlFile(url, signal, name);
  } catch (error) {
    if (toHeadwaterError(error).kind === "NotFound") return undefined;
    throw error;
  }
}

function lastPart(url: URL): string {
  return decodeURIComponent(url.pathname.slice(url.pathname.lastIndexOf("/") + 1));
}

/** A file behind a URL, named after it unless told otherwise. Its size comes from one HEAD request; every read is a ranged GET. */
async function urlFile(url: URL, signal: AbortSignal, name = lastPart(url)): Promise<EngineFile> {
  const head = await request(url, { method: "HEAD" }, signal);
  // A coded answer's length would be that of the coded bytes.
  const length = head.headers.get("Content-Encoding") === null ? head.headers.get("Content-Length") : null;
  if (length === null || !/^\d+$/.test(length)) {
    throw new HeadwaterError("SizeMismatch", `${name}: the server at ${url.origin} does not tell the file's size`);
  }
  const size = Number(length);
  return {
    name,
    size,
    read: async (offset, length) => {
      if (length === 0) return new Uint8Array();
      const last = offset + length - 1;
      const answer = await request(url, { headers: { Range: `bytes=${offset}-${last}` } }, signal);
      const range = answer.headers.get("Content-Range");
      if (answer.status === 206 && range !== null && !range.startsWith(`bytes ${offset}-${last}/`)) {
        throw new HeadwaterError("SizeMismatch", `${name}: asked for bytes ${offset}-${last}, was given ${range}`);
      }
      if (answer.status !== 206 && !(offset === 0 && length === size)) {
        await answer.body?.cancel();
        throw new HeadwaterError("HttpStatus", `${name}: the server at ${url.origin} does not serve ranges`, { status: answer.status });
      }
      return readExactly(name, answer, length, signal);
    },
  };
}

async function request(url: URL, init: RequestInit, signal: AbortSignal): Promise<Response> {
  let answer: Response;
  try {
    answer = await fetch(url, { ...init, signal });
  } catch (error) {
    if (signal.aborted) throw aborted();
    throw new HeadwaterError("Network", `${url.href}: ${toHeadwaterError(error).message}`);
  }
  if (answer.ok) return answer;
  await answer.body?.cancel();
  const { status } = answer;
  const kind = status === 404 || status === 410 ? "NotFound" : status === 401 ? "AuthRequired" : "HttpStatus";
  throw new HeadwaterError(kind, `${url.href}: answered with status ${status}`, { status });
}

/** The body, which must be `length` bytes long; reading stops at the first byte too many. */
async function readExactly(name: string, answer: Response, length: number, signal: AbortSignal): Promise<Uint8Array> {
  const bytes = new Uint8Array(length);
  const reader = answer.body?.getReader();
  let filled = 0;
  try {
    for (let part = await reader?.read(); part !== undefined && !part.done; part = await reader?.read()) {
      if (filled + part.value.length > length) {
        await reader?.cancel();
        throw new HeadwaterError("SizeMismatch", `${name}: more than the ${length} bytes that were asked for`);
      }
      bytes.set(part.value, filled);
      filled += part.value.length;
    }
  } catch (error) {
    if (signal.aborted) throw aborted();
    throw toHeadwaterError(error, "Network");
  }
  if (filled < length) {
    throw new HeadwaterError("SizeMismatch", `${name}: ${filled} bytes came where ${length} were asked for`);
  }
  return bytes;
}

/** The promise, or `Aborted` as soon as the signal says so: the caller's own code may take as long as it likes. */
export async function unlessAborted<T>(signal: AbortSignal, promise: Promise<T>): Promise<T> {
  if (signal.aborted) throw aborted();
  const { promise: abort, reject } = Promise.withResolvers<never>();
  const onAbort = (): void => reject(aborted());
  signal.addEventListener("abort", onAbort, { once: true });
  try {
    return await Promise.race([promise, abort]);
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
}

/** What a signal's abort becomes. */
export function aborted(): HeadwaterError {
  return new HeadwaterError("Aborted", "ended by the caller's signal");
}
