/** The page's elements, by their ids in `index.html`, each of the type that the code counts on. */
import { finder, make } from "./dom.js";
import { explain } from "./words.js";

const find = finder("index.html");

export const elements = {
  device: find("device", HTMLParagraphElement),
  change: find("change", HTMLButtonElement),
  start: find("start", HTMLElement),
  gpuNotice: find("gpu-notice", HTMLParagraphElement),
  loadEmbedded: find("load-embedded", HTMLButtonElement),
  drop: find("drop", HTMLLabelElement),
  file: find("file", HTMLInputElement),
  loading: find("loading", HTMLDivElement),
  loadingLabel: find("loading-label", HTMLLabelElement),
  loadingNote: find("loading-note", HTMLParagraphElement),
  progress: find("progress", HTMLProgressElement),
  cancel: find("cancel", HTMLButtonElement),
  loadError: find("load-error", HTMLDivElement),
  others: find("others", HTMLDivElement),
  unfinished: find("unfinished", HTMLDivElement),
  unfinishedName: find("unfinished-name", HTMLElement),
  resume: find("resume", HTMLButtonElement),
  forget: find("forget", HTMLButtonElement),
  hubName: find("hub-name", HTMLElement),
  finder: find("finder", HTMLFormElement),
  search: find("search", HTMLInputElement),
  models: find("models", HTMLUListElement),
  noModels: find("no-models", HTMLParagraphElement),
  token: find("token", HTMLInputElement),
  kept: find("kept", HTMLDetailsElement),
  keptSum: find("kept-sum", HTMLParagraphElement),
  keptModels: find("kept-models", HTMLUListElement),
  keptError: find("kept-error", HTMLDivElement),
  clear: find("clear", HTMLButtonElement),
  chat: find("chat", HTMLElement),
  messages: find("messages", HTMLOListElement),
  chatError: find("chat-error", HTMLDivElement),
  presets: find("presets", HTMLDivElement),
  composer: find("composer", HTMLFormElement),
  text: find("text", HTMLTextAreaElement),
  send: find("send", HTMLButtonElement),
  stop: find("stop", HTMLButtonElement),
  style: find("style", HTMLSelectElement),
  context: find("context", HTMLSpanElement),
  fresh: find("fresh", HTMLButtonElement),
  announce: find("announce", HTMLParagraphElement),
};

/** Shows what went wrong and what to do about it; nothing where nothing did. */
export function showError(place: HTMLElement, error: unknown): void {
  place.hidden = error === undefined;
  if (error === undefined) return place.replaceChildren();
  const { kind, words, advice } = explain(error);
  place.dataset["kind"] = kind;
  place.replaceChildren(make("strong", "", kind), make("p", "", words));
  if (advice !== "") place.append(make("p", "advice", advice));
}

/** Says something to a screen reader without moving the focus. */
export function announce(text: string): void {
  elements.announce.textContent = text;
}
