/**
 * The module that follows schemas, regular expressions and grammars. It weighs a quarter of the package, so it is fetched
 * when the first request needs it, from beside the engine's own.
 */
import init, { WebGrammars } from "../wasm/grammar.js";
import { startModule } from "./module.js";

const FILE = "grammar_bg.wasm";

let ready: Promise<unknown> | undefined;

/** How the engine opens it: ready for a vocabulary, whose tokens are `bytes`, cut by `lengths`. */
export function grammarOpener(wasmUrl: string | undefined) {
  const url = wasmUrl === undefined ? new URL("../wasm/grammar_bg.wasm", import.meta.url) : new URL(FILE, wasmUrl);
  return async (bytes: Uint8Array, lengths: Uint32Array, ends: Uint32Array): Promise<WebGrammars> => {
    ready ??= startModule("the grammar module", url.href, init).catch((error: unknown) => {
      ready = undefined;
      throw error;
    });
    await ready;
    return new WebGrammars(bytes, lengths, ends);
  };
}
