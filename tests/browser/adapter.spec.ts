/** Adapters on the browser's own WebGPU: peft's goldens, several beside one another, what is refused. */
import { readFileSync } from "node:fs";
import { expect, test } from "./lab.js";
import { inTree, nmse, readTensor } from "./golden.js";

/** As for the models themselves. */
const MAX_NMSE = 1e-8;

interface Prompt {
  readonly name: string;
  readonly ids: readonly number[];
  readonly greedy: readonly number[];
  readonly margins: readonly number[];
}

const CASES = [
  { base: "/tests/data/models/llama3/", adapter: "llama3-plain/", goldens: "llama3-plain", bound: MAX_NMSE },
  // Its numbers are stored as f16.
  { base: "/tests/data/models/llama3/", adapter: "llama3-plain/adapter.gguf", goldens: "llama3-plain", bound: 2e-6 },
  // Rows of queries and keys are permuted here.
  { base: "/tests/data/gguf/llama3-F16.gguf", adapter: "llama3-plain/", goldens: "llama3-plain", bound: MAX_NMSE },
  { base: "/tests/data/models/qwen2/", adapter: "qwen2-rslora-pattern/", goldens: "qwen2-rslora-pattern", bound: MAX_NMSE },
  { base: "/tests/data/models/qwen3/", adapter: "qwen3-dora/", goldens: "qwen3-dora", bound: MAX_NMSE },
] as const;

function prompts(goldens: string): readonly Prompt[] {
  return (JSON.parse(readFileSync(inTree(`tests/data/lora/${goldens}/goldens.json`), "utf8")) as { prompts: Prompt[] }).prompts;
}

for (const { base, adapter, goldens, bound } of CASES) {
  test(`${adapter} on ${base}: logits and greedy continuations`, async ({ lab }) => {
    const all = prompts(goldens);
    const found = await lab.evaluate(async ({ base, url, all }) => {
      const model = await headwater.load(base, { backend: "webgpu", exact: true, adapters: [{ source: url, name: "a" }] });
      const results = [];
      for (const { ids } of all) {
        const logits = [...(await model.logits(ids, { adapter: "a" }))];
        const options = { temperature: 0, ignoreEos: true, maxTokens: 32, adapter: { name: "a", scale: 1 } };
        results.push({ logits, greedy: [...(await model.generate(ids, options).result()).tokens] });
      }
      await model.dispose();
      return { results, vocab: model.info.vocabSize };
    }, { base, url: `/tests/data/lora/${adapter}`, all });
    for (const [index, { name, greedy, margins }] of all.entries()) {
      const got = found.results[index];
      for (const [tensor, logits] of [["logits", got?.logits ?? []], ["logits_last", (got?.logits ?? []).slice(-found.vocab)]] as const) {
        const wanted = readTensor(`tests/data/lora/${goldens}/goldens.safetensors`, `${name}.${tensor}`);
        if (wanted !== undefined) expect(nmse(logits, wanted), `${name}.${tensor}`).toBeLessThanOrEqual(bound);
      }
      const unsafe = margins.findIndex((margin) => margin < 0.01);
      const steps = unsafe < 0 ? greedy.length : unsafe;
      expect(got?.greedy.slice(0, steps), name).toEqual(greedy.slice(0, steps));
    }
  });
}

test("adapters come and go, and a reply chooses", async ({ lab }) => {
  const [prompt] = prompts("llama3-plain").filter(({ name }) => name === "mid");
  const found = await lab.evaluate(async (ids) => {
    const model = await headwater.load("/tests/data/models/llama3/", { backend: "webgpu", exact: true });
    const reply = async (adapter?: string | { name: string; scale?: number }): Promise<{ tokens: number[]; cached: number }> => {
      const options = { temperature: 0, ignoreEos: true, maxTokens: 32, ...(adapter === undefined ? {} : { adapter }) };
      const { tokens, usage } = await model.generate(ids, options).result();
      return { tokens: [...tokens], cached: usage.cachedTokens };
    };
    const kind = async (promise: Promise<unknown>): Promise<string> => promise.then(() => "none", (error: { kind: string }) => error.kind);
    const plain = await reply();
    const info = await model.adapters.load("/tests/data/lora/llama3-plain/");
    const files = await Promise.all(["adapter_config.json", "adapter_model.safetensors"].map(async (name) => {
      const bytes = await (await fetch(`/tests/data/lora/llama3-plain/${name}`)).arrayBuffer();
      return { name, size: bytes.byteLength, read: (offset: number, length: number) => new Uint8Array(bytes, offset, length) };
    }));
    await model.adapters.load(files, { name: "own" });
    const before = await model.stats();
    const replies = { whole: await reply("llama3-plain"), again: await reply("llama3-plain"), none: await reply({ name: "own", scale: 0 }), own: await reply("own") };
    const after = await model.stats();
    const errors = {
      unknown: await kind(reply("nobody")),
      taken: await kind(model.adapters.load("/tests/data/lora/llama3-plain/", { name: "own" })),
      other: await kind(model.adapters.load("/tests/data/lora/qwen3-dora/")),
      missing: await kind(model.adapters.load("/tests/data/lora/nothing/")),
      shape: await kind(reply({ name: "own", size: 1 } as never)),
    };
    const names = (await model.adapters.list()).map(({ name }) => name);
    await model.adapters.unload("own");
    const gone = await kind(reply("own"));
    const last = await reply();
    await model.dispose();
    const made = ({ counters: c }: typeof before): number => c.buffers + c.bindGroups + c.pipelines;
    return { plain, info, replies, errors, names, gone, last, made: made(after) - made(before) };
  }, prompt?.ids ?? []);
  expect(found.info).toMatchObject({ name: "llama3-plain", kind: "lora", rank: 4, matrices: 14, baseModel: "llama3" });
  expect(found.replies.whole.tokens).toEqual(prompt?.greedy);
  expect(found.replies.own.tokens).toEqual(prompt?.greedy);
  expect([found.replies.whole.cached, found.replies.again.cached, found.replies.own.cached]).toEqual([0, (prompt?.ids.length ?? 0) - 1, 0]);
  expect(found.replies.none.tokens).toEqual(found.plain.tokens);
  expect(found.plain.tokens).not.toEqual(prompt?.greedy);
  expect(found.errors).toEqual({ unknown: "NotFound", taken: "InvalidArgument", other: "MalformedModel", missing: "NotFound", shape: "InvalidArgument" });
  expect(found.names).toEqual(["llama3-plain", "own"]);
  expect(found.gone).toBe("NotFound");
  expect(found.last.tokens).toEqual(found.plain.tokens);
  expect(found.made).toBe(0);
});
