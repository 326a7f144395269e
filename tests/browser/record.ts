/**
 * Chats whose functions make up the first part of the engine's module: with models of the common families and formats,
 * from an address, a hub and the store, on the page and on WebGPU. The module that records has an exported global for
 * each function; those that are 1 at the end ran. Written to the file that HEADWATER_RECORD names, as JSON.
 */
import { writeFileSync } from "node:fs";
import { expect, openLab, test, type Page } from "./lab.js";
import { Mirror, REFERENCE } from "./mirror.js";

/** Exported globals that record begin so; `xtask/src/split.rs` names them. */
const RAN = "ran:";

const GGUF = ["llama3-Q8_0", "kq-llama-Q4_K_M", "kq-llama-Q6_K", "qwen3-Q4_0", "qwen2-Q8_0", "gemma3-Q8_0", "gemma2-g-Q8_0", "llama2-spm-Q8_0", "phi3-g-Q8_0", "mistral-nemo-Q4_0"];
const FOLDERS = ["llama3", "qwen3", "smollm2"];

const ran = new Map<string, boolean>();

/** Takes the marks of all workers of a page, while they live. */
async function take(page: Page): Promise<void> {
  const marks = await Promise.all(
    page.workers().map((worker) =>
      worker.evaluate((RAN) => {
        const exports = (globalThis as { headwaterExports?: WebAssembly.Exports }).headwaterExports ?? {};
        return Object.entries(exports)
          .filter(([name]) => name.startsWith(RAN))
          .map(([name, global]) => [name, (global as WebAssembly.Global).value === 1] as const);
      }, RAN),
    ),
  );
  for (const [name, did] of marks.flat()) ran.set(name, did || (ran.get(name) ?? false));
}

async function load(page: Page, source: string, options: object): Promise<void> {
  await page.evaluate(async ({ source, options }) => {
    const at = { value: 0 };
    globalThis.model = await headwater.load(source, { backend: "webgpu", onProgress: ({ loadedBytes }) => { at.value = loadedBytes; }, ...options });
  }, { source, options });
}

/** A chat of several turns, streamed, with what sampling is usually asked for, one turn stopped, one reply by the text alone. */
async function chat(page: Page, maxTokens: number): Promise<void> {
  await page.evaluate(async (maxTokens) => {
    const model = globalThis.model;
    const chat = model.chat({ system: "Be brief." });
    for (const options of [{}, { temperature: 0.8, topP: 0.9, topK: 40, seed: 7 }, { temperature: 0, stop: ["\n\n"] }]) {
      const reply = chat.send("What are you? And why?", { maxTokens, ...options });
      for await (const piece of reply) if (piece === undefined) break;
      await reply.result();
    }
    const stopped = new AbortController();
    const reply = chat.send("Tell me more.", { maxTokens, signal: stopped.signal });
    const pieces = (async () => {
      for await (const piece of reply) if (piece !== undefined) stopped.abort();
    })();
    await Promise.allSettled([pieces, reply.result()]);
    await model.generate("The sea", { maxTokens, temperature: 0 }).result();
    await model.stats();
  }, maxTokens);
}

async function leave(page: Page): Promise<void> {
  await take(page);
  await page.evaluate(() => globalThis.model.dispose());
}

declare global {
  var model: Awaited<ReturnType<typeof headwater.load>>;
}

test("what a chat runs", async ({ page, context }) => {
  const mirror = new Mirror();
  await mirror.serve(context);
  await openLab(page);
  await page.evaluate(() => headwater.support());
  await load(page, "embedded:tiny-assistant", {});
  await chat(page, 24);
  await leave(page);
  const endpoint = new URL("mirror", new URL(page.url()).origin).href;
  for (const offline of [false, true]) {
    await load(page, REFERENCE, { endpoint, offline });
    await chat(page, 8);
    await leave(page);
  }
  for (const name of GGUF) {
    await load(page, `/tests/data/gguf/${name}.gguf`, {});
    await page.evaluate(async () => {
      const { text } = await globalThis.model.generate("The sea", { maxTokens: 8 }).result();
      return text;
    });
    await page.evaluate(() => globalThis.model.chat().send("Hello", { maxTokens: 4 }).result().catch(() => undefined));
    await leave(page);
  }
  for (const name of FOLDERS) {
    await load(page, `/tests/data/models/${name}/`, {});
    await page.evaluate(() => globalThis.model.generate("The sea", { maxTokens: 8 }).result());
    await leave(page);
  }
  await page.goto("./");
  await page.getByRole("button", { name: /Tiny Assistant/ }).click();
  await expect(page.getByLabel("Your message")).toBeFocused();
  await page.getByRole("button", { name: "What are you?" }).click();
  await expect(page.locator(".assistant .words")).toContainText("Tiny Assistant");
  await take(page);
  const path = process.env["HEADWATER_RECORD"];
  if (path === undefined) throw new Error("HEADWATER_RECORD must name the file to write (cargo xtask pkg --record does that)");
  expect([...ran.values()].filter((did) => did).length).toBeGreaterThan(1000);
  writeFileSync(path, JSON.stringify(Object.fromEntries(ran)));
});
