/** What sessions are given, as messages of a model. */
import type { GenerateOptions } from "../options.js";
import type { Message, ToolDefinition } from "../types.js";

/** A part of a message; only texts are understood. */
export interface LanguageModelPart {
  type: "text" | (string & {});
  value: unknown;
}

export interface LanguageModelMessage {
  role: "system" | "user" | "assistant";
  content: string | readonly LanguageModelPart[];
  /** The last message, an assistant's, that the reply goes on from. */
  prefix?: boolean;
}

/** A text of the user, or messages. */
export type LanguageModelPrompt = string | readonly LanguageModelMessage[];

export interface LanguageModelTool {
  name: string;
  description: string;
  /** The JSON Schema of its argument, an object. */
  inputSchema: Readonly<Record<string, unknown>>;
  /** Called with what the model wrote, which nothing has compared with the schema. */
  execute(input: Readonly<Record<string, unknown>>): Promise<unknown>;
}

/** The error for what the specification has and this version lacks. */
export function notSupported(words: string): DOMException {
  return new DOMException(words, "NotSupportedError");
}

/** Fails on options that nothing knows: they would be ignored otherwise. */
export function refuseUnknown(options: object, known: readonly string[]): void {
  const unknown = Object.entries(options).find(([key, value]) => value !== undefined && !known.includes(key));
  if (unknown !== undefined) throw notSupported(`the option ${unknown[0]} is not supported`);
}

/** The messages of an input. A message of the system comes first, and only at a session's beginning. */
export function inputMessages(input: LanguageModelPrompt, initial: boolean): Message[] {
  if (typeof input === "string") return [{ role: "user", content: input }];
  if (!Array.isArray(input)) throw new TypeError("a text or a list of messages is needed");
  return (input as readonly LanguageModelMessage[]).map(({ role, content, prefix }, index, { length }) => {
    if (!["system", "user", "assistant"].includes(role)) throw new TypeError(`there is no role ${role}`);
    if (role === "system" && !(initial && index === 0)) throw new TypeError("a message of the system comes first of the initial prompts");
    if (prefix === true && (initial || role !== "assistant" || index !== length - 1)) {
      throw new DOMException("a prefix is the assistant's, and the last message of a prompt", "SyntaxError");
    }
    return { role, content: typeof content === "string" ? content : content.map(text).join("") };
  });
}

/** Messages to reply to, and the beginning of the reply where the last message is one. */
export function asked(input: LanguageModelPrompt): { messages: Message[]; prefill: string } {
  const messages = inputMessages(input, false);
  if (typeof input === "string" || input.at(-1)?.prefix !== true) return { messages, prefill: "" };
  return { messages: messages.slice(0, -1), prefill: messages.at(-1)?.content ?? "" };
}

/** The options that a constraint on a response means: a JSON Schema, or a regular expression that the response has a match of from end to end. */
export function constraint(value: unknown): Pick<GenerateOptions, "json" | "regex"> {
  if (value === undefined) return {};
  if (value instanceof RegExp) {
    const flags = [...value.flags].filter((flag) => !"uvgdy".includes(flag)).join("");
    if (/[^ism]/.test(flags)) throw notSupported(`the flags ${value.flags} of a regular expression are not supported`);
    return { regex: flags === "" ? value.source : `(?${flags}:${value.source.replace(/^\^/, "").replace(/(?<!\\)\$$/, "")})` };
  }
  if (typeof value !== "object" || value === null) throw new TypeError("a constraint is a JSON Schema or a RegExp");
  return { json: value as Readonly<Record<string, unknown>> };
}

function text({ type, value }: LanguageModelPart): string {
  if (type !== "text") throw notSupported(`content of the type ${type} is not supported`);
  if (typeof value !== "string") throw new TypeError("the value of a part of text is a string");
  return value;
}

/** Tools as models are told of them. */
export function definitions(tools: readonly LanguageModelTool[]): ToolDefinition[] {
  return tools.map(({ name, description, inputSchema }) => ({
    type: "function",
    function: { name, description, parameters: inputSchema },
  }));
}
