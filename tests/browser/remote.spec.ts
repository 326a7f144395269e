/** Models on a server, in the shape of a model of the page: against `createFetch`, and against answers made by hand. */
import type * as OpenAi from "headwater/openai";
import type * as Remote from "headwater/remote";
import { expect, test } from "./lab.js";

const ANSWER = "What you type stays on your device. Nothing is sent to a server.";

declare global {
  var remote: typeof Remote;
  var openAi: typeof OpenAi;
}

test.beforeEach(async ({ lab }) => {
  await lab.evaluate(async () => {
    const [one, other] = ["/pkg/dist/remote/index.js", "/pkg/dist/openai/index.js"];
    globalThis.remote = (await import(one)) as typeof Remote;
    globalThis.openAi = (await import(other)) as typeof OpenAi;
  });
});

test("what a served model says comes back as it was: text, reasoning, calls, vectors, errors, an abort", async ({ lab }) => {
  const seen = await lab.evaluate(async () => {
    const [tiny, scripted] = await Promise.all([headwater.load("embedded:tiny-assistant"), headwater.load("/tests/data/scripted/")]);
    const fetch = openAi.createFetch({ tiny, scripted });
    const url = "https://models.invalid/v1/";
    const [far, called] = [remote.remote({ url, model: "tiny", fetch }), remote.remote({ url, model: "scripted", fetch })];
    const kind = (promise: Promise<unknown>): Promise<string> => promise.then(() => "fulfilled", (error: { kind: string }) => error.kind);
    const reply = far.generate([{ role: "user", content: "Does anything leave my device?" }], { temperature: 0, maxTokens: 40 });
    const pieces = [];
    for await (const piece of reply) pieces.push(piece.text);
    const tools = [{ type: "function" as const, function: { name: "get_weather", parameters: { type: "object", properties: {} } } }];
    const told = [];
    const call = called.generate([{ role: "user", content: "How is the weather in Paris?" }], { tools });
    for await (const { toolCall } of call) if (toolCall !== undefined) told.push(toolCall);
    const [near, there] = [await tiny.embed("A fox."), await far.embed("A fox.")];
    const stop = new AbortController();
    const story = far.generate([{ role: "user", content: "Tell me a story about a fox and a lantern." }], { signal: stop.signal });
    for await (const piece of story) if (piece.text !== "") break;
    return {
      info: far.info, text: pieces.join(""), pieces: pieces.length, usage: (await reply.result()).usage?.completionTokens,
      call: await call.result(), told: told.length,
      embedding: near[0]?.every((value, index) => Math.abs(value - (there[0]?.[index] ?? NaN)) < 1e-6),
      text3: (await far.generate("Once upon a time there", { maxTokens: 3 }).result()).usage?.completionTokens,
      kinds: {
        left: await kind(story.result()),
        full: await kind(far.generate("word ".repeat(600)).result()),
        model: await kind(remote.remote({ url, model: "other", fetch }).generate("x").result()),
        range: await kind(far.generate("x", { topP: 7 }).result()),
        option: await kind((async () => far.generate("x", { adapter: "a" }).result())()),
        embedOption: await kind(far.embed("x", { pooling: "mean" })),
        aborted: await kind(far.generate("x", { signal: AbortSignal.abort() }).result()),
        url: await kind((async () => remote.remote({ url: "models", model: "x" }))()),
        disposed: await far.dispose().then(() => kind(far.generate("x").result())),
      },
    };
  });
  expect(seen).toMatchObject({
    info: { name: "tiny", backend: { name: "remote", device: "models.invalid" }, hosts: ["models.invalid"] },
    text: ANSWER, told: 1, embedding: true, text3: 3,
    call: {
      text: "Let me look.", reasoning: "I need the weather.", finishReason: "toolCalls",
      toolCalls: [{ name: "get_weather", arguments: { city: "Paris" } }],
    },
  });
  expect(seen.pieces).toBeGreaterThan(1);
  expect(seen.usage).toBeGreaterThan(10);
  expect(seen.kinds).toEqual({
    left: "Aborted", full: "ContextFull", model: "NotFound", range: "InvalidArgument", option: "InvalidArgument",
    embedOption: "InvalidArgument", aborted: "Aborted", url: "InvalidArgument", disposed: "Disposed",
  });
});

test("over the network: one host, the token in a header, every broken answer an error of its kind", async ({ page, lab }) => {
  const chunk = (delta: object, finish_reason: string | null = null): string => `data: ${JSON.stringify({ choices: [{ index: 0, delta, finish_reason }] })}\n\n`;
  const call = (index: number, part: object): string => chunk({ tool_calls: [{ index, ...part }] });
  const whole = [
    ": a comment\n\n",
    chunk({ role: "assistant", content: null, reasoning: "Hm." }).replaceAll("\n", "\r\n"),
    chunk({ content: "Hi é" }),
    call(0, { id: "a", function: { name: "now", arguments: "" } }),
    call(0, { function: { arguments: "{\"in\": " } }),
    call(1, { id: "b", function: { name: "broken", arguments: "{\"x" } }),
    call(0, { function: { arguments: "\"Paris\"}" } }),
    chunk({}, "tool_calls"),
    "data: [DONE]\n\n",
  ].join("");
  const answers: Record<string, { status: number; body: string }> = {
    whole: { status: 200, body: whole },
    cut: { status: 200, body: chunk({ content: "Hi" }) },
    noise: { status: 200, body: "data: {\n\n" },
    failing: { status: 200, body: `${chunk({ content: "Hi" })}data: {"error": {"message": "out of memory"}}\n\n` },
    token: { status: 401, body: "{\"error\": {\"message\": \"no\"}}" },
    down: { status: 502, body: "<html>" },
  };
  const asked: { authorization: string | undefined; body: unknown }[] = [];
  await page.route("**/v1/chat/completions", (route) => {
    const body = route.request().postDataJSON() as { model: string };
    asked.push({ authorization: route.request().headers()["authorization"], body });
    const { status, body: answer } = answers[body.model] ?? { status: 500, body: "" };
    return route.fulfill({ status, body: answer, contentType: "text/event-stream" });
  });
  const seen = await lab.evaluate(async (models) => {
    const told: Record<string, unknown> = {};
    for (const model of models) {
      const far = remote.remote({ url: new URL("/v1", location.href), model, token: async () => "secret" });
      const reply = far.generate([{ role: "user", content: "Hi" }], { temperature: 0.5, topK: 3 });
      told[model] = await reply.result().catch((error: { kind: string; message: string }) => `${error.kind}: ${error.message}`);
    }
    return told;
  }, Object.keys(answers));
  expect(seen).toEqual({
    whole: {
      text: "Hi é{\"x", reasoning: "Hm.", finishReason: "toolCalls", usage: null,
      toolCalls: [{ id: "a", name: "now", arguments: { in: "Paris" } }],
    },
    cut: expect.stringMatching(/^Truncated/),
    noise: expect.stringMatching(/^Io/),
    failing: expect.stringMatching(/^Io.*out of memory/),
    token: "AuthRequired: no",
    down: expect.stringMatching(/^HttpStatus.*502/),
  });
  expect(asked[0]).toEqual({
    authorization: "Bearer secret",
    body: {
      model: "whole", messages: [{ role: "user", content: "Hi" }], temperature: 0.5, top_k: 3, stream: true, stream_options: { include_usage: true },
    },
  });
});
