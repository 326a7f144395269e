/** The page's elements, by their ids in `index.html`, each of the type that the code counts on. */

function find<T extends HTMLElement>(id: string, type: new () => T): T {
  const element = document.getElementById(id);
  if (!(element instanceof type)) throw new Error(`index.html has no ${type.name} "${id}"`);
  return element;
}

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

/** A new element with a class and a text; texts are text nodes, so nothing in them is ever markup. */
export function make<K extends keyof HTMLElementTagNameMap>(tag: K, className: string, text = ""): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  element.className = className;
  element.append(text);
  return element;
}

/** Says something to a screen reader without moving the focus. */
export function announce(text: string): void {
  elements.announce.textContent = text;
}
