/**
 * References to models, and what they become on their way to the host. Nothing is read here.
 */
import { HeadwaterError } from "./errors.js";
import type { EngineFile } from "./files.js";
import type { WireSource } from "./protocol.js";

/** A file read by the caller's own code: exactly `length` bytes from `offset`. */
export interface CustomSource {
  readonly name: string;
  readonly size: number;
  read(offset: number, length: number): Promise<Uint8Array> | Uint8Array;
}

/**
 * A model: `"embedded:tiny-assistant"`, a URL (of a `.gguf`, or of a folder with `config.json`; relative ones count from
 * the page), a file or the files of a folder, or an own source (one file, or several).
 */
export type ModelReference = string | URL | File | Blob | CustomSource | readonly (File | CustomSource)[];

/**
 * An adapter: a reference to a hub, a URL of a `.gguf` or of a folder as peft writes it (`adapter_config.json`, `adapter_model.safetensors`), a
 * `.gguf` file or the files of such a folder, or an own source (one file, or both).
 */
export type AdapterReference = ModelReference;

/** Sources as the host gets them, and those that it reads by asking back. */
export interface Resolved {
  readonly wire: readonly WireSource[];
  readonly asked: readonly EngineFile[];
}

/** Where the package's own model lies. Written out in full, because bundlers find the file by these very words. */
function embedded(name: string): string {
  if (name === "tiny-assistant") return new URL("../models/tiny-assistant-q8_0.gguf", import.meta.url).href;
  throw bad(`no embedded model "${name}"; there is "tiny-assistant"`);
}

/** Takes a reference apart; `firstAsked` is the number of the first source that the host reads by asking back. */
export function resolve(reference: ModelReference, firstAsked = 0): Resolved {
  const wire: WireSource[] = [];
  const asked: EngineFile[] = [];
  const parts: readonly unknown[] = Array.isArray(reference) ? reference : [reference];
  if (parts.length === 0) throw bad("an empty list of files");
  for (const part of parts) {
    if (typeof part === "string" || part instanceof URL) wire.push({ type: "url", url: toUrl(String(part)) });
    else if (part instanceof File) wire.push({ type: "blob", name: part.webkitRelativePath || part.name, blob: part });
    else if (part instanceof Blob) wire.push({ type: "blob", name: "model.gguf", blob: part });
    else if (isCustom(part)) {
      const { name, size } = part;
      const read = async (offset: number, length: number): Promise<Uint8Array> => part.read(offset, length);
      wire.push({ type: "asked", name, size, file: firstAsked + asked.push({ name, size, read }) - 1 });
    } else throw bad("not a reference to a model: a string, URL, File, Blob, { name, size, read } or a list of files");
  }
  return { wire, asked };
}

function toUrl(text: string): string {
  const [scheme = "", rest = ""] = text.split(/:(.*)/s, 2);
  if (scheme === "embedded") return embedded(rest);
  let url: URL;
  try {
    url = new URL(text, location.href);
  } catch {
    throw bad(`"${text}" is not a URL`);
  }
  const local = ["localhost", "127.0.0.1", "[::1]"].includes(url.hostname);
  if (url.protocol === "https:" || url.origin === location.origin || (url.protocol === "http:" && local)) return url.href;
  throw bad(`"${text}": only https URLs, and those of the page's own origin`);
}

function isCustom(part: unknown): part is CustomSource {
  if (typeof part !== "object" || part === null) return false;
  const { name, size, read } = part as Record<string, unknown>;
  if (typeof name !== "string" || typeof read !== "function") return false;
  if (Number.isSafeInteger(size) && (size as number) >= 0) return true;
  throw bad(`${name}: the size ${String(size)} is not a count of bytes`);
}

function bad(words: string): HeadwaterError {
  return new HeadwaterError("InvalidArgument", words, { at: "reference" });
}
