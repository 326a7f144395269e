/** The package's verbs, in the worker and without it. */
import { expect, test } from "./lab.js";
import { safeCases } from "./golden.js";
import { SWEEP } from "./sweep.js";

const QUESTION = "Does anything leave my device?";
const ANSWER = "What you type stays on your device. Nothing is sent to a server.";

/** The engine cannot tell whose thread it is on, so the page's has a choice of what the worker's is asked; a sweep asks all. */
const cases = (worker: boolean): typeof safeCases => (worker || SWEEP ? safeCases : safeCases.slice(0, 2));

for (const worker of [true, false]) {
  test.describe(worker ? "in a worker" : "on the page's thread", () => {
    test("every safe golden case, ids and text", async ({ lab }) => {
      const replies = await lab.evaluate(async ({ worker, prompts }) => {
        const model = await headwater.load("embedded:tiny-assistant", { worker, backend: "webgpu" });
        const replies = [];
        for (const messages of prompts) {
          const { text, tokens, finishReason, usage } = await model.generate(messages, { temperature: 0 }).result();
          replies.push({ text, tokens, finishReason, promptTokens: usage.promptTokens, counted: await model.countTokens(messages) });
        }
        await model.dispose();
        return replies;
      }, { worker, prompts: cases(worker).map(({ messages }) => messages) });
      expect(replies).toEqual(cases(worker).map(({ greedy_text, greedy_ids, prompt_ids }) => ({
        text: greedy_text,
        tokens: greedy_ids,
        finishReason: "stop",
        promptTokens: prompt_ids.length,
        counted: prompt_ids.length,
      })));
    });

    test("pieces make the whole; ids and text turn into each other; figures are told", async ({ lab }) => {
      const seen = await lab.evaluate(async ({ worker, QUESTION }) => {
        const phases: string[] = [];
        const model = await headwater.load("embedded:tiny-assistant", {
          worker,
          onProgress: ({ phase, loadedBytes, totalBytes }) => phases.push(`${phase} ${loadedBytes <= totalBytes}`),
        });
        const generation = model.generate([{ role: "user", content: QUESTION }]);
        const pieces = [];
        for await (const piece of generation) pieces.push(piece);
        const result = await generation.result();
        const ids = await model.tokenize("A fox, a lantern: 你好 🦊");
        const prompt = "<|im_start|>user\nHello<|im_end|>\n";
        return {
          phases: [...new Set(phases)],
          text: pieces.map(({ text }) => text).join(""),
          tokens: pieces.flatMap(({ tokens }) => tokens).length === result.tokens.length,
          result: result.text,
          back: await model.detokenize(ids),
          special: [await model.tokenize(prompt), await model.tokenize(prompt, { parseSpecial: true })].map((ids) => ids.includes(2046)),
          info: model.info,
          stats: await model.stats(),
          supported: (await headwater.support()).webgpu.available,
          timings: result.timings,
        };
      }, { worker, QUESTION });
      expect(seen.text).toBe(ANSWER);
      expect(seen.result).toBe(ANSWER);
      expect(seen.tokens).toBe(true);
      expect(seen.phases).toEqual(expect.arrayContaining(["weights true", "ready true"]));
      expect(seen.back).toBe("A fox, a lantern: 你好 🦊");
      expect(seen.special, "special tokens in a text stay text unless asked for").toEqual([false, true]);
      expect(seen.info).toMatchObject({ architecture: "qwen3", context: 512, vocabSize: 2048, backend: { name: "webgpu" } });
      expect(seen.stats).toMatchObject({ replies: 1 });
      expect(seen.stats.counters.submits).toBeGreaterThan(0);
      expect(seen.supported).toBe(true);
      expect(seen.timings.tokensPerSecond).toBeGreaterThan(0);
    });

    test("generations take turns; an early end of the loop ends the generation", async ({ lab }) => {
      const seen = await lab.evaluate(async ({ worker, QUESTION }) => {
        const model = await headwater.load("embedded:tiny-assistant", { worker });
        const ask = (text: string): Promise<string> => model.generate([{ role: "user", content: text }]).result().then(({ text }) => text);
        const both = await Promise.all([ask(QUESTION), ask("What is the capital of Norway?"), model.tokenize("fox")]);
        let pieces = 0;
        const story = model.generate("Once upon a time", { ignoreEos: true });
        for await (const _ of story) {
          pieces += 1;
          if (pieces === 2) break;
        }
        const ended = await story.result().then(() => "whole", (error: { kind: string }) => error.kind);
        return { both: both.slice(0, 2), ended, after: await ask(QUESTION) };
      }, { worker, QUESTION });
      expect(seen.both[0]).toBe(ANSWER);
      expect(seen.both[1]).toContain("Sorry, I do not know that.");
      expect(seen).toMatchObject({ ended: "Aborted", after: ANSWER });
    });

    test("a chat keeps its messages through a retry, an edit, a stop and an error", async ({ lab }) => {
      const seen = await lab.evaluate(async ({ worker }) => {
        const model = await headwater.load("embedded:tiny-assistant", { worker });
        const chat = model.chat({ system: "You are a helpful assistant.", defaults: { temperature: 0 } });
        await chat.send("My name is Zelda.").result();
        const { text, usage } = await chat.send("What is my name?").result();
        const again = await chat.retry().result();
        const room = chat.contextUsage;
        const fork = chat.fork();
        chat.edit(1, "My name is Nora.");
        const edited = chat.messages.length;
        await chat.retry().result();
        const stop = new AbortController();
        const story = chat.send("Tell me a story about a fox and a lantern.", { signal: stop.signal });
        const stopped = await (async () => {
          for await (const piece of story) if (piece.text !== "") stop.abort();
          return "whole";
        })().catch((error: { kind: string }) => error.kind);
        const afterStop = chat.messages.at(-1)?.role;
        const before = chat.messages.length;
        const full = await chat.send("word ".repeat(600)).result().catch((error: { kind: string }) => error.kind);
        const saved = await fork.save();
        const restored = model.chat();
        await restored.restore(saved);
        const goesOn = (await restored.retry({ temperature: 0 }).result()).text;
        const damaged: unknown[] = [];
        for (const content of ["{", "null", '{"format": "headwater-chat", "version": 2}', (await saved.text()).replace('"role"', '"rule"')]) {
          damaged.push(await restored.restore(new Blob([content])).catch((error: { kind: string }) => error.kind));
        }
        return {
          text, cached: usage.cachedTokens, again: again.text, room, edited, stopped, afterStop, full, goesOn, damaged,
          kept: chat.messages.length === before, forked: fork.messages.length,
        };
      }, { worker });
      expect(seen).toMatchObject({
        text: "Your name is Zelda.", again: "Your name is Zelda.", edited: 2, stopped: "Aborted", afterStop: "assistant",
        full: "ContextFull", goesOn: "Your name is Zelda.", kept: true, forked: 5,
        damaged: ["InvalidArgument", "InvalidArgument", "InvalidArgument", "InvalidArgument"],
      });
      expect(seen.cached, "tokens of the earlier turn that are not computed again").toBeGreaterThan(20);
      expect(seen.room.totalTokens).toBe(512);
      expect(seen.room.usedTokens).toBeGreaterThan(57);
    });

    if (worker || SWEEP) test("sampling: a seed repeats, another differs, stop texts stop, limits limit", async ({ lab }) => {
      const seen = await lab.evaluate(async ({ worker }) => {
        const model = await headwater.load("embedded:tiny-assistant", { worker });
        const story = [{ role: "user", content: "Tell me a story about a fox and a lantern." }];
        const tell = (options: object): Promise<import("headwater").GenerationResult> =>
          model.generate(story, { temperature: 0.9, topK: 40, maxTokens: 24, ...options }).result();
        const [one, same, other] = [await tell({ seed: 7 }), await tell({ seed: 7 }), await tell({ seed: 8 })];
        const free = await tell({ maxTokens: 4 });
        return {
          same: one.text === same.text, other: one.text === other.text, seed: one.seed,
          limited: { reason: free.finishReason, count: free.tokens.length, seeded: Number.isInteger(free.seed) },
          cut: (await tell({ temperature: 0, stop: ["fox"] })).text,
        };
      }, { worker });
      expect(seen).toEqual({
        same: true, other: false, seed: 7, limited: { reason: "length", count: 4, seeded: true },
        cut: "Once upon a time there was a ",
      });
    });
  });
}

test("models come from a URL, a folder, a Blob, files and the caller's own code", async ({ lab }) => {
  const replies = await lab.evaluate(async (QUESTION) => {
    const bytes = async (url: string): Promise<Blob> => (await fetch(url)).blob();
    const folder = "/models/tiny-assistant/";
    const names = ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"];
    const blob = await bytes(`${folder}tiny-assistant-q8_0.gguf`);
    const references: [string, import("headwater").ModelReference][] = [
      ["url", `${folder}tiny-assistant-q8_0.gguf`],
      ["folder", folder],
      ["blob", blob],
      ["files", await Promise.all(names.map(async (name) => new File([await bytes(folder + name)], name)))],
      ["own", {
        name: "own.gguf",
        size: blob.size,
        read: async (offset, length) => new Uint8Array(await blob.slice(offset, offset + length).arrayBuffer()),
      }],
    ];
    const replies: Record<string, string> = {};
    for (const [name, reference] of references) {
      const model = await headwater.load(reference);
      replies[name] = (await model.generate([{ role: "user", content: QUESTION }], { temperature: 0 }).result()).text;
      await model[Symbol.asyncDispose]();
    }
    return replies;
  }, QUESTION);
  expect(replies).toEqual({ url: ANSWER, folder: ANSWER, blob: ANSWER, files: ANSWER, own: ANSWER });
});

test("a Worker made by the page serves several models and outlives them", async ({ lab }) => {
  const replies = await lab.evaluate(async (QUESTION) => {
    const worker = new Worker("/pkg/dist/worker.js", { type: "module" });
    const replies: string[] = [];
    for (let round = 0; round < 2; round += 1) {
      const [one, two] = await Promise.all([
        headwater.load("embedded:tiny-assistant", { worker }),
        headwater.load("embedded:tiny-assistant", { worker }),
      ]);
      for (const model of [one, two]) {
        replies.push((await model.generate([{ role: "user", content: QUESTION }]).result()).text);
        await model.dispose();
      }
    }
    worker.terminate();
    return replies;
  }, QUESTION);
  expect(replies).toEqual([ANSWER, ANSWER, ANSWER, ANSWER]);
});
