/** References to a hub and the options that go with them, on their way to the host. */
import { HeadwaterError } from "../errors.js";
import { toJson } from "../json.js";
import type { WireHub } from "../protocol.js";
import type { License, Obligation } from "../types.js";

/** Which licences may be used: identifiers (`"apache-2.0"`, `"llama*"`), or `"@"` and an obligation. */
export interface LicensePolicy {
  /** Only these. */
  allow?: readonly (string | `@${Obligation}`)[];
  /** None of these; stronger than `allow`. */
  deny?: readonly (string | `@${Obligation}`)[];
  /** For licences that no list names and that are not known, or not told; `"deny"` by default. */
  onUnknown?: "allow" | "deny" | "ask";
  /** `"check"` asks the hub for the cards of what the model was made from, and judges those too; `"ignore"` by default. */
  baseModel?: "check" | "ignore";
}

/** What is allowed; judged before any byte of weights is asked for. */
export interface Policy {
  licenses?: LicensePolicy;
  /** Hosts beside the hub's own that may be asked: `host`, `host:port` or `*.domain`. */
  hosts?: readonly string[];
  /** Most bytes of one model. */
  maxBytes?: number;
  /** Only files whose hashes are told beforehand. */
  requireHash?: boolean;
}

/** What a call to a hub takes beside the reference. */
export interface HubOptions {
  /** A mirror with the hub's layout. */
  endpoint?: string;
  /** A branch, tag or commit, where the reference names none. */
  revision?: string;
  /** Sent in a header, to the hub's own origin only; never kept. */
  token?: string | (() => string | Promise<string>);
  policy?: Policy;
  /** The content of `headwater.lock.json`: only what it pins is loaded. */
  lock?: string | object;
  /** No request at all: what is not kept fails with `NotFound`. */
  offline?: boolean;
  /** Ask the hub for a newer commit, even where the model is kept. */
  refresh?: boolean;
  /** Asked before weights are fetched; also decides what the policy leaves open. Kept models were accepted before. */
  consent?: (license: License, reason: string) => boolean | Promise<boolean>;
  /** Ask the browser not to evict what is kept; `true` by default. */
  persist?: boolean;
}

const KEYS = ["endpoint", "revision", "token", "policy", "lock", "offline", "refresh", "consent", "persist"] as const satisfies readonly (keyof HubOptions)[];

/**
 * Whether a reference means a hub: `hf:...` and pages of the default hub do, `owner/name` does where a mirror is named (a path
 * that begins with a dot or a slash is none).
 */
export function isHubReference(reference: unknown, options: HubOptions): reference is string {
  if (typeof reference !== "string") return false;
  return /^hf:|^https:\/\/huggingface\.co\//.test(reference) || (options.endpoint !== undefined && !/^[./]|:\//.test(reference));
}

/** Parts options into those of the hub and the rest. */
export function splitOptions<T extends HubOptions>(options: T): { hub: HubOptions; rest: Omit<T, keyof HubOptions> } {
  const hub: Record<string, unknown> = {};
  const rest: Record<string, unknown> = {};
  for (const [key, value] of Object.entries(options)) {
    if (value === undefined) continue;
    ((KEYS as readonly string[]).includes(key) ? hub : rest)[key] = value;
  }
  return { hub: hub as HubOptions, rest: rest as Omit<T, keyof HubOptions> };
}

/** Fails where options of the hub are given for what comes from elsewhere: they would have no effect. */
export function refuseHubOptions(options: HubOptions): void {
  const [key] = Object.keys(options);
  if (key !== undefined) throw bad(key, "used only with a reference to a hub (hf:owner/name)");
}

/** The call as the host gets it. */
export async function wireHub(reference: string, options: HubOptions): Promise<WireHub> {
  const { token, consent, persist = true, lock, ...rest } = options;
  if (consent !== undefined && typeof consent !== "function") throw bad("consent", "not a function");
  if (typeof persist !== "boolean") throw bad("persist", "takes true or false");
  const given: unknown = typeof token === "function" ? await token() : token;
  if (given !== undefined && typeof given !== "string") throw bad("token", "takes a string, or a function that gives one");
  return {
    reference,
    options: toJson("", { ...rest, token: given, lock: typeof lock === "string" ? parse(lock) : lock }),
    asks: consent !== undefined,
  };
}

let askedToPersist: Promise<boolean> | undefined;

/** Asks the browser, once a page, not to evict what this origin keeps. Workers cannot ask. */
export function persist(): Promise<boolean> {
  const storage = (navigator as { storage?: StorageManager }).storage;
  askedToPersist ??= storage?.persist === undefined ? Promise.resolve(false) : storage.persist().catch(() => false);
  return askedToPersist;
}

function parse(lock: string): unknown {
  try {
    return JSON.parse(lock) as unknown;
  } catch (error) {
    throw bad("lock", `not JSON: ${error instanceof Error ? error.message : String(error)}`);
  }
}

function bad(option: string, words: string): HeadwaterError {
  return new HeadwaterError("InvalidArgument", `${option}: ${words}`, { at: option });
}
