/** How a WebAssembly module of the package is fetched and started, and what its failures are called. */
import { HeadwaterError } from "./errors.js";

/** Fetches the module at `url`, which `what` names in errors, and starts it by `init`. */
export async function startModule<T>(what: string, url: string, init: (input: { module_or_path: Response }) => Promise<T>): Promise<T> {
  let answer: Response;
  try {
    answer = await fetch(url);
  } catch (error) {
    throw new HeadwaterError("Network", `${what} at ${url} could not be fetched: ${words(error)}`);
  }
  if (!answer.ok) {
    throw new HeadwaterError("HttpStatus", `${what} at ${url} was answered with ${answer.status}`, { status: answer.status });
  }
  try {
    return await init({ module_or_path: answer });
  } catch (error) {
    // A policy without 'wasm-unsafe-eval' refuses to compile; there is no other sign of it than the words.
    if (error instanceof WebAssembly.CompileError && /Content Security Policy|unsafe-eval/.test(error.message)) {
      throw new HeadwaterError("CspBlocked", "the page's content security policy needs script-src 'wasm-unsafe-eval'");
    }
    throw new HeadwaterError("Internal", `${what} at ${url} did not start: ${words(error)}`);
  }
}

function words(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
