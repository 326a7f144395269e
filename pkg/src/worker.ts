/**
 * The engine's worker: a `Host` for every client that connects, or for all clients of a shared model. It has no API of its
 * own.
 */
import { Host } from "./host.js";
import { serve } from "./shared/serve.js";
import type { Connect, FromHost, Share, ToHost } from "./protocol.js";

addEventListener("message", ({ data }: MessageEvent<Connect | Share | undefined>) => {
  if (data?.type === "headwater-share") serve(data.name);
  if (data?.type !== "headwater-connect") return;
  const { port, lock } = data;
  const post = (message: FromHost, transfer: Transferable[] = []): void => port.postMessage(message, transfer);
  const done = Promise.withResolvers<void>();
  const host = new Host(post, done.resolve);
  port.onmessage = (event: MessageEvent<ToHost>) => host.receive(event.data);
  // Held for as long as this worker lives and serves the client, who waits for its release: no event tells that a
  // worker was ended.
  const locks = (navigator as { locks?: LockManager }).locks;
  if (locks === undefined) post({ type: "ready", locked: false });
  else {
    void locks.request(lock, () => {
      post({ type: "ready", locked: true });
      return done.promise;
    });
  }
});
