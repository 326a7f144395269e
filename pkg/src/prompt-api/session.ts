/**
 * A session: its messages, and replies one after another. When the context is full, the oldest messages go, but never the
 * system's; `contextoverflow` tells it.
 */
import { replied } from "../chat.js";
import { HeadwaterError, toHeadwaterError, type ErrorKind } from "../errors.js";
import type { Model } from "../model.js";
import type { GenerateOptions } from "../options.js";
import type { GenerationResult, Message } from "../types.js";
import { asked, constraint, definitions, inputMessages, notSupported, refuseUnknown, type LanguageModelPrompt, type LanguageModelTool } from "./input.js";

/** What a session needs of its model. */
export type SessionModel = Pick<Model, "info" | "generate" | "countTokens">;

export interface AppendOptions {
  signal?: AbortSignal;
}

export interface PromptOptions extends AppendOptions {
  /** What the response must be: a JSON Schema, or a regular expression that all of it matches. */
  responseConstraint?: Readonly<Record<string, unknown>> | RegExp;
  /** Taken for what it is: the model is not told of the constraint in words anyway. */
  omitResponseConstraintInput?: boolean;
}

interface Beginning {
  readonly messages: readonly Message[];
  readonly sampling: Pick<GenerateOptions, "topK" | "temperature">;
  readonly tools: readonly LanguageModelTool[];
}

/** Calls of tools that one prompt may lead to; a model that never stops calling would go on for ever. */
const MAX_ROUNDS = 16;

/** What the specification calls errors of ours; the others are its `OperationError`. */
const NAMES: Readonly<Partial<Record<ErrorKind, string>>> = { SchemaUnsupported: "NotSupportedError", SchemaLimit: "NotSupportedError" };

/** Made by `LanguageModel.create`. */
export class Session extends EventTarget {
  /** Called when messages went because the context was full. */
  oncontextoverflow: ((event: Event) => void) | null = null;
  readonly #model: SessionModel;
  readonly #sampling: Beginning["sampling"];
  readonly #tools: readonly LanguageModelTool[];
  readonly #destroyed = new AbortController();
  #messages: readonly Message[];
  #usage = 0;
  /** Prompts take turns. */
  #last: Promise<unknown> = Promise.resolve();

  private constructor(model: SessionModel, { messages, sampling, tools }: Beginning) {
    super();
    this.#model = model;
    this.#messages = messages;
    this.#sampling = sampling;
    this.#tools = tools;
  }

  /** A session that begins with these messages. */
  static async begin(model: SessionModel, beginning: Beginning): Promise<Session> {
    const session = new Session(model, beginning);
    session.#usage = await session.#count(beginning.messages);
    if (session.#usage > session.contextWindow) throw full(session.#usage, session.contextWindow);
    return session;
  }

  /** Tokens that prompts and replies may have together. */
  get contextWindow(): number {
    return this.#model.info.context;
  }

  /** Tokens that the session's messages take. */
  get contextUsage(): number {
    return this.#usage;
  }

  /** The whole reply. */
  async prompt(input: LanguageModelPrompt, options: PromptOptions = {}): Promise<string> {
    let text = "";
    for await (const piece of this.#reply(input, options)) text += piece;
    return text;
  }

  /** The reply in pieces. */
  promptStreaming(input: LanguageModelPrompt, options: PromptOptions = {}): ReadableStream<string> {
    const pieces = this.#reply(input, options);
    return new ReadableStream({
      async pull(controller) {
        try {
          const { done, value } = await pieces.next();
          if (done === true) controller.close();
          else controller.enqueue(value);
        } catch (error) {
          controller.error(error);
        }
      },
      async cancel() {
        await pieces.return();
      },
    });
  }

  /** Adds messages that are not replied to. */
  async append(input: LanguageModelPrompt, options: AppendOptions = {}): Promise<undefined> {
    await this.#inTurn(options, async () => {
      let [kept, usage] = [this.#messages, 0];
      const added = inputMessages(input, false);
      for (;;) {
        usage = await this.#count([...kept, ...added]);
        if (usage <= this.contextWindow) break;
        const fewer = without(kept, turnAfter(kept));
        if (fewer.length === kept.length) throw full(usage, this.contextWindow);
        kept = fewer;
      }
      const overflows = kept.length < this.#messages.length;
      this.#keep([...kept, ...added], usage);
      if (overflows) this.#overflow();
    });
  }

  /** Tokens that an input would add. */
  async measureContextUsage(input: LanguageModelPrompt, options: PromptOptions = {}): Promise<number> {
    this.#check(options);
    const messages = inputMessages(input, false);
    return (await this.#count([...this.#messages, ...messages])) - (await this.#count(this.#messages));
  }

  /** A second session that begins as this one stands. */
  async clone(options: { signal?: AbortSignal } = {}): Promise<Session> {
    this.#check(options);
    await this.#last;
    options.signal?.throwIfAborted();
    return Session.begin(this.#model, { messages: this.#messages, sampling: this.#sampling, tools: this.#tools });
  }

  /** Ends the session and what it is about to say. The model stays for others. */
  destroy(): undefined {
    this.#destroyed.abort(new DOMException("the session was destroyed", "AbortError"));
  }

  async #count(messages: readonly Message[]): Promise<number> {
    return messages.length === 0 ? 0 : this.#model.countTokens(messages);
  }

  #keep(messages: readonly Message[], usage: number): void {
    this.#messages = messages;
    this.#usage = usage;
  }

  #check(options: PromptOptions): void {
    refuseUnknown(options, ["signal", "responseConstraint", "omitResponseConstraintInput"]);
    if (this.#destroyed.signal.aborted) throw new DOMException("the session was destroyed", "InvalidStateError");
    options.signal?.throwIfAborted();
  }

  /** Waits for the session's turn, does the work, and lets the next one have its turn. */
  async #inTurn<T>(options: PromptOptions, work: () => Promise<T>): Promise<T> {
    this.#check(options);
    const before = this.#last;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#last = promise;
    try {
      await before;
      this.#check(options);
      return await work();
    } finally {
      resolve();
    }
  }

  async *#reply(input: LanguageModelPrompt, options: PromptOptions): AsyncGenerator<string, void, undefined> {
    this.#check(options);
    const before = this.#last;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#last = promise;
    const signal = options.signal === undefined ? this.#destroyed.signal : AbortSignal.any([options.signal, this.#destroyed.signal]);
    try {
      await before;
      this.#check(options);
      const { messages: added, prefill } = asked(input);
      const bound = constraint(options.responseConstraint);
      let messages: readonly Message[] = [...this.#messages, ...added];
      let fresh = added.length;
      for (let round = 0; round < MAX_ROUNDS; round += 1) {
        // A prefix is how the first reply begins.
        const begun = round === 0 && prefill !== "" ? { prefill } : {};
        const said = yield* this.#say(messages, fresh, { ...bound, ...begun }, signal);
        messages = [...said.messages, replied(said.result, begun.prefill)];
        if (said.result.toolCalls.length === 0) {
          const { promptTokens, completionTokens } = said.result.usage;
          this.#keep(messages, Math.min(promptTokens + completionTokens, this.contextWindow));
          return;
        }
        const results = await this.#call(said.result);
        messages = [...messages, ...results];
        fresh = Math.min(fresh + 1 + results.length, messages.length);
      }
      throw new DOMException(`the model called tools ${MAX_ROUNDS} times and did not answer`, "OperationError");
    } catch (thrown) {
      if (signal.aborted) throw signal.reason;
      if (thrown instanceof HeadwaterError) throw new DOMException(thrown.message, NAMES[thrown.kind] ?? "OperationError");
      throw thrown;
    } finally {
      resolve();
    }
  }

  /** One reply of the model. The oldest messages go that leave it no room, but none of the last `fresh`. */
  async *#say(asked: readonly Message[], fresh: number, more: GenerateOptions, signal: AbortSignal): AsyncGenerator<string, { messages: readonly Message[]; result: GenerationResult }, undefined> {
    const tools = this.#tools.length === 0 ? {} : { tools: definitions(this.#tools) };
    const generation = this.#model.generate(asked, { ...this.#sampling, ...tools, onOverflow: "sliding", ...more, signal });
    const history = asked.length - systems(asked) - fresh;
    let gone = 0;
    try {
      for await (const { text, tokens, dropped } of generation) {
        if (dropped !== undefined && dropped.messages > gone) {
          if (tokens.length === 0 && gone === 0 && dropped.messages > history) throw full(await this.#count(asked), this.contextWindow);
          gone = dropped.messages;
          this.#overflow();
        }
        if (text !== "") yield text;
      }
      return { messages: without(asked, gone), result: await generation.result() };
    } catch (thrown) {
      if (!(thrown instanceof DOMException) && toHeadwaterError(thrown).kind === "ContextFull") throw full(await this.#count(asked), this.contextWindow);
      throw thrown;
    }
  }

  /** Tells that messages went. */
  #overflow(): void {
    const event = new Event("contextoverflow");
    this.oncontextoverflow?.(event);
    this.dispatchEvent(event);
  }

  async #call({ toolCalls }: GenerationResult): Promise<Message[]> {
    return Promise.all(toolCalls.map(async ({ id, name, arguments: input }) => {
      const tool = this.#tools.find((one) => one.name === name);
      if (tool === undefined) throw notSupported(`the model called ${name}, which is no tool of the session`);
      const value = await tool.execute(input);
      return { role: "tool", name, tool_call_id: id, content: typeof value === "string" ? value : JSON.stringify(value ?? null) };
    }));
  }
}

/** Messages without the first `count` of those behind the system's. */
function without(messages: readonly Message[], count: number): readonly Message[] {
  return messages.filter(({ role }, index) => role === "system" || index >= count + systems(messages));
}

function systems(messages: readonly Message[]): number {
  return messages[0]?.role === "system" ? 1 : 0;
}

/** Messages of the oldest turn. */
function turnAfter(messages: readonly Message[]): number {
  const first = systems(messages);
  const next = messages.findIndex(({ role }, index) => index > first && role === "user");
  return (next < 0 ? messages.length : next) - first;
}

/** The platform's own error where it has one, else what it was before that. */
function full(tokens: number, window: number): DOMException {
  const words = `${tokens} tokens are too many for a context of ${window}`;
  const { QuotaExceededError } = globalThis as { QuotaExceededError?: new (words: string, options: { requested: number; quota: number }) => DOMException };
  if (QuotaExceededError === undefined) return new DOMException(words, "QuotaExceededError");
  return new QuotaExceededError(words, { requested: tokens, quota: window });
}
