/** Where a loaded model lives: with one host, or with several that share it. */
import { aborted, unlessAborted } from "./files.js";
import { toHeadwaterError } from "./errors.js";
import type { WebEngine } from "./engine.js";
import type { ModelInfo } from "./types.js";

/** A model that was loaded. */
export interface Loaded {
  readonly engine: WebEngine;
  readonly info: ModelInfo;
}

/** Loads a model, telling its progress in JSON. */
export type Make = (onProgress: (json: string) => void) => Promise<Loaded>;

/** A host's hold on a model. */
export interface Slot {
  /** The model, once it is loaded. */
  readonly engine: WebEngine | undefined;
  /** Loads it, or joins a load that is under way. */
  load(make: Make, signal: AbortSignal, onProgress: (json: string) => void): Promise<ModelInfo>;
  /** Lets it go. */
  release(): void;
}

/** A model of one host. */
export class OwnSlot implements Slot {
  engine: WebEngine | undefined;

  async load(make: Make, signal: AbortSignal, onProgress: (json: string) => void): Promise<ModelInfo> {
    const { engine, info } = await make(onProgress);
    if (signal.aborted) {
      engine.dispose();
      throw aborted();
    }
    // The one before is of no use where the client loads again.
    this.release();
    this.engine = engine;
    return info;
  }

  release(): void {
    this.engine?.dispose();
    this.engine = undefined;
  }
}

/** A model of several hosts: loaded by the first, freed when the last lets go. */
export class SharedModel {
  #loaded: Loaded | undefined;
  #loading: Promise<Loaded> | undefined;
  readonly #users = new Set<Slot>();
  readonly #listeners = new Set<(json: string) => void>();
  readonly #whenUnused: () => void;

  /** Calls `whenUnused` when the last of its slots lets go. */
  constructor(whenUnused: () => void) {
    this.#whenUnused = whenUnused;
  }

  /** A hold for another host. */
  slot(): Slot {
    const shared = this;
    const slot: Slot = {
      get engine() {
        return shared.#loaded?.engine;
      },
      load: (make, signal, onProgress) => shared.#load(make, signal, onProgress),
      release: () => shared.#release(slot),
    };
    this.#users.add(slot);
    return slot;
  }

  async #load(make: Make, signal: AbortSignal, onProgress: (json: string) => void): Promise<ModelInfo> {
    this.#listeners.add(onProgress);
    try {
      for (;;) {
        if (signal.aborted) throw aborted();
        this.#loading ??= this.#begin(make);
        try {
          return (await unlessAborted(signal, this.#loading)).info;
        } catch (error) {
          // Whoever began the load gave up; the others begin it again.
          if (signal.aborted || toHeadwaterError(error).kind !== "Aborted") throw error;
        }
      }
    } finally {
      this.#listeners.delete(onProgress);
    }
  }

  async #begin(make: Make): Promise<Loaded> {
    try {
      const loaded = await make((json) => {
        for (const listener of [...this.#listeners]) listener(json);
      });
      this.#loaded = loaded;
      if (this.#users.size === 0) this.#free();
      return loaded;
    } catch (error) {
      this.#loading = undefined;
      throw error;
    }
  }

  #release(slot: Slot): void {
    if (!this.#users.delete(slot) || this.#users.size > 0) return;
    this.#free();
    this.#whenUnused();
  }

  #free(): void {
    this.#loaded?.engine.dispose();
    this.#loaded = undefined;
    this.#loading = undefined;
  }
}
