/** Schemas out of a number, each another one: objects, lists, texts, numbers, choices, references, formats. */

/** A source of choices: Marsaglia's xorshift of 32 bits. */
function choices(seed: number): (end: number) => number {
  let state = (seed + 1) * 0x9e3779b9 | 0 || 1;
  return (end) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % end;
  };
}

type Schema = Readonly<Record<string, unknown>>;

/** The schema of an object that holds what else there is. */
export function schema(seed: number): Schema {
  const below = choices(seed);
  // The first numbers of neighbouring seeds are alike.
  for (let skipped = 0; skipped < 8; skipped += 1) below(2);
  const code = { type: "string", pattern: "^[A-Z]{2}-[0-9]{1,4}$" };
  return { $defs: { code }, ...object(below, 2) };
}

function object(below: (end: number) => number, depth: number): Schema {
  const names = ["id", "größe", "a b", "x\"y", "total"].slice(0, 1 + below(5));
  const properties = Object.fromEntries(names.map((name) => [name, any(below, depth)]));
  return { type: "object", properties, required: names.filter(() => below(4) > 0), additionalProperties: false };
}

function any(below: (end: number) => number, depth: number): Schema {
  const low = below(20) - 10;
  const kinds: (() => Schema)[] = [
    () => ({ type: "string", maxLength: 20 }),
    () => ({ type: "string", minLength: 3, maxLength: 12 }),
    () => ({ enum: ["red", "sky blue", "\"quoted\"", "äöü", 7, null] }),
    () => ({ type: "integer", minimum: low, maximum: low + below(1000) }),
    () => ({ type: "number", exclusiveMinimum: low, maximum: low + 50 }),
    () => ({ type: "boolean" }),
    () => ({ type: ["null", "integer"], minimum: 0, maximum: 99 }),
    () => ({ $ref: "#/$defs/code" }),
    () => ({ const: { fixed: [1, 2.5, null, "x"] } }),
    () => ({ type: "string", format: ["date", "time", "date-time", "ipv4", "uuid"][below(5)] }),
    () => ({ type: "integer", multipleOf: 5, minimum: 0, maximum: 500 }),
    () => ({ type: "array", items: any(below, depth - 1), minItems: below(2), maxItems: 3 }),
    () => ({ anyOf: [any(below, depth - 1), { type: "null" }] }),
    () => object(below, depth - 1),
  ];
  return (kinds[below(depth === 0 ? 11 : kinds.length)] ?? kinds[0]!)();
}
