/** The browser's locks as signs of life: who holds one is there, and nothing else tells that a tab or a worker has ended. */

/** Holds a lock until the returned function is called, or this tab or worker ends; `whenHeld` is called once it is held. */
export async function hold(name: string, whenHeld: () => void = () => {}): Promise<() => void> {
  const held = Promise.withResolvers<void>();
  const until = Promise.withResolvers<void>();
  void navigator.locks.request(name, () => {
    held.resolve();
    whenHeld();
    return until.promise;
  });
  await held.promise;
  return until.resolve;
}

/** Calls `listener` when nobody holds the lock any more. Any number may wait. Gives how to stop waiting. */
export function whenReleased(name: string, listener: () => void): () => void {
  const stop = new AbortController();
  navigator.locks.request(name, { mode: "shared", signal: stop.signal }, listener).catch(() => {
    // Nobody waits any more.
  });
  return () => stop.abort();
}

/** A name that nobody else has. */
export function randomName(): string {
  return Array.from(crypto.getRandomValues(new Uint32Array(4)), (word) => word.toString(36)).join("");
}
