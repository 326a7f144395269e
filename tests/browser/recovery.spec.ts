/** What was lost comes back: the graphics device, the worker, the site's data. Replies under way go on as they began. */
import type { ModelEvent } from "headwater";
import { expect, test, type Page } from "./lab.js";

const STORY = { ignoreEos: true, temperature: 0.9, seed: 11, n: 2 } as const;

declare global {
  var model: Awaited<ReturnType<typeof headwater.load>>;
  var events: ModelEvent[];
  /** Those that the package made, in their order. */
  var workers: Worker[];
  var device: { destroy(): void } | undefined;
}

/** Loads a model and keeps what happens to it. */
async function open(page: Page, options: object = {}): Promise<void> {
  await page.evaluate(async (options) => {
    globalThis.events = [];
    globalThis.workers = [];
    const Made = globalThis.Worker;
    globalThis.Worker = class extends Made {
      constructor(...made: ConstructorParameters<typeof Worker>) {
        super(...made);
        globalThis.workers.push(this);
      }
    };
    globalThis.model = await headwater.load("embedded:tiny-assistant", { backend: "webgpu", ...options, onEvent: (event) => events.push(event) });
  }, options);
}

/** In a thread that computes: takes hold of its device at its next step, and destroys it when the page says so. */
function seize(): void {
  const { prototype } = (globalThis as unknown as { GPUDevice: { prototype: { createCommandEncoder(...all: unknown[]): unknown } } }).GPUDevice;
  const original = prototype.createCommandEncoder;
  prototype.createCommandEncoder = function (...all): unknown {
    globalThis.device = this as unknown as { destroy(): void };
    return original.apply(this, all);
  };
  const destroyer = new BroadcastChannel("destroy");
  destroyer.onmessage = () => device?.destroy();
}

/** What is lost in the middle of a reply; `"title"` leaves it to the test, which is told by the page's title. */
type Loss = "device" | "worker" | "title" | undefined;

/** A reply, what its pieces were, and what was told of the model until its end. */
async function tell(page: Page, loss?: Loss, maxTokens = 80): Promise<{ reply: unknown; told: string[] }> {
  return page.evaluate(async ({ loss, STORY, maxTokens }) => {
    document.title = "";
    events.length = 0;
    const generation = model.generate("Once upon a time", { ...STORY, maxTokens });
    const pieced = ["", ""];
    const tokens: number[][] = [[], []];
    let count = 0;
    for await (const piece of generation) {
      pieced[piece.choice] += piece.text;
      tokens[piece.choice]?.push(...piece.tokens);
      count += 1;
      if (count !== 8) continue;
      if (loss === "device") new BroadcastChannel("destroy").postMessage("");
      if (loss === "worker") workers.at(-1)?.terminate();
      if (loss === "title") document.title = "now";
    }
    const { others = [], ...first } = await generation.result();
    const all = [first, ...others];
    const same = all.every((reply, index) => reply.text === pieced[index] && reply.tokens.join() === tokens[index]?.join());
    return { reply: { texts: all.map(({ text }) => text), same }, told: events.map(({ type }) => type) };
  }, { loss, STORY, maxTokens });
}

for (const where of ["in a worker", "on the page's thread"] as const) {
  test(`a device that is lost is replaced, and a reply under way goes on to the letter, ${where}`, async ({ lab }) => {
    await open(lab, { worker: where === "in a worker" });
    const undisturbed = await tell(lab);
    expect(undisturbed).toMatchObject({ reply: { same: true }, told: [] });
    const worker = where === "in a worker" ? lab.workers()[0] : undefined;
    await (worker === undefined ? lab.evaluate(seize) : worker.evaluate(seize));
    expect(await tell(lab, "device")).toEqual({ ...undisturbed, told: ["deviceLost", "recovered"] });
    expect(await lab.evaluate(() => events.at(-1))).toMatchObject({ backend: "webgpu", tookSecs: expect.any(Number) });

    // While nothing runs it is told too; what is asked meanwhile waits, or ends when its caller says so.
    const aborted = await lab.evaluate(async () => {
      await model.generate("a", { maxTokens: 1 }).result();
      const lost = Promise.withResolvers<void>();
      events.push = (event) => {
        if (event.type === "deviceLost") lost.resolve();
        return Array.prototype.push.call(events, event);
      };
      new BroadcastChannel("destroy").postMessage("");
      await lost.promise;
      const stop = new AbortController();
      const waiting = model.generate("a", { maxTokens: 1, signal: stop.signal }).result().then(() => "done", (error: { kind: string }) => error.kind);
      stop.abort();
      return [await waiting, (await model.generate("a", { maxTokens: 1 }).result()).finishReason];
    });
    expect(aborted).toEqual(["Aborted", "length"]);
    expect(await tell(lab)).toEqual(undisturbed);
  });
}

test("a device that is lost three times in a short while is not tried any more until the next load", async ({ lab }) => {
  await open(lab, { worker: false });
  await lab.evaluate(seize);
  const kinds = await lab.evaluate(async () => {
    const kinds: string[] = [];
    for (let time = 0; time < 3; time += 1) {
      await model.generate("a", { maxTokens: 1 }).result();
      const lost = model.generate("Once upon a time", { maxTokens: 40, ignoreEos: true });
      let first = true;
      try {
        for await (const _ of lost) {
          if (first) device?.destroy();
          first = false;
        }
        kinds.push("whole");
      } catch (error) {
        kinds.push((error as { kind: string }).kind);
      }
    }
    kinds.push(await model.tokenize("a").then(() => "done", (error: { kind: string }) => error.kind));
    const next = await headwater.load("embedded:tiny-assistant", { worker: false });
    kinds.push((await next.generate("a", { maxTokens: 1 }).result()).finishReason);
    return kinds;
  });
  expect(kinds).toEqual(["whole", "whole", "GpuBlocked", "GpuBlocked", "length"]);
  expect(await lab.evaluate(() => events.map(({ type }) => type))).toEqual(["deviceLost", "recovered", "deviceLost", "recovered"]);
});

test("a worker that ends is replaced, with its adapters, and replies under way go on", async ({ lab }) => {
  await open(lab);
  const undisturbed = await tell(lab);
  expect(await tell(lab, "worker")).toEqual({ ...undisturbed, told: ["workerLost", "recovered"] });
  expect(await lab.evaluate(() => workers.length)).toBe(2);

  // Other calls too, and a chat goes on; its keys and values are computed anew.
  const chat = await lab.evaluate(async () => {
    const talk = async (between: () => void) => {
      const chat = model.chat({ defaults: { temperature: 0, maxTokens: 8 } });
      await chat.send("My name is Zelda.").result();
      between();
      const { text, usage } = await chat.send("What is my name?").result();
      return { text, cached: usage.cachedTokens, messages: chat.messages.length };
    };
    const [alive, replaced] = [await talk(() => {}), await talk(() => workers[1]?.terminate())];
    return { alive, replaced, workers: workers.length, embedded: (await model.embed("a")).length };
  });
  expect(chat.alive.cached).toBeGreaterThan(0);
  expect(chat).toMatchObject({ replaced: { ...chat.alive, cached: 0, messages: 4 }, workers: 3, embedded: 1 });
  await lab.evaluate(() => model.dispose());
  expect(await lab.evaluate(() => model.tokenize("a").catch((error: { kind: string }) => error.kind))).toBe("Disposed");
});

test("a shared worker whose device is lost is followed by another", async ({ lab }) => {
  await open(lab, { worker: "shared" });
  const undisturbed = await tell(lab);
  await lab.workers()[0]?.evaluate(seize);
  expect(await tell(lab, "device")).toEqual({ ...undisturbed, told: ["deviceLost", "recovered"] });
  await lab.evaluate(() => model.dispose());
});

test("site data that are cleared leave a loaded model as it is, and the next one loads without a reload of the page", async ({ lab }) => {
  await open(lab);
  const undisturbed = await tell(lab);
  const session = await lab.context().newCDPSession(lab);
  await session.send("Storage.clearDataForOrigin", { origin: new URL(lab.url()).origin, storageTypes: "all" });
  expect(await tell(lab)).toEqual(undisturbed);
  const next = await lab.evaluate(async () => {
    const told: string[] = [];
    const next = await headwater.load("embedded:tiny-assistant", { backend: "webgpu", onEvent: ({ type }) => told.push(type) });
    const { text } = await next.generate("a", { maxTokens: 4, temperature: 0 }).result();
    const own = await model.generate("a", { maxTokens: 4, temperature: 0 }).result();
    await next.dispose();
    return { same: text === own.text, told };
  });
  // The page sees other locks than its workers from now on: the free lock of a new one is no news.
  expect(next).toEqual({ same: true, told: [] });
  expect(await lab.evaluate(() => workers.length), "no worker was taken for ended").toBe(2);
});

test("the browser's graphics process ends, and the model comes back", async ({ lab, browser }) => {
  await open(lab);
  // Long enough that the process ends before the reply does.
  const undisturbed = await tell(lab, undefined, 300);
  const running = tell(lab, "title", 300);
  await expect.poll(() => lab.title(), { intervals: [5] }).toBe("now");
  const session = await browser.newBrowserCDPSession();
  await session.send("Browser.crashGpuProcess" as never);
  expect(await running).toEqual({ ...undisturbed, told: ["deviceLost", "recovered"] });
});

test("listeners are functions, and warnings come as events", async ({ lab }) => {
  const seen = await lab.evaluate(async () => {
    const events: ModelEvent[] = [];
    const model = await headwater.load("/tests/data/models/qwen3/", { context: 64, selfTest: false, onEvent: (event) => events.push(event) });
    const wrong = await headwater.load("embedded:tiny-assistant", { onEvent: 7 as never }).then(() => "loaded", (error: { details: { at: string } }) => error.details.at);
    const odd = await headwater.load("embedded:tiny-assistant", { selfTest: "yes" as never }).then(() => "loaded", (error: { details: { at: string } }) => error.details.at);
    return { warnings: model.info.warnings, events, wrong, odd };
  });
  expect(seen.events).toEqual(seen.warnings.map((message) => ({ type: "warning", message })));
  expect([seen.wrong, seen.odd]).toEqual(["onEvent", "selfTest"]);
});
