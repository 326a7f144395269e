/** Server-sent events of a stream of completions, to the JSON that they carry. */
import { HeadwaterError } from "../errors.js";

/** Characters of one event, at most: a server that never ends one must not fill the memory. */
const MAX_EVENT = 4_000_000;

/** The values of all events up to `[DONE]`, or to the end of the stream. */
export async function* events(body: ReadableStream<Uint8Array>): AsyncGenerator<unknown, void, undefined> {
  let held = "";
  const reader = body.pipeThrough(new TextDecoderStream() as ReadableWritablePair<string, Uint8Array>).getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      held += done ? "\n\n" : value;
      if (held.length > MAX_EVENT) throw new HeadwaterError("LimitExceeded", `the server sent an event of more than ${MAX_EVENT} characters`);
      const whole = held.split(/\r?\n\r?\n/);
      held = whole.pop() ?? "";
      for (const event of whole) {
        const data = event.split(/\r?\n/).filter((line) => line.startsWith("data:")).map((line) => line.slice(5).trimStart()).join("\n");
        if (data === "[DONE]") return;
        if (data !== "") yield parse(data);
      }
      if (done) return;
    }
  } finally {
    await reader.cancel().catch(() => {});
  }
}

function parse(data: string): unknown {
  try {
    return JSON.parse(data);
  } catch {
    throw new HeadwaterError("Io", "the server sent an event that is not JSON");
  }
}
