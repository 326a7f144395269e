/** How likely tokens were, in the two shapes that OpenAI's interface has for it. */
import type { TokenLogprob } from "../types.js";
import type { EchoedToken } from "./echo.js";
import type { ChatLogprobs, TextLogprobs } from "./types.js";

/** As chats have it; null where nothing was asked for. */
export function chatLogprobs(tokens: readonly TokenLogprob[] | undefined): ChatLogprobs | null {
  if (tokens === undefined || tokens.length === 0) return null;
  const entry = ({ text, logprob }: TokenLogprob) => ({ token: text, logprob, bytes: bytesOf(text) });
  return { content: tokens.map((token) => ({ ...entry(token), top_logprobs: (token.top ?? []).map(entry) })), refusal: null };
}

/** As texts have it; `start` is where in the whole text the first token begins. */
export function textLogprobs(tokens: readonly EchoedToken[] | undefined, start: number): TextLogprobs | null {
  if (tokens === undefined || tokens.length === 0) return null;
  let at = start;
  return {
    tokens: tokens.map(({ text }) => text),
    token_logprobs: tokens.map(({ logprob }) => logprob),
    top_logprobs: tokens.map(({ top }) => (top === undefined ? null : Object.fromEntries(top.map(({ text, logprob }) => [text, logprob])))),
    text_offset: tokens.map(({ text }) => {
      at += text.length;
      return at - text.length;
    }),
  };
}

/** Unknown where a token is a part of a character. */
function bytesOf(text: string): number[] | null {
  return text.includes("\ufffd") ? null : Array.from(new TextEncoder().encode(text));
}
