/**
 * What this device has, asked of the browser itself: no model and no engine is needed for it.
 */

/** See `support`. */
export interface Support {
  readonly webgpu: WebGpuSupport;
  /** WebAssembly with SIMD, without which nothing runs. */
  readonly wasmSimd: boolean;
  /** What the browser grants to this origin; null where it does not tell. */
  readonly storage: { readonly usedBytes: number; readonly quotaBytes: number } | null;
  /** The browser's coarse hint, at most 8 GiB by its rules; null where it does not tell. */
  readonly memoryBytes: number | null;
}

/** Whether there is a WebGPU adapter, and which. */
export type WebGpuSupport =
  | { readonly available: false; readonly reason: string }
  | {
      readonly available: true;
      readonly vendor: string;
      readonly architecture: string;
      readonly description: string;
      /** A program on the processor that stands in for a GPU. */
      readonly software: boolean;
      readonly f16: boolean;
      readonly subgroups: boolean;
      readonly features: readonly string[];
      readonly limits: Readonly<Record<string, number>>;
    };

interface Adapter {
  readonly features: Iterable<string>;
  readonly limits: object;
  readonly info?: { vendor?: string; architecture?: string; description?: string; isFallbackAdapter?: boolean };
}

interface DeviceNavigator {
  readonly gpu?: { requestAdapter(options?: { powerPreference?: string }): Promise<Adapter | null> };
  readonly deviceMemory?: number;
  readonly storage?: StorageManager;
}

const GIB = 2 ** 30;

/** An empty module that uses one SIMD instruction. */
const SIMD_MODULE = new Uint8Array([
  0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11,
]);

/** What this device has for running models, and why WebGPU is missing where it is. */
export async function support(): Promise<Support> {
  const device = navigator as DeviceNavigator;
  const estimate = await device.storage?.estimate?.().catch(() => undefined);
  return {
    webgpu: await webgpu(device),
    wasmSimd: WebAssembly.validate(SIMD_MODULE),
    storage: estimate === undefined ? null : { usedBytes: estimate.usage ?? 0, quotaBytes: estimate.quota ?? 0 },
    memoryBytes: device.deviceMemory === undefined ? null : Math.floor(device.deviceMemory * GIB),
  };
}

async function webgpu(device: DeviceNavigator): Promise<WebGpuSupport> {
  if (!isSecureContext) {
    return { available: false, reason: "browsers offer WebGPU only on https pages and on localhost" };
  }
  if (device.gpu === undefined) return { available: false, reason: "this browser does not have WebGPU" };
  let adapter: Adapter | null;
  try {
    adapter = await device.gpu.requestAdapter({ powerPreference: "high-performance" });
  } catch (error) {
    return { available: false, reason: `the browser refused: ${error instanceof Error ? error.message : String(error)}` };
  }
  if (adapter === null) {
    return { available: false, reason: "the browser has WebGPU, but no graphics adapter that it would use" };
  }
  const features = [...adapter.features].sort();
  return {
    available: true,
    vendor: adapter.info?.vendor ?? "",
    architecture: adapter.info?.architecture ?? "",
    description: adapter.info?.description ?? "",
    software: adapter.info?.isFallbackAdapter === true || /swiftshader|llvmpipe/i.test(JSON.stringify(describe(adapter))),
    f16: features.includes("shader-f16"),
    subgroups: features.includes("subgroups"),
    features,
    limits: numbersOf(adapter.limits),
  };
}

function describe({ info }: Adapter): string[] {
  return [info?.vendor ?? "", info?.architecture ?? "", info?.description ?? ""];
}

/** Limits are getters of the prototype, so they are read one by one. */
function numbersOf(limits: object): Record<string, number> {
  const found: Record<string, number> = {};
  for (const key in limits) {
    const value: unknown = (limits as Record<string, unknown>)[key];
    if (typeof value === "number") found[key] = value;
  }
  return found;
}
