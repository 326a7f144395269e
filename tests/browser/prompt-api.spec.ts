/** `LanguageModel` over models of the page: what the Prompt API's specification says a page may rely on. */
import type * as PromptApi from "headwater/prompt-api";
import { expect, test } from "./lab.js";

const ANSWER = "What you type stays on your device. Nothing is sent to a server.";

declare global {
  var promptApi: typeof PromptApi;
}

test.beforeEach(async ({ lab }) => {
  await lab.evaluate(async () => {
    const url = "/pkg/dist/prompt-api/index.js";
    globalThis.promptApi = (await import(url)) as typeof PromptApi;
  });
});

test("sessions prompt, stream, append, clone and measure; a loader loads once and tells how far it is", async ({ lab }) => {
  const seen = await lab.evaluate(async () => {
    let loads = 0;
    const api = promptApi.languageModel((options) => {
      loads += 1;
      return headwater.load("embedded:tiny-assistant", options);
    });
    const before = await api.availability();
    const loaded: number[] = [];
    const creating = api.create({
      monitor: (monitor) => monitor.addEventListener("downloadprogress", (event) => loaded.push((event as ProgressEvent).loaded)),
    });
    await Promise.resolve();
    const during = await api.availability();
    const session = await creating;
    const whole = await session.prompt("Does anything leave my device?");
    const usage = session.contextUsage;
    const other = await api.create({ initialPrompts: [{ role: "user", content: "My name is Zelda." }, { role: "assistant", content: "Hello, Zelda." }] });
    const copy = await other.clone();
    await other.append("My favorite color is green.");
    const measured = await copy.measureContextUsage("What is my name?");
    const beforePrompt = copy.contextUsage;
    const pieces: string[] = [];
    for await (const piece of copy.promptStreaming([{ role: "user", content: [{ type: "text", value: "What is my name?" }] }])) pieces.push(piece);
    return {
      before, during, after: await api.availability(), loads, loaded, whole, usage, window: session.contextWindow,
      measured, beforePrompt, afterPrompt: copy.contextUsage, named: pieces.join(""), pieces: pieces.length, appended: other.contextUsage,
      absent: await api.availability({ expectedInputs: [{ type: "image" }] }),
    };
  });
  expect(seen).toMatchObject({ before: "downloadable", during: "downloading", after: "available", absent: "unavailable", loads: 1, whole: ANSWER, window: 512 });
  expect(seen.named).toContain("Zelda");
  expect(seen.pieces).toBeGreaterThan(1);
  expect(seen.loaded.at(-1)).toBe(1);
  expect(seen.loaded).toEqual(seen.loaded.toSorted((a, b) => a - b));
  expect(seen.usage).toBeGreaterThan(20);
  expect(seen.measured).toBeGreaterThan(4);
  expect(seen.appended).toBeGreaterThan(seen.beforePrompt);
  expect(seen.afterPrompt).toBeGreaterThan(seen.beforePrompt + seen.measured);
});

test("what fails is a DOMException of the specified name; what is full gives up its oldest messages", async ({ lab }) => {
  const seen = await lab.evaluate(async () => {
    const model = await headwater.load("embedded:tiny-assistant");
    const api = promptApi.languageModel(model);
    const name = (promise: Promise<unknown>): Promise<string> => promise.then(() => "fulfilled", (error: Error) => `${error.constructor.name} ${error.name}`);
    const session = await api.create({ initialPrompts: [{ role: "system", content: "You are a helpful assistant." }] });
    const stop = new AbortController();
    const stopped = name(session.prompt("Tell me a story about a fox and a lantern.", { signal: stop.signal }));
    setTimeout(() => stop.abort(), 50);
    const names = {
      stopped: await stopped,
      aborted: await name(api.create({ signal: AbortSignal.abort() })),
      image: await name(api.create({ expectedInputs: [{ type: "image" }] })),
      role: await name(session.prompt([{ role: "system", content: "x" }])),
      constraint: await name(session.prompt("x", { responseConstraint: { type: "date" } })),
      flags: await name(session.prompt("x", { responseConstraint: 7 } as object)),
      prefix: await name(session.prompt([{ role: "user", content: "x", prefix: true }])),
      large: await name(session.prompt("word ".repeat(600))),
      tooMuch: await name(session.append("word ".repeat(600))),
    };
    const [quota, requested] = await session.prompt("word ".repeat(600)).then(() => [0, 0], (error: { quota: number; requested: number }) => [error.quota, error.requested]);
    let overflows = 0;
    session.oncontextoverflow = () => (overflows += 1);
    const measured = await session.measureContextUsage("word ".repeat(280));
    const untouched = session.contextUsage;
    await session.append("word ".repeat(280));
    const kept = session.contextUsage;
    const appended = overflows;
    const answer = await session.prompt(`${"word ".repeat(250)} What is your name?`).then((text) => text !== "");
    const going = name(session.prompt("Tell me a story about a fox and a lantern."));
    session.destroy();
    promptApi.install(model);
    const installed = await name((globalThis as unknown as { LanguageModel: ReturnType<typeof promptApi.languageModel> }).LanguageModel.create());
    return { names, overflows, appended, quota, requested, measured, untouched, kept, answer, after: session.contextUsage, going: await going, destroyed: await name(session.prompt("x")), installed };
  });
  expect(seen.names).toEqual({
    stopped: "DOMException AbortError",
    aborted: "DOMException AbortError",
    image: "DOMException NotSupportedError",
    role: "TypeError TypeError",
    constraint: "DOMException NotSupportedError",
    flags: "TypeError TypeError",
    prefix: "DOMException SyntaxError",
    large: "QuotaExceededError QuotaExceededError",
    tooMuch: "QuotaExceededError QuotaExceededError",
  });
  expect(seen).toMatchObject({ answer: true, going: "DOMException AbortError", destroyed: "DOMException InvalidStateError", installed: "fulfilled" });
  expect([seen.appended, seen.overflows], "the append had room; the prompt after it took its place").toEqual([0, 1]);
  expect(seen.quota).toBe(512);
  expect(seen.requested).toBeGreaterThan(512);
  expect(seen.kept - seen.untouched, "as it was measured").toBe(seen.measured);
  expect(seen.after).toBeLessThanOrEqual(512);
  expect(seen.kept, "more than a third of the context").toBeGreaterThan(170);
});

test("a response keeps to its constraint, and goes on from a prefix", async ({ lab }) => {
  const seen = await lab.evaluate(async () => {
    const session = await promptApi.languageModel(await headwater.load("embedded:tiny-assistant")).create();
    const schema = { type: "object", properties: { n: { enum: [1, 2] } }, required: ["n"], additionalProperties: false };
    return {
      json: JSON.parse(await session.prompt("Hi", { responseConstraint: schema })) as unknown,
      regex: await session.prompt("Hi", { responseConstraint: /^(YES|no)!$/i, omitResponseConstraintInput: true }),
      begun: await session.prompt([{ role: "user", content: "Hi" }, { role: "assistant", content: "ab", prefix: true }], { responseConstraint: /abc{2}/ }),
    };
  });
  expect(seen).toEqual({ json: { n: expect.any(Number) }, regex: expect.stringMatching(/^(yes|no)!$/i), begun: "cc" });
});

test("tools are run, and the model is given what they return", async ({ lab }) => {
  const seen = await lab.evaluate(async () => {
    const api = promptApi.languageModel(await headwater.load("/tests/data/scripted/"));
    const asked: unknown[] = [];
    const session = await api.create({
      tools: [{
        name: "get_weather",
        description: "The weather of a city.",
        inputSchema: { type: "object", properties: { city: { type: "string" } } },
        execute: async (input) => {
          asked.push(input);
          return "sunny";
        },
      }],
    });
    return { text: await session.prompt("How is the weather in Paris?"), asked };
  });
  expect(seen).toEqual({ text: "Let me look.It is sunny in Paris.", asked: [{ city: "Paris" }] });
});
