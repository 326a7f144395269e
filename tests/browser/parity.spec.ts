/** Numbers against software that is not ours, in exact mode, on the browser's own WebGPU. */
import { readFileSync } from "node:fs";
import { expect, test, type Page } from "./lab.js";
import { goldenCases, inTree, nmse, readTensor } from "./golden.js";

/** A wrong norm epsilon costs 3e-8; anything looser would hide it. */
const MAX_NMSE = 1e-8;

interface Prompt {
  readonly name: string;
  readonly ids: readonly number[];
  readonly greedy: readonly number[];
  /** Of a GGUF: steps before the first margin that is too small to compare past. */
  readonly safe_steps?: number;
}

const MODELS = [
  { name: "llama3", url: "/tests/data/models/llama3/", goldens: "tests/data/models/llama3/goldens" },
  { name: "qwen3", url: "/tests/data/models/qwen3/", goldens: "tests/data/models/qwen3/goldens" },
  ...["llama3-F16", "llama3-Q8_0", "llama3-Q4_0", "qwen3-Q4_0"].map((name) => ({
    name,
    url: `/tests/data/gguf/${name}.gguf`,
    goldens: `tests/data/gguf/${name}`,
  })),
];

/** Logits of each list of ids, and the greedy continuation of each. */
async function run(page: Page, url: string, prompts: readonly Pick<Prompt, "ids" | "greedy">[]): Promise<{ logits: number[][]; greedy: number[][]; vocab: number }> {
  return page.evaluate(async ({ url, prompts }) => {
    const model = await headwater.load(url, { backend: "webgpu", exact: true });
    const logits: number[][] = [];
    const greedy: number[][] = [];
    for (const { ids, greedy: wanted } of prompts) {
      logits.push([...(await model.logits(ids))]);
      greedy.push([...(await model.generate(ids, { temperature: 0, ignoreEos: true, maxTokens: wanted.length }).result()).tokens]);
    }
    await model.dispose();
    return { logits, greedy, vocab: model.info.vocabSize };
  }, { url, prompts });
}

for (const { name, url, goldens } of MODELS) {
  test(`${name}: logits and greedy continuations`, async ({ lab }) => {
    const { prompts } = JSON.parse(readFileSync(inTree(`${goldens}.json`), "utf8")) as { prompts: Prompt[] };
    const { logits, greedy, vocab } = await run(lab, url, prompts);
    for (const [index, prompt] of prompts.entries()) {
      const whole = prompt.name === "short";
      const wanted = readTensor(`${goldens}.safetensors`, whole ? "short.logits" : `${prompt.name}.logits_last`);
      const got = logits[index] ?? [];
      const error = nmse(whole ? got : got.slice(-vocab), wanted);
      console.log(`${name} ${prompt.name}: NMSE ${error.toExponential(2)}`);
      expect(error, prompt.name).toBeLessThanOrEqual(MAX_NMSE);
      const steps = prompt.safe_steps ?? prompt.greedy.length;
      expect(greedy[index]?.slice(0, steps), prompt.name).toEqual(prompt.greedy.slice(0, steps));
    }
  });
}

test("tiny-assistant: the best scores and the greedy replies", async ({ lab }) => {
  const prompts = goldenCases.map(({ prompt_ids, greedy_ids }) => ({ ids: prompt_ids, greedy: greedy_ids }));
  const { logits, greedy, vocab } = await run(lab, "/models/tiny-assistant/", prompts);
  for (const [index, { top5, greedy_ids }] of goldenCases.entries()) {
    const last = logits[index]?.slice(-vocab) ?? [];
    const error = nmse(top5.map(({ id }) => last[id] ?? NaN), top5.map(({ logit }) => logit));
    expect(error, `case ${index}`).toBeLessThanOrEqual(MAX_NMSE);
    expect(greedy[index], `case ${index}`).toEqual(greedy_ids);
  }
});
