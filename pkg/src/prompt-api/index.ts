/**
 * `LanguageModel` as the Prompt API specifies it (https://webmachinelearning.github.io/prompt-api/), over a model that you
 * chose. Nothing is installed unless `install` is called. Failures are `DOMException`s, as the specification has them.
 */
import { toHeadwaterError } from "../errors.js";
import type { Model } from "../model.js";
import type { Progress } from "../types.js";
import { Session, type SessionModel } from "./session.js";
import { inputMessages, notSupported, refuseUnknown, type LanguageModelPrompt, type LanguageModelTool } from "./input.js";

export type { LanguageModelMessage, LanguageModelPart, LanguageModelPrompt, LanguageModelTool } from "./input.js";
export type { AppendOptions, PromptOptions, Session } from "./session.js";

/** A model, or how to load it: that happens once, when the first session is made. */
export type LanguageModelSource =
  | SessionModel
  | ((options: { onProgress: (progress: Progress) => void; signal?: AbortSignal }) => Promise<Model>);

export type Availability = "unavailable" | "downloadable" | "downloading" | "available";

/** What a session is told at its beginning, as far as it decides whether there can be one. */
export interface CoreOptions {
  topK?: number;
  temperature?: number;
  expectedInputs?: readonly Expected[];
  expectedOutputs?: readonly Expected[];
  /** Tools that the model may call; it is given what `execute` returns. */
  tools?: readonly LanguageModelTool[];
}

/** A kind of content; only texts are understood. What languages a model knows is for its user to know. */
export interface Expected {
  type: "text" | "image" | "audio" | (string & {});
  languages?: readonly string[];
}

export interface CreateOptions extends CoreOptions {
  /** Messages that the session begins with; the first may be the system's. */
  initialPrompts?: LanguageModelPrompt;
  /** Given a target of `downloadprogress` events before anything is loaded. */
  monitor?: (monitor: EventTarget) => void;
  signal?: AbortSignal;
}

/** The interface object. */
export interface LanguageModel {
  create(options?: CreateOptions): Promise<Session>;
  availability(options?: CoreOptions): Promise<Availability>;
}

const CORE = ["topK", "temperature", "expectedInputs", "expectedOutputs", "tools"];
const CREATE = [...CORE, "initialPrompts", "monitor", "signal"];

/** `LanguageModel` over a model. */
export function languageModel(source: LanguageModelSource): LanguageModel {
  let state: Availability = typeof source === "function" ? "downloadable" : "available";
  let loading: Promise<SessionModel> | undefined = typeof source === "function" ? undefined : Promise.resolve(source);
  const listeners = new Set<(progress: Progress) => void>();
  const load = (signal: AbortSignal | undefined): Promise<SessionModel> => {
    if (loading !== undefined || typeof source !== "function") return loading ?? Promise.resolve(source as SessionModel);
    state = "downloading";
    const onProgress = (progress: Progress): void => listeners.forEach((listener) => listener(progress));
    loading = source(signal === undefined ? { onProgress } : { onProgress, signal });
    loading.then(
      () => (state = "available"),
      () => {
        loading = undefined;
        state = "downloadable";
      },
    );
    return loading;
  };
  return {
    async availability(options = {}) {
      refuseUnknown(options, CORE);
      return isServed(options) ? state : "unavailable";
    },
    async create(options = {}) {
      refuseUnknown(options, CREATE);
      const { initialPrompts = [], monitor, signal, topK, temperature, tools = [] } = options;
      signal?.throwIfAborted();
      if (!isServed(options)) throw notSupported("only texts are understood");
      const messages = inputMessages(initialPrompts, true);
      const target = new EventTarget();
      const tell = ({ loadedBytes, totalBytes }: Progress): void => {
        const loaded = totalBytes > 0 ? Math.min(loadedBytes / totalBytes, 1) : 0;
        target.dispatchEvent(new ProgressEvent("downloadprogress", { lengthComputable: true, loaded, total: 1 }));
      };
      monitor?.(target);
      listeners.add(tell);
      try {
        const model = await load(signal);
        signal?.throwIfAborted();
        const sampling = { ...(topK === undefined ? {} : { topK }), ...(temperature === undefined ? {} : { temperature }) };
        return await Session.begin(model, { messages, sampling, tools });
      } catch (thrown) {
        signal?.throwIfAborted();
        if (thrown instanceof DOMException) throw thrown;
        throw new DOMException(toHeadwaterError(thrown).message, "OperationError");
      } finally {
        listeners.delete(tell);
      }
    },
  };
}

/** Makes it the page's `LanguageModel`, in the place of the browser's if it has one. */
export function install(source: LanguageModelSource): void {
  Object.defineProperty(globalThis, "LanguageModel", { value: languageModel(source), configurable: true, writable: true });
}

function isServed({ expectedInputs = [], expectedOutputs = [] }: CoreOptions): boolean {
  return [...expectedInputs, ...expectedOutputs].every(({ type }) => type === "text");
}
