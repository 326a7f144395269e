/**
 * The part of the engine's module that chats do not run. Its functions are stubs in the first part, which call here when
 * they are needed; what it holds is listed in `xtask/deferred.txt`.
 */
import { HeadwaterError } from "./errors.js";

const FILE = "headwater_deferred_bg.wasm";
/** Set once the stubs have their functions; `xtask/src/split.rs` names it. */
const IS_LOADED = "deferred_is_loaded";

/** That the part could not be had when a function of it was called: the call is lost in the middle. */
export class DeferredMissing extends HeadwaterError {}

interface First {
  readonly exports: WebAssembly.Exports;
  readonly isLoaded: WebAssembly.Global<"i32">;
  /** Where the deferred part is. */
  readonly url: string;
}

let first: First | undefined;

/** Names the first part, which is at `ownUrl` or where the package has it, and begins to fetch the rest; waits for it where nobody can wait later. */
export async function beginDeferred(exports: WebAssembly.Exports, ownUrl: string | undefined): Promise<void> {
  const isLoaded = exports[IS_LOADED];
  // A module that was built for trying a change is whole.
  if (!(isLoaded instanceof WebAssembly.Global)) return;
  const url = ownUrl === undefined ? new URL("../wasm/headwater_deferred_bg.wasm", import.meta.url) : new URL(FILE, ownUrl);
  first = { exports, isLoaded: isLoaded as WebAssembly.Global<"i32">, url: url.href };
  const fetched = fetchDeferred(first);
  // The thread of a page may not wait for a file.
  if ("document" in globalThis) await fetched;
  // A worker asks again, and waits, when a function is called.
  else fetched.catch(() => undefined);
}

async function fetchDeferred(part: First): Promise<void> {
  try {
    const answer = await fetch(part.url, { priority: "low" });
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    fill(part, await WebAssembly.compile(await answer.arrayBuffer()));
  } catch (error) {
    throw new HeadwaterError("Network", missing(part, error));
  }
}

/** Called by the first part's stubs: fetches the deferred part, unless it has come meanwhile, before it returns. */
export function loadDeferred(): void {
  if (first === undefined) throw new DeferredMissing("Internal", "a deferred function was called before the engine was started");
  try {
    const request = new XMLHttpRequest();
    request.open("GET", first.url, false);
    request.responseType = "arraybuffer";
    request.send();
    if (request.status !== 200) throw new Error(`status ${request.status}`);
    fill(first, new WebAssembly.Module(request.response as ArrayBuffer));
  } catch (error) {
    throw new DeferredMissing("Network", missing(first, error));
  }
}

function fill(part: First, module: WebAssembly.Module): void {
  if (part.isLoaded.value !== 0) return;
  new WebAssembly.Instance(module, { first: part.exports as WebAssembly.ModuleImports });
  part.isLoaded.value = 1;
}

function missing(part: First, error: unknown): string {
  const words = error instanceof Error ? error.message : String(error);
  return `the engine's deferred part at ${part.url} could not be fetched: ${words}`;
}
