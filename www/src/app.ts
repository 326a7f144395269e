/**
 * The demo page: choose a model, load it, chat with it. It uses the package as any page would.
 *
 * The address may say `?backend=webgpu|cpu`, `?worker=0` (the engine on the page's own thread), `?model=<url>` and
 * `?hub=<mirror>`, a mirror of the hub; one of another origin also has to be in the content security policy (`connect-src`).
 */
import { HeadwaterError, load, support, type Chat, type Generation, type LoadOptions, type Model, type ModelReference, type Progress, type Support } from "../pkg/dist/index.js";
import { make } from "./dom.js";
import { announce, elements, showError } from "./elements.js";
import { hubOptions, loadOptions, noteUnfinished, unfinished, type Accepted } from "./hub.js";
import { startKept } from "./kept.js";
import { startPicker } from "./picker.js";
import { PRESETS, STYLES, type Style } from "./presets.js";
import { beginReply, clear, removeLastReply, showQuestion } from "./transcript.js";
import { bytes, deviceNotice, deviceWords, left } from "./words.js";

const EMBEDDED = "embedded:tiny-assistant";

const PHASES: Record<Progress["phase"], string> = {
  resolve: "Asking the hub",
  wait: "Waiting for another tab",
  verify: "Verifying what is kept",
  download: "Fetching",
  inspect: "Reading the header",
  compile: "Preparing the device",
  weights: "Loading",
  ready: "Ready",
};

const address = new URLSearchParams(location.search);
const device: Promise<Support> = support();
let model: Model | undefined;
let chat: Chat | undefined;
let loading: AbortController | undefined;
let replying: AbortController | undefined;

// Loading

async function open(reference: ModelReference, name: string, options: LoadOptions = {}): Promise<boolean> {
  loading?.abort();
  const mine = new AbortController();
  loading = mine;
  await leave();
  showLoading(name);
  try {
    const loaded = await load(reference, {
      ...options,
      backend: (address.get("backend") ?? "auto") as "auto",
      worker: address.get("worker") !== "0",
      onProgress: (progress) => {
        if (loading === mine) showProgress(progress, name);
      },
      signal: mine.signal,
    });
    if (loading !== mine) {
      await loaded.dispose();
      return false;
    }
    model = loaded;
    await showChat(loaded);
    return true;
  } catch (error) {
    if (loading === mine) showStart(error instanceof HeadwaterError && error.kind === "Aborted" ? undefined : error);
    return false;
  } finally {
    if (loading === mine) loading = undefined;
  }
}

/** Fetches and opens a model of the hub. What has come of it stays when this ends too early, and is offered again. */
async function openAccepted(accepted: Accepted): Promise<void> {
  noteUnfinished(accepted);
  if (await open(accepted.reference, accepted.name, loadOptions(accepted))) noteUnfinished(undefined);
  showUnfinished();
}

function showUnfinished(): void {
  const begun = unfinished();
  elements.unfinished.hidden = begun === undefined;
  elements.unfinishedName.textContent = begun?.name ?? "";
}

/** Lets the loaded model go. */
async function leave(): Promise<void> {
  replying?.abort();
  const old = model;
  model = undefined;
  chat = undefined;
  await old?.dispose();
}

function openFiles(files: readonly File[]): void {
  if (files.length === 0) return;
  void open(files, files.length === 1 ? (files[0]?.name ?? "") : `${files.length} files`);
}

function showLoading(name: string): void {
  showStart();
  elements.loadError.hidden = true;
  elements.unfinished.hidden = true;
  elements.loading.hidden = false;
  setChoosing(false);
  elements.progress.removeAttribute("value");
  elements.loadingLabel.textContent = `Loading ${name}`;
  elements.loadingNote.textContent = "";
  elements.cancel.focus();
  announce(`Loading ${name}`);
}

function showProgress({ phase, loadedBytes, totalBytes, bytesPerSecond, etaSecs }: Progress, name: string): void {
  const label = phase === "weights" || phase === "download" ? `${PHASES[phase]} ${name}` : PHASES[phase];
  if (elements.loadingLabel.textContent !== label) {
    elements.loadingLabel.textContent = label;
    announce(label);
  }
  const counts = (phase === "weights" || phase === "download" || phase === "verify") && totalBytes > 0;
  if (!counts) return elements.progress.removeAttribute("value");
  elements.progress.value = loadedBytes / totalBytes;
  const parts = [`${bytes(loadedBytes)} of ${bytes(totalBytes)}`];
  if (bytesPerSecond > 0) parts.push(`${bytes(bytesPerSecond)}/s`);
  if (phase === "download" && etaSecs !== null) parts.push(left(etaSecs));
  elements.loadingNote.textContent = parts.join(" · ");
}

/** Back to the choice of a model, with what went wrong. */
function showStart(error?: unknown): void {
  elements.start.hidden = false;
  elements.chat.hidden = true;
  elements.change.hidden = true;
  elements.device.hidden = true;
  elements.loading.hidden = true;
  setChoosing(true);
  showError(elements.loadError, error);
  showUnfinished();
  elements.loadEmbedded.focus();
}

/** Whether a model can be chosen: not while one is being loaded. */
function setChoosing(able: boolean): void {
  elements.loadEmbedded.disabled = !able;
  elements.file.disabled = !able;
  elements.others.inert = !able;
}

// Chatting

async function showChat(loaded: Model): Promise<void> {
  const shown = loaded.info.origin?.license.attribution;
  elements.device.textContent = [loaded.info.name, ...(shown == null ? [] : [shown]), deviceWords(loaded.info, await device)].join(" · ");
  elements.device.hidden = false;
  elements.device.dataset["backend"] = loaded.info.backend.name;
  elements.change.hidden = false;
  elements.start.hidden = true;
  elements.chat.hidden = false;
  newChat();
  announce(`${loaded.info.name} is ready`);
}

function newChat(): void {
  replying?.abort();
  chat = model?.chat();
  clear();
  showError(elements.chatError, undefined);
  elements.presets.hidden = false;
  showContext();
  elements.text.focus();
}

function showContext(): void {
  const usage = chat?.contextUsage;
  if (usage !== undefined) elements.context.textContent = `${usage.usedTokens} of ${usage.totalTokens} tokens used`;
}

function send(text: string): void {
  const words = text.trim();
  const mine = chat;
  if (words === "" || mine === undefined || replying !== undefined) return;
  elements.text.value = "";
  grow();
  const takeBack = showQuestion(words);
  void reply(mine, (options) => mine.send(words, options), () => {
    takeBack();
    if (elements.text.value === "") elements.text.value = words;
  });
}

function again(): void {
  const mine = chat;
  if (mine === undefined || replying !== undefined) return;
  removeLastReply();
  void reply(mine, (options) => mine.retry(options), () => {});
}

/** Shows a reply as it is made; `undo` runs when there is none after all. */
async function reply(mine: Chat, begin: (options: object) => Generation, undo: () => void): Promise<void> {
  const abort = new AbortController();
  replying = abort;
  setBusy(true);
  showError(elements.chatError, undefined);
  elements.presets.hidden = true;
  const shown = beginReply(again);
  let text = "";
  try {
    const generation = begin({ ...STYLES[elements.style.value as Style], signal: abort.signal });
    for await (const piece of generation) {
      text += piece.text;
      shown.write(piece);
    }
    shown.finish(await generation.result());
    announce(text);
  } catch (error) {
    const stopped = error instanceof HeadwaterError && error.kind === "Aborted";
    if (stopped && text !== "") {
      shown.stopped();
      announce("Stopped");
    } else {
      shown.remove();
      if (chat === mine) undo();
      if (!stopped) failed(error);
    }
  } finally {
    replying = undefined;
    setBusy(false);
    showContext();
  }
}

/** An error of a reply; after one that ends the engine, the choice of a model is shown again. */
function failed(error: unknown): void {
  const ended = error instanceof HeadwaterError && ["EnginePoisoned", "WorkerGone", "DeviceLost", "GpuBlocked", "Disposed"].includes(error.kind);
  if (ended) showStart(error);
  else showError(elements.chatError, error);
}

function setBusy(busy: boolean): void {
  const hadFocus = [elements.send, elements.stop, elements.text].some((element) => element === document.activeElement);
  elements.send.hidden = busy;
  elements.stop.hidden = !busy;
  if (hadFocus) (busy ? elements.stop : elements.text).focus();
}

/** Makes the field as high as its text, up to the style sheet's limit. */
function grow(): void {
  elements.text.style.height = "auto";
  elements.text.style.height = `${elements.text.scrollHeight}px`;
}

// Wiring

elements.loadEmbedded.addEventListener("click", () => void open(EMBEDDED, "Tiny Assistant"));
elements.resume.addEventListener("click", () => {
  const begun = unfinished();
  if (begun !== undefined) void openAccepted(begun);
});
elements.forget.addEventListener("click", () => {
  noteUnfinished(undefined);
  showUnfinished();
});
elements.file.addEventListener("change", () => {
  openFiles([...(elements.file.files ?? [])]);
  elements.file.value = "";
});
elements.cancel.addEventListener("click", () => loading?.abort());
elements.change.addEventListener("click", () => {
  void leave();
  showStart();
});
elements.fresh.addEventListener("click", newChat);
elements.stop.addEventListener("click", () => replying?.abort());
elements.composer.addEventListener("submit", (event) => {
  event.preventDefault();
  send(elements.text.value);
});
elements.text.addEventListener("input", grow);
elements.text.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  elements.composer.requestSubmit();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") (replying ?? loading)?.abort();
});
for (const { label, text, style } of PRESETS) {
  const button = make("button", "preset", label);
  button.type = "button";
  button.title = text;
  button.addEventListener("click", () => {
    elements.style.value = style;
    send(text);
  });
  elements.presets.append(button);
}
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  elements.drop.classList.add("over");
});
document.addEventListener("dragleave", () => elements.drop.classList.remove("over"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  elements.drop.classList.remove("over");
  openFiles([...(event.dataTransfer?.files ?? [])]);
});

const notice = deviceNotice(await device, address.get("backend"));
elements.gpuNotice.textContent = notice;
elements.gpuNotice.hidden = notice === "";
startPicker((accepted) => void openAccepted(accepted));
startKept(({ reference, hub }) => void open(reference, reference, { ...hubOptions(), endpoint: hub, offline: true }), (await device).storage?.usedBytes ?? 0);
showUnfinished();
const wanted = address.get("model");
if (wanted !== null) void open(wanted === "embedded" ? EMBEDDED : wanted, wanted);
document.documentElement.dataset["ready"] = "true";
