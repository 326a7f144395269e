/** The events of a streamed completion put together. What a server sends is not trusted to have any shape. */
import { HeadwaterError } from "../errors.js";
import { isObject, type Body } from "../openai/request.js";
import type { FinishReason, ToolCall, Usage } from "../types.js";

/** A piece of a reply. Servers do not tell token ids. */
export interface RemotePiece {
  readonly text: string;
  readonly reasoning: string;
  /** A call of a tool, whole. */
  readonly toolCall?: ToolCall;
}

/** A whole reply: what a server tells of it. */
export interface RemoteResult {
  readonly text: string;
  readonly reasoning: string;
  readonly toolCalls: readonly ToolCall[];
  readonly finishReason: FinishReason;
  /** Null where the server does not tell. */
  readonly usage: Usage | null;
}

const REASONS: Readonly<Record<string, FinishReason>> = { stop: "stop", length: "length", tool_calls: "toolCalls" };

interface Begun {
  id: string;
  name: string;
  arguments: string;
}

/** Takes events, tells pieces, gives the result. */
export class Reply {
  readonly #onPiece: (piece: RemotePiece) => void;
  readonly #calls = new Map<number, Begun>();
  #text = "";
  #reasoning = "";
  #reason: FinishReason | undefined;
  #usage: Usage | null = null;

  constructor(onPiece: (piece: RemotePiece) => void) {
    this.#onPiece = onPiece;
  }

  take(event: unknown): void {
    if (!isObject(event)) return;
    if (isObject(event["usage"])) this.#usage = usage(event["usage"]);
    const choices: unknown = event["choices"];
    const choice: unknown = Array.isArray(choices) ? choices[0] : undefined;
    if (!isObject(choice)) return;
    const delta = isObject(choice["delta"]) ? choice["delta"] : {};
    this.#tell(words(delta["content"] ?? choice["text"]), words(delta["reasoning_content"] ?? delta["reasoning"]));
    const calls: unknown = delta["tool_calls"];
    if (Array.isArray(calls)) calls.forEach((call) => this.#call(call));
    const reason = choice["finish_reason"];
    if (typeof reason === "string") {
      this.#reason = REASONS[reason];
      if (this.#reason === undefined) throw new HeadwaterError("Io", `the server ended the reply for a reason that is not known: ${reason}`);
    }
  }

  /** The whole; a stream that ends before the reply does is `Truncated`. */
  finish(): RemoteResult {
    if (this.#reason === undefined) throw new HeadwaterError("Truncated", "the server's stream ended before the reply did");
    const toolCalls: ToolCall[] = [];
    for (const call of this.#calls.values()) {
      const values = object(call.arguments);
      // As for a model of the page: a call that cannot be read is text.
      if (values === undefined) this.#tell(call.arguments, "");
      else {
        const toolCall = { id: call.id, name: call.name, arguments: values };
        toolCalls.push(toolCall);
        this.#onPiece({ text: "", reasoning: "", toolCall });
      }
    }
    const ended = this.#reason === "stop" && toolCalls.length > 0 ? "toolCalls" : this.#reason;
    return { text: this.#text, reasoning: this.#reasoning, toolCalls, finishReason: ended, usage: this.#usage };
  }

  #tell(text: string, reasoning: string): void {
    this.#text += text;
    this.#reasoning += reasoning;
    if (text !== "" || reasoning !== "") this.#onPiece({ text, reasoning });
  }

  #call(call: unknown): void {
    if (!isObject(call)) return;
    const index = typeof call["index"] === "number" ? call["index"] : this.#calls.size;
    const begun = this.#calls.get(index) ?? { id: "", name: "", arguments: "" };
    const { name, arguments: part } = isObject(call["function"]) ? call["function"] : {} as Body;
    begun.id ||= words(call["id"]);
    begun.name ||= words(name);
    begun.arguments += words(part);
    this.#calls.set(index, begun);
  }
}

function words(value: unknown): string {
  return typeof value === "string" ? value : "";
}

function object(text: string): Readonly<Record<string, unknown>> | undefined {
  if (text.trim() === "") return {};
  try {
    const value: unknown = JSON.parse(text);
    return isObject(value) ? value : undefined;
  } catch {
    return undefined;
  }
}

function usage(told: Body): Usage {
  const number = (value: unknown): number => (typeof value === "number" ? value : 0);
  const cached = isObject(told["prompt_tokens_details"]) ? told["prompt_tokens_details"]["cached_tokens"] : 0;
  return {
    promptTokens: number(told["prompt_tokens"]),
    cachedTokens: number(cached),
    completionTokens: number(told["completion_tokens"]),
  };
}
