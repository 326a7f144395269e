/**
 * Open-weight language models in the browser tab, on WebGPU.
 *
 * `load` gives a `Model`; `inspect` tells what one is before it is loaded; `store` is what is kept on this device; `support`
 * says what the device has. Everything that fails throws a `HeadwaterError`.
 */
import { Client } from "./client.js";
import { HeadwaterError } from "./errors.js";
import { aborted } from "./files.js";
import { toJson } from "./json.js";
import { Model } from "./model.js";
import { isHubReference, persist, refuseHubOptions, splitOptions, wireHub } from "./hub/call.js";
import { absolute, checkLoadOptions, type InspectOptions, type LoadOptions, type WorkerOptions } from "./options.js";
import { withRate } from "./progress.js";
import { resolve, type ModelReference } from "./sources.js";
import type { CallEvents } from "./client.js";
import type { WireHub, WireSource } from "./protocol.js";
import type { Inspection } from "./types.js";

export { Adapters, type AdapterOptions } from "./adapters.js";
export { Chat, type ChatOptions, type ContextUsage } from "./chat.js";
export { ERROR_KINDS, HeadwaterError, type ErrorDetails, type ErrorKind } from "./errors.js";
export { Generation } from "./generation.js";
export type { HubOptions, LicensePolicy, Policy } from "./hub/call.js";
export { Model } from "./model.js";
export { store, type PullOptions, type StoreOptions } from "./store.js";
export type {
  DryOptions,
  EmbedOptions,
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
  const { signal, onProgress, worker, workerUrl, wasmUrl, adapters = [], ...own } = rest;
  const engineOptions = toJson("", own);
  const { asked, ...from } = await wireReference(reference, hubOptions);
  if (signal?.aborted === true) throw aborted();
  if (from.hub !== undefined && hubOptions.persist !== false) void persist();
  const client = await connect(asked, { worker, workerUrl, wasmUrl });
  try {
    const events: CallEvents = { signal, onProgress: onProgress && withRate(onProgress), onConsent: hubOptions.consent };
    const call = { call: "load", ...from, options: engineOptions, ...wasmAt(wasmUrl) } as const;
    const model = new Model(client, await client.call(call, events));
    for (const { source, ...named } of adapters) await model.adapters.load(source, signal === undefined ? named : { ...named, signal });
    return model;
  } catch (error) {
    client.close(new HeadwaterError("Disposed", "the model was never loaded"));
    throw error;
  }
}

/** Tells what a model is from its headers: architecture, formats, context, template, licence, files. No weight is read. */
export async function inspect(reference: ModelReference, options: InspectOptions = {}): Promise<Inspection> {
  checkLoadOptions(options);
  const { hub: hubOptions, rest } = splitOptions(options);
  const { signal, worker, workerUrl, wasmUrl, ...own } = rest;
  const engineOptions = toJson("", own);
  const { asked, ...from } = await wireReference(reference, hubOptions);
  const client = await connect(asked, { worker, workerUrl, wasmUrl });
  try {
    const call = { call: "inspect", ...from, options: engineOptions, ...wasmAt(wasmUrl) } as const;
    return JSON.parse(await client.call(call, { signal })) as Inspection;
  } finally {
    client.close(new HeadwaterError("Disposed", "the call has ended"));
  }
}

interface From {
  readonly sources: readonly WireSource[];
  readonly hub?: WireHub;
  readonly asked: ReturnType<typeof resolve>["asked"];
}

/** A reference as the host gets it. */
async function wireReference(reference: ModelReference, options: ReturnType<typeof splitOptions>["hub"]): Promise<From> {
  if (isHubReference(reference, options)) return { sources: [], hub: await wireHub(reference, options), asked: [] };
  refuseHubOptions(options);
  const { wire, asked } = resolve(reference);
  return { sources: wire, asked };
}

type Undefined<T> = { [Key in keyof T]?: T[Key] | undefined };

async function connect(asked: From["asked"], { worker = true, workerUrl }: Undefined<WorkerOptions>): Promise<Client> {
  if (worker === false) return Client.inPage(asked);
  return Client.inWorker(asked, worker === true ? undefined : worker, absolute(workerUrl));
}

function wasmAt(wasmUrl: string | URL | undefined): { wasmUrl?: string } {
  const url = absolute(wasmUrl);
  return url === undefined ? {} : { wasmUrl: url };
}
