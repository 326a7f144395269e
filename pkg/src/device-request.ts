/**
 * What is added to the requests for a device that wgpu makes. It asks for the `subgroups` feature, for which wgpu has no name on
 * the web (gfx-rs/wgpu issue 5555), while browsers refuse shaders that use it unasked; and it tells when the engine's own
 * device is lost.
 */
import { noteDeviceLost } from "./device-lost.js";

/** What the request names, as far as it matters here. */
interface DeviceRequest {
  label?: string;
  requiredFeatures?: Iterable<string>;
}

interface Device {
  readonly lost: Promise<{ readonly message: string }>;
}

interface Adapter {
  readonly features: { has(name: string): boolean };
  requestDevice(request?: DeviceRequest): Promise<Device>;
}

/** What the engine calls its device (`src/gpu/device.rs`); others are the page's own affair. */
const LABEL = "headwater";

let done = false;

/** Wraps `GPUAdapter.prototype.requestDevice` once in this thread; without WebGPU it does nothing. */
export function wrapDeviceRequests(): void {
  const prototype = (globalThis as { GPUAdapter?: { prototype: Adapter } }).GPUAdapter?.prototype;
  if (done || prototype === undefined) return;
  done = true;
  const original = prototype.requestDevice;
  prototype.requestDevice = async function (this: Adapter, request: DeviceRequest = {}): Promise<Device> {
    const features = new Set(request.requiredFeatures ?? []);
    if (this.features.has("subgroups") && numbersSubgroups()) features.add("subgroups");
    const device = await original.call(this, { ...request, requiredFeatures: [...features] });
    if (request.label === LABEL) void device.lost.then(({ message }) => noteDeviceLost(message));
    return device;
  };
}

/** Our shaders ask which subgroup an invocation is in, which came to WGSL after subgroups did. */
function numbersSubgroups(): boolean {
  const gpu = (navigator as { gpu?: { wgslLanguageFeatures?: { has(name: string): boolean } } }).gpu;
  return gpu?.wgslLanguageFeatures?.has("subgroup_id") ?? false;
}
