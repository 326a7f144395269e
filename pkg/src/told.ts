/**
 * What was told of a reply, for when it is made again from the beginning because its worker or its device was lost: with the
 * same seed the same tokens come, and only what is new of them is told.
 */
import type { Piece } from "./types.js";

/** A stream of which a part was told. */
class Stream<T extends string | unknown[]> {
  #told: T;
  /** How much of it has come again. */
  #come = 0;
  /** Whether what came last was not told before, and nothing is missing before it. */
  isNew = true;

  constructor(nothing: T) {
    this.#told = nothing;
  }

  again(): void {
    this.#come = 0;
  }

  /** What of the next part is new; nothing where it is not what was told before. */
  next(part: T): T | undefined {
    const told = this.#told.slice(this.#come, this.#come + part.length) as T;
    if (!same(told, part.slice(0, told.length) as T)) return undefined;
    const fresh = part.slice(told.length) as T;
    this.isNew = this.#come === this.#told.length;
    this.#come += part.length;
    if (typeof this.#told === "string") this.#told = (this.#told + String(fresh)) as T;
    else this.#told.push(...fresh);
    return fresh;
  }
}

function same(a: string | unknown[], b: string | unknown[]): boolean {
  return typeof a === "string" || typeof b === "string" ? a === b : a.every((item, index) => item === b[index]);
}

/** Of one of several replies. */
class Choice {
  readonly text = new Stream<string>("");
  readonly reasoning = new Stream<string>("");
  readonly tokens = new Stream<number[]>([]);
  /** As JSON. */
  readonly calls = new Stream<string[]>([]);

  get streams(): readonly (Stream<string> | Stream<number[]> | Stream<string[]>)[] {
    return [this.text, this.reasoning, this.tokens, this.calls];
  }
}

/** See the top of the file. */
export class Told {
  readonly #choices: Choice[] = [];

  /** From now on the reply comes from its beginning. */
  again(): void {
    for (const { streams } of this.#choices) for (const stream of streams) stream.again();
  }

  /** What of a piece is new: nothing of it where all was told, `"differs"` where something else was. */
  next(piece: Piece): Piece | undefined | "differs" {
    const choice = (this.#choices[piece.choice] ??= new Choice());
    const text = choice.text.next(piece.text);
    const reasoning = choice.reasoning.next(piece.reasoning);
    const tokens = choice.tokens.next([...piece.tokens]);
    const calls = choice.calls.next(piece.toolCall === undefined ? [] : [JSON.stringify(piece.toolCall)]);
    if (text === undefined || reasoning === undefined || tokens === undefined || calls === undefined) return "differs";
    if (choice.streams.every(({ isNew }) => isNew)) return piece;
    if (text === "" && reasoning === "" && tokens.length === 0 && calls.length === 0) return undefined;
    const { toolCall, logprobs, ...rest } = piece;
    return {
      ...rest, text, reasoning, tokens,
      ...(toolCall === undefined || calls.length === 0 ? {} : { toolCall }),
      ...(logprobs === undefined ? {} : { logprobs: tokens.length === 0 ? [] : logprobs.slice(-tokens.length) }),
    };
  }
}
