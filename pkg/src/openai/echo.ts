/** What `echo` puts before an answer: the prompt itself, and how likely the model found its tokens. */
import type { Prompt, TokenLogprob } from "../types.js";
import type { Served } from "./completions.js";
import { RequestError } from "./errors.js";
import type { CallOptions } from "./types.js";

/** A token; before the first one of a text there is nothing that could tell how likely it is. */
export type EchoedToken = Omit<TokenLogprob, "logprob"> & { readonly logprob: number | null };

/** A prompt as it is told. */
export interface Echo {
  readonly text: string;
  readonly tokens: readonly EchoedToken[] | undefined;
}

/** Tells a prompt, with `top` alternatives to each of its tokens where log probabilities are asked for. */
export async function echoed({ model }: Served, prompt: Prompt, top: number | undefined, { signal }: CallOptions): Promise<Echo> {
  const { score, tokenize, detokenize } = model;
  if (score === undefined || tokenize === undefined || detokenize === undefined) {
    throw new RequestError("unsupported_value", "echo", "'echo' is not supported by this model.");
  }
  const textOf = (ids: readonly number[]): Promise<string> => detokenize.call(model, ids);
  const isText = typeof prompt === "string";
  const ids = isText ? await tokenize.call(model, prompt) : (prompt as readonly number[]);
  const text = isText ? prompt : await textOf(ids);
  if (top === undefined || ids.length === 0) return { text, tokens: undefined };

  // Where the tokenizer puts a token before a text, that is what the first one follows; it is not told.
  const begins = isText && (await tokenize.call(model, prompt, { addSpecial: true }))[0] !== ids[0];
  const first = begins ? 0 : 1;
  const item = begins ? { continuation: text } : { context: ids.slice(0, 1), continuation: ids.slice(1) };
  const options = { topLogprobs: top, ...(signal == null ? {} : { signal }) };
  const [found] = ids.length > first ? await score.call(model, [item], options) : [];
  const tokens = await Promise.all(ids.map(async (id, at): Promise<EchoedToken> => {
    const [logprob, alternatives] = [found?.tokenLogprobs[at - first] ?? null, found?.topLogprobs?.[at - first]];
    return { id, text: await textOf([id]), logprob, ...(alternatives === undefined ? {} : { top: alternatives }) };
  }));
  return { text, tokens };
}
