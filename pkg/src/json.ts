/**
 * Values of the caller on their way to the engine, as JSON text. What JSON would drop or change in silence (functions,
 * NaN, cycles) is an error, and so is nesting that a parser's stack could not bear.
 */
import { HeadwaterError } from "./errors.js";

/** Deepest nesting of a value that is passed in; far above any real tool description, far below any stack's end. */
export const MAX_DEPTH = 64;

/** Most values (objects, items, texts) in one argument. */
const MAX_VALUES = 2_000_000;

/** JSON text of `value`; `name` says in errors which argument it is, and is empty for options, which have their own. */
export function toJson(name: string, value: unknown): string {
  const budget = { left: MAX_VALUES };
  return JSON.stringify(plain(name, value, 0, budget));
}

/** A copy that JSON keeps as it is; typed arrays become arrays, members that are `undefined` go. */
function plain(path: string, value: unknown, depth: number, budget: { left: number }): unknown {
  budget.left -= 1;
  if (budget.left < 0) throw new HeadwaterError("LimitExceeded", `${path}: more than ${MAX_VALUES} values`);
  switch (typeof value) {
    case "string":
    case "boolean":
      return value;
    case "number":
      if (!Number.isFinite(value)) throw bad(path, `${value} is not a finite number`);
      return value;
    case "object":
      break;
    default:
      throw bad(path, `a ${typeof value} cannot be passed to the engine`);
  }
  if (value === null) return null;
  if (depth === MAX_DEPTH) {
    throw new HeadwaterError("LimitExceeded", `${path}: nested deeper than ${MAX_DEPTH}`, { at: path });
  }
  if (Array.isArray(value) || isNumbers(value)) {
    return Array.from(value as ArrayLike<unknown>, (item, index) => plain(`${path}[${index}]`, item, depth + 1, budget));
  }
  const proto: unknown = Object.getPrototypeOf(value);
  if (proto !== null && Object.getPrototypeOf(proto) !== null) {
    throw bad(path, `a ${value.constructor.name} cannot be passed to the engine`);
  }
  // Without a prototype, so that a key "__proto__" is a key like any other.
  const copy: Record<string, unknown> = Object.create(null) as Record<string, unknown>;
  for (const [key, item] of Object.entries(value)) {
    if (item !== undefined) copy[key] = plain(path === "" ? key : `${path}.${key}`, item, depth + 1, budget);
  }
  return copy;
}

function isNumbers(value: object): boolean {
  return ArrayBuffer.isView(value) && !(value instanceof DataView) && !(value instanceof BigInt64Array)
    && !(value instanceof BigUint64Array);
}

function bad(path: string, words: string): HeadwaterError {
  return new HeadwaterError("InvalidArgument", `${path}: ${words}`, { at: path });
}
