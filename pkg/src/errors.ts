/**
 * The one error type. Its kinds are the closed set of Rust's `ErrorKind` (a test compares the two lists), whether the
 * error arose in the engine, in the worker's host or in the page.
 */

/** Every kind, with whether the same call may succeed later without any change by the caller. */
const RETRYABLE = {
  Network: true,
  HttpStatus: true,
  Stalled: true,
  CorsBlocked: false,
  AuthRequired: false,
  Gated: false,
  PolicyRefused: false,
  NotFound: false,
  SignedUrlExpired: true,
  IntegrityMismatch: false,
  SizeMismatch: false,
  RevisionChanged: true,
  QuotaExceeded: false,
  StorageLost: true,
  StorageBusy: true,
  StorageUnavailable: false,
  UnsupportedFormat: false,
  MalformedGguf: false,
  MalformedSafetensors: false,
  MalformedTokenizer: false,
  MalformedModel: false,
  TemplateError: false,
  TemplateLimit: false,
  SchemaUnsupported: false,
  SchemaLimit: false,
  LimitExceeded: false,
  InvalidArgument: false,
  GpuUnavailable: false,
  GpuFeatureMissing: false,
  GpuOutOfMemory: false,
  DeviceLost: true,
  GpuBlocked: false,
  GpuTimeout: true,
  BadLogits: false,
  ContextFull: false,
  Aborted: false,
  Truncated: false,
  WorkerGone: true,
  EnginePoisoned: true,
  CspBlocked: false,
  Disposed: false,
  Io: false,
  Internal: false,
} as const satisfies Record<string, boolean>;

/** What went wrong, as a program can branch on it. */
export type ErrorKind = keyof typeof RETRYABLE;

/** Every kind, in the order of their declaration in Rust. */
export const ERROR_KINDS = Object.keys(RETRYABLE) as readonly ErrorKind[];

/** What is known beyond the words. */
export interface ErrorDetails {
  /** The place, outermost first: a file, a tensor, a key, an option. */
  readonly at?: string;
  /** The causes, nearest first. */
  readonly causes?: readonly string[];
  /** The status of an HTTP answer. */
  readonly status?: number;
}

/** An error as it crosses from the worker. */
export interface WireError {
  readonly kind: ErrorKind;
  readonly message: string;
  readonly details: ErrorDetails;
}

/** Everything that fails in this package fails with this. */
export class HeadwaterError extends Error {
  override readonly name = "HeadwaterError";
  /** For programs. */
  readonly kind: ErrorKind;
  /** What is known beyond the words. */
  readonly details: ErrorDetails;
  /** Whether the same call may succeed later without any change by the caller. */
  readonly retryable: boolean;

  constructor(kind: ErrorKind, message: string, details: ErrorDetails = {}) {
    super(message);
    this.kind = kind;
    this.details = details;
    this.retryable = RETRYABLE[kind];
  }
}

/** Whether the text names a kind. */
export function isErrorKind(text: unknown): text is ErrorKind {
  return typeof text === "string" && Object.hasOwn(RETRYABLE, text);
}

/** Any thrown thing as a `HeadwaterError`: the engine's own errors keep their kind, an abort becomes `Aborted`. */
export function toHeadwaterError(thrown: unknown, otherwise: ErrorKind = "Internal"): HeadwaterError {
  if (thrown instanceof HeadwaterError) return thrown;
  if (typeof thrown === "object" && thrown !== null) {
    const { kind, message, details, name } = thrown as Record<string, unknown>;
    const words = typeof message === "string" ? message : String(thrown);
    if (isErrorKind(kind)) return new HeadwaterError(kind, words, isDetails(details) ? details : {});
    if (name === "AbortError") return new HeadwaterError("Aborted", words);
    return new HeadwaterError(otherwise, words);
  }
  return new HeadwaterError(otherwise, String(thrown));
}

/** An error ready to be posted. */
export function toWire(thrown: unknown): WireError {
  const { kind, message, details } = toHeadwaterError(thrown);
  return { kind, message, details };
}

function isDetails(value: unknown): value is ErrorDetails {
  return typeof value === "object" && value !== null;
}
