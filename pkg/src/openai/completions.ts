/** Answers of a model in OpenAI's shapes: of a chat, of texts that are gone on from, and vectors. Whole, or in parts. */
import { HeadwaterError } from "../errors.js";
import type { Generation } from "../generation.js";
import type { EmbedOptions, GenerateOptions } from "../options.js";
import type { FinishReason, GenerationResult, Prompt, TokenLogprob, ToolCall, Usage } from "../types.js";
import { echoed, type EchoedToken } from "./echo.js";
import { RequestError } from "./errors.js";
import { chatLogprobs, textLogprobs } from "./logprobs.js";
import { chatOptions, checkParameters, echoing, messages, streaming, textOptions, type Body } from "./request.js";
import type {
  CallOptions,
  ChatCompletion,
  ChatCompletionChunk,
  ChatFinishReason,
  ChatToolCall,
  Completion,
  CompletionUsage,
  EmbeddingsAnswer,
  ServedModel,
} from "./types.js";

/** A model and what a request calls it. */
export interface Served {
  readonly model: ServedModel;
  readonly name: string;
}

const CHAT_REASONS: Readonly<Record<FinishReason, ChatFinishReason>> = { stop: "stop", length: "length", toolCalls: "tool_calls" };

/** An answer to a chat, or its parts. */
export async function chat(served: Served, body: Body, call: CallOptions): Promise<ChatCompletion | AsyncGenerator<ChatCompletionChunk>> {
  const { stream, includeUsage } = streaming(body);
  const generation = begin(served, messages(body), chatOptions(body), call);
  const head = { id: `chatcmpl-${randomName()}`, created: now(), model: served.name };
  if (stream) return chatChunks(served, generation, { ...head, object: "chat.completion.chunk" }, includeUsage);
  const results = all(await generation.result());
  const choices = results.map(({ text, reasoning, toolCalls, finishReason, logprobs }, index) => {
    const message = {
      role: "assistant" as const,
      content: text === "" && toolCalls.length > 0 ? null : text,
      refusal: null,
      ...(reasoning === "" ? {} : { reasoning_content: reasoning }),
      ...(toolCalls.length === 0 ? {} : { tool_calls: toolCalls.map(toolCall) }),
    };
    return { index, message, logprobs: chatLogprobs(shown(served, logprobs)), finish_reason: CHAT_REASONS[finishReason] };
  });
  return { ...head, object: "chat.completion", choices, usage: usageOf([results]) };
}

type ChunkHead = Pick<ChatCompletionChunk, "id" | "object" | "created" | "model">;
type Part = ChatCompletionChunk["choices"][number];
type Delta = Part["delta"];

async function* chatChunks(served: Served, generation: Generation, head: ChunkHead, includeUsage: boolean): AsyncGenerator<ChatCompletionChunk> {
  const chunk = (index: number, delta: Delta, more: Pick<Part, "logprobs" | "finish_reason"> = { logprobs: null, finish_reason: null }): ChatCompletionChunk => ({
    ...head,
    choices: [{ index, delta, ...more }],
    ...(includeUsage ? { usage: null } : {}),
  });
  // Nothing is sent before the first piece: until then a failure has a status of its own.
  const calls: number[] = [];
  for await (const { choice, text, reasoning, toolCall: call, logprobs } of generation) {
    if (calls[choice] === undefined) yield chunk(choice, { role: "assistant", content: "" });
    const number = (calls[choice] ??= 0);
    const delta = { ...(reasoning === "" ? {} : { reasoning_content: reasoning }), ...(text === "" ? {} : { content: text }) };
    const told = chatLogprobs(shown(served, logprobs));
    if (reasoning !== "" || text !== "" || told !== null) yield chunk(choice, delta, { logprobs: told, finish_reason: null });
    if (call !== undefined) {
      yield chunk(choice, { tool_calls: [{ index: number, ...toolCall(call) }] });
      calls[choice] = number + 1;
    }
  }
  const results = all(await generation.result());
  for (const [index, { finishReason }] of results.entries()) yield chunk(index, {}, { logprobs: null, finish_reason: CHAT_REASONS[finishReason] });
  if (includeUsage) yield { ...head, choices: [], usage: usageOf([results]) };
}

function toolCall({ id, name, arguments: values }: ToolCall): ChatToolCall {
  return { id, type: "function", function: { name, arguments: JSON.stringify(values) } };
}

/** What texts go on with, or its parts; several texts take turns. */
export async function text(served: Served, body: Body, call: CallOptions): Promise<Completion | AsyncGenerator<Completion>> {
  const { stream, includeUsage } = streaming(body);
  const asked: Texts = { options: textOptions(body), prompts: promptsOf(body["prompt"]), ...echoing(body), call };
  const head = { id: `cmpl-${randomName()}`, object: "text_completion" as const, created: now(), model: served.name };
  if (stream) return textChunks(served, asked, head, includeUsage);
  const results: Made[][] = [];
  const choices: Completion["choices"] = [];
  for (const prompt of asked.prompts) {
    const echo = asked.echo ? await echoed(served, prompt, asked.options.topLogprobs, call) : undefined;
    const made = asked.silent ? await nothing(served, prompt, asked) : all(await begin(served, prompt, asked.options, call).result());
    results.push(made);
    for (const { text: whole, logprobs, finishReason } of made) {
      const told = textLogprobs([...(echo?.tokens ?? []), ...(shown(served, logprobs) ?? [])], 0);
      choices.push({ index: choices.length, text: (echo?.text ?? "") + whole, logprobs: told, finish_reason: textReason(finishReason) });
    }
  }
  return { ...head, choices, usage: usageOf(results) };
}

/** A request for texts. */
interface Texts {
  readonly prompts: readonly Prompt[];
  readonly options: GenerateOptions;
  /** Whether answers begin with the prompt, and whether they are nothing else. */
  readonly echo: boolean;
  readonly silent: boolean;
  readonly call: CallOptions;
}

/** What an answer is made of. */
type Made = Pick<GenerationResult, "text" | "logprobs" | "finishReason" | "usage">;

/** Answers to a prompt of which nothing is asked. */
async function nothing({ model }: Served, prompt: Prompt, { options: { n = 1 } }: Texts): Promise<Made[]> {
  const usage = { promptTokens: await model.countTokens(prompt), cachedTokens: 0, completionTokens: 0 };
  return Array.from({ length: n }, () => ({ text: "", finishReason: "length", usage }));
}

type TextHead = Pick<Completion, "id" | "object" | "created" | "model">;

async function* textChunks(served: Served, asked: Texts, head: TextHead, includeUsage: boolean): AsyncGenerator<Completion> {
  const chunk = (choice: Completion["choices"][number]): Completion => ({ ...head, choices: [choice], ...(includeUsage ? { usage: null } : {}) });
  const results: Made[][] = [];
  for (const prompt of asked.prompts) {
    const first = results.flat().length;
    const lengths: number[] = [];
    const part = (choice: number, piece: string, tokens: readonly EchoedToken[] | undefined): Completion | undefined => {
      const told = textLogprobs(tokens, lengths[choice] ?? 0);
      lengths[choice] = (lengths[choice] ?? 0) + (told?.tokens.join("").length ?? 0);
      return piece === "" && told === null ? undefined : chunk({ index: first + choice, text: piece, logprobs: told, finish_reason: null });
    };
    const echo = asked.echo ? await echoed(served, prompt, asked.options.topLogprobs, asked.call) : undefined;
    const echoParts = Array.from({ length: asked.options.n ?? 1 }, (_, choice) => part(choice, echo?.text ?? "", echo?.tokens));
    for (const echoPart of echoParts) if (echoPart !== undefined) yield echoPart;
    let made: Made[];
    if (asked.silent) made = await nothing(served, prompt, asked);
    else {
      const generation = begin(served, prompt, asked.options, asked.call);
      for await (const { choice, text: piece, logprobs } of generation) {
        const next = part(choice, piece, shown(served, logprobs));
        if (next !== undefined) yield next;
      }
      made = all(await generation.result());
    }
    results.push(made);
    for (const [index, { finishReason }] of made.entries()) {
      yield chunk({ index: first + index, text: "", logprobs: null, finish_reason: textReason(finishReason) });
    }
  }
  if (includeUsage) yield { ...head, choices: [], usage: usageOf(results) };
}

function textReason(reason: FinishReason): "stop" | "length" {
  return reason === "length" ? "length" : "stop";
}

/** The tokens that are told: without the one that ends a reply, which is no part of its text. */
function shown({ model }: Served, tokens: readonly TokenLogprob[] | undefined): readonly TokenLogprob[] | undefined {
  return tokens?.filter(({ id }) => !model.info.stopIds.includes(id));
}

/** All replies to one prompt. */
function all(result: GenerationResult): GenerationResult[] {
  return [result, ...(result.others ?? [])];
}

function promptsOf(prompt: unknown): Prompt[] {
  if (typeof prompt === "string") return [prompt];
  const isIds = (value: unknown): value is number[] => Array.isArray(value) && value.length > 0 && value.every((item) => typeof item === "number");
  if (isIds(prompt)) return [prompt];
  if (Array.isArray(prompt) && prompt.length > 0 && prompt.every((item) => typeof item === "string" || isIds(item))) return prompt;
  throw new RequestError("invalid_value", "prompt", "'prompt' is neither a text nor a list of texts or token ids.");
}

/** The vectors of texts. */
export async function embeddings(served: Served, body: Body, call: CallOptions): Promise<EmbeddingsAnswer> {
  checkParameters(body, ["input", "encoding_format", "dimensions"]);
  const { input, encoding_format: format, dimensions } = body;
  const texts: unknown = typeof input === "string" ? [input] : input;
  if (!Array.isArray(texts) || !texts.every((item) => typeof item === "string")) {
    throw new RequestError("invalid_value", "input", "'input' is neither a text nor a list of texts.");
  }
  if (format != null && format !== "float" && format !== "base64") {
    throw new RequestError("invalid_value", "encoding_format", "'encoding_format' is neither \"float\" nor \"base64\".");
  }
  const options = { ...(dimensions == null ? {} : { dimensions }), ...signalOf(call) } as EmbedOptions;
  const vectors = await served.model.embed(texts, options);
  const counts = await Promise.all(texts.map((item) => served.model.countTokens(item)));
  const prompt_tokens = counts.reduce((sum, count) => sum + count, 0);
  const data = vectors.map((vector, index) => ({
    object: "embedding" as const,
    index,
    embedding: format === "base64" ? inBase64(vector) : Array.from(vector),
  }));
  return { object: "list", data, model: served.name, usage: { prompt_tokens, total_tokens: prompt_tokens } };
}

/** Little-endian floats, as clients of this interface ask for by themselves. */
function inBase64(vector: Float32Array): string {
  const bytes = new DataView(new ArrayBuffer(vector.length * 4));
  vector.forEach((value, index) => bytes.setFloat32(index * 4, value, true));
  return btoa(Array.from(new Uint8Array(bytes.buffer), (byte) => String.fromCharCode(byte)).join(""));
}

function begin({ model }: Served, prompt: Prompt, options: GenerateOptions, call: CallOptions): Generation {
  if (call.signal?.aborted === true) throw new HeadwaterError("Aborted", "the caller ended the reply");
  return model.generate(prompt, { ...options, ...signalOf(call) });
}

function signalOf({ signal }: CallOptions): { signal?: AbortSignal } {
  return signal === undefined || signal === null ? {} : { signal };
}

/** What all replies to each prompt took. A prompt counts once, however many replies it has. */
function usageOf(prompts: readonly (readonly Made[])[]): CompletionUsage {
  const sum = (key: keyof Usage, replies: readonly (Made | undefined)[]): number =>
    replies.reduce((total, reply) => total + (reply?.usage[key] ?? 0), 0);
  const firsts = prompts.map(([first]) => first);
  const [prompt_tokens, completion_tokens] = [sum("promptTokens", firsts), sum("completionTokens", prompts.flat())];
  const prompt_tokens_details = { cached_tokens: sum("cachedTokens", firsts) };
  return { prompt_tokens, completion_tokens, total_tokens: prompt_tokens + completion_tokens, prompt_tokens_details };
}

/** Seconds since 1970, as answers have them. */
export function now(): number {
  return Math.floor(Date.now() / 1000);
}

function randomName(): string {
  return Array.from(crypto.getRandomValues(new Uint32Array(4)), (word) => word.toString(36).padStart(7, "0")).join("");
}
