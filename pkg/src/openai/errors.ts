/** Errors as OpenAI's interface words them: a status, and a body that names the parameter. */
import { HeadwaterError, type ErrorKind } from "../errors.js";

/** A request that cannot be served; `code` is OpenAI's word for why. */
export class RequestError extends HeadwaterError {
  readonly code: string;

  constructor(code: "unknown_parameter" | "unsupported_parameter" | "unsupported_value" | "invalid_value" | "model_not_found" | "unknown_url" | "method_not_supported", param: string, words: string) {
    super(code === "model_not_found" || code === "unknown_url" ? "NotFound" : "InvalidArgument", words, param === "" ? {} : { at: param });
    this.code = code;
  }
}

/** The body of an answer that is an error. */
export interface ErrorBody {
  error: { message: string; type: string; param: string | null; code: string | null };
}

/** Statuses other than 500. */
const STATUS: Partial<Record<ErrorKind, number>> = {
  InvalidArgument: 400,
  ContextFull: 400,
  TemplateError: 400,
  TemplateLimit: 400,
  LimitExceeded: 400,
  SchemaUnsupported: 400,
  SchemaLimit: 400,
  NotFound: 404,
  DeviceLost: 503,
  WorkerGone: 503,
  Disposed: 503,
  EnginePoisoned: 503,
};
const CODES: Readonly<Record<string, number>> = { method_not_supported: 405 };

/** Our options by OpenAI's parameters, where another name is more than another case of letters. */
const PARAMS: Readonly<Record<string, string>> = {
  texts: "input",
  items: "prompt",
  template_variables: "chat_template_kwargs",
};

/** Status and body of an error of a request to `path`. */
export function toAnswer(error: HeadwaterError, path: string): { status: number; body: ErrorBody } {
  const code = error instanceof RequestError ? error.code : error.kind === "ContextFull" ? "context_length_exceeded" : error.kind;
  const status = CODES[code] ?? STATUS[error.kind] ?? 500;
  const type = status < 500 ? "invalid_request_error" : "server_error";
  const param = error.details.at === undefined ? null : error instanceof RequestError ? error.details.at : paramOf(error.details.at, path);
  return { status, body: { error: { message: error.message, type, param, code } } };
}

/** `maxTokens` as `max_tokens`; what follows the first word of a place stays. */
function paramOf(place: string, path: string): string {
  const [name = "", ...rest] = place.split(/(?=[^A-Za-z])/);
  if (name === "reasoning") return "reasoning_effort";
  if (name === "prompt" && path === "chat/completions") return ["messages", ...rest].join("");
  const snake = name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
  return [PARAMS[snake] ?? snake, ...rest].join("");
}
