/**
 * That the engine's graphics device of this thread is gone: told by the device itself, which may be while nothing runs, or by
 * a call that failed of it.
 */
const listeners = new Set<(message: string) => void>();

/** Told when the device is lost, at times more than once; returns how to stop being told. */
export function whenDeviceLost(listener: (message: string) => void): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

/** Tells whoever wants to know. */
export function noteDeviceLost(message: string): void {
  for (const listener of [...listeners]) listener(message);
}
