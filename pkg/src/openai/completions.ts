/** Answers of a model in OpenAI's shapes: of a chat, of texts that are gone on from, and vectors. Whole, or in parts. */
import { HeadwaterError } from "../errors.js";
import type { Generation } from "../generation.js";
import type { EmbedOptions, GenerateOptions } from "../options.js";
import type { FinishReason, GenerationResult, Prompt, ToolCall, Usage } from "../types.js";
import { RequestError } from "./errors.js";
import { chatOptions, checkParameters, messages, streaming, textOptions, type Body } from "./request.js";
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
  if (stream) return chatChunks(generation, { ...head, object: "chat.completion.chunk" }, includeUsage);
  const { text, reasoning, toolCalls, finishReason, usage } = await generation.result();
  const message = {
    role: "assistant" as const,
    content: text === "" && toolCalls.length > 0 ? null : text,
    refusal: null,
    ...(reasoning === "" ? {} : { reasoning_content: reasoning }),
    ...(toolCalls.length === 0 ? {} : { tool_calls: toolCalls.map(toolCall) }),
  };
  const choice = { index: 0, message, logprobs: null, finish_reason: CHAT_REASONS[finishReason] };
  return { ...head, object: "chat.completion", choices: [choice], usage: usageOf([usage]) };
}

type ChunkHead = Pick<ChatCompletionChunk, "id" | "object" | "created" | "model">;
type Delta = ChatCompletionChunk["choices"][number]["delta"];

async function* chatChunks(generation: Generation, head: ChunkHead, includeUsage: boolean): AsyncGenerator<ChatCompletionChunk> {
  const chunk = (delta: Delta, finish_reason: ChatFinishReason | null = null): ChatCompletionChunk => ({
    ...head,
    choices: [{ index: 0, delta, logprobs: null, finish_reason }],
    ...(includeUsage ? { usage: null } : {}),
  });
  // Nothing is sent before the first piece: until then a failure has a status of its own.
  let begun = false;
  let calls = 0;
  for await (const { text, reasoning, toolCall: call } of generation) {
    if (!begun) yield chunk({ role: "assistant", content: "" });
    begun = true;
    if (reasoning !== "") yield chunk({ reasoning_content: reasoning });
    if (text !== "") yield chunk({ content: text });
    if (call !== undefined) yield chunk({ tool_calls: [{ index: calls++, ...toolCall(call) }] });
  }
  const { finishReason, usage } = await generation.result();
  yield chunk({}, CHAT_REASONS[finishReason]);
  if (includeUsage) yield { ...head, choices: [], usage: usageOf([usage]) };
}

function toolCall({ id, name, arguments: values }: ToolCall): ChatToolCall {
  return { id, type: "function", function: { name, arguments: JSON.stringify(values) } };
}

/** What texts go on with, or its parts; several texts take turns. */
export async function text(served: Served, body: Body, call: CallOptions): Promise<Completion | AsyncGenerator<Completion>> {
  const { stream, includeUsage } = streaming(body);
  const options = textOptions(body);
  const prompts = promptsOf(body["prompt"]);
  const head = { id: `cmpl-${randomName()}`, object: "text_completion" as const, created: now(), model: served.name };
  const results: GenerationResult[] = [];
  const parts = async function* (): AsyncGenerator<Completion> {
    for (const [index, prompt] of prompts.entries()) {
      const generation = begin(served, prompt, options, call);
      const part = (piece: string, finish_reason: "stop" | "length" | null): Completion => ({
        ...head,
        choices: [{ index, text: piece, logprobs: null, finish_reason }],
        ...(includeUsage ? { usage: null } : {}),
      });
      for await (const piece of generation) if (piece.text !== "") yield part(piece.text, null);
      const result = await generation.result();
      results.push(result);
      yield part("", result.finishReason === "length" ? "length" : "stop");
    }
    if (includeUsage) yield { ...head, choices: [], usage: usageOf(results.map(({ usage }) => usage)) };
  };
  if (stream) return parts();
  const choices = prompts.map((_, index) => ({ index, text: "", logprobs: null, finish_reason: null as "stop" | "length" | null }));
  for await (const { choices: [piece] } of parts()) {
    const choice = choices[piece?.index ?? -1];
    if (choice === undefined || piece === undefined) continue;
    choice.text += piece.text;
    choice.finish_reason = piece.finish_reason;
  }
  return { ...head, choices, usage: usageOf(results.map(({ usage }) => usage)) };
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

function usageOf(parts: readonly Usage[]): CompletionUsage {
  const sum = (key: keyof Usage): number => parts.reduce((total, part) => total + part[key], 0);
  const [prompt_tokens, completion_tokens] = [sum("promptTokens"), sum("completionTokens")];
  const prompt_tokens_details = { cached_tokens: sum("cachedTokens") };
  return { prompt_tokens, completion_tokens, total_tokens: prompt_tokens + completion_tokens, prompt_tokens_details };
}

/** Seconds since 1970, as answers have them. */
export function now(): number {
  return Math.floor(Date.now() / 1000);
}

function randomName(): string {
  return Array.from(crypto.getRandomValues(new Uint32Array(4)), (word) => word.toString(36).padStart(7, "0")).join("");
}
