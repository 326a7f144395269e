/**
 * Adapters (LoRA, rsLoRA, DoRA) beside a loaded model: several may be resident, each reply chooses one of them and how
 * much of it. The model's own weights are neither loaded again nor copied.
 */
import { isHubReference, persist, refuseHubOptions, splitOptions, wireHub, type HubOptions } from "./hub/call.js";
import { toJson } from "./json.js";
import { checkCallOptions } from "./options.js";
import { withRate } from "./progress.js";
import { resolve, type AdapterReference } from "./sources.js";
import type { Client } from "./client.js";
import type { AdapterInfo, Progress } from "./types.js";

/** Options of `Adapters.load`. */
export interface AdapterOptions extends HubOptions {
  /** What replies call it; by default its own name, its folder or its file. */
  name?: string;
  /** Ends the loading with `Aborted`. */
  signal?: AbortSignal;
  /** With a reference to a hub: told how far it is. */
  onProgress?: (progress: Progress) => void;
}

/** The adapters of a model; `model.adapters`. */
export class Adapters {
  readonly #client: Client;

  /** Made by `Model`. */
  constructor(client: Client) {
    this.#client = client;
  }

  /** Loads an adapter that was made for this model. Replies go on meanwhile. */
  async load(reference: AdapterReference, options: AdapterOptions = {}): Promise<AdapterInfo> {
    checkCallOptions("adapters.load", options);
    const { hub: hubOptions, rest: own } = splitOptions(options);
    const { signal, onProgress, ...rest } = own;
    const engineOptions = toJson("", rest);
    if (isHubReference(reference, hubOptions)) {
      const hub = await wireHub(reference, hubOptions);
      if (hubOptions.persist !== false) void persist();
      const events = { signal, onProgress: onProgress && withRate(onProgress), onConsent: hubOptions.consent };
      return JSON.parse(await this.#client.call({ call: "loadAdapter", sources: [], hub, options: engineOptions }, events)) as AdapterInfo;
    }
    refuseHubOptions(hubOptions);
    const sources = this.#client.lend((firstAsked) => resolve(reference, firstAsked));
    return JSON.parse(await this.#client.call({ call: "loadAdapter", sources, options: engineOptions }, { signal })) as AdapterInfo;
  }

  /** Frees an adapter, once the replies that were asked for before are done. */
  async unload(name: string): Promise<void> {
    await this.#client.call({ call: "unloadAdapter", name: String(name) });
  }

  /** Those that are there, in the order in which they were loaded. */
  async list(): Promise<AdapterInfo[]> {
    return JSON.parse(await this.#client.call({ call: "adapters" })) as AdapterInfo[];
  }
}
