/** How often a model was lost of late: what is lost again and again is not brought back for ever. */

import { HeadwaterError } from "./errors.js";

/** So many losses within `WITHIN_MS` are too many; browsers block pages that lose the graphics device as often. */
const TOO_MANY = 3;
const WITHIN_MS = 120_000;

/** Counts losses. */
export class Losses {
  #at: number[] = [];

  /** Counts one; says whether it was one too many. */
  isTooMany(): boolean {
    const now = performance.now();
    this.#at = [...this.#at.filter((at) => now - at < WITHIN_MS), now];
    return this.#at.length >= TOO_MANY;
  }
}

/** What calls fail with then. */
export function tooMany(type: "deviceLost" | "workerLost", error: HeadwaterError): HeadwaterError {
  const words = "three times within two minutes; nothing is tried any more";
  if (type === "deviceLost") return new HeadwaterError("GpuBlocked", `the graphics device was lost ${words} until the model is loaded again (${error.message})`);
  return new HeadwaterError(error.kind, `the worker was lost ${words} (${error.message})`, error.details);
}
