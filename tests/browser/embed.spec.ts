/** Embeddings and rankings through the package, against software that is not ours. */
import { readFileSync, writeFileSync } from "node:fs";
import { expect, test } from "./lab.js";
import { inTree, nmse, readTensor } from "./golden.js";

/** The embeddings of a file of goldens. */
function embeddings(path: string): Float32Array {
  const tensor = readTensor(path, "embeddings");
  if (tensor === undefined) throw new Error(`${path} has no embeddings`);
  return tensor;
}

/** Float32 throughout; keys and values of encoders are kept in 32 bits without asking. */
const MAX_NMSE = 1e-9;

const EMBEDDERS = [
  { name: "bert-minilm", pooling: "mean" },
  { name: "bert-bge-cls", pooling: "cls" },
  { name: "modernbert", pooling: "mean" },
  { name: "nomic-bert", pooling: "mean" },
  { name: "xlm-roberta", pooling: "cls" },
  { name: "qwen3-embedding", pooling: "last" },
] as const;

interface Goldens {
  readonly texts: readonly { readonly text: string }[];
}

interface Pairs {
  readonly pairs: readonly { readonly query: string; readonly passage: string; readonly logit: number; readonly sigmoid: number }[];
}

function goldens<T>(name: string): T {
  return JSON.parse(readFileSync(inTree(`tests/data/models/${name}/goldens.json`), "utf8")) as T;
}

/** What the native tests say of each model, for the table in docs/models.md; written again with the browser's figures. */
const FIGURES = "target/tmp/parity";
const figures: unknown[] = [];

function note(name: string, nmse: number): void {
  const all = JSON.parse(readFileSync(inTree(`${FIGURES}/embeddings-gpu.json`), "utf8")) as { readonly name: string }[];
  figures.push({ ...all.find((model) => model.name === name), nmse });
}

test.afterAll(() => {
  if (figures.length === EMBEDDERS.length) {
    writeFileSync(inTree(`${FIGURES}/embeddings-chromium.json`), JSON.stringify(figures, undefined, 2));
  }
});

for (const { name, pooling } of EMBEDDERS) {
  test(`${name}: embeddings, all at once and one by one`, async ({ lab }) => {
    const texts = goldens<Goldens>(name).texts.map(({ text }) => text);
    const seen = await lab.evaluate(async ({ name, texts }) => {
      const model = await headwater.load(`/tests/data/models/${name}/`, { backend: "webgpu", exact: true });
      const together = (await model.embed(texts)).map((vector) => [...vector]);
      const alone: number[][] = [];
      for (const text of texts) alone.push(...(await model.embed(text)).map((vector) => [...vector]));
      const short = (await model.embed(texts, { dimensions: 8 })).map((vector) => [...vector]);
      const { info } = model;
      await model.dispose();
      return { together, alone, short, kind: info.kind, pooling: info.pooling, size: info.embeddingSize };
    }, { name, texts });
    expect([seen.kind, seen.pooling]).toEqual(["embedder", pooling]);
    const wanted = embeddings(`tests/data/models/${name}/goldens.safetensors`);
    expect(wanted.length).toBe(texts.length * seen.size);
    const found = nmse(seen.together.flat(), wanted);
    expect(found).toBeLessThanOrEqual(MAX_NMSE);
    note(name, found);
    expect(nmse(seen.alone.flat(), seen.together.flat())).toBeLessThanOrEqual(1e-12);
    for (const [index, vector] of seen.short.entries()) {
      const head = seen.together[index]?.slice(0, 8) ?? [];
      const length = Math.hypot(...head);
      expect(nmse(vector, head.map((element) => element / length))).toBeLessThanOrEqual(1e-12);
    }
  });
}

test("bert-minilm from GGUF: its own tokenizer, and llama.cpp's embeddings", async ({ lab }) => {
  const texts = goldens<Goldens>("bert-minilm").texts.map(({ text }) => text);
  const vectors = await lab.evaluate(async (texts) => {
    const model = await headwater.load("/tests/data/gguf/bert-minilm-F16.gguf", { backend: "webgpu" });
    const vectors = (await model.embed(texts)).map((vector) => [...vector]);
    await model.dispose();
    return vectors;
  }, texts);
  // llama.cpp looks its GELU up in a table of half precision: 2e-4 of a vector of length one.
  expect(nmse(vectors.flat(), embeddings("tests/data/gguf/bert-minilm-F16.safetensors"))).toBeLessThanOrEqual(1e-6);
});

for (const worker of [true, false]) {
  test(`documents are ranked ${worker ? "in a worker" : "on the page's thread"}`, async ({ lab }) => {
    const { pairs } = goldens<Pairs>("bert-reranker");
    const query = pairs[0]?.query ?? "";
    const judged = pairs.filter((pair) => pair.query === query);
    const seen = await lab.evaluate(async ({ worker, query, documents }) => {
      const model = await headwater.load("/tests/data/models/bert-reranker/", { worker, exact: true });
      const all = await model.rerank(query, documents);
      const best = await model.rerank(query, documents, { topK: 1 });
      const { kind } = model.info;
      await model.dispose();
      return { all, best, kind };
    }, { worker, query, documents: judged.map(({ passage }) => passage) });
    expect(seen.kind).toBe("reranker");
    expect(seen.all.length).toBe(judged.length);
    expect(seen.best).toEqual(seen.all.slice(0, 1));
    for (const { index, score, logit } of seen.all) {
      expect(Math.abs(logit - (judged[index]?.logit ?? NaN))).toBeLessThan(1e-4);
      expect(Math.abs(score - (judged[index]?.sigmoid ?? NaN))).toBeLessThan(1e-4);
    }
    const scores = seen.all.map(({ score }) => score);
    expect(scores).toEqual([...scores].sort((a, b) => b - a));
  });
}

test("what a model cannot do, and what cannot be honoured, is told by name", async ({ lab }) => {
  const seen = await lab.evaluate(async () => {
    const fault = async (work: Promise<unknown>): Promise<unknown[]> => {
      try {
        await work;
        return ["done"];
      } catch (error) {
        const { kind, message } = error as import("headwater").HeadwaterError;
        return [error instanceof headwater.HeadwaterError, kind, message];
      }
    };
    const encoder = await headwater.load("/tests/data/models/bert-minilm/");
    const decoder = await headwater.load("embedded:tiny-assistant");
    const judge = await headwater.load("/tests/data/models/bert-reranker/");
    const ended = new AbortController();
    ended.abort();
    const faults = {
      generate: await fault(encoder.generate("x").result()),
      encoderRerank: await fault(encoder.rerank("x", ["y"])),
      decoderRerank: await fault(decoder.rerank("x", ["y"])),
      judgeEmbed: await fault(judge.embed("x")),
      unknown: await fault(encoder.embed("x", { colour: "red" } as never)),
      pooling: await fault(encoder.embed("x", { pooling: "max" as never })),
      dimensions: await fault(encoder.embed("x", { dimensions: 1000 })),
      none: await fault(encoder.embed([])),
      number: await fault(encoder.embed(3 as never)),
      long: await fault(encoder.embed(["short", "word ".repeat(500)])),
      signal: await fault(encoder.embed("x", { signal: ended.signal })),
      topK: await fault(judge.rerank("x", ["y"], { topK: 0 })),
    };
    const cut = (await encoder.embed("word ".repeat(500), { truncate: true })).length;
    const ofDecoder = (await decoder.embed(["a fox", "a lantern"])).map((vector) => Math.hypot(...vector));
    await Promise.all([encoder.dispose(), decoder.dispose(), judge.dispose()]);
    return { faults, cut, ofDecoder };
  });
  for (const [name, [ours, kind]] of Object.entries(seen.faults)) {
    const wanted = { long: "ContextFull", signal: "Aborted" }[name] ?? "InvalidArgument";
    expect([ours, kind], name).toEqual([true, wanted]);
  }
  expect(seen.faults.generate[2]).toContain("it can: embed");
  expect(seen.faults.decoderRerank[2]).toContain("it can: generate, embed");
  expect(seen.faults.judgeEmbed[2]).toContain("it can: rerank");
  expect(seen.faults.long[2]).toContain("item 1");
  expect(seen.cut).toBe(1);
  for (const length of seen.ofDecoder) expect(length).toBeCloseTo(1, 5);
});
