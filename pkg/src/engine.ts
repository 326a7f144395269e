/**
 * The WebAssembly module of this thread: loaded once, on the first use. It also keeps the one fact that outlives a call:
 * whether the module trapped, after which nothing in it can be trusted.
 */
import init, { useGrammars, useKept, WebEngine, WebHub } from "../wasm/headwater.js";
import { beginDeferred, DeferredMissing } from "./deferred.js";
import { wrapDeviceRequests } from "./device-request.js";
import { HeadwaterError, toHeadwaterError } from "./errors.js";
import { grammarOpener } from "./grammar.js";
import { keep } from "./kept.js";
import { startModule } from "./module.js";

export { WebEngine, WebHub };

let ready: Promise<void> | undefined;
let poison: HeadwaterError | undefined;
let memory: WebAssembly.Memory | undefined;
const onPoison = new Set<(error: HeadwaterError) => void>();

/** Loads and starts the module at `wasmUrl`, or where the package has it. */
export async function startEngine(wasmUrl?: string): Promise<void> {
  checkPoison();
  ready ??= start(wasmUrl).catch((error: unknown) => {
    ready = undefined;
    throw error;
  });
  await ready;
}

async function start(ownUrl: string | undefined): Promise<void> {
  wrapDeviceRequests();
  const wasmUrl = ownUrl ?? new URL("../wasm/headwater_bg.wasm", import.meta.url).href;
  const exports = await startModule("the engine", wasmUrl, init);
  memory = exports.memory;
  await beginDeferred(exports as unknown as WebAssembly.Exports, ownUrl);
  useGrammars(grammarOpener(ownUrl));
  useKept(keep);
  // A trap inside a callback of the browser reaches nobody's promise; it arrives here.
  const note = (thrown: unknown): void => {
    if (thrown instanceof DeferredMissing || cameFrom(wasmUrl, thrown)) noteTrap(thrown);
  };
  globalThis.addEventListener("error", (event) => note((event as ErrorEvent).error));
  globalThis.addEventListener("unhandledrejection", (event) => note((event as PromiseRejectionEvent).reason));
}

/** Size of the module's linear memory, which never shrinks. */
export function memoryBytes(): number {
  return memory?.buffer.byteLength ?? 0;
}

/** Fails once the module has trapped. */
export function checkPoison(): void {
  if (poison !== undefined) throw poison;
}

/** Told when the module traps; returns how to stop being told. */
export function whenPoisoned(listener: (error: HeadwaterError) => void): () => void {
  onPoison.add(listener);
  return () => onPoison.delete(listener);
}

/** An error out of the module: a trap poisons it, anything else is the engine's own word. */
export function engineError(thrown: unknown): HeadwaterError {
  return noteTrap(thrown) ?? toHeadwaterError(thrown);
}

function noteTrap(thrown: unknown): HeadwaterError | undefined {
  const trapped = thrown instanceof WebAssembly.RuntimeError || thrown instanceof RangeError || thrown instanceof DeferredMissing;
  if (!trapped) return undefined;
  poison ??= new HeadwaterError("EnginePoisoned", `the engine trapped (${thrown.message}); load the model again`);
  for (const listener of [...onPoison]) listener(poison);
  return poison;
}

/** Whether an error nobody caught can be this module's: its stack names the module, or names none (as in Safari). */
function cameFrom(wasmUrl: string, thrown: unknown): boolean {
  const stack = thrown instanceof Error ? thrown.stack ?? "" : "";
  return stack.includes(wasmUrl) || (/wasm/.test(stack) && !/\.wasm\b/.test(stack));
}
