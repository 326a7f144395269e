/** Vercel's AI SDK and LangChain, as they are, over models of the page. */
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { HumanMessage, ToolMessage } from "@langchain/core/messages";
import { tool as langchainTool } from "@langchain/core/tools";
import { ChatOpenAI } from "@langchain/openai";
import { embedMany, generateObject, isStepCount, streamText, tool } from "ai";
import { z } from "zod";
import { apiKey, baseURL, modelFetch, PAID, QUESTION, WEATHER } from "./models.js";

const payment = z.object({ name: z.string(), amount: z.number() });

/** An object by its schema. */
export async function aiSdkObject() {
  const provider = createOpenAICompatible({ name: "page", baseURL, apiKey, fetch: await modelFetch(), supportsStructuredOutputs: true });
  return (await generateObject({ model: provider("tiny"), prompt: PAID, temperature: 0, schema: payment })).object;
}

/** An object by its schema. */
export async function langchainObject() {
  const configuration = { baseURL, fetch: await modelFetch(), dangerouslyAllowBrowser: true };
  const tiny = new ChatOpenAI({ model: "tiny", apiKey, temperature: 0, configuration });
  return tiny.withStructuredOutput(payment, { method: "jsonSchema" }).invoke(PAID);
}

const city = z.object({ city: z.string() });

/** A streamed text, a loop over a tool, and vectors. */
export async function aiSdk() {
  const provider = createOpenAICompatible({ name: "page", baseURL, apiKey, fetch: await modelFetch(), includeUsage: true });
  const plain = streamText({ model: provider("tiny"), prompt: QUESTION, temperature: 0, maxOutputTokens: 40 });
  const pieces = [];
  for await (const piece of plain.textStream) pieces.push(piece);
  const asked: string[] = [];
  const loop = streamText({
    model: provider("scripted"),
    prompt: WEATHER,
    tools: {
      get_weather: tool({
        description: "The weather of a city.",
        inputSchema: city,
        execute: async (input) => {
          asked.push(input.city);
          return "sunny";
        },
      }),
    },
    stopWhen: isStepCount(4),
  });
  const steps = await loop.steps;
  const { embeddings } = await embedMany({ model: provider.embeddingModel("tiny"), values: ["A fox.", "A lantern."] });
  return {
    text: pieces.join(""),
    pieces: pieces.length,
    usage: (await plain.usage).outputTokens,
    asked,
    steps: steps.map((step) => ({ text: step.text, reasoning: step.reasoningText ?? null, reason: step.finishReason })),
    embeddings: embeddings.map((vector) => vector.length),
  };
}

/** A reply whole and streamed, and a call with its result. */
export async function langchain() {
  const configuration = { baseURL, fetch: await modelFetch(), dangerouslyAllowBrowser: true };
  const tiny = new ChatOpenAI({ model: "tiny", apiKey, temperature: 0, maxTokens: 40, configuration });
  const whole = await tiny.invoke(QUESTION);
  const pieces = [];
  for await (const piece of await tiny.stream(QUESTION)) pieces.push(piece.text);
  const weather = langchainTool(async () => "sunny", { name: "get_weather", description: "The weather of a city.", schema: city });
  const scripted = new ChatOpenAI({ model: "scripted", apiKey, configuration }).bindTools([weather]);
  const called = await scripted.invoke([new HumanMessage(WEATHER)]);
  const call = called.tool_calls?.[0];
  const result = new ToolMessage({ tool_call_id: call?.id ?? "", content: "sunny" });
  const answer = await scripted.invoke([new HumanMessage(WEATHER), called, result]);
  return {
    text: whole.text,
    streamed: pieces.join(""),
    pieces: pieces.length,
    tokens: whole.usage_metadata?.output_tokens,
    call: { name: call?.name, args: call?.args },
    answer: answer.text,
  };
}
