/** Options of `generate` as parameters of a server: those of OpenAI, and those that vLLM, SGLang and llama.cpp add. */
import { refuse, type GenerateOptions } from "../options.js";
import { SAME_IN_CHAT } from "../openai/request.js";

/** Parameters by option; of two for one option, the first. */
const PARAMS = new Map(Object.entries(SAME_IN_CHAT).toReversed().map(([param, option]) => [option as string, param]));
/** Options whose answers are not read yet. */
const UNREAD = ["n", "logprobs", "topLogprobs"];

/** The parameters of a request. */
export function requestBody(options: Omit<GenerateOptions, "signal">): Record<string, unknown> {
  const body: Record<string, unknown> = {};
  for (const [option, value] of Object.entries(options)) {
    if (value === undefined) continue;
    if (option === "json") {
      body["response_format"] = { type: "json_schema", json_schema: { name: "answer", schema: value === true ? {} : value, strict: true } };
      continue;
    }
    if (option === "toolChoice" && typeof value === "object" && "name" in value) {
      body["tool_choice"] = { type: "function", function: { name: value.name } };
      continue;
    }
    const param = PARAMS.get(option);
    if (param === undefined || UNREAD.includes(option)) throw refuse(option, "not supported by a model on a server");
    body[param] = value;
  }
  return body;
}
