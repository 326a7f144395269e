/** Reference outputs that come with the models, made by software that is not ours. */
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

/** A file of the project. */
export function inTree(path: string): string {
  return fileURLToPath(new URL(`../../${path}`, import.meta.url));
}

/** A greedy reply of the embedded model's reference. */
export interface GoldenCase {
  readonly messages: readonly { readonly role: string; readonly content: string }[];
  readonly prompt_ids: readonly number[];
  readonly greedy_ids: readonly number[];
  readonly greedy_text: string;
  readonly least_margin: number;
  readonly top5: readonly { readonly id: number; readonly logit: number }[];
}

/** Below this distance between the two best scores, rounding of the weights may choose the other one. */
const SAFE_MARGIN = 0.05;

export const goldenCases = (JSON.parse(readFileSync(inTree("www/models/tiny-assistant/golden.json"), "utf8")) as { cases: GoldenCase[] }).cases;

/** Those whose every step is safe. */
export const safeCases = goldenCases.filter((golden) => golden.least_margin > SAFE_MARGIN);

/** The float32 tensor of that name in a safetensors file, where there is one. */
export function readTensor(path: string, name: string): Float32Array | undefined {
  const file = readFileSync(inTree(path));
  const headerBytes = Number(file.readBigUInt64LE(0));
  const header = JSON.parse(file.toString("utf8", 8, 8 + headerBytes)) as Record<string, { dtype: string; data_offsets: [number, number] }>;
  const entry = header[name];
  if (entry === undefined) return undefined;
  if (entry.dtype !== "F32") throw new Error(`${path}: ${name} is not float32`);
  const [begin, end] = entry.data_offsets;
  return new Float32Array(new Uint8Array(file.subarray(8 + headerBytes + begin, 8 + headerBytes + end)).buffer);
}

/** Normalised mean square error: the error's energy over the reference's. */
export function nmse(got: ArrayLike<number>, wanted: ArrayLike<number>): number {
  if (got.length !== wanted.length) throw new Error(`${got.length} numbers where there should be ${wanted.length}`);
  let error = 0;
  let energy = 0;
  for (let i = 0; i < wanted.length; i += 1) {
    error += ((got[i] ?? NaN) - (wanted[i] ?? NaN)) ** 2;
    energy += (wanted[i] ?? NaN) ** 2;
  }
  return error / energy;
}
