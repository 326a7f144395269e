/**
 * OpenAI's interface over models of this page: as functions (`openai`), or as a `fetch` for the clients that there are
 * (`createFetch`).
 */
import { chat, embeddings, text } from "./completions.js";
import { find, list, named } from "./served.js";
import type * as Types from "./types.js";
import type { Body } from "./request.js";

export { createFetch } from "./fetch.js";
export type { ErrorBody } from "./errors.js";
export type * from "./types.js";

type Streamed<Request> = Request & { stream: true };
type Whole<Request> = Request & { stream?: false | null };

/** The interface of OpenAI's own client, as far as it is served. */
export interface OpenAI {
  readonly chat: {
    readonly completions: {
      create(request: Streamed<Types.ChatRequest>, call?: Types.CallOptions): Promise<AsyncGenerator<Types.ChatCompletionChunk>>;
      create(request: Whole<Types.ChatRequest>, call?: Types.CallOptions): Promise<Types.ChatCompletion>;
    };
  };
  readonly completions: {
    create(request: Streamed<Types.TextRequest>, call?: Types.CallOptions): Promise<AsyncGenerator<Types.Completion>>;
    create(request: Whole<Types.TextRequest>, call?: Types.CallOptions): Promise<Types.Completion>;
  };
  readonly embeddings: {
    create(request: Types.EmbeddingsRequest, call?: Types.CallOptions): Promise<Types.EmbeddingsAnswer>;
  };
  readonly models: { list(): Promise<Types.ModelList> };
}

/** The interface over one model, or several by name. What fails throws a `HeadwaterError`, as everywhere in this package. */
export function openai(models: Types.ServedModels): OpenAI {
  const byName = named(models);
  const over = <Answer>(verb: (served: ReturnType<typeof find>, body: Body, call: Types.CallOptions) => Promise<Answer>) =>
    async (request: { readonly model: string }, call: Types.CallOptions = {}): Promise<Answer> =>
      verb(find(byName, request.model), request as unknown as Body, call);
  return {
    chat: { completions: { create: over(chat) as OpenAI["chat"]["completions"]["create"] } },
    completions: { create: over(text) as OpenAI["completions"]["create"] },
    embeddings: { create: over(embeddings) },
    models: { list: async () => list(byName) },
  };
}
