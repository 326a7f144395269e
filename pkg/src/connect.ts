/** From a reference and the options about workers to a client of the engine: what `load`, `inspect` and `fit` begin with. */
import { Client } from "./client.js";
import { isHubReference, refuseHubOptions, wireHub, type HubOptions } from "./hub/call.js";
import { absolute, type WorkerOptions } from "./options.js";
import { resolve, type ModelReference } from "./sources.js";
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

/** A client of a host where the options want it. */
export async function connect(asked: readonly EngineFile[], { worker = true, workerUrl }: Undefined<WorkerOptions>): Promise<Client> {
  if (worker === false) return Client.inPage(asked);
  return Client.inWorker(asked, worker === true ? undefined : worker, absolute(workerUrl));
}

/** Where the module lies, if the caller says so. */
export function wasmAt(wasmUrl: string | URL | undefined): { wasmUrl?: string } {
  const url = absolute(wasmUrl);
  return url === undefined ? {} : { wasmUrl: url };
}
