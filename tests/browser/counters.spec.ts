/** What decoding asks of the device, counted exactly; and what loading asks of memory. */
import { expect, test } from "./lab.js";
import { giantGguf } from "./giant.js";

test("a decoded token makes no object; passes, submits, uploads and readings stay within bounds", async ({ lab }) => {
  const { chain, bench, perToken, tokens } = await lab.evaluate(async () => {
    const model = await headwater.load("embedded:tiny-assistant", { backend: "webgpu" });
    const bench = await model.bench({ prefill: 32, decode: 64 });
    const { chain } = bench;
    const costOf = async (maxTokens: number): Promise<Record<string, number>> => {
      const before = (await model.stats()).counters;
      await model.generate("Once upon a time", { temperature: 0, ignoreEos: true, maxTokens }).result();
      const after = (await model.stats()).counters;
      return Object.fromEntries(Object.entries(after).map(([name, count]) => [name, count - before[name as keyof typeof before]]));
    };
    // The difference of two replies to one prompt is what their difference in length costs, and nothing else.
    await costOf(1 + 2 * chain);
    const short = await costOf(1 + 2 * chain);
    const long = await costOf(1 + 6 * chain);
    const tokens = 4 * chain;
    const perToken = Object.fromEntries(Object.entries(long).map(([name, count]) => [name, (count - (short[name] ?? 0)) / tokens]));
    await model.dispose();
    return { chain, bench, perToken, tokens };
  });
  console.log(`chains of ${chain}; per token over ${tokens} tokens: ${JSON.stringify(perToken)}`);
  expect(chain, "tokens to a submit").toBeGreaterThan(1);
  for (const counters of [perToken, { ...bench.decodeCounters, buffers: 0, bindGroups: 0, pipelines: bench.decodeCounters.objects }]) {
    expect(counters).toMatchObject({ buffers: 0, bindGroups: 0, pipelines: 0 });
    expect(counters["passes"]).toBeLessThanOrEqual(1);
    expect(counters["submits"]).toBeLessThanOrEqual(1 / chain);
    expect(counters["writes"]).toBeLessThanOrEqual(counters["submits"] ?? 0);
    expect(counters["readBytes"]).toBeLessThanOrEqual(4);
    expect(counters["dispatches"], "kernels of a token, at most eight a layer and eight beside").toBeLessThanOrEqual(6 * 8 + 8);
  }
});

test("each kernel is timed where the device tells times; the CPU says that it launches none", async ({ lab }) => {
  const seen = await lab.evaluate(async () => {
    const request = { prefill: 8, decode: 4, profile: true };
    const model = await headwater.load("embedded:tiny-assistant", { backend: "webgpu" });
    const adapter = await navigator.gpu.requestAdapter();
    const report = await model.bench(request).catch((error: { kind: string }) => error.kind);
    await model.dispose();
    const cpu = await headwater.load("embedded:tiny-assistant", { backend: "cpu" });
    const none = await cpu.bench(request).catch(({ kind, details }: { kind: string; details: { at?: string } }) => `${kind} ${details.at ?? ""}`);
    await cpu.dispose();
    return { report, none, tellsTimes: adapter?.features.has("timestamp-query") ?? false };
  });
  expect(seen.none).toBe("InvalidArgument profile");
  if (!seen.tellsTimes) return expect(seen.report).toBe("GpuFeatureMissing");
  if (typeof seen.report === "string") throw new Error(seen.report);
  const { profile, decodeCounters } = seen.report;
  console.log(JSON.stringify(profile));
  const launches = (profile?.decode ?? []).reduce((sum, { dispatches }) => sum + dispatches, 0);
  expect(launches, "all but the choice of the id").toBe(decodeCounters.dispatches - 1);
  expect(profile?.prefillTokens).toBe(8);
});

test("a model of 1 GiB loads through no more than 64 MiB of the engine's memory", async ({ lab }) => {
  const { header, sizeBytes } = giantGguf();
  expect(sizeBytes).toBeGreaterThanOrEqual(2 ** 30);
  const seen = await lab.evaluate(async ({ header, sizeBytes }) => {
    const head = Uint8Array.from(atob(header), (letter) => letter.charCodeAt(0));
    let readBytes = 0;
    const source = {
      name: "giant.gguf",
      size: sizeBytes,
      // Past the header all is zero; nothing of that size exists anywhere.
      read: async (offset: number, length: number): Promise<Uint8Array> => {
        readBytes += length;
        const bytes = new Uint8Array(length);
        bytes.set(head.subarray(Math.min(offset, head.length), Math.min(offset + length, head.length)));
        return bytes;
      },
    };
    const model = await headwater.load(source, { backend: "webgpu", context: 64 });
    const { memoryBytes, weightBytes } = await model.stats();
    await model.dispose();
    return { memoryBytes, weightBytes, readBytes };
  }, { header: header.toString("base64"), sizeBytes });
  console.log(`${sizeBytes} bytes of model, ${seen.memoryBytes} bytes of memory`);
  expect(seen.readBytes).toBeGreaterThanOrEqual(2 ** 30);
  expect(seen.memoryBytes).toBeLessThanOrEqual(64 * 2 ** 20);
});

test("of a reply with log probabilities the largest logits come back, of one with a bias the ids", async ({ lab }) => {
  const seen = await lab.evaluate(async () => {
    const model = await headwater.load("embedded:tiny-assistant", { backend: "webgpu" });
    const made = async (options: object) => {
      const before = (await model.stats()).counters;
      const result = await model.generate("Make a list of bread, olives and tea.", { maxTokens: 6, ignoreEos: true, ...options }).result();
      const after = (await model.stats()).counters;
      return { tokens: result.tokens, logprobs: result.logprobs ?? [], bytes: (after.readBytes - before.readBytes) / 6, full: after.fullReads - before.fullReads };
    };
    const plain = await made({});
    const told = await made({ logprobs: true, topLogprobs: 20 });
    const biased = await made({ logitBias: { 300: 100 } });
    const filtered = await made({ temperature: 0.9, seed: 3, topNSigma: 1, repetitionPenalty: 1.2 });
    const typical = await made({ temperature: 0.9, seed: 3, typicalP: 0.9 });
    await model.dispose();
    return { plain, told, biased, filtered, typical };
  });
  const topBytes = 4 * (8 + 2 * 256);
  expect(seen.told).toMatchObject({ tokens: seen.plain.tokens, bytes: topBytes + 8, full: 0 });
  for (const { logprob, top = [] } of seen.told.logprobs) {
    expect(top.length).toBe(20);
    expect(logprob).toBeCloseTo(top[0]?.logprob ?? NaN, 4);
    expect(top.reduce((sum, { logprob }) => sum + Math.exp(logprob), 0)).toBeLessThanOrEqual(1.0001);
  }
  expect(seen.biased).toMatchObject({ tokens: Array(6).fill(300), bytes: 4, full: 0 });
  expect(seen.filtered.full).toBe(0);
  expect(seen.filtered.bytes, "and the logits of what was said").toBeLessThan(topBytes + 4 * 64);
  expect(seen.typical.full, "a filter that goes by everything").toBe(6);
});
