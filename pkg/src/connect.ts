/** From a reference and the options about workers to a client of the engine: what `load`, `inspect` and `fit` begin with. */
import { Client } from "./client.js";
import { isHubReference, refuseHubOptions, wireHub, type HubOptions } from "./hub/call.js";
import { absolute, refuse, type WorkerOptions } from "./options.js";
import { resolve, type ModelReference } from "./sources.js";
import type { ModelEvent } from "./events.js";
import type { EngineFile } from "./files.js";
import type { WireHub, WireSource } from "./protocol.js";

/** A reference as the host gets it, and the sources that it reads by asking back. */
export interface From {
  readonly sources: readonly WireSource[];
  readonly hub?: WireHub;
  readonly asked: readonly EngineFile[];
}

/** Takes a reference apart, a hub's or any other. */
export async function wireReference(reference: ModelReference, options: HubOptions): Promise<From> {
  if (isHubReference(reference, options)) return { sources: [], hub: await wireHub(reference, options), asked: [] };
  refuseHubOptions(options);
  const { wire, asked } = resolve(reference);
  return { sources: wire, asked };
}

type Undefined<T> = { [Key in keyof T]?: T[Key] | undefined };

/** A client of a host where the options want it; `model` says which one, for those who share it. */
export async function connect(
  { asked, ...from }: From,
  { worker = true, workerUrl }: Undefined<WorkerOptions>,
  model?: { readonly options: string; readonly wasmUrl?: string },
  onEvent?: (event: ModelEvent) => void,
): Promise<Client> {
  if (worker === false) return Client.inPage(asked, onEvent);
  if (worker === "shared") {
    if (model === undefined) return Client.inWorker(asked, undefined, absolute(workerUrl));
    return Client.inShared(await sharedName(from, model), absolute(workerUrl), onEvent);
  }
  return Client.inWorker(asked, worker === true ? undefined : worker, absolute(workerUrl), onEvent);
}

/** The name that a model has in all tabs: made of all that it is loaded from and with, but for the token. */
async function sharedName({ sources, hub }: Omit<From, "asked">, model: object): Promise<string> {
  const urls = sources.map((source) => {
    if (source.type === "url") return source.url;
    throw refuse("worker", `"shared" needs a model that every tab can name, by a URL or a reference to a hub; ${source.name} is a file of this tab`);
  });
  const { token: _, ...options } = JSON.parse(hub?.options ?? "{}") as Record<string, unknown>;
  const told = JSON.stringify([urls, hub?.reference, options, model]);
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(told));
  return Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Where the module lies, if the caller says so. */
export function wasmAt(wasmUrl: string | URL | undefined): { wasmUrl?: string } {
  const url = absolute(wasmUrl);
  return url === undefined ? {} : { wasmUrl: url };
}
