/** Numbers against software that is not ours, in exact mode, on the browser's own WebGPU: every model of the parity tests. */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { basename, dirname } from "node:path";
import { expect, test, type Page } from "./lab.js";
import { SWEEP } from "./sweep.js";
import { goldenCases, inTree, nmse, readTensor } from "./golden.js";

/** A wrong norm epsilon costs 3e-8; anything looser would hide it. */
const MAX_NMSE = 1e-8;

/** Ids of a greedy continuation that are compared here, after the longest prompt; the native tests compare all of them. */
const GREEDY_STEPS = 8;

/** What the native tests leave behind: the list of models, read here and written again with the browser's figures. */
const FIGURES = "target/tmp/parity";

interface Model {
  readonly name: string;
  readonly files: readonly string[];
  readonly goldens: string;
  /** By how much the reference's own approximations may move a logit. */
  readonly reference: number;
}

interface Prompt {
  readonly name: string;
  readonly ids: readonly number[];
  readonly greedy: readonly number[];
  /** How far the best logit was above the next, at each step. */
  readonly margins: readonly number[];
}

/** What is tried every day: of each construction one, from both containers; a sweep tries all. */
const CHOICE = ["llama3", "qwen3", "gemma2", "phi3", "gpt-oss", "deepseek-v3", "lfm2", "qwen3-next", "llama4", "llama3-Q4_0.gguf", "kq-llama-Q4_K_M.gguf"];

function models(): readonly Model[] {
  const path = inTree(`${FIGURES}/cpu-exact.json`);
  if (!existsSync(path)) throw new Error(`${FIGURES}/cpu-exact.json is not there; \`cargo test --test parity_cpu\` makes it`);
  const all = JSON.parse(readFileSync(path, "utf8")) as Model[];
  const chosen = all.filter(({ name }) => SWEEP || CHOICE.includes(name));
  if (chosen.length < CHOICE.length) throw new Error(`of ${CHOICE.join(", ")} some are not among the models`);
  return chosen;
}

/** What the page loads: an address, or files picked from several folders, each with the name that the model knows it by. */
type Place = string | readonly { readonly url: string; readonly name: string }[];

function place({ files }: Model): Place {
  const first = files[0] ?? "";
  if (first.endsWith(".gguf")) return `/${first}`;
  if (files.every((file) => dirname(file) === dirname(first) && !file.includes("="))) return `/${dirname(first)}/`;
  // The list has what computes; ids stand in for texts, but a model does not load without its tokenizer.
  return [...files, `${dirname(files.at(-1) ?? "")}/tokenizer.json`].map((file) => {
    const [path = "", name = basename(path)] = file.split("=");
    return { url: `/${path}`, name };
  });
}

/** Logits of each list of ids, and the greedy continuation of each. On the page's own thread, so that models share pipelines. */
async function run(page: Page, place: Place, prompts: readonly { ids: readonly number[]; steps: number }[]): Promise<{ logits: number[][]; greedy: number[][]; vocab: number }> {
  return page.evaluate(async ({ place, prompts }) => {
    const pick = async ({ url, name }: { url: string; name: string }) => new File([await (await fetch(url)).blob()], name);
    const picked = typeof place === "string" ? place : await Promise.all(place.map(pick));
    const model = await headwater.load(picked, { backend: "webgpu", exact: true, worker: false });
    const logits: number[][] = [];
    const greedy: number[][] = [];
    for (const { ids, steps } of prompts) {
      logits.push([...(await model.logits(ids))]);
      greedy.push(steps === 0 ? [] : [...(await model.generate(ids, { temperature: 0, ignoreEos: true, maxTokens: steps }).result()).tokens]);
    }
    await model.dispose();
    return { logits, greedy, vocab: model.info.vocabSize };
  }, { place, prompts });
}

test("models of the table: logits and greedy continuations", async ({ lab }) => {
  test.setTimeout(3_600_000);
  const figures: unknown[] = [];
  for (const model of models()) {
    const { prompts } = JSON.parse(readFileSync(inTree(`${model.goldens}.json`), "utf8")) as { prompts: Prompt[] };
    const longest = Math.max(...prompts.map(({ ids }) => ids.length));
    const safe = prompts.map(({ ids, greedy, margins }) => {
      const unsafe = margins.findIndex((margin) => margin < Math.max(0.01, 2 * model.reference));
      return ids.length < longest ? 0 : Math.min(GREEDY_STEPS, unsafe < 0 ? greedy.length : unsafe);
    });
    const { logits, greedy, vocab } = await run(lab, place(model), prompts.map(({ ids }, index) => ({ ids, steps: safe[index] ?? 0 })));
    let worst = 0;
    for (const [index, prompt] of prompts.entries()) {
      const got = logits[index] ?? [];
      for (const [tensor, found] of [["logits", got], ["logits_last", got.slice(-vocab)]] as const) {
        const wanted = readTensor(`${model.goldens}.safetensors`, `${prompt.name}.${tensor}`);
        if (wanted === undefined) continue;
        worst = Math.max(worst, nmse(found, wanted));
      }
      expect(greedy[index], `${model.name}, ${prompt.name}`).toEqual(prompt.greedy.slice(0, safe[index]));
    }
    console.log(`${model.name}: NMSE ${worst.toExponential(1)}`);
    expect.soft(worst, model.name).toBeLessThanOrEqual(Math.max(MAX_NMSE, (model.reference / 2.5) ** 2));
    figures.push({ ...model, nmse: worst });
  }
  expect(figures.length).toBeGreaterThan(0);
  mkdirSync(inTree(FIGURES), { recursive: true });
  writeFileSync(inTree(`${FIGURES}/chromium-exact.json`), JSON.stringify(figures, undefined, 2));
});

test("tiny-assistant: the best scores and the greedy replies", async ({ lab }) => {
  const prompts = goldenCases.map(({ prompt_ids, greedy_ids }) => ({ ids: prompt_ids, steps: greedy_ids.length }));
  const { logits, greedy, vocab } = await run(lab, "/models/tiny-assistant/", prompts);
  for (const [index, { top5, greedy_ids }] of goldenCases.entries()) {
    const last = logits[index]?.slice(-vocab) ?? [];
    const error = nmse(top5.map(({ id }) => last[id] ?? NaN), top5.map(({ logit }) => logit));
    expect(error, `case ${index}`).toBeLessThanOrEqual(MAX_NMSE);
    expect(greedy[index], `case ${index}`).toEqual(greedy_ids);
  }
});
