/**
 * A conversation: the messages so far and the reply in the making. The model keeps keys and values by their tokens'
 * prefix, so a turn, a retry or an edit computes only what is new.
 */
import { HeadwaterError } from "./errors.js";
import { Generation } from "./generation.js";
import type { GenerateOptions } from "./options.js";
import { readSaved, writeSaved } from "./saved-chat.js";
import type { GenerationResult, Message, Piece, Prompt, Restored } from "./types.js";

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
  saveCache(prompt: Prompt, options: GenerateOptions): Promise<Blob>;
  restoreCache(saved: Blob): Promise<Restored>;
}

const OPTIONS = ["system", "messages", "defaults"];
/** Made by `Model.chat`. */
export class Chat {
  readonly #model: Speaker;
  readonly #defaults: Omit<GenerateOptions, "signal">;
  /** Of the last reply: its prompt was made with these. */
  #settings: Omit<GenerateOptions, "signal">;
  #messages: Message[];
  #usedTokens = 0;
  #replying = false;

  /** Made by `Model.chat`. */
  constructor(model: Speaker, options: ChatOptions) {
    const unknown = Object.keys(options).find((key) => !OPTIONS.includes(key));
    if (unknown !== undefined) throw refuse(`chat has no option ${unknown}`);
    this.#model = model;
    this.#defaults = options.defaults ?? {};
    this.#settings = this.#defaults;
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

  /**
   * The conversation as it stands, with its keys and values where there are some, for `restore` in a chat of this model or of
   * another.
   */
  async save(): Promise<Blob> {
    this.#checkIdle();
    const messages = this.messages;
    // The prefix of a reply is in its message now.
    const { prefill: _, ...settings } = this.#settings;
    const cache = messages.length === 0 ? new Blob() : await this.#model.saveCache(messages, settings);
    return writeSaved({ messages, cache });
  }

  /**
   * Goes on from a saved conversation in place of this one. Its keys and values are brought back where they are this model's;
   * what is left over is computed with the next reply. Damaged ones fail, and this chat stays as it was.
   */
  async restore(saved: Blob): Promise<Restored> {
    this.#checkIdle();
    const { messages, cache } = await readSaved(saved);
    const restored = cache.size === 0 ? { tokens: 0 } : await this.#model.restoreCache(cache);
    this.#checkIdle();
    this.#messages = messages;
    this.#usedTokens = 0;
    return restored;
  }

  #reply(messages: Message[], options: GenerateOptions): Generation {
    this.#checkIdle();
    const { signal, ...rest } = options;
    const settings = { ...this.#defaults, ...rest };
    const { prefill = "" } = settings;
    this.#settings = settings;
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
        const used = result.usage.promptTokens + result.usage.completionTokens;
        this.#usedTokens = Math.min(used, this.#model.info.context);
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

function refuse(words: string): HeadwaterError {
  return new HeadwaterError("InvalidArgument", words);
}
