/**
 * Open-weight language models in the browser tab, on WebGPU.
 *
 * `load` gives a `Model`; `support` says what this device has. Everything that fails throws a `HeadwaterError`.
 */
import { Client } from "./client.js";
import { HeadwaterError } from "./errors.js";
import { aborted } from "./files.js";
import { toJson } from "./json.js";
import { Model } from "./model.js";
import { checkLoadOptions, type LoadOptions } from "./options.js";
import { withRate } from "./progress.js";
import { resolve, type ModelReference } from "./sources.js";

export { Adapters, type AdapterOptions } from "./adapters.js";
export { Chat, type ChatOptions, type ContextUsage } from "./chat.js";
export { ERROR_KINDS, HeadwaterError, type ErrorDetails, type ErrorKind } from "./errors.js";
export { Generation } from "./generation.js";
export { Model } from "./model.js";
export type {
  EmbedOptions,
  GenerateOptions,
  LoadOptions,
  LogitsOptions,
  RerankOptions,
  TokenizeOptions,
} from "./options.js";
export type { AdapterReference, CustomSource, ModelReference } from "./sources.js";
export { support, type Support, type WebGpuSupport } from "./support.js";
export type * from "./types.js";

/** Loads a model. The weights stream from the reference to the device and are not kept in this thread. */
export async function load(reference: ModelReference, options: LoadOptions = {}): Promise<Model> {
  checkLoadOptions(options);
  const { signal, onProgress, worker = true, workerUrl, wasmUrl, adapters = [], ...rest } = options;
  const engineOptions = toJson("", rest);
  const { wire, asked } = resolve(reference);
  if (signal?.aborted === true) throw aborted();
  const client = worker === false
    ? await Client.inPage(asked)
    : await Client.inWorker(asked, worker === true ? undefined : worker, absolute(workerUrl));
  try {
    const url = absolute(wasmUrl);
    const call = { call: "load", sources: wire, options: engineOptions, ...(url === undefined ? {} : { wasmUrl: url }) } as const;
    const model = new Model(client, await client.call(call, { signal, onProgress: onProgress && withRate(onProgress) }));
    for (const { source, ...named } of adapters) await model.adapters.load(source, signal === undefined ? named : { ...named, signal });
    return model;
  } catch (error) {
    client.close(new HeadwaterError("Disposed", "the model was never loaded"));
    throw error;
  }
}

function absolute(url: string | URL | undefined): string | undefined {
  return url === undefined ? undefined : new URL(url, location.href).href;
}
