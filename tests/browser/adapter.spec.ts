/** Adapters on the browser's own WebGPU: peft's goldens, several beside one another, what is refused. */
import { readFileSync } from "node:fs";
import { expect, test } from "./lab.js";
import { inTree, nmse, readTensor } from "./golden.js";
import { Mirror } from "./mirror.js";

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
  // Experts one by one, and all in one tensor; of the latter, rows of gate and up alternate.
  { base: "/tests/data/models/mixtral/", adapter: "mixtral-experts/", goldens: "mixtral-experts", bound: MAX_NMSE },
  { base: "/tests/data/models/gpt-oss/", adapter: "gpt-oss-parameters/", goldens: "gpt-oss-parameters", bound: MAX_NMSE },
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

test("an adapter of a hub has a licence of its own, and tells what it was made for", async ({ lab, context }) => {
  const put = (mirror: Mirror, folder: string, names: readonly string[], card: string): void => {
    mirror.files.clear();
    for (const name of names) mirror.files.set(name, readFileSync(inTree(`tests/data/${folder}/${name}`)));
    mirror.files.set("README.md", Buffer.from(`---\n${card}\n---\n`));
  };
  const [base, adapter] = [new Mirror("test/llama3"), new Mirror("test/lora")];
  put(base, "models/llama3", ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"], "license: llama3.2\nbase_model: first/llama3");
  put(adapter, "lora/llama3-plain", ["adapter_config.json", "adapter_model.safetensors"], "license: cc-by-nc-4.0\nbase_model: First/Llama3\nbase_model_relation: adapter");
  await base.serve(context, "bases");
  await adapter.serve(context, "adapters");
  await adapter.serve(context, "bases");
  const [prompt] = prompts("llama3-plain").filter(({ name }) => name === "mid");
  const found = await lab.evaluate(async (ids) => {
    const model = await headwater.load("test/llama3", { endpoint: `${location.origin}/bases`, backend: "webgpu", exact: true });
    const endpoint = `${location.origin}/adapters`;
    const reply = async (name: string): Promise<number[]> =>
      [...(await model.generate(ids, { temperature: 0, ignoreEos: true, maxTokens: 16, adapter: name }).result()).tokens];
    const refused = await model.adapters.load("test/lora", { endpoint, policy: { licenses: { deny: ["@non-commercial"] } } })
      .then(() => "", (error: unknown) => (error as { kind: string }).kind);
    const info = await model.adapters.load("test/lora", { endpoint, name: "hub" });
    await model.adapters.load("/tests/data/lora/llama3-plain/", { name: "url" });
    const other = await headwater.load("/tests/data/models/llama3/", { backend: "webgpu", exact: true });
    const unknown = await other.adapters.load("test/lora", { endpoint, offline: true });
    const kept = (await headwater.store.list()).map(({ reference, license }) => [reference, license?.id]);
    const tokens = [await reply("hub"), await reply("url")];
    // With the model, under its terms; a path stays a path where a mirror is named.
    const adapters = [{ source: "test/lora", name: "hub" }, { source: "/tests/data/lora/llama3-plain/", name: "url" }];
    const bases = { endpoint: `${location.origin}/bases`, backend: "webgpu", exact: true } as const;
    const together = await headwater.load("test/llama3", { ...bases, adapters });
    tokens.push([...(await together.generate(ids, { temperature: 0, ignoreEos: true, maxTokens: 16, adapter: "hub" }).result()).tokens]);
    const names = (await together.adapters.list()).map(({ name }) => name);
    await together.dispose();
    const denied = await headwater.load("test/llama3", { ...bases, adapters, policy: { licenses: { deny: ["@non-commercial"] } } })
      .then(() => "", (error: unknown) => (error as { kind: string }).kind);
    await model.dispose();
    await other.dispose();
    return { refused, info, unknown, kept: kept.sort(), tokens, names, denied };
  }, prompt?.ids ?? []);
  expect(found.refused).toBe("PolicyRefused");
  expect([found.info.madeFor, found.info.origin?.license.id, found.info.origin?.license.baseRelation]).toEqual([true, "cc-by-nc-4.0", "adapter"]);
  expect([found.unknown.madeFor, found.unknown.origin?.fetchedBytes]).toEqual([null, 0]);
  expect(found.kept).toEqual([["test/llama3", "llama3.2"], ["test/lora", "cc-by-nc-4.0"]]);
  expect([found.names, found.denied]).toEqual([["hub", "url"], "PolicyRefused"]);
  expect(found.tokens[2]).toEqual(found.tokens[0]);
  expect(found.tokens[0]).toEqual(found.tokens[1]);
  expect(found.tokens[0]?.length).toBe(16);
});
