/** Whether this device gives the memory that a model takes: it is asked for, and given back at once. Nothing is written to it. */

/** Asked for at a time, beside the largest buffer: as much as browsers give in one buffer without being asked for more. */
const PIECE_BYTES = 256 * 2 ** 20;
/** Of a page of WebAssembly's memory. */
const WASM_PAGE_BYTES = 64 * 2 ** 10;

interface Buffer {
  destroy(): void;
}

interface Device {
  createBuffer(descriptor: { size: number; usage: number }): Buffer;
  pushErrorScope(filter: "out-of-memory" | "validation"): void;
  popErrorScope(): Promise<unknown>;
  destroy(): void;
}

interface Adapter {
  readonly limits: { readonly maxBufferSize: number; readonly maxStorageBufferBindingSize: number };
  requestDevice(descriptor: { requiredLimits: Record<string, number> }): Promise<Device>;
}

/** `GPUBufferUsage.STORAGE` and `COPY_DST`, which every buffer of weights is for. */
const USAGE = 0x80 | 0x08;

/** Bytes that the graphics device gave of `totalBytes`, one buffer of `largestBytes` among them; null where it cannot be asked. */
export async function probeGpu(totalBytes: number, largestBytes: number): Promise<number | null> {
  const { gpu } = navigator as { gpu?: { requestAdapter(options: object): Promise<Adapter | null> } };
  const buffers: Buffer[] = [];
  let device: Device | undefined;
  let given = 0;
  try {
    const adapter = await gpu?.requestAdapter({ powerPreference: "high-performance" });
    if (adapter === null || adapter === undefined) return null;
    const { maxBufferSize, maxStorageBufferBindingSize } = adapter.limits;
    device = await adapter.requestDevice({ requiredLimits: { maxBufferSize, maxStorageBufferBindingSize } });
    for (let size = largestBytes; given < totalBytes; size = Math.min(PIECE_BYTES, totalBytes - given)) {
      device.pushErrorScope("validation");
      device.pushErrorScope("out-of-memory");
      // Buffers for storage are whole words.
      buffers.push(device.createBuffer({ size: Math.max(4, Math.ceil(size / 4) * 4), usage: USAGE }));
      const refused = await Promise.all([device.popErrorScope(), device.popErrorScope()]);
      if (refused.some((error) => error !== null)) break;
      given += Math.max(1, size);
    }
    return Math.min(given, totalBytes);
  } catch {
    // A device that is lost on the way gave what it had given.
    return device === undefined ? null : given;
  } finally {
    for (const buffer of buffers) buffer.destroy();
    device?.destroy();
  }
}

/** Bytes that WebAssembly gave of `totalBytes`: all or nothing. */
export function probeModule(totalBytes: number): number {
  try {
    new WebAssembly.Memory({ initial: Math.ceil(totalBytes / WASM_PAGE_BYTES) });
    return totalBytes;
  } catch {
    return 0;
  }
}
