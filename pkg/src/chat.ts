/**
 * A conversation: the messages so far and the reply in the making. The model keeps keys and values by their tokens'
 * prefix, so a turn, a retry or an edit computes only what is new.
 */
import { HeadwaterError } from "./errors.js";
import { Generation } from "./generation.js";
import type { GenerateOptions } from "./options.js";
import type { GenerationResult, Message, Piece, Prompt } from "./types.js";

/** How a conversation begins. */
export interface ChatOptions {
  /** A system message, before all others. */
  system?: string;
  /** Messages to go on from. */
  messages?: readonly Message[];
  /** Used for every reply, unless the turn says otherwise. */
  defaults?: Omit<GenerateOptions, "signal">;
}

/** Room that the conversation takes. */
export interface ContextUsage {
  readonly usedTokens: number;
  readonly totalTokens: number;
}

/** What a chat needs of its model. */
interface Speaker {
  readonly info: { readonly context: number };
  generate(prompt: Prompt, options: GenerateOptions): Generation;
}

/** What `Chat.save` writes. */
interface Saved {
  readonly format: typeof FORMAT;
  readonly version: typeof VERSION;
  readonly messages: Message[];
}

const OPTIONS = ["system", "messages", "defaults"];
const FORMAT = "headwater-chat";
const VERSION = 1;

/** Made by `Model.chat`. */
export class Chat {
  readonly #model: Speaker;
  readonly #defaults: Omit<GenerateOptions, "signal">;
  #messages: Message[];
  #usedTokens = 0;
  #replying = false;

  /** Made by `Model.chat`. */
  constructor(model: Speaker, options: ChatOptions) {
    const unknown = Object.keys(options).find((key) => !OPTIONS.includes(key));
    if (unknown !== undefined) throw refuse(`chat has no option ${unknown}`);
    this.#model = model;
    this.#defaults = options.defaults ?? {};
    const system = options.system === undefined ? [] : [{ role: "system", content: options.system }];
    this.#messages = structuredClone([...system, ...(options.messages ?? [])]);
  }

  /** The messages so far; a copy. A reply appears once it has ended. */
  get messages(): Message[] {
    return structuredClone(this.#messages);
  }

  /** Room taken as of the last reply. */
  get contextUsage(): ContextUsage {
    return { usedTokens: this.#usedTokens, totalTokens: this.#model.info.context };
  }

  /**
   * Says something and begins the reply. If the reply fails, the conversation is as it was; if a signal ends it, what it
   * had said by then stands.
   */
  send(text: string, options: GenerateOptions = {}): Generation {
    return this.#reply([...this.#messages, { role: "user", content: text }], options);
  }

  /** Begins another reply to the last message of the user, in place of the one there is. */
  retry(options: GenerateOptions = {}): Generation {
    const last = this.#messages.findLastIndex((message) => message.role !== "assistant");
    if (last < 0) throw refuse("there is no message to reply to");
    return this.#reply(this.#messages.slice(0, last + 1), options);
  }

  /** Rewrites a message and forgets those after it; `retry` then replies anew. */
  edit(index: number, text: string): void {
    this.#checkIdle();
    const message = this.#messages[index];
    if (message === undefined) throw refuse(`there is no message ${index}`);
    this.#messages = [...this.#messages.slice(0, index), { ...message, content: text }];
  }

  /** A second conversation that begins as this one stands. */
  fork(): Chat {
    this.#checkIdle();
    return new Chat(this.#model, { messages: this.#messages, defaults: this.#defaults });
  }

  /** The conversation as it stands, for `restore` in a chat of this model or of another. */
  async save(): Promise<Blob> {
    this.#checkIdle();
    const saved: Saved = { format: FORMAT, version: VERSION, messages: this.#messages };
    return new Blob([JSON.stringify(saved)], { type: "application/json" });
  }

  /** Goes on from a saved conversation in place of this one. Keys and values are computed anew with the next reply. */
  async restore(saved: Blob): Promise<void> {
    this.#checkIdle();
    const messages = read(await saved.text());
    this.#checkIdle();
    this.#messages = messages;
    this.#usedTokens = 0;
  }

  #reply(messages: Message[], options: GenerateOptions): Generation {
    this.#checkIdle();
    const { signal, ...rest } = options;
    const settings = { ...this.#defaults, ...rest };
    const { prefill = "" } = settings;
    const start = async (onPiece: (piece: Piece) => void, both: AbortSignal): Promise<GenerationResult> => {
      this.#replying = true;
      const before = this.#messages;
      this.#messages = messages;
      let text = "";
      try {
        const reply = this.#model.generate(messages, { ...settings, signal: both });
        for await (const piece of reply) {
          text += piece.text;
          onPiece(piece);
        }
        const result = await reply.result();
        this.#messages = [...messages, replied(result, prefill)];
        this.#usedTokens = result.usage.promptTokens + result.usage.completionTokens;
        return result;
      } catch (error) {
        const stopped = error instanceof HeadwaterError && error.kind === "Aborted" && text !== "";
        this.#messages = stopped ? [...messages, { role: "assistant", content: prefill + text }] : before;
        throw error;
      } finally {
        this.#replying = false;
      }
    };
    return new Generation(start, signal);
  }

  #checkIdle(): void {
    if (this.#replying) throw refuse("a reply is being made; await it or end it first");
  }
}

/** A reply as a message, with the prefix that it went on from. What the model thought is left out, as templates do. */
export function replied({ text: said, toolCalls }: GenerationResult, prefill = ""): Message {
  const text = prefill + said;
  if (toolCalls.length === 0) return { role: "assistant", content: text };
  const calls = toolCalls.map(({ id, ...call }) => ({ id, type: "function" as const, function: call }));
  return { role: "assistant", content: text === "" ? null : text, tool_calls: calls };
}

/** The messages of a saved conversation. */
function read(text: string): Message[] {
  let saved: Partial<Saved> | null;
  try {
    saved = JSON.parse(text) as Partial<Saved> | null;
  } catch {
    throw refuse("this is no saved chat: it is not JSON");
  }
  if (saved?.format !== FORMAT) throw refuse("this is no saved chat");
  if (saved.version !== VERSION) throw refuse(`this chat was saved in version ${String(saved.version)} of the format; this is ${VERSION}`);
  if (!Array.isArray(saved.messages)) throw refuse("the saved chat has no messages");
  const wrong = saved.messages.findIndex((message: Partial<Message> | null) => {
    const content = message?.content;
    return typeof message?.role !== "string" || (typeof content !== "string" && content !== null);
  });
  if (wrong >= 0) throw refuse(`message ${wrong} of the saved chat has no role or no content`);
  return saved.messages;
}

function refuse(words: string): HeadwaterError {
  return new HeadwaterError("InvalidArgument", words);
}
