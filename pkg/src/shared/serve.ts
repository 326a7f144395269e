/**
 * The worker's side of a shared model: a `Host` for every client of the origin that joins, all on one engine. Clients and
 * worker speak over broadcast channels, which reach across tabs in every browser; locks tell either that the other is gone.
 */
import { whenDeviceLost } from "../device-lost.js";
import { whenPoisoned } from "../engine.js";
import { Host } from "../host.js";
import { SharedModel } from "../slot.js";
import { hold, randomName, whenReleased } from "./locks.js";
import type { FromShared, ToClient, ToShared } from "../protocol.js";

interface Guest {
  readonly host: Host;
  readonly channel: BroadcastChannel;
}

/** Serves the clients of the channel `name` until the last of them has let go. */
export function serve(name: string): void {
  const channel = new BroadcastChannel(name);
  const lock = `${name} ${randomName()}`;
  const guests = new Map<string, Guest>();
  const tell = (message: FromShared): void => channel.postMessage(message);

  let over = false;
  const end = (follows: boolean): void => {
    if (over) return;
    over = true;
    tell({ type: "over", follows });
    channel.close();
  };
  const model = new SharedModel(() => end(false));
  // Nothing in a module that trapped can be trusted, and a model is gone with its device: whoever needs it loads it in another
  // worker. The hosts, which are told too, tell their clients first.
  whenPoisoned(() => setTimeout(end, 0, true));
  whenDeviceLost(() => setTimeout(end, 0, true));

  const leave = (client: string): void => {
    const guest = guests.get(client);
    guests.delete(client);
    guest?.host.drop();
    guest?.channel.close();
  };

  const join = (client: string): void => {
    if (!guests.has(client)) {
      const own = new BroadcastChannel(client);
      const say = (message: ToClient): void => own.postMessage(message);
      const host = new Host((message) => say({ type: "message", message }), () => leave(client), model.slot());
      guests.set(client, { host, channel: own });
      whenReleased(client, () => leave(client));
    }
    guests.get(client)?.channel.postMessage({ type: "joined", lock } satisfies ToClient);
  };

  channel.onmessage = ({ data }: MessageEvent<ToShared | FromShared>) => {
    if (data.type === "join") join(data.client);
    else if (data.type === "message" && "client" in data) guests.get(data.client)?.host.receive(data.message);
    // Whoever was about to join is next in line, and gets a worker of its own.
    else if (data.type === "needed?" && guests.size === 0) end(false);
  };
  // Held for as long as this worker lives.
  void hold(lock, () => tell({ type: "here" }));
}
