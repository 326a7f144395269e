/**
 * A model as one file: a tar archive (POSIX.1-1988 `ustar`; paths and sizes that it has no room for in records of POSIX.1-2001,
 * `pax`). Both ways only headers are in memory: contents stream, and what is read back are slices of the archive.
 */
import { HeadwaterError } from "./errors.js";

const BLOCK = 512;
/** The longest name, and the first size that eleven octal digits do not hold. */
const NAME_BYTES = 100;
const OCTAL_LIMIT = 8 ** 11;
/** Most files, and the longest extended header. */
const MAX_FILES = 10_000;
const MAX_EXTENDED_BYTES = 64 * 1024;

const encoder = new TextEncoder();

/** The archive of files, as it is made. */
export function archived(files: readonly File[]): ReadableStream<Uint8Array> {
  const made = parts(files);
  return new ReadableStream({
    async pull(controller) {
      const { done, value } = await made.next();
      if (done === true) controller.close();
      else controller.enqueue(value);
    },
    async cancel() {
      await made.return(undefined);
    },
  });
}

async function* parts(files: readonly File[]): AsyncGenerator<Uint8Array> {
  for (const file of files) {
    const name = encoder.encode(file.name);
    const records: Uint8Array[] = [];
    if (name.length > NAME_BYTES) records.push(record("path", file.name));
    if (file.size >= OCTAL_LIMIT) records.push(record("size", String(file.size)));
    if (records.length > 0) {
      const size = records.reduce((sum, { length }) => sum + length, 0);
      yield header(encoder.encode("pax"), size, "x");
      yield* records;
      yield padding(size);
    }
    yield header(name.subarray(0, NAME_BYTES), file.size % OCTAL_LIMIT, "0");
    const reader = file.stream().getReader();
    for (let part = await reader.read(); !part.done; part = await reader.read()) yield part.value;
    yield padding(file.size);
  }
  yield new Uint8Array(2 * BLOCK);
}

/** `length key=value\n`, where the length counts itself. */
function record(key: string, value: string): Uint8Array {
  const rest = encoder.encode(` ${key}=${value}\n`);
  let length = rest.length + 1;
  while (String(length).length + rest.length !== length) length = String(length).length + rest.length;
  return encoder.encode(`${length} ${key}=${value}\n`);
}

function padding(size: number): Uint8Array {
  return new Uint8Array((BLOCK - (size % BLOCK)) % BLOCK);
}

function header(name: Uint8Array, size: number, type: "0" | "x"): Uint8Array {
  const block = new Uint8Array(BLOCK);
  const put = (at: number, text: string): void => block.set(encoder.encode(text), at);
  const octal = (at: number, digits: number, value: number): void => put(at, value.toString(8).padStart(digits, "0"));
  block.set(name, 0);
  octal(100, 7, 0o644);
  octal(108, 7, 0);
  octal(116, 7, 0);
  octal(124, 11, size);
  octal(136, 11, 0);
  put(156, type);
  put(257, "ustar\u000000");
  octal(148, 6, checksum(block));
  put(155, " ");
  return block;
}

/** The sum of a header's bytes, those of the sum itself counted as spaces. */
function checksum(block: Uint8Array): number {
  return block.reduce((sum, byte, at) => sum + (at >= 148 && at < 156 ? 0x20 : byte), 0);
}

/** The files of an archive, as slices of it. Fails with `UnsupportedFormat` for what is none, or is cut short. */
export async function unarchived(archive: File): Promise<File[]> {
  const broken = (words: string): HeadwaterError => new HeadwaterError("UnsupportedFormat", `${archive.name}: ${words}`, { at: archive.name });
  const bytes = async (at: number, length: number): Promise<Uint8Array> => new Uint8Array(await archive.slice(at, at + length).arrayBuffer());
  const files: File[] = [];
  let extended = new Map<string, string>();
  for (let at = 0; at + BLOCK <= archive.size;) {
    const block = await bytes(at, BLOCK);
    if (block.every((byte) => byte === 0)) break;
    const field = (from: number, length: number): string => new TextDecoder().decode(block.subarray(from, from + length)).replace(/\0.*$/s, "").trim();
    if (field(257, 5) !== "ustar" || parseInt(field(148, 8), 8) !== checksum(block)) throw broken("this is no tar archive, or it is damaged");
    const type = field(156, 1);
    const size = type === "x" ? parseInt(field(124, 12), 8) : Number(extended.get("size") ?? parseInt(field(124, 12), 8));
    const start = at + BLOCK;
    if (!Number.isSafeInteger(size) || size < 0 || start + size > archive.size) throw broken("it is cut short, or damaged");
    at = start + Math.ceil(size / BLOCK) * BLOCK;
    if (type === "x") {
      if (size > MAX_EXTENDED_BYTES) throw broken("a header is too long");
      extended = records(await bytes(start, size));
      continue;
    }
    const prefix = field(345, 155);
    const path = extended.get("path") ?? (prefix === "" ? "" : `${prefix}/`) + field(0, NAME_BYTES);
    extended = new Map();
    if (type !== "" && type !== "0") continue;
    if (files.length >= MAX_FILES) throw broken(`more than ${MAX_FILES} files`);
    files.push(new File([archive.slice(start, start + size)], path));
  }
  if (files.length === 0) throw broken("it holds no files");
  return files;
}

function records(bytes: Uint8Array): Map<string, string> {
  const found = new Map<string, string>();
  for (let at = 0; at < bytes.length;) {
    const space = bytes.indexOf(0x20, at);
    const length = space < 0 ? NaN : Number(new TextDecoder().decode(bytes.subarray(at, space)));
    if (!(length > space - at) || at + length > bytes.length) break;
    const [, key, value] = /^([^=]*)=(.*)$/s.exec(new TextDecoder().decode(bytes.subarray(space + 1, at + length - 1))) ?? [];
    if (key !== undefined && value !== undefined) found.set(key, value);
    at += length;
  }
  return found;
}
