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
      const messages = [...this.#messages, ...inputMessages(input, false)];
      const usage = await this.#count(messages);
      if (usage > this.contextWindow) throw full(usage, this.contextWindow);
      this.#keep(messages, usage);
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
      for (let round = 0; round < MAX_ROUNDS; round += 1) {
        // A prefix is how the first reply begins.
        const begun = round === 0 && prefill !== "" ? { prefill } : {};
        const said = yield* this.#say(messages, { ...bound, ...begun }, signal);
        messages = [...said.messages, replied(said.result, begun.prefill)];
        if (said.result.toolCalls.length === 0) {
          this.#keep(messages, said.result.usage.promptTokens + said.result.usage.completionTokens);
          return;
        }
        messages = [...messages, ...(await this.#call(said.result))];
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

  /** One reply of the model, with the oldest messages gone that leave no room. */
  async *#say(asked: readonly Message[], more: GenerateOptions, signal: AbortSignal): AsyncGenerator<string, { messages: readonly Message[]; result: GenerationResult }, undefined> {
    let messages = asked;
    for (;;) {
      const tools = this.#tools.length === 0 ? {} : { tools: definitions(this.#tools) };
      const generation = this.#model.generate(messages, { ...this.#sampling, ...tools, ...more, signal });
      try {
        for await (const { text } of generation) if (text !== "") yield text;
        return { messages, result: await generation.result() };
      } catch (thrown) {
        if (toHeadwaterError(thrown).kind !== "ContextFull") throw thrown;
        const first = messages[0]?.role === "system" ? 1 : 0;
        if (messages.length <= first + 1) throw full(await this.#count(messages), this.contextWindow);
        messages = messages.filter((_, index) => index !== first);
        const event = new Event("contextoverflow");
        this.oncontextoverflow?.(event);
        this.dispatchEvent(event);
      }
    }
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

function full(tokens: number, window: number): DOMException {
  return new DOMException(`${tokens} tokens are too many for a context of ${window}`, "QuotaExceededError");
}
