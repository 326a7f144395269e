/** OpenAI's own client, as it is, over models of the page. */
import OpenAI from "openai";
import { zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";
import type { ChatCompletionMessageParam } from "openai/resources/chat/completions";
import { apiKey, baseURL, modelFetch, PAID, QUESTION, STORY, WEATHER, weather } from "./models.js";

async function client(): Promise<OpenAI> {
  return new OpenAI({ baseURL, apiKey, fetch: await modelFetch(), dangerouslyAllowBrowser: true });
}

const asked = (content: string): ChatCompletionMessageParam[] => [{ role: "user", content }];

/** Whole and streamed. */
export async function chat() {
  const openai = await client();
  const request = { model: "tiny", messages: asked(QUESTION), temperature: 0, max_tokens: 40 };
  const { data: whole, response } = await openai.chat.completions.create(request).withResponse();
  const stream = await openai.chat.completions.create({ ...request, stream: true, stream_options: { include_usage: true } });
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  const text = await openai.completions.create({ model: "tiny", prompt: ["Once upon a time there", "Once"], max_tokens: 3, temperature: 0 });
  const page = await openai.models.list();
  return {
    type: response.headers.get("content-type"),
    whole,
    streamed: chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "").join(""),
    roles: chunks.map((chunk) => chunk.choices[0]?.delta.role).filter(Boolean),
    reasons: chunks.map((chunk) => chunk.choices[0]?.finish_reason).filter(Boolean),
    usages: chunks.map((chunk) => chunk.usage ?? null).filter((usage) => usage !== null),
    ids: new Set(chunks.map((chunk) => chunk.id)).size,
    parts: chunks.length,
    text: text.choices.map((choice) => choice.text !== ""),
    textUsage: text.usage,
    models: page.data.map((model) => model.id),
    one: (await openai.models.retrieve("scripted")).id,
  };
}

/** Several choices, how likely their tokens were, and a bias; whole, streamed, and of texts. */
export async function choices() {
  const openai = await client();
  const request = { model: "tiny", messages: asked(STORY), temperature: 0.9, seed: 5, max_tokens: 4, n: 2, logprobs: true, top_logprobs: 2 } as const;
  const whole = await openai.chat.completions.create(request);
  const streamed = [["", 0], ["", 0]] as [string, number][];
  let completionTokens = 0;
  for await (const chunk of await openai.chat.completions.create({ ...request, stream: true, stream_options: { include_usage: true } })) {
    completionTokens += chunk.usage?.completion_tokens ?? 0;
    for (const { index, delta, logprobs } of chunk.choices) {
      const [text, count] = streamed[index]!;
      streamed[index] = [text + (delta.content ?? ""), count + (logprobs?.content?.length ?? 0)];
    }
  }
  const greedy = { model: "tiny", prompt: "Once upon a time there", temperature: 0, max_tokens: 2 } as const;
  const text = (await openai.completions.create({ ...greedy, logprobs: 3 })).choices[0];
  const [id] = Object.keys(text?.logprobs?.top_logprobs?.[0] ?? {});
  return {
    whole: whole.choices.map(({ index, message }) => [index, message.content]),
    same: whole.choices.every(({ message }, index) => message.content === streamed[index]![0]),
    counts: streamed.map(([, count]) => count),
    completionTokens: [completionTokens, whole.usage?.completion_tokens],
    top: whole.choices.flatMap(({ logprobs }) => logprobs?.content?.map(({ top_logprobs }) => top_logprobs.length) ?? []),
    sorted: whole.choices.every(({ logprobs }) => logprobs?.content?.every(({ logprob, top_logprobs: [first, second] }) => logprob <= first!.logprob && second!.logprob <= first!.logprob && first!.logprob <= 0)),
    bytes: whole.choices[0]?.logprobs?.content?.every(({ token, bytes }) => token === new TextDecoder().decode(Uint8Array.from(bytes ?? []))),
    text: { words: text?.text, tokens: text?.logprobs?.tokens?.join(""), offsets: text?.logprobs?.text_offset, likeliest: id === text?.logprobs?.tokens?.[0] },
    // A reply that ends at once: the token that ends it is not told.
    ended: (await openai.completions.create({ ...greedy, prompt: "Once upon a", logprobs: 0 })).choices[0],
    forced: await (async () => {
      const one = await openai.completions.create({ ...greedy, max_tokens: 3, logit_bias: { 300: 100 }, logprobs: 0 });
      return new Set(one.choices[0]?.logprobs?.tokens).size;
    })(),
  };
}

/** The prompt before the answer, whole, streamed and alone: what evaluation harnesses ask for. */
export async function echo() {
  const openai = await client();
  const request = { model: "tiny", prompt: "Once upon a time", temperature: 0, max_tokens: 3, echo: true } as const;
  const plain = await openai.completions.create(request);
  const without = await openai.completions.create({ ...request, echo: false });
  const whole = (await openai.completions.create({ ...request, logprobs: 2 })).choices[0]!;
  const silent = await openai.completions.create({ ...request, max_tokens: 0, logprobs: 2 });
  const alone = silent.choices[0]!;
  const byIds = (await openai.completions.create({ ...request, prompt: [300, 301, 302], logprobs: 0 })).choices[0]!;
  const [streamed, told]: [string[], (number | null)[][]] = [["", ""], [[], []]];
  for await (const { choices } of await openai.completions.create({ ...request, n: 2, logprobs: 2, stream: true })) {
    for (const { index, text, logprobs } of choices) {
      streamed[index] += text;
      told[index]!.push(...(logprobs?.token_logprobs ?? []));
    }
  }
  const { tokens = [], token_logprobs: likely = [], top_logprobs: top = [], text_offset: offsets = [] } = whole.logprobs!;
  const failed = (change: object) => openai.completions.create({ ...request, ...change } as never).then(
    () => "answered",
    (error: InstanceType<typeof OpenAI.APIError>) => [error.constructor.name, error.status, error.param, error.code],
  );
  return {
    plain: plain.choices[0]!.text === request.prompt + without.choices[0]!.text,
    tokens: tokens.join("") === whole.text,
    first: [likely[0], top[0]],
    // Each is one of the two likeliest, or less likely than both.
    likely: likely.slice(1).every((value, at) => {
      const best = Object.values(top[at + 1] ?? {});
      return best.length === 2 && value! <= best[0]! && (best.includes(value!) || value! < best[1]!);
    }),
    offsets: offsets.every((offset, at) => whole.text.startsWith(tokens[at]!, offset)),
    silent: { text: alone.text, finish_reason: alone.finish_reason, completion: silent.usage?.completion_tokens },
    same: alone.logprobs?.token_logprobs?.join() === likely.slice(0, -3).join(),
    ids: [byIds.logprobs?.tokens?.length === 6, byIds.text === byIds.logprobs?.tokens?.join("")],
    streamed: streamed.every((text) => text === whole.text) && told.every((values) => values.join() === likely.join()),
    wrong: [await failed({ echo: 1 }), await failed({ n: 1e9 }), await failed({ echo: false, max_tokens: 0 })],
  };
}

/** A call, whole and streamed by the client's helper, and its result. */
export async function tools() {
  const openai = await client();
  const request = { model: "scripted", messages: asked(WEATHER), tools: [weather] };
  const { choices: [choice] } = await openai.chat.completions.create(request);
  const helper = openai.chat.completions.stream(request);
  let deltas = 0;
  helper.on("content", () => (deltas += 1));
  const streamed = await helper.finalMessage();
  const call = choice?.message.tool_calls?.[0];
  const answer = await openai.chat.completions.create({
    ...request,
    messages: [...request.messages, choice!.message, { role: "tool", tool_call_id: call!.id, content: [{ type: "text", text: "sunny" }] }],
  });
  const without = await openai.chat.completions.create({ ...request, tool_choice: "none" });
  return {
    content: choice?.message.content,
    reasoning: (choice?.message as { reasoning_content?: string }).reasoning_content,
    reason: choice?.finish_reason,
    call: call?.type === "function" ? call.function : null,
    streamed: { content: streamed.content, calls: streamed.tool_calls?.map((one) => one.type === "function" && one.function.arguments), deltas },
    answer: answer.choices[0]?.message.content,
    without: without.choices[0]?.message.content,
  };
}

/** Vectors, in the encoding that the client asks for by itself and as numbers. */
export async function embeddings() {
  const openai = await client();
  const by = async (options: { encoding_format?: "float" }) =>
    (await openai.embeddings.create({ model: "tiny", input: ["A fox.", "A lantern."], ...options })).data.map(({ embedding }) => embedding);
  const [coded, plain] = [await by({}), await by({ encoding_format: "float" })];
  return {
    lengths: coded.map((vector) => vector.length),
    norms: coded.map((vector) => Math.hypot(...vector)),
    furthest: Math.max(...coded.flatMap((vector, i) => vector.map((value, j) => Math.abs(value - plain[i]![j]!)))),
    differ: coded[0]![0] !== coded[1]![0],
  };
}

/** What is refused, as the client's own classes of errors. */
export async function errors() {
  const openai = await client();
  const failed = async (change: object, signal?: AbortSignal) => {
    const request = { model: "tiny", messages: asked("Hi"), max_tokens: 2, ...change };
    try {
      await openai.chat.completions.create(request as never, { signal });
      return "answered";
    } catch (error) {
      if (!(error instanceof OpenAI.APIError)) throw error;
      return [error.constructor.name, error.status, error.param, error.code].filter((told) => told !== undefined);
    }
  };
  // What goes on beside them is not disturbed.
  const beside = async () => (await openai.chat.completions.create({ model: "tiny", messages: asked(QUESTION), temperature: 0, max_tokens: 40 })).choices[0]?.message.content;
  const alone = await beside();
  const running = beside();
  return {
    model: await failed({ model: "gpt-5" }),
    twice: await failed({ max_completion_tokens: 3 }),
    contrary: await failed({ model: "scripted", tools: [weather], tool_choice: { type: "function", function: { name: "other" } } }),
    role: await failed({ messages: [{ role: "wizard", content: "Hi" }] }),
    bias: await failed({ logit_bias: { 5: 101 } }),
    biasId: await failed({ logit_bias: { 5_000_000: 1 } }),
    impossible: await failed({ response_format: { type: "json_schema", json_schema: { name: "x", schema: { type: "string", minLength: 5, maxLength: 2 } } } }),
    n: await failed({ n: 200 }),
    echo: await failed({ echo: true }),
    schema: await failed({ response_format: { type: "json_schema", json_schema: { name: "x", schema: { properties: { a: { type: "date" } } } } } }),
    format: await failed({ response_format: { type: "grammar" } }),
    unknown: await failed({ colour: "red" }),
    range: await failed({ top_p: 7 }),
    required: await failed({ model: "scripted", tool_choice: "required" }),
    tool: await failed({ model: "scripted", tools: [weather, { type: "function", function: { name: "a b" } }] }),
    image: await failed({ messages: [{ role: "user", content: [{ type: "image_url", image_url: { url: "data:," } }] }] }),
    full: await failed({ messages: asked("word ".repeat(600)) }),
    streamedFull: await failed({ messages: asked("word ".repeat(600)), stream: true }),
    beside: (await running) === alone,
    inert: await failed({ user: "me", n: 1, logprobs: false, stop: null }),
    aborted: await failed({}, AbortSignal.abort()),
    url: await (await modelFetch())(`${baseURL}/audio/speech`, { method: "POST" }).then(async (answer) => [answer.status, await answer.json()]),
    method: await (await modelFetch())(`${baseURL}/chat/completions`).then((answer) => answer.status),
  };
}

/** Ends replies early: by the stream's own controller, and by a signal before anything came. The model goes on to serve. */
export async function abort() {
  const openai = await client();
  const request = { model: "tiny", messages: asked(STORY), temperature: 0 } as const;
  const stream = await openai.chat.completions.create({ ...request, stream: true });
  let parts = 0;
  for await (const _ of stream) if ((parts += 1) === 3) stream.controller.abort();
  const stop = new AbortController();
  const whole = openai.chat.completions.create(request, { signal: stop.signal });
  setTimeout(() => stop.abort(), 100);
  const ended = await whole.then(() => "answered", (error: Error) => error.constructor.name);
  const started = performance.now();
  const after = await openai.chat.completions.create({ ...request, messages: asked(QUESTION), max_tokens: 3 });
  return { parts, ended, after: after.usage?.completion_tokens, waitedSecs: (performance.now() - started) / 1000 };
}

/** A schema out of zod, any object, and a call that is required. */
export async function structured() {
  const openai = await client();
  const request = { model: "tiny", messages: asked(PAID), temperature: 0 } as const;
  const payment = z.object({ name: z.string(), amount: z.number() });
  const parsed = await openai.chat.completions.parse({ ...request, response_format: zodResponseFormat(payment, "payment") });
  const object = await openai.chat.completions.create({ ...request, response_format: { type: "json_object" } });
  const parameters = { type: "object", properties: { city: { enum: ["Paris", "Rome"] } }, required: ["city"], additionalProperties: false };
  const tool = { type: "function", function: { name: "get_weather", parameters } } as const;
  const call = { ...request, model: "scripted", messages: asked(WEATHER), tools: [tool] };
  const called = await openai.chat.completions.create({ ...call, tool_choice: { type: "function", function: { name: "get_weather" } } });
  const calls = called.choices[0]?.message.tool_calls ?? [];
  return {
    parsed: parsed.choices[0]?.message.parsed,
    object: typeof JSON.parse(object.choices[0]?.message.content ?? "null"),
    calls: calls.map((made) => (made.type === "function" ? [made.function.name, made.function.arguments] : [])),
  };
}
