/** Replies that are bound to a schema, a regular expression, a grammar or a call, in the browser. */
import { expect, test } from "./lab.js";

const PAID = "Extract the name and amount as JSON: Hi, this is Dorvina Keltam. I paid $42.50.";
const PAYMENT = {
  type: "object",
  properties: { name: { type: "string" }, amount: { type: "number" } },
  required: ["name", "amount"],
  additionalProperties: false,
};
const JSON_TEXT = '{"name": "Dorvina Keltam", "amount": 42.50}';

test("the module that follows them is fetched at the first request that needs it, once", async ({ lab }) => {
  const fetched: string[] = [];
  lab.context().on("request", (request) => fetched.push(new URL(request.url()).pathname));
  const of = () => fetched.filter((path) => path.endsWith("/grammar_bg.wasm")).length;
  await lab.evaluate(async (paid) => {
    const model = await headwater.load("embedded:tiny-assistant");
    await model.generate([{ role: "user", content: paid }], { maxTokens: 2 }).result();
    Object.assign(globalThis, { model });
  }, PAID);
  expect(of()).toBe(0);
  const seen = await lab.evaluate(async ({ paid, payment }) => {
    const { model } = globalThis as unknown as { model: Awaited<ReturnType<typeof headwater.load>> };
    const prompt = [{ role: "user" as const, content: paid }];
    const made = async (options: object) => {
      const { text, finishReason, constraintComplete } = await model.generate(prompt, { temperature: 0, ...options }).result();
      return { text, finishReason, constraintComplete };
    };
    const failed = async (options: object) => made(options).then(String, (error: InstanceType<typeof headwater.HeadwaterError>) => [error.kind, error.details.at]);
    let pieces = "";
    for await (const piece of model.generate(prompt, { json: payment, temperature: 0 })) pieces += piece.text;
    return {
      pieces,
      json: await made({ json: payment }),
      cut: await made({ json: payment, maxTokens: 5 }),
      regex: await made({ regex: "(yes|no)!" }),
      grammar: await made({ grammar: 'start: "a" B\nB: /[0-9]{2}/' }),
      begun: await made({ json: payment, prefill: '{"name": "Dorvina' }),
      type: await failed({ json: { properties: { a: { type: "date" } } } }),
      deep: await failed({ json: { enum: Array.from({ length: 10_001 }, (_, index) => index) } }),
      pattern: await failed({ regex: "(" }),
      both: await failed({ json: {}, regex: "a" }),
      begins: await failed({ json: payment, prefill: "Well" }),
      after: await made({ json: payment }),
    };
  }, { paid: PAID, payment: PAYMENT });
  const whole = { text: JSON_TEXT, finishReason: "stop", constraintComplete: true };
  expect(seen).toEqual({
    pieces: JSON_TEXT,
    json: whole,
    cut: { text: expect.any(String), finishReason: "length", constraintComplete: false },
    regex: { text: expect.stringMatching(/^(yes|no)!$/), finishReason: "stop", constraintComplete: true },
    grammar: { text: expect.stringMatching(/^a[0-9]{2}$/), finishReason: "stop", constraintComplete: true },
    begun: { ...whole, text: JSON_TEXT.slice('{"name": "Dorvina'.length) },
    type: ["SchemaUnsupported", "json.properties.a"],
    deep: ["SchemaLimit", "json.enum"],
    pattern: ["SchemaUnsupported", "regex"],
    both: ["InvalidArgument", "regex"],
    begins: ["InvalidArgument", "prefill"],
    after: whole,
  });
  expect(of()).toBe(1);
});

test("a chat keeps the beginning that was written for its reply", async ({ lab }) => {
  const messages = await lab.evaluate(async (paid) => {
    const chat = (await headwater.load("embedded:tiny-assistant")).chat();
    await chat.send(paid, { temperature: 0, prefill: '{"name": "Dorvina' }).result();
    return chat.messages;
  }, PAID);
  expect(messages.at(-1)).toEqual({ role: "assistant", content: JSON_TEXT });
});

test("a call comes where one is required", async ({ lab }) => {
  const calls = await lab.evaluate(async () => {
    const model = await headwater.load("embedded:tiny-assistant");
    const tool = (name: string) => ({ type: "function" as const, function: { name, parameters: { type: "object", properties: { n: { enum: [1, 2] } }, required: ["n"] } } });
    const options = { tools: [tool("a"), tool("b")], toolFormat: "hermes", toolChoice: { name: "b" }, temperature: 0 } as const;
    const result = await model.generate([{ role: "user", content: "Hi" }], options).result();
    return result.toolCalls.map(({ name, arguments: values }) => ({ name, values }));
  });
  expect(calls).toEqual([{ name: "b", values: { n: expect.any(Number) } }]);
});
