/**
 * Weights as hubs publish them, in the browser's own WebGPU: packed layouts of safetensors compute what their float32 twins do
 * (`tests/packed/write.py` made both), floats may be quantised while they are loaded, keys and values may be stored in blocks.
 */
import { readFileSync } from "node:fs";
import { expect, test, type Page } from "./lab.js";
import { inTree, nmse, readTensor } from "./golden.js";
import { SWEEP } from "./sweep.js";

/** Of each way to pack one every day; a sweep tries all. */
const LAYOUTS = ["mlx", "gptq-order", "awq", "fp8", "nf4", ...(SWEEP ? ["mlx-g64", "gptq", "gptq-8", "gptq-g64", "gptq-8-order", "gptq-rows", "gptq-8-rows", "fp8-rows"] : [])];

/** Ids of the vocabulary's 640, past the edge of a page of keys and values. */
const IDS = Array.from({ length: 40 }, (_, at) => (at * 37 + 3) % 640);

/** Logits of a packed model and of its twin, which has its numbers as float32. */
async function both(page: Page, layout: string): Promise<{ packed: number[]; twin: number[]; formats: string[] }> {
  return page.evaluate(async ({ layout, ids }) => {
    const bytes = async (path: string): Promise<ArrayBuffer> => (await fetch(`/tests/data/${path}`)).arrayBuffer();
    const folder = `packed/${layout}`;
    const shared = [
      new File([await bytes("packed/base.safetensors")], "base.safetensors"),
      new File([await bytes("models/llama3/tokenizer.json")], "tokenizer.json"),
    ];
    const names = (file: ArrayBuffer): string[] => {
      const headerBytes = Number(new DataView(file).getBigUint64(0, true));
      const header = JSON.parse(new TextDecoder().decode(new Uint8Array(file, 8, headerBytes))) as Record<string, unknown>;
      return Object.keys(header).filter((name) => name !== "__metadata__");
    };
    /** The files of a model: its configuration, its own tensors, and those that both have. */
    const files = async (config: object, own: ArrayBuffer): Promise<File[]> => {
      const map = (file: string, tensors: string[]) => tensors.map((name) => [name, file] as const);
      const ownNames = new Set(names(own));
      const base = names(await shared[0]!.arrayBuffer()).filter((name) => !ownNames.has(name));
      const index = { weight_map: Object.fromEntries([...map("own.safetensors", [...ownNames]), ...map("base.safetensors", base)]) };
      return [
        new File([JSON.stringify(config)], "config.json"),
        new File([JSON.stringify(index)], "model.safetensors.index.json"),
        new File([own], "own.safetensors"),
        ...shared,
      ];
    };
    const logits = async (picked: File[]): Promise<{ logits: number[]; formats: string[] }> => {
      const model = await headwater.load(picked, { backend: "webgpu", exact: true, worker: false });
      const found = { logits: [...(await model.logits(ids))], formats: Object.keys(model.info.formats) };
      await model.dispose();
      return found;
    };
    const config = JSON.parse(new TextDecoder().decode(await bytes(`${folder}/config.json`))) as Record<string, unknown>;
    const packed = await logits(await files(config, await bytes(`${folder}/packed.safetensors`)));
    const plain = Object.fromEntries(Object.entries(config).filter(([key]) => !key.startsWith("quantization")));
    const gzipped = new Response(await bytes(`${folder}/twin.safetensors.gz`)).body!.pipeThrough(new DecompressionStream("gzip"));
    const twin = await logits(await files(plain, await new Response(gzipped).arrayBuffer()));
    return { packed: packed.logits, twin: twin.logits, formats: packed.formats };
  }, { layout, ids: IDS });
}

test("packed weights compute what their twins do", async ({ lab }) => {
  test.setTimeout(900_000);
  for (const layout of LAYOUTS) {
    const { packed, twin, formats } = await both(lab, layout);
    console.log(`${layout}: ${formats.join(", ")}: NMSE ${nmse(packed, twin).toExponential(1)}`);
    expect(formats.some((name) => !["f32", "f16", "bf16"].includes(name)), `${layout}: ${formats.join(", ")}`).toBe(true);
    expect(nmse(packed, twin), layout).toBeLessThanOrEqual(1e-10);
  }
});

interface Prompt {
  readonly name: string;
  readonly ids: readonly number[];
}

/** How far logits of a model are from its goldens, and what was told while it was loaded. */
async function load(page: Page, url: string, goldens: string, options: object): Promise<{ error: number; formats: string[]; told: number[]; total: number }> {
  const { prompts } = JSON.parse(readFileSync(inTree(`${goldens}.json`), "utf8")) as { prompts: Prompt[] };
  const short = prompts.find(({ name }) => name === "short");
  const wanted = readTensor(`${goldens}.safetensors`, "short.logits");
  if (short === undefined || wanted === undefined) throw new Error(`${goldens} has no short prompt`);
  const { logits, ...rest } = await page.evaluate(async ({ url, ids, options }) => {
    const told: number[] = [];
    let total = 0;
    const onProgress = ({ phase, loadedBytes, totalBytes }: { phase: string; loadedBytes: number; totalBytes: number }) => {
      if (phase === "weights") [total] = [totalBytes, told.push(loadedBytes)];
    };
    const model = await headwater.load(url, { backend: "webgpu", worker: false, onProgress, ...options });
    const found = { logits: [...(await model.logits(ids))], formats: Object.keys(model.info.formats), told, total };
    await model.dispose();
    return found;
  }, { url, ids: [...short.ids], options });
  return { error: nmse(logits, wanted), ...rest };
}

test("floats are quantised while they are loaded, and progress is told", async ({ lab }) => {
  test.setTimeout(300_000);
  // What so many bits cost in this small model, as the native tests bound it.
  for (const [quantize, bound] of [["q8_0", 1e-3], ["q4_k", 0.08]] as const) {
    const { error, told, total } = await load(lab, "/tests/data/models/llama3/", "tests/data/models/llama3/goldens", { quantize, exact: true });
    console.log(`llama3 as ${quantize}: NMSE ${error.toExponential(1)}`);
    // Blocks cost something; were nothing quantised, this would be rounding alone.
    expect(error, quantize).toBeGreaterThan(1e-7);
    expect(error, quantize).toBeLessThanOrEqual(bound);
    expect(told, quantize).toEqual(told.toSorted((a, b) => a - b));
    expect(told.at(-1), quantize).toBe(total);
  }
});

test("keys and values are stored in blocks", async ({ lab }) => {
  test.setTimeout(300_000);
  const goldens = "tests/data/gguf/kq-llama-Q6_K";
  const errors = [];
  for (const kvFormat of ["f32", "f16", "q8_0", "q4_0"]) {
    const { error } = await load(lab, "/tests/data/gguf/kq-llama-Q6_K.gguf", goldens, { kvFormat });
    console.log(`kq-llama-Q6_K, keys and values as ${kvFormat}: NMSE ${error.toExponential(1)}`);
    errors.push(error);
  }
  // Each with fewer bits is further off, and none is wrong.
  expect(errors).toEqual(errors.toSorted((a, b) => a - b));
  expect(errors[0]).toBeLessThanOrEqual(1e-8);
  expect(errors[2]).toBeLessThanOrEqual(1e-3);
  expect(errors[3]).toBeLessThanOrEqual(0.1);
});
