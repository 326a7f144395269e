/** Several replies of one model at once: each as it is alone, none waiting for another's end. */
import { expect, test } from "./lab.js";

test("three calls at once give what each gives alone, side by side, at more than one's rate", async ({ lab }) => {
  const seen = await lab.evaluate(async () => {
    const model = await headwater.load("embedded:tiny-assistant", { backend: "webgpu" });
    const prompts = ["Once upon a time", "The list:", "Why is it"];
    const options = (seed: number) => ({ temperature: 0.8, seed, ignoreEos: true, maxTokens: 33 });
    const timed = async <T>(work: () => Promise<T>): Promise<[T, number]> => {
      const began = performance.now();
      const done = await work();
      return [done, (performance.now() - began) / 1000];
    };
    const order: number[] = [];
    const together = async () =>
      await Promise.all(
        prompts.map(async (prompt, at) => {
          const reply = model.generate(prompt, options(at));
          for await (const _ of reply) order.push(at);
          return (await reply.result()).text;
        }),
      );
    const alone: string[] = [];
    let aloneSecs = 0;
    for (const [at, prompt] of prompts.entries()) {
      const [result, secs] = await timed(() => model.generate(prompt, options(at)).result());
      alone.push(result.text);
      aloneSecs += secs;
    }
    const [, firstSecs] = await timed(together);
    order.length = 0;
    const [texts, togetherSecs] = await timed(together);
    await model.dispose();
    return { alone, texts, order, aloneSecs, firstSecs, togetherSecs };
  });
  const times = [seen.aloneSecs, seen.firstSecs, seen.togetherSecs].map((secs) => secs.toFixed(1));
  console.log(`one after another ${times[0]} s; together ${times[1]} s the first time, then ${times[2]} s`);
  expect(seen.texts).toEqual(seen.alone);
  const lastOfFirst = seen.order.lastIndexOf(seen.order[0] ?? 0);
  expect(new Set(seen.order.slice(0, lastOfFirst)).size, "replies under way before the first one ended").toBe(3);
});

test("four replies to a prompt compute it once; one that is aborted leaves the others as they are", async ({ lab }) => {
  const seen = await lab.evaluate(async () => {
    const model = await headwater.load("embedded:tiny-assistant", { backend: "webgpu" });
    const prompt = "Make a list of bread, olives and green tea. ".repeat(4);
    const options = { temperature: 0.9, seed: 5, ignoreEos: true, maxTokens: 6 };
    const four = await model.generate(prompt, { ...options, n: 4 }).result();
    const controller = new AbortController();
    const aborted = model.generate("Once upon a time", { ...options, maxTokens: 200, signal: controller.signal });
    const other = model.generate("The list:", { ...options, maxTokens: 17 });
    const abortion = aborted.result().catch((error: { kind?: string; name?: string }) => error.kind ?? error.name);
    for await (const _ of aborted) {
      controller.abort();
      break;
    }
    const text = (await other.result()).text;
    const alone = (await model.generate("The list:", { ...options, maxTokens: 17 }).result()).text;
    const outcome = await abortion;
    await model.dispose();
    const replies = [four, ...(four.others ?? [])];
    return { cached: replies.map(({ usage }) => usage.cachedTokens), tokens: four.usage.promptTokens, text, alone, outcome };
  });
  expect(seen.cached).toEqual([0, seen.tokens - 1, seen.tokens - 1, seen.tokens - 1]);
  expect(seen.text).toBe(seen.alone);
  expect(seen.outcome).toMatch(/abort/i);
});
