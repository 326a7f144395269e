/**
 * While a reply streams from the worker, no task of the page's own thread takes it for more than a frame.
 *
 * Chromium's trace tells for each task how long the thread itself worked (`tdur`), without the time that it waited for a
 * processor. Programs that share a core and its caches still make it longer, and never shorter; so of up to three replies the best
 * one counts.
 */
import { expect, test, type Page } from "./lab.js";

/** A frame of sixty a second. */
const FRAME_MS = 16;

interface TraceEvent {
  name: string;
  ph: string;
  pid: number;
  tid: number;
  ts: number;
  dur?: number;
  tdur?: number;
  args?: { name?: string };
}

/** The tasks of the page's thread that has most of them, the longest first. */
async function tasksWhile(page: Page, work: () => Promise<void>): Promise<{ count: number; longestMs: number[] }> {
  const browser = page.context().browser();
  if (browser === null) throw new Error("no browser");
  await browser.startTracing(page, { categories: ["toplevel", "devtools.timeline"] });
  await work();
  const { traceEvents } = JSON.parse((await browser.stopTracing()).toString("utf8")) as { traceEvents: TraceEvent[] };
  const mains = traceEvents.filter((event) => event.name === "thread_name" && event.args?.name === "CrRendererMain");
  const of = mains.map(({ pid, tid }) =>
    traceEvents.filter((event) => event.pid === pid && event.tid === tid && /RunTask$/.test(event.name) && event.ph === "X"),
  );
  const tasks = of.sort((a, b) => b.length - a.length)[0] ?? [];
  // A task that the trace cuts has no time of the thread; its time by the clock is no less.
  const longestMs = tasks.map((task) => (task.tdur ?? task.dur ?? 0) / 1000).sort((a, b) => b - a);
  return { count: tasks.length, longestMs: longestMs.slice(0, 5) };
}

/** The longest task of the best of up to three replies. */
async function longestMs(page: Page, who: string, work: () => Promise<void>, prepare = async (): Promise<void> => {}): Promise<number> {
  let best = Infinity;
  for (let reply = 0; reply < 3 && best > FRAME_MS; reply++) {
    await prepare();
    const { count, longestMs } = await tasksWhile(page, work);
    expect(count, "tasks of a streamed reply").toBeGreaterThan(48);
    console.log(`${who}: ${count} tasks, the longest ${longestMs.map((ms) => ms.toFixed(1)).join(", ")} ms of the thread`);
    best = Math.min(best, longestMs[0] ?? Infinity);
  }
  return best;
}

test("the package's handlers take less than a frame", async ({ lab }) => {
  await lab.evaluate(async () => {
    const model = await headwater.load("embedded:tiny-assistant");
    await model.generate("Once", { maxTokens: 8, ignoreEos: true }).result();
    Object.assign(globalThis, { model });
  });
  const longest = await longestMs(lab, "package", () =>
    lab.evaluate(async () => {
      const { model } = globalThis as unknown as { model: Awaited<ReturnType<typeof headwater.load>> };
      const options = { maxTokens: 48, ignoreEos: true, temperature: 1, logprobs: true, topLogprobs: 20 };
      let pieces = 0;
      for await (const piece of model.generate("Make a list of bread, olives and tea.", options)) pieces += piece.tokens.length;
      if (pieces !== 48) throw new Error(`${pieces} ids`);
    }),
  );
  expect(longest).toBeLessThanOrEqual(FRAME_MS);
});

test("so does the demo page with hundreds of messages on it", async ({ page }) => {
  await page.goto("./");
  await page.getByRole("button", { name: /Tiny Assistant/ }).click();
  const message = page.getByLabel("Your message");
  await expect(message).toBeFocused();
  await message.fill("Hello");
  await page.keyboard.press("Enter");
  await expect(page.getByRole("button", { name: "Regenerate" })).toBeVisible();
  await page.evaluate(() => {
    const first = document.querySelector(".assistant");
    const list = first?.parentElement;
    if (first === null || list === null || list === undefined) throw new Error("no message");
    const words = first.querySelector(".words");
    if (words !== null) words.textContent = "A message of some length, as they are in a long chat. ".repeat(6);
    const like = first.cloneNode(true) as Element;
    // Only the last reply is offered again.
    like.querySelector("button")?.remove();
    for (let count = 0; count < 250; count++) list.insertBefore(like.cloneNode(true), first);
  });
  // The messages are laid out before it is looked at.
  await page.waitForTimeout(2000);
  // The test's own questions to the page are tasks of its thread too: it asks none while the reply streams.
  const streamed = async (): Promise<void> => {
    await page.keyboard.press("Enter");
    await page.waitForTimeout(8000);
  };
  const longest = await longestMs(page, "demo", streamed, async () => {
    await expect(page.getByRole("button", { name: "Regenerate" })).toBeVisible();
    await message.fill("Tell me a story about a fox.");
  });
  await expect(page.getByRole("button", { name: "Regenerate" })).toBeVisible();
  const told = await page.locator(".assistant .words").last().textContent();
  expect((told ?? "").length, "a reply of some length").toBeGreaterThan(40);
  expect(await page.locator(".assistant").count()).toBeGreaterThan(250);
  expect(longest).toBeLessThanOrEqual(FRAME_MS);
});
