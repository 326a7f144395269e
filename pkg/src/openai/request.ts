/**
 * Requests in OpenAI's names to the engine's options. Every parameter is honoured, or refused by its name; the few that ask
 * for nothing (`user`, ...) are listed as such.
 */
import type { GenerateOptions } from "../options.js";
import type { Message } from "../types.js";
import { RequestError } from "./errors.js";

/** A request's body, of which nothing is known yet. */
export type Body = Readonly<Record<string, unknown>>;

/** Parameters that the engine has under another name; it checks them. */
const SAME: Readonly<Record<string, keyof GenerateOptions>> = {
  max_tokens: "maxTokens",
  temperature: "temperature",
  top_p: "topP",
  frequency_penalty: "frequencyPenalty",
  presence_penalty: "presencePenalty",
  seed: "seed",
  stop: "stop",
  top_k: "topK",
  min_p: "minP",
  repetition_penalty: "repetitionPenalty",
  ignore_eos: "ignoreEos",
  logit_bias: "logitBias",
  n: "n",
};
export const SAME_IN_CHAT: Readonly<Record<string, keyof GenerateOptions>> = {
  ...SAME,
  max_completion_tokens: "maxTokens",
  logprobs: "logprobs",
  top_logprobs: "topLogprobs",
  tools: "tools",
  tool_choice: "toolChoice",
  chat_template_kwargs: "templateVariables",
};
/** Parameters that are read elsewhere. */
const READ = ["model", "stream", "stream_options"];
/** Parameters that tell who asks, and change nothing of the answer. */
const INERT = ["user", "metadata", "safety_identifier", "prompt_cache_key"];
/** Parameters that are served with these values alone, which are what is done without them. */
const ONLY: Readonly<Record<string, readonly unknown[]>> = {
  best_of: [1],
  store: [false],
  modalities: [["text"]],
  parallel_tool_calls: [true],
  service_tier: ["auto", "default"],
  suffix: [],
  functions: [],
  function_call: [],
  audio: [],
  prediction: [],
  verbosity: [],
  web_search_options: [],
  prompt_cache_retention: [],
};

/** Replies to one prompt, at most, as the engine has it. */
const MAX_ECHOES = 128;

/** Fails unless every parameter can be honoured. `null` is as good as absent. */
export function checkParameters(body: Body, known: readonly string[]): void {
  for (const [param, value] of Object.entries(body)) {
    if (value === null || value === undefined || known.includes(param) || READ.includes(param) || INERT.includes(param)) continue;
    const values = ONLY[param];
    if (values === undefined) throw new RequestError("unknown_parameter", param, `Unknown parameter: '${param}'.`);
    if (values.some((one) => JSON.stringify(one) === JSON.stringify(value))) continue;
    if (values.length === 0) throw new RequestError("unsupported_parameter", param, `'${param}' is not supported yet.`);
    const allowed = values.map((one) => JSON.stringify(one)).join(" or ");
    throw new RequestError("unsupported_value", param, `'${param}' is supported with ${allowed} only.`);
  }
}

/** The options of a chat's answer. */
export function chatOptions(body: Body): GenerateOptions {
  checkParameters(body, [...Object.keys(SAME_IN_CHAT), "messages", "reasoning_effort", "response_format"]);
  const options: Record<string, unknown> = renamed(body, SAME_IN_CHAT);
  const effort = body["reasoning_effort"] ?? undefined;
  if (effort !== undefined) {
    if (effort !== "none") throw new RequestError("unsupported_value", "reasoning_effort", "'reasoning_effort' is supported with \"none\" only.");
    options["reasoning"] = { enabled: false };
  }
  return { ...options, ...responseFormat(body["response_format"] ?? undefined) } as GenerateOptions;
}

/** What a format of the answer asks for. A schema is always kept to, whether `strict` or not. */
function responseFormat(format: unknown): Pick<GenerateOptions, "json"> {
  const param = "response_format";
  if (format === undefined) return {};
  if (!isObject(format)) throw new RequestError("invalid_value", param, `'${param}' is not an object.`);
  switch (format["type"]) {
    case "text":
      return {};
    case "json_object":
      return { json: { type: "object" } };
    case "json_schema": {
      const { schema } = isObject(format["json_schema"]) ? format["json_schema"] : {};
      if (isObject(schema)) return { json: schema };
      throw new RequestError("invalid_value", `${param}.json_schema.schema`, `'${param}.json_schema.schema' is not an object.`);
    }
    default:
      throw new RequestError("unsupported_value", `${param}.type`, `'${param}.type' is supported with "text", "json_object" and "json_schema" only.`);
  }
}

/** The options of a text that is gone on from. */
export function textOptions(body: Body): GenerateOptions {
  checkParameters(body, [...Object.keys(SAME), "prompt", "logprobs", "echo"]);
  const options = renamed(body, SAME);
  const top = body["logprobs"] ?? undefined;
  return { ...options, ...(top === undefined ? {} : { logprobs: true, topLogprobs: top }) } as GenerateOptions;
}

function renamed(body: Body, names: Readonly<Record<string, string>>): Record<string, unknown> {
  const options: Record<string, unknown> = {};
  for (const [param, option] of Object.entries(names)) {
    const value = body[param] ?? undefined;
    if (value === undefined) continue;
    if (option in options) throw new RequestError("invalid_value", param, `'${param}' says again what another parameter says.`);
    options[option] = value;
  }
  return options;
}

/** Whether the answer begins with the prompt, and whether it is nothing else. */
export function echoing(body: Body): { echo: boolean; silent: boolean } {
  const echo = body["echo"] ?? false;
  if (typeof echo !== "boolean") throw new RequestError("invalid_value", "echo", "'echo' is not a boolean.");
  const n = body["n"] ?? 1;
  // Else the engine judges it, which is not asked before the prompt is told.
  if (echo && !(Number.isInteger(n) && Number(n) >= 1 && Number(n) <= MAX_ECHOES)) {
    throw new RequestError("invalid_value", "n", `'n' is not a whole number from 1 to ${MAX_ECHOES}.`);
  }
  return { echo, silent: echo && body["max_tokens"] === 0 };
}

/** Whether the answer is streamed, and whether its last part tells what it took. */
export function streaming(body: Body): { stream: boolean; includeUsage: boolean } {
  const stream = body["stream"] ?? false;
  if (typeof stream !== "boolean") throw new RequestError("invalid_value", "stream", "'stream' is not a boolean.");
  const options = body["stream_options"] ?? {};
  if (!isObject(options)) throw new RequestError("invalid_value", "stream_options", "'stream_options' is not an object.");
  if (body["stream_options"] != null && !stream) {
    throw new RequestError("invalid_value", "stream_options", "'stream_options' is allowed only where 'stream' is true.");
  }
  for (const [key, value] of Object.entries(options)) {
    const param = `stream_options.${key}`;
    // Padding against listeners on a network, of which there is none.
    if (key === "include_obfuscation" && value === false) continue;
    if (key !== "include_usage") throw new RequestError("unknown_parameter", param, `Unknown parameter: '${param}'.`);
    if (typeof value !== "boolean") throw new RequestError("invalid_value", param, `'${param}' is not a boolean.`);
  }
  return { stream, includeUsage: options["include_usage"] === true };
}

const ROLES = ["system", "developer", "user", "assistant", "tool"];
/** Fields that messages may have; of the rest, only what an answer's own message has and leaves empty. */
const FIELDS = ["role", "content", "name", "tool_calls", "tool_call_id", "reasoning_content"];
const EMPTY_FIELDS = ["refusal", "annotations", "audio", "function_call"];

/** The messages for the model's template. */
export function messages(body: Body): Message[] {
  const list = body["messages"];
  if (!Array.isArray(list)) throw new RequestError("invalid_value", "messages", "'messages' is not a list.");
  const names = new Map<unknown, unknown>();
  return list.map((item: unknown, index) => {
    const place = `messages[${index}]`;
    if (!isObject(item) || typeof item["role"] !== "string") throw new RequestError("invalid_value", place, `'${place}' is not a message with a role.`);
    if (!ROLES.includes(item["role"])) {
      throw new RequestError("invalid_value", `${place}.role`, `'${place}.role' is none of ${ROLES.join(", ")}.`);
    }
    const message: Record<string, unknown> = {};
    for (const [key, value] of Object.entries(item)) {
      if (FIELDS.includes(key)) message[key] = value;
      else if (!EMPTY_FIELDS.includes(key)) throw new RequestError("unknown_parameter", `${place}.${key}`, `Unknown parameter: '${place}.${key}'.`);
      else if (value != null && !(Array.isArray(value) && value.length === 0)) {
        throw new RequestError("unsupported_parameter", `${place}.${key}`, `'${place}.${key}' is not supported.`);
      }
    }
    if (message["role"] === "developer") message["role"] = "system";
    message["content"] = content(item["content"], `${place}.content`);
    const calls = item["tool_calls"];
    if (calls == null) delete message["tool_calls"];
    else if (Array.isArray(calls)) for (const call of calls as readonly MaybeCall[]) names.set(call?.id, call?.function?.name);
    // Some templates name the tool beside its result, which OpenAI's messages leave out.
    const name = names.get(item["tool_call_id"]);
    if (message["role"] === "tool" && name !== undefined) message["name"] ??= name;
    return message as unknown as Message;
  });
}

type MaybeCall = { readonly id?: unknown; readonly function?: { readonly name?: unknown } } | null | undefined;

function content(value: unknown, place: string): string | null {
  if (value === undefined || value === null) return null;
  if (typeof value === "string") return value;
  if (!Array.isArray(value)) throw new RequestError("invalid_value", place, `'${place}' is neither a text nor a list of parts.`);
  return value.map((part: unknown, index) => {
    if (isObject(part) && part["type"] === "text" && typeof part["text"] === "string") return part["text"];
    const at = `${place}[${index}]`;
    throw new RequestError("unsupported_value", at, `'${at}' is not a part of text; other parts are not supported.`);
  }).join("");
}

/** Whether something is an object with names. */
export function isObject(value: unknown): value is Body {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
