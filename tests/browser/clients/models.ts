/** The models that the clients talk to, loaded when one is first asked for. */
import { load, type Model } from "headwater";
import { createFetch } from "headwater/openai";

/** A client needs an address and a key; neither is used. */
export const baseURL = "https://models.invalid/v1";
export const apiKey = "none";

let loaded: Promise<typeof fetch> | undefined;

/** A `fetch` over two models: `tiny`, which was trained, and `scripted`, whose replies are known (`tests/data/scripted`). */
export function modelFetch(): Promise<typeof fetch> {
  loaded ??= (async () => {
    const [tiny, scripted]: Model[] = await Promise.all([load("embedded:tiny-assistant"), load("/tests/data/scripted/")]);
    return createFetch({ tiny: tiny!, scripted: scripted! });
  })();
  return loaded;
}

export const QUESTION = "Does anything leave my device?";
export const WEATHER = "How is the weather in Paris?";
export const PAID = "Extract the name and amount as JSON: Hi, this is Dorvina Keltam. I paid $42.50.";
export const STORY = "Tell me a story about a fox and a lantern.";

/** The tool that `scripted` calls. */
export const weather = {
  type: "function",
  function: {
    name: "get_weather",
    description: "The weather of a city.",
    parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
  },
} as const;
