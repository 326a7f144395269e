/** The conversation as it is shown: messages, the reply that is being written, its figures. */
import type { GenerationResult, Piece } from "../pkg/dist/index.js";
import { make } from "./dom.js";
import { elements } from "./elements.js";
import { duration, tokens } from "./words.js";

/** How near to the end (in pixels) the reader must be for the page to follow the text. */
const FOLLOW_WITHIN = 120;

/** A reply on the page. */
export interface Reply {
  /** Adds text, and what the model thinks. */
  write(piece: Piece): void;
  /** Ends it with its figures and offers another one. */
  finish(result: GenerationResult): void;
  /** Ends it before its time. */
  stopped(): void;
  /** Takes it off the page. */
  remove(): void;
}

/** Shows what the user said; returns how to take it back. */
export function showQuestion(text: string): () => void {
  const item = message("user", "You");
  item.append(make("p", "words", text));
  elements.messages.append(item);
  follow(true);
  return () => item.remove();
}

/** Begins a reply. `again` is what its button does. */
export function beginReply(again: () => void): Reply {
  const item = message("assistant", "Model");
  const words = make("p", "words waiting");
  const figures = make("p", "figures");
  item.append(words, figures);
  item.setAttribute("aria-busy", "true");
  for (const button of elements.messages.querySelectorAll("button.again")) button.remove();
  elements.messages.append(item);
  follow(true);

  let thought: HTMLElement | undefined;
  let firstMs = 0;
  let count = 0;
  const end = (line: string): void => {
    words.classList.remove("waiting");
    item.removeAttribute("aria-busy");
    figures.textContent = line;
    const button = make("button", "quiet again", "Regenerate");
    button.type = "button";
    button.addEventListener("click", again);
    figures.append(" ", button);
    follow(false);
  };
  const speed = (): string => {
    const secs = (performance.now() - firstMs) / 1000;
    return count > 1 && secs > 0 ? ` · ${((count - 1) / secs).toFixed(1)} tokens/s` : "";
  };
  return {
    write({ text, reasoning, tokens: { length } }) {
      if (count === 0) firstMs = performance.now();
      count += length;
      if (reasoning !== "") {
        thought ??= beginThought(words);
        thought.append(reasoning);
      }
      if (text !== "") {
        words.classList.remove("waiting");
        words.append(text);
      }
      figures.textContent = `${tokens(count)}${speed()}`;
      follow(false);
    },
    finish({ usage, timings, finishReason }) {
      const parts = [
        tokens(usage.completionTokens),
        `${timings.tokensPerSecond.toFixed(1)} tokens/s`,
        `first after ${duration(timings.firstTokenSecs)}`,
      ];
      if (finishReason === "length") parts.push("cut: no more room");
      end(parts.join(" · "));
    },
    stopped() {
      end(`${tokens(count)}${speed()} · stopped`);
    },
    remove() {
      item.remove();
    },
  };
}

/** A fold for what the model thinks, above its words. */
function beginThought(words: HTMLElement): HTMLElement {
  const fold = make("details", "thought");
  const text = make("p", "");
  fold.append(make("summary", "", "Thought"), text);
  words.before(fold);
  return text;
}

/** Takes the last reply off the page. */
export function removeLastReply(): void {
  const last = elements.messages.lastElementChild;
  if (last?.classList.contains("assistant") === true) last.remove();
}

/** Empties the conversation. */
export function clear(): void {
  elements.messages.replaceChildren();
}

function message(role: "user" | "assistant", speaker: string): HTMLLIElement {
  const item = make("li", `message ${role}`);
  item.append(make("span", "visually-hidden", `${speaker}: `));
  return item;
}

/** Whether the end is to be shown in the next frame, wherever the reader is. */
let wanted: boolean | undefined;

/** Keeps the end in view while the reader is there: once a frame, since asking where that is lays the list out. */
function follow(always: boolean): void {
  if (wanted === undefined) {
    requestAnimationFrame(() => {
      const list = elements.messages;
      const below = list.scrollHeight - list.scrollTop - list.clientHeight;
      if (wanted === true || below < FOLLOW_WITHIN) list.scrollTop = list.scrollHeight;
      wanted = undefined;
    });
  }
  wanted = wanted === true || always;
}
