/** The engine's module in two parts: chats run on the first alone, the second comes beside the model, and its absence is told. */
import { expect, test, type Page } from "./lab.js";

const PART = "**/headwater_deferred_bg.wasm";
const QUESTION = "What are you?";
const ANSWER = "I am Tiny Assistant, a very small language model that runs in your browser.";

/** The reply to one question, or the kind of the error and its words. */
async function ask(page: Page, options: object): Promise<{ text: string } | { kind: string; message: string }> {
  return page.evaluate(async ({ options, QUESTION }) => {
    try {
      const model = await headwater.load("embedded:tiny-assistant", options);
      const { text } = await model.chat().send(QUESTION, { temperature: 0 }).result();
      await model.dispose();
      return { text };
    } catch (error) {
      const { kind, message } = error as { kind: string; message: string };
      return { kind, message };
    }
  }, { options, QUESTION });
}

/** Counts the requests for the deferred part. */
function counted(page: Page): { requests: number } {
  const seen = { requests: 0 };
  page.context().on("request", (request) => {
    if (request.url().endsWith("headwater_deferred_bg.wasm")) seen.requests += 1;
  });
  return seen;
}

test("a chat needs the first part alone, and what needs the second says that it is missing", async ({ lab, context }) => {
  await context.route(PART, (route) => route.fulfill({ status: 404, body: "" }));
  expect(await ask(lab, { backend: "webgpu" })).toEqual({ text: ANSWER });
  const refused = await ask(lab, { backend: "cpu" });
  expect(refused).toEqual({ kind: expect.stringMatching(/^(Network|EnginePoisoned)$/), message: expect.stringContaining("headwater_deferred_bg.wasm") });
  expect(await ask(lab, { backend: "cpu", worker: false })).toEqual({ kind: "Network", message: expect.stringContaining("status 404") });
  await context.unroute(PART);
  expect(await ask(lab, { backend: "cpu" })).toEqual({ text: ANSWER });
});

test("the second part is fetched once, beside the model", async ({ lab }) => {
  const seen = counted(lab);
  expect(await ask(lab, { backend: "webgpu" })).toEqual({ text: ANSWER });
  await expect.poll(() => seen.requests).toBe(1);
});

test("a worker waits for the second part where it has not come when it is needed", async ({ lab, context }) => {
  let release = (): void => undefined;
  const held = new Promise<void>((resolve) => (release = resolve));
  let requests = 0;
  await context.route(PART, async (route) => {
    requests += 1;
    if (requests === 1) await held;
    await route.continue();
  });
  expect(await ask(lab, { backend: "cpu" })).toEqual({ text: ANSWER });
  expect(requests).toBe(2);
  release();
});

test("a page's own thread has both parts before it begins", async ({ lab }) => {
  const seen = counted(lab);
  expect(await ask(lab, { backend: "cpu", worker: false })).toEqual({ text: ANSWER });
  expect(seen.requests).toBe(1);
});
