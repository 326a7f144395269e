/**
 * Open-weight language models in the browser tab, on WebGPU.
 *
 * `load` gives a `Model`; `inspect` tells what one is before it is loaded, `fit` whether there is room for it; `store` is what is kept on this device; `support`
 * says what the device has. Everything that fails throws a `HeadwaterError`.
 */
import { connect, wasmAt, wireReference } from "./connect.js";
import { HeadwaterError } from "./errors.js";
import { aborted } from "./files.js";
import { toJson } from "./json.js";
import { Model } from "./model.js";
import { isHubReference, persist, splitOptions } from "./hub/call.js";
import { checkLoadOptions, type LoadOptions } from "./options.js";
import { withRate } from "./progress.js";
import type { CallEvents } from "./client.js";
import type { ModelReference } from "./sources.js";

export { Adapters, type AdapterOptions } from "./adapters.js";
export { Chat, type ChatOptions, type ContextUsage } from "./chat.js";
export type { StoredChat } from "./chats.js";
export type { ModelEvent } from "./events.js";
export { ERROR_KINDS, HeadwaterError, type ErrorDetails, type ErrorKind } from "./errors.js";
export { Generation } from "./generation.js";
export type { HubOptions, LicensePolicy, Policy } from "./hub/call.js";
export { fit, inspect } from "./inspect.js";
export { Model } from "./model.js";
export { store, type PullOptions, type StoreOptions } from "./store.js";
export type {
  DryOptions,
  EmbedOptions,
  FitOptions,
  GenerateOptions,
  InspectOptions,
  LoadOptions,
  LogitsOptions,
  RerankOptions,
  ScoreOptions,
  TokenizeOptions,
} from "./options.js";
export type { AdapterReference, CustomSource, ModelReference } from "./sources.js";
export { support, type Support, type WebGpuSupport } from "./support.js";
export type * from "./types.js";

/**
 * Loads a model. What a reference to a hub means is fetched once, verified and kept on this device; other references stream
 * from where they are and are not kept.
 */
export async function load(reference: ModelReference, options: LoadOptions = {}): Promise<Model> {
  checkLoadOptions(options);
  const { hub: hubOptions, rest } = splitOptions(options);
  const { signal, onProgress, onEvent, worker, workerUrl, wasmUrl, adapters = [], ...own } = rest;
  const engineOptions = toJson("", own);
  const from = await wireReference(reference, hubOptions);
  if (signal?.aborted === true) throw aborted();
  if (from.hub !== undefined && hubOptions.persist !== false) void persist();
  const model = { options: engineOptions, ...wasmAt(wasmUrl) };
  const client = await connect(from, { worker, workerUrl }, model, onEvent);
  try {
    const events: CallEvents = { signal, onProgress: onProgress && withRate(onProgress), onConsent: hubOptions.consent };
    const { asked: _, ...wire } = from;
    await client.call({ call: "load", ...wire, ...model }, events);
    const loaded = new Model(client);
    // An adapter of a hub comes under the terms that the model came under; its revision is its own.
    const { revision: _ours, ...terms } = hubOptions;
    for (const { source, ...named } of adapters) {
      const own = { ...named, ...(isHubReference(source, hubOptions) ? terms : {}), ...(signal === undefined ? {} : { signal }) };
      await loaded.adapters.load(source, own);
    }
    return loaded;
  } catch (error) {
    client.close(new HeadwaterError("Disposed", "the model was never loaded"));
    throw error;
  }
}
