/** Clients of OpenAI's interface, each as its authors publish it, over `createFetch`: no request leaves the page. */
import { bundleClients } from "./clients/bundle.mjs";
import { expect, test, type Page } from "./lab.js";

const ANSWER = "What you type stays on your device. Nothing is sent to a server.";

let bundled = "";

test.beforeAll(async () => {
  bundled = await bundleClients();
});

/** Runs one of the functions of `clients/page.ts` in the page. */
async function run(lab: Page, path: string): Promise<unknown> {
  return lab.evaluate(async ({ url, path }) => {
    let found = (await import(url)) as unknown;
    for (const name of path.split(".")) found = (found as Record<string, unknown>)[name];
    return (found as () => Promise<unknown>)();
  }, { url: bundled, path });
}

test("openai: chats, texts and models, whole and streamed", async ({ lab }) => {
  const usage = { completion_tokens: expect.any(Number), prompt_tokens: expect.any(Number), total_tokens: expect.any(Number), prompt_tokens_details: { cached_tokens: expect.any(Number) } };
  expect(await run(lab, "openai.chat")).toEqual({
    type: "application/json",
    whole: {
      id: expect.stringMatching(/^chatcmpl-/),
      object: "chat.completion",
      created: expect.any(Number),
      model: "tiny",
      choices: [{ index: 0, message: { role: "assistant", content: ANSWER, refusal: null }, logprobs: null, finish_reason: "stop" }],
      usage,
    },
    streamed: ANSWER,
    roles: ["assistant"],
    reasons: ["stop"],
    usages: [usage],
    ids: 1,
    parts: expect.any(Number),
    text: [true, true],
    textUsage: { ...usage, completion_tokens: 6 },
    models: ["tiny", "scripted"],
    one: "scripted",
  });
});

test("openai: several choices, how likely their tokens were, and a bias", async ({ lab }) => {
  const seen = (await run(lab, "openai.choices")) as { whole: unknown[]; text: { words: string; tokens: string; offsets: number[] } };
  expect(seen).toMatchObject({
    whole: [[0, expect.any(String)], [1, expect.any(String)]],
    same: true, counts: [4, 4], completionTokens: [8, 8], top: [2, 2, 2, 2, 2, 2, 2, 2], sorted: true, bytes: true,
    text: { likeliest: true }, forced: 1,
    ended: { text: "", logprobs: null, finish_reason: "stop" },
  });
  expect(seen.text.tokens).toBe(seen.text.words);
  expect(seen.text.offsets[0]).toBe(0);
  expect(seen.text.offsets[1]).toBeGreaterThan(0);
});

test("openai: a tool is called, its result goes back", async ({ lab }) => {
  const call = { name: "get_weather", arguments: "{\"city\":\"Paris\"}" };
  expect(await run(lab, "openai.tools")).toEqual({
    content: "Let me look.",
    reasoning: "I need the weather.",
    reason: "tool_calls",
    call,
    streamed: { content: "Let me look.", calls: [call.arguments], deltas: expect.any(Number) },
    answer: "It is sunny in Paris.",
    without: "Hello there.",
  });
});

test("openai: embeddings in both encodings", async ({ lab }) => {
  const seen = (await run(lab, "openai.embeddings")) as { lengths: number[]; norms: number[]; furthest: number; differ: boolean };
  expect(seen).toMatchObject({ lengths: [256, 256], differ: true });
  expect(seen.furthest).toBeLessThan(1e-6);
  for (const norm of seen.norms) expect(norm).toBeCloseTo(1, 3);
});

test("openai: what is refused has its status, and names the parameter", async ({ lab }) => {
  expect(await run(lab, "openai.errors")).toEqual({
    model: ["NotFoundError", 404, "model", "model_not_found"],
    n: ["BadRequestError", 400, "n", "InvalidArgument"],
    echo: ["BadRequestError", 400, "echo", "unsupported_value"],
    schema: ["BadRequestError", 400, "response_format", "unsupported_value"],
    unknown: ["BadRequestError", 400, "colour", "unknown_parameter"],
    range: ["BadRequestError", 400, "top_p", "InvalidArgument"],
    required: ["BadRequestError", 400, "tool_choice", "InvalidArgument"],
    tool: ["BadRequestError", 400, "tools[1] (a b)", "InvalidArgument"],
    image: ["BadRequestError", 400, "messages[0].content[0]", "unsupported_value"],
    full: ["BadRequestError", 400, null, "context_length_exceeded"],
    streamedFull: ["BadRequestError", 400, null, "context_length_exceeded"],
    inert: "answered",
    aborted: ["APIUserAbortError"],
    url: [404, { error: { message: expect.stringContaining("/v1/audio/speech"), type: "invalid_request_error", param: null, code: "unknown_url" } }],
    method: 405,
  });
});

test("openai: an abort ends the reply, and the model goes on to serve", async ({ lab }) => {
  const seen = (await run(lab, "openai.abort")) as { parts: number; waitedSecs: number };
  expect(seen).toMatchObject({ ended: "APIUserAbortError", after: 3 });
  expect(seen.parts, "of a story of about a hundred").toBeLessThan(10);
});

test("Vercel's AI SDK streams, loops over a tool and embeds", async ({ lab }) => {
  expect(await run(lab, "aiSdk")).toEqual({
    text: ANSWER,
    pieces: expect.any(Number),
    usage: expect.any(Number),
    asked: ["Paris"],
    steps: [
      { text: "Let me look.", reasoning: "I need the weather.", reason: "tool-calls" },
      { text: "It is sunny in Paris.", reasoning: null, reason: "stop" },
    ],
    embeddings: [256, 256],
  });
});

test("LangChain answers, streams and calls a tool", async ({ lab }) => {
  expect(await run(lab, "langchain")).toEqual({
    text: ANSWER,
    streamed: ANSWER,
    pieces: expect.any(Number),
    tokens: expect.any(Number),
    call: { name: "get_weather", args: { city: "Paris" } },
    answer: "It is sunny in Paris.",
  });
});
