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

test("without a client: the same as functions, and a fetch over one model by its own name", async ({ lab }) => {
  const seen = await lab.evaluate(async () => {
    const url = "/pkg/dist/openai/index.js";
    const { createFetch, openai } = (await import(url)) as typeof import("headwater/openai");
    const model = await headwater.load("/tests/data/scripted/");
    const client = openai({ known: model });
    const request = { model: "known", messages: [{ role: "user", content: "Please think." }] } as const;
    const whole = await client.chat.completions.create(request);
    let streamed = "";
    for await (const chunk of await client.chat.completions.create({ ...request, stream: true })) streamed += chunk.choices[0]?.delta.content ?? "";
    const own = createFetch(model);
    const list = (await (await own("/v1/models")).json()) as { data: { id: string }[] };
    const failed = (work: Promise<unknown>): Promise<unknown> =>
      work.then(() => "fulfilled", (error: { name: string; kind: string; details: object }) => [error.name, error.kind, error.details]);
    return {
      message: whole.choices[0]?.message,
      streamed,
      models: (await client.models.list()).data.map(({ id }) => id),
      own: list.data.map(({ id }) => id).join() === model.info.name,
      unknown: await failed(client.chat.completions.create({ ...request, model: "other" })),
      image: await failed(client.chat.completions.create({ ...request, echo: true } as never)),
      aborted: await failed(client.chat.completions.create(request, { signal: AbortSignal.abort() })),
      disposed: await model.dispose().then(async () => (await own("/v1/completions", { method: "POST", body: JSON.stringify({ model: model.info.name, prompt: "x" }) })).status),
    };
  });
  expect(seen).toEqual({
    message: { role: "assistant", content: "Hi!", refusal: null, reasoning_content: "Easy." },
    streamed: "Hi!",
    models: ["known"],
    own: true,
    unknown: ["HeadwaterError", "NotFound", { at: "model" }],
    image: ["HeadwaterError", "InvalidArgument", { at: "echo" }],
    aborted: ["HeadwaterError", "Aborted", {}],
    disposed: 503,
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

test("openai: a prompt is echoed, with how likely its tokens were", async ({ lab }) => {
  expect(await run(lab, "openai.echo")).toEqual({
    plain: true,
    tokens: true,
    first: [null, null],
    likely: true,
    offsets: true,
    silent: { text: "Once upon a time", finish_reason: "length", completion: 0 },
    same: true,
    ids: [true, true],
    streamed: true,
    wrong: [["BadRequestError", 400, "echo", "invalid_value"], ["BadRequestError", 400, "n", "invalid_value"], ["BadRequestError", 400, "max_tokens", "InvalidArgument"]],
  });
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
    twice: ["BadRequestError", 400, "max_completion_tokens", "invalid_value"],
    contrary: ["BadRequestError", 400, "tool_choice", "InvalidArgument"],
    role: ["BadRequestError", 400, "messages[0].role", "invalid_value"],
    bias: ["BadRequestError", 400, "logit_bias", "InvalidArgument"],
    biasId: ["BadRequestError", 400, "logit_bias", "InvalidArgument"],
    impossible: ["BadRequestError", 400, expect.stringMatching(/^json/), "SchemaUnsupported"],
    beside: true,
    n: ["BadRequestError", 400, "n", "InvalidArgument"],
    echo: ["BadRequestError", 400, "echo", "unknown_parameter"],
    schema: ["BadRequestError", 400, "json.properties.a", "SchemaUnsupported"],
    format: ["BadRequestError", 400, "response_format.type", "unsupported_value"],
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

const PAID = { name: "Dorvina Keltam", amount: 42.5 };

test("openai: answers are parsed by their schema, and calls come where they are required", async ({ lab }) => {
  expect(await run(lab, "openai.structured")).toEqual({ parsed: PAID, object: "object", calls: [["get_weather", expect.any(String)]] });
});

test("Vercel's AI SDK makes objects", async ({ lab }) => {
  expect(await run(lab, "aiSdkObject")).toEqual(PAID);
});

test("LangChain's structured output is an object", async ({ lab }) => {
  expect(await run(lab, "langchainObject")).toEqual(PAID);
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
