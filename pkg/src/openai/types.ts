/**
 * The shapes of OpenAI's interface, as far as they are served here, in its own names. Where a request leaves sampling open,
 * the model's own files decide.
 */
import type { Model } from "../model.js";
import type { MessageToolCall, ToolDefinition } from "../types.js";

/** What is served: a `Model`, or something of its shape. */
export type ServedModel = Pick<Model, "info" | "generate" | "embed" | "countTokens"> & Partial<Pick<Model, "score" | "tokenize" | "detokenize">>;

/** One model, called by its own name, or several by yours. */
export type ServedModels = ServedModel | Readonly<Record<string, ServedModel>>;

/** How a call can be ended. */
export interface CallOptions {
  signal?: AbortSignal | null | undefined;
}

/** A part of a message's content; only texts are served. */
export interface TextPart {
  type: "text";
  text: string;
}

/** A message of a request. */
export interface ChatMessage {
  role: "system" | "developer" | "user" | "assistant" | "tool";
  content?: string | readonly TextPart[] | null;
  name?: string;
  tool_calls?: readonly MessageToolCall[];
  tool_call_id?: string;
}

/** What both kinds of completion take. */
interface CompletionRequest {
  model: string;
  stream?: boolean | null;
  stream_options?: { include_usage?: boolean } | null;
  max_tokens?: number | null;
  temperature?: number | null;
  top_p?: number | null;
  frequency_penalty?: number | null;
  presence_penalty?: number | null;
  seed?: number | null;
  stop?: string | readonly string[] | null;
  n?: number | null;
  /** By token id. */
  logit_bias?: Readonly<Record<string, number>> | null;
  user?: string;
  /** As vLLM and llama.cpp have them. */
  top_k?: number | null;
  min_p?: number | null;
  repetition_penalty?: number | null;
  ignore_eos?: boolean | null;
}

/** `chat.completions.create`. */
export interface ChatRequest extends CompletionRequest {
  messages: readonly ChatMessage[];
  max_completion_tokens?: number | null;
  logprobs?: boolean | null;
  top_logprobs?: number | null;
  tools?: readonly ToolDefinition[] | null;
  tool_choice?: "auto" | "none" | "required" | { type: "function"; function: { name: string } } | null;
  response_format?:
    | { type: "text" | "json_object" }
    | { type: "json_schema"; json_schema: { name: string; description?: string; schema?: Record<string, unknown>; strict?: boolean | null } }
    | null;
  reasoning_effort?: "none" | null;
  /** Variables of the chat template. */
  chat_template_kwargs?: Readonly<Record<string, unknown>> | null;
}

/** `completions.create`: texts (or token ids) that are gone on from as they stand. */
export interface TextRequest extends CompletionRequest {
  /** So many of the likeliest tokens at each place. */
  logprobs?: number | null;
  prompt: string | readonly string[] | readonly number[] | readonly (readonly number[])[];
  /** Whether the answer begins with the prompt; with `max_tokens: 0` it is nothing else. */
  echo?: boolean | null;
}

/** `embeddings.create`. */
export interface EmbeddingsRequest {
  model: string;
  input: string | readonly string[];
  encoding_format?: "float" | "base64" | null;
  dimensions?: number | null;
  user?: string;
}

export type ChatFinishReason = "stop" | "length" | "tool_calls";

/** How likely a token was. */
export interface ChatTokenLogprob {
  token: string;
  logprob: number;
  /** Null where it is a part of a character. */
  bytes: number[] | null;
}

/** How likely the tokens of an answer were, those of reasoning and calls included. */
export interface ChatLogprobs {
  content: (ChatTokenLogprob & { top_logprobs: ChatTokenLogprob[] })[];
  refusal: null;
}

/** The same for texts. */
export interface TextLogprobs {
  tokens: string[];
  /** Null for the first token of a prompt that is echoed. */
  token_logprobs: (number | null)[];
  top_logprobs: (Record<string, number> | null)[];
  text_offset: number[];
}

/** Tokens that an answer took. */
export interface CompletionUsage {
  prompt_tokens: number;
  completion_tokens: number;
  total_tokens: number;
  prompt_tokens_details: { cached_tokens: number };
}

/** A call of a tool in an answer. */
export interface ChatToolCall {
  id: string;
  type: "function";
  function: { name: string; arguments: string };
}

/** A whole answer. */
export interface ChatCompletion {
  id: string;
  object: "chat.completion";
  created: number;
  model: string;
  choices: {
    index: number;
    message: {
      role: "assistant";
      content: string | null;
      refusal: null;
      /** What the model thought, where it did; in the name that servers of open models use. */
      reasoning_content?: string;
      tool_calls?: ChatToolCall[];
    };
    logprobs: ChatLogprobs | null;
    finish_reason: ChatFinishReason;
  }[];
  usage: CompletionUsage;
}

/** A part of a streamed answer. */
export interface ChatCompletionChunk {
  id: string;
  object: "chat.completion.chunk";
  created: number;
  model: string;
  choices: {
    index: number;
    delta: {
      role?: "assistant";
      content?: string;
      reasoning_content?: string;
      tool_calls?: (ChatToolCall & { index: number })[];
    };
    logprobs: ChatLogprobs | null;
    finish_reason: ChatFinishReason | null;
  }[];
  usage?: CompletionUsage | null;
}

/** A text that was gone on from; streamed, a part of one. */
export interface Completion {
  id: string;
  object: "text_completion";
  created: number;
  model: string;
  choices: { index: number; text: string; logprobs: TextLogprobs | null; finish_reason: "stop" | "length" | null }[];
  usage?: CompletionUsage | null;
}

/** Vectors. */
export interface EmbeddingsAnswer {
  object: "list";
  data: { object: "embedding"; index: number; embedding: number[] | string }[];
  model: string;
  usage: { prompt_tokens: number; total_tokens: number };
}

/** A model as lists have it. */
export interface ModelEntry {
  id: string;
  object: "model";
  created: number;
  owned_by: string;
}

/** `models.list`. */
export interface ModelList {
  object: "list";
  data: ModelEntry[];
}
