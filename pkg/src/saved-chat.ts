/**
 * A conversation as a file: a line of JSON with its messages, then the engine's keys and values as they are. A file of the first
 * version is the JSON alone.
 */
import { HeadwaterError } from "./errors.js";
import type { Message } from "./types.js";

/** What a file holds. */
export interface SavedChat {
  readonly messages: Message[];
  /** Keys and values; empty where there are none. */
  readonly cache: Blob;
}

interface Line {
  readonly format: typeof FORMAT;
  readonly version: 1 | typeof VERSION;
  readonly messages: Message[];
}

const FORMAT = "headwater-chat";
const VERSION = 2;
/** The line is looked for so many bytes at a time, and keys and values may be large. */
const STEP_BYTES = 1 << 16;
const LINE_FEED = 10;

/** Writes a file. */
export function writeSaved({ messages, cache }: SavedChat): Blob {
  const line: Line = { format: FORMAT, version: VERSION, messages };
  return new Blob([`${JSON.stringify(line)}\n`, cache], { type: "application/octet-stream" });
}

/** Reads a file. */
export async function readSaved(saved: Blob): Promise<SavedChat> {
  if (!(saved instanceof Blob)) throw refuse("this is no saved chat: it is no Blob");
  let end = saved.size;
  for (let at = 0; at < saved.size; at += STEP_BYTES) {
    const found = new Uint8Array(await saved.slice(at, at + STEP_BYTES).arrayBuffer()).indexOf(LINE_FEED);
    if (found < 0) continue;
    end = at + found;
    break;
  }
  return { messages: messagesOf(await saved.slice(0, end).text()), cache: saved.slice(end + 1) };
}

function messagesOf(text: string): Message[] {
  let line: Partial<Line> | null;
  try {
    line = JSON.parse(text) as Partial<Line> | null;
  } catch {
    throw refuse("this is no saved chat: it is not JSON");
  }
  if (line?.format !== FORMAT) throw refuse("this is no saved chat");
  if (line.version !== 1 && line.version !== VERSION) {
    throw refuse(`this chat was saved in version ${String(line.version)} of the format; this is ${VERSION}`);
  }
  if (!Array.isArray(line.messages)) throw refuse("the saved chat has no messages");
  const wrong = line.messages.findIndex((message: Partial<Message> | null) => {
    const content = message?.content;
    return typeof message?.role !== "string" || (typeof content !== "string" && content !== null);
  });
  if (wrong >= 0) throw refuse(`message ${wrong} of the saved chat has no role or no content`);
  return line.messages;
}

function refuse(words: string): HeadwaterError {
  return new HeadwaterError("InvalidArgument", words);
}
