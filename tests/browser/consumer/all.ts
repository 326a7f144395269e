/**
 * A project that imports every part of the package: it compiles under the strictest options, declarations of the package included.
 * Nobody runs it.
 */
import {
  fit, HeadwaterError, inspect, load, store, support,
  type ErrorKind, type Generation, type GenerateOptions, type GenerationResult, type LoadOptions, type Message, type Model, type ModelEvent, type Piece,
} from "headwater";
import { createFetch, openai } from "headwater/openai";
import { install, languageModel } from "headwater/prompt-api";
import { remote } from "headwater/remote";
import { serve } from "headwater/service-worker";

/** Every event by its type: one that is missing here does not compile. */
function words(event: ModelEvent): string {
  switch (event.type) {
    case "deviceLost":
    case "workerLost":
    case "storageLost":
    case "warning":
      return event.message;
    case "recovered":
      return `${event.backend} after ${event.tookSecs} s`;
    default:
      return event satisfies never;
  }
}

const loading: LoadOptions = {
  backend: "auto", context: 4096, kvFormat: "q8_0", revision: "main", token: () => "secret", endpoint: "https://mirror.example",
  policy: { licenses: { allow: ["apache-2.0"], onUnknown: "ask" }, hosts: ["mirror.example"], maxBytes: 1e9, requireHash: true },
  adapters: [{ source: "hf:owner/name", name: "style" }], worker: "shared", persist: false, selfTest: true,
  onProgress: ({ phase, etaSecs }) => void [phase, etaSecs], onEvent: (event) => void words(event), signal: new AbortController().signal,
};

const generating: GenerateOptions = {
  maxTokens: 100, temperature: 0.7, topK: 40, topP: 0.9, minP: 0.05, typicalP: 0.9, topNSigma: 1, xtc: { probability: 0.5 }, dry: { multiplier: 0.8 },
  repetitionPenalty: 1.1, frequencyPenalty: 0.1, presencePenalty: 0.1, penaltyWindow: 64, logitBias: { 5: -100 }, seed: 1, stop: ["\n"], ignoreEos: false,
  n: 2, logprobs: true, topLogprobs: 5, json: { type: "object" }, tools: [{ type: "function", function: { name: "f" } }], toolChoice: { name: "f" },
  reasoning: { enabled: true, budget: 100 }, adapter: { name: "style", scale: 0.5 }, templateVariables: { a: 1 }, prefill: "{", onOverflow: "sliding",
  signal: AbortSignal.timeout(1000),
};
export const alternatives: GenerateOptions[] = [{ regex: "a+" }, { grammar: "start: /a/" }, { grammar: { gbnf: "root ::= \"a\"" } }, { mirostat: { tau: 3 } }];

export async function all(): Promise<void> {
  const [device, looked, room] = [await support(), await inspect("hf:owner/name"), await fit("hf:owner/name", { context: 1024 })];
  if (device.webgpu.available && looked.architecture !== "" && room.verdict === "no") return;
  const [, usage] = [await store.list(), await store.usage()];
  void usage;
  await using model: Model = await load("hf:owner/name:Q4_K_M", loading);
  const messages: Message[] = [{ role: "user", content: "Hello" }];
  const generation: Generation = model.generate(messages, generating);
  const pieces: Piece[] = [];
  for await (const piece of generation) pieces.push(piece);
  const result: GenerationResult = await generation.result();
  const [score] = await model.score([{ context: messages, continuation: "Hi" }], { topLogprobs: 3, stride: 64 });
  void [result.others?.[0]?.receipt.digest, score?.topLogprobs?.[0]?.[0]?.logprob, (await model.checkReceipt(result.receipt, messages)).holds];
  const vectors: Float32Array[] = await model.embed(["a"], { pooling: "mean" });
  void [vectors, await model.rerank("q", ["d"]), await model.tokenize("a"), await model.detokenize([1]), await model.countTokens(messages), await model.stats()];
  void [await model.adapters.load("hf:owner/name"), await model.adapters.list(), await model.adapters.unload("name")];

  const chat = model.chat({ system: "Be brief.", defaults: { temperature: 0 } });
  await chat.send("Hello").result();
  chat.edit(1, "Goodbye");
  await chat.retry().result();
  const saved: Blob = await chat.save();
  void [(await chat.fork().restore(saved)).tokens, chat.messages.length, chat.contextUsage.usedTokens];

  const served: typeof fetch = createFetch({ model });
  const answer = await openai(model).chat.completions.create({ model: "m", messages: [{ role: "user", content: "Hi" }], stream: true });
  for await (const chunk of answer) void chunk.choices[0]?.delta.content;
  const text = await openai(model).completions.create({ model: "m", prompt: "Hi", echo: true, logprobs: 1, max_tokens: 0 });
  const first: number | null | undefined = text.choices[0]?.logprobs?.token_logprobs[0];
  void [served, first];
  const session = await languageModel(model).create({ initialPrompts: [{ role: "system", content: "Be brief." }] });
  void [await session.prompt("Hi"), session.destroy(), install(model)];
  void [(await serve({ model })).stop(), remote({ url: "https://host.example/v1", model: "m" }).info.hosts];
  await chat.send("Hello").result().catch((error: unknown) => {
    if (!(error instanceof HeadwaterError)) throw error;
    const kind: ErrorKind = error.kind;
    return [kind, error.retryable, error.details.at];
  });
}

// What is wrong does not compile.
// @ts-expect-error an option that does not exist
export const colour: GenerateOptions = { colour: "red" };
// @ts-expect-error a format that does not exist
export const format: LoadOptions = { kvFormat: "int3" };
// @ts-expect-error a result is read only
export const change = (result: GenerationResult) => { result.text = ""; };
