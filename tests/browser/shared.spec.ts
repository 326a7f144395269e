/** `worker: "shared"`: one model for several tabs of the origin, handed over when the tab that keeps it is closed. */
import { expect, openLab, test, type Page } from "./lab.js";

const QUESTION = "Does anything leave my device?";
const ANSWER = "What you type stays on your device. Nothing is sent to a server.";

declare global {
  var model: Awaited<ReturnType<typeof headwater.load>>;
}

/** Another tab of the same browser. */
async function anotherTab(page: Page): Promise<Page> {
  const other = await page.context().newPage();
  await openLab(other);
  return other;
}

async function load(page: Page): Promise<void> {
  await page.evaluate(async () => {
    globalThis.model = await headwater.load("embedded:tiny-assistant", { worker: "shared" });
  });
}

async function ask(page: Page): Promise<string> {
  return page.evaluate(async (QUESTION) => (await model.generate([{ role: "user", content: QUESTION }], { temperature: 0 }).result()).text, QUESTION);
}

/** Locks that are held or waited for; closed tabs lose theirs a moment later. */
async function locks(page: Page): Promise<string[]> {
  return page.evaluate(async () => {
    const { held = [], pending = [] } = await navigator.locks.query();
    return [...held, ...pending].map(({ name }) => name ?? "").filter((name) => name.startsWith("headwater"));
  });
}

test("two tabs load the same model at once: its bytes come once and its weights are there once", async ({ lab }) => {
  let served = 0;
  lab.context().on("response", (response) => {
    if (response.url().endsWith(".gguf")) served += Number(response.headers()["content-length"] ?? 0);
  });
  await lab.evaluate(async () => (await headwater.load("embedded:tiny-assistant")).dispose());
  const once = served;
  served = 0;
  const other = await anotherTab(lab);
  await Promise.all([load(lab), load(other)]);
  const size = await lab.evaluate(() => model.info.files[0]?.sizeBytes ?? 0);
  expect(served).toBeGreaterThanOrEqual(size);
  expect(served, "what one tab alone fetches").toBe(once);

  expect(await Promise.all([ask(lab), ask(other)])).toEqual([ANSWER, ANSWER]);
  const [one, two] = await Promise.all([lab, other].map((page) => page.evaluate(() => model.stats())));
  expect(one?.counters.dispatches).toBeGreaterThan(0);
  expect(two, "one engine counts for both").toEqual(one);

  // The first to come keeps the worker; it goes on for the other when it lets go itself.
  await lab.evaluate(() => model.dispose());
  expect(await ask(other)).toBe(ANSWER);
  await expect(lab.evaluate(() => model.stats())).rejects.toThrow(/disposed/);
  await other.evaluate(() => model.dispose());
  await expect.poll(() => locks(lab)).toEqual([]);
  await other.close();
});

test("another tab takes over from one that is closed, and what was under way goes on", async ({ lab }) => {
  const first = await anotherTab(lab);
  await load(first);
  await load(lab);
  expect(await ask(lab)).toBe(ANSWER);
  const tell = () => lab.evaluate(async () => {
    const generation = model.generate("Once upon a time", { maxTokens: 60, ignoreEos: true, temperature: 0.9, seed: 4 });
    let text = "";
    for await (const piece of generation) {
      if (text === "") document.title = "running";
      text += piece.text;
    }
    return [text, (await generation.result()).text];
  });
  const undisturbed = await tell();
  await lab.evaluate(() => (document.title = ""));
  const running = tell();
  await expect.poll(() => lab.title(), { intervals: [5] }).toBe("running");
  await first.close();
  expect(await running).toEqual(undisturbed);
  expect(undisturbed[0]).toBe(undisturbed[1]);
  expect(await ask(lab)).toBe(ANSWER);

  // And a third one joins the successor.
  const third = await anotherTab(lab);
  await load(third);
  expect(await ask(third)).toBe(ANSWER);
  await third.close();
  await lab.evaluate(() => model.dispose());
  await expect.poll(() => locks(lab)).toEqual([]);
});

test("adapters that a tab loaded are loaded again in the worker that follows", async ({ lab }) => {
  const first = await anotherTab(lab);
  const open = (page: Page): Promise<void> => page.evaluate(async () => {
    globalThis.model = await headwater.load("/tests/data/models/qwen3/", { worker: "shared", context: 64 });
  });
  await open(first);
  await open(lab);
  await lab.evaluate(() => model.adapters.load("/tests/data/lora/qwen3-dora/", { name: "dora" }));
  await lab.evaluate(() => model.adapters.load("/tests/data/lora/qwen3-dora/", { name: "gone" }));
  await lab.evaluate(() => model.adapters.unload("gone"));
  const reply = (page: Page): Promise<readonly number[]> => page.evaluate(async () => {
    return (await model.generate([1, 2, 3], { temperature: 0, maxTokens: 8, ignoreEos: true, adapter: "dora" }).result()).tokens;
  });
  const before = await reply(first);
  // Asked of the worker that ends: nothing was told yet, so it is asked again of the one that follows.
  await first.close();
  expect(await reply(lab)).toEqual(before);
  expect(await lab.evaluate(async () => (await model.adapters.list()).map(({ name }) => name))).toEqual(["dora"]);
  await lab.evaluate(() => model.dispose());
});

test("what cannot be shared, or not started, is refused by its kind", async ({ lab }) => {
  const kinds = await lab.evaluate(async () => {
    const kind = (promise: Promise<unknown>): Promise<string> =>
      promise.then(() => "it worked", (error: unknown) => {
        const { kind, details, message } = error as InstanceType<typeof headwater.HeadwaterError>;
        return `${kind} ${details.at ?? ""} ${message.slice(0, 40)}`;
      });
    const aborted = new AbortController();
    const late = kind(headwater.load("embedded:tiny-assistant", { worker: "shared", workerUrl: "/tests/browser/endless.js", signal: aborted.signal }));
    aborted.abort();
    return {
      file: await kind(headwater.load(new File(["x"], "x.gguf"), { worker: "shared" })),
      script: await kind(headwater.load("embedded:tiny-assistant", { worker: "shared", workerUrl: "/nowhere/worker.js" })),
      model: await kind(headwater.load("/nowhere/model.gguf", { worker: "shared" })),
      word: await kind(headwater.load("embedded:tiny-assistant", { worker: "ours" as "shared" })),
      late: await late,
    };
  });
  expect(kinds.file).toMatch(/^InvalidArgument worker worker: "shared" needs a model/);
  expect(kinds.script).toMatch(/^WorkerGone/);
  expect(kinds.model).toMatch(/^NotFound/);
  expect(kinds.word).toMatch(/^InvalidArgument worker/);
  expect(kinds.late).toMatch(/^Aborted/);
  await expect.poll(() => locks(lab)).toEqual([]);
});
