/**
 * A reply in the making: pieces as they come, or the whole. Pieces wait for whoever reads them, so a slow reader loses
 * nothing and holds up nothing; their number is bounded by the context.
 */
import { HeadwaterError, toHeadwaterError } from "./errors.js";
import type { GenerationResult, Piece } from "./types.js";

/** Starts the work; told every piece, ended by the signal. */
export type Start<P = Piece, R = GenerationResult> = (onPiece: (piece: P) => void, signal: AbortSignal) => Promise<R>;

/** See `Model.generate`. */
export class Generation<P = Piece, R = GenerationResult> implements AsyncIterable<P> {
  readonly #pieces: P[] = [];
  readonly #abort = new AbortController();
  readonly #result: Promise<R>;
  #wake = Promise.withResolvers<void>();
  #end: "open" | "done" | HeadwaterError = "open";

  /** Begins at once. */
  constructor(start: Start<P, R>, signal: AbortSignal | undefined) {
    const both = signal === undefined ? this.#abort.signal : AbortSignal.any([signal, this.#abort.signal]);
    this.#result = start((piece) => {
      this.#pieces.push(piece);
      this.#stir();
    }, both);
    // Whoever only iterates learns of the failure there; without this the browser would report it as unhandled.
    this.#result.then(
      () => this.#finish("done"),
      (error: unknown) => this.#finish(toHeadwaterError(error)),
    );
  }

  /** The whole reply, once it has ended. */
  result(): Promise<R> {
    return this.#result;
  }

  /** The pieces from the first one on. Leaving the loop early ends the generation. */
  async *[Symbol.asyncIterator](): AsyncGenerator<P, void, undefined> {
    let next = 0;
    try {
      for (;;) {
        const piece = this.#pieces[next];
        if (piece !== undefined) {
          next += 1;
          yield piece;
        } else if (this.#end === "open") await this.#wake.promise;
        else if (this.#end === "done") return;
        else throw this.#end;
      }
    } finally {
      if (this.#end === "open") this.#abort.abort();
    }
  }

  #finish(end: "done" | HeadwaterError): void {
    this.#end = end;
    this.#stir();
  }

  #stir(): void {
    this.#wake.resolve();
    this.#wake = Promise.withResolvers();
  }
}
