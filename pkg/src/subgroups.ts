/**
 * Asks for the `subgroups` feature on every device request. wgpu has no name for it on the web and so never asks
 * (gfx-rs/wgpu issue 5555), while browsers refuse shaders that use it unasked. This is the only place that does.
 */

/** What the request names, as far as it matters here. */
interface DeviceRequest {
  requiredFeatures?: Iterable<string>;
}

interface Adapter {
  readonly features: { has(name: string): boolean };
  requestDevice(request?: DeviceRequest): Promise<unknown>;
}

let done = false;

/** Wraps `GPUAdapter.prototype.requestDevice` once in this thread; without WebGPU it does nothing. */
export function offerSubgroups(): void {
  const prototype = (globalThis as { GPUAdapter?: { prototype: Adapter } }).GPUAdapter?.prototype;
  if (done || prototype === undefined) return;
  done = true;
  const original = prototype.requestDevice;
  prototype.requestDevice = function (this: Adapter, request: DeviceRequest = {}): Promise<unknown> {
    const features = new Set(request.requiredFeatures ?? []);
    if (this.features.has("subgroups") && numbersSubgroups()) features.add("subgroups");
    return original.call(this, { ...request, requiredFeatures: [...features] });
  };
}

/** Our shaders ask which subgroup an invocation is in, which came to WGSL after subgroups did. */
function numbersSubgroups(): boolean {
  const gpu = (navigator as { gpu?: { wgslLanguageFeatures?: { has(name: string): boolean } } }).gpu;
  return gpu?.wgslLanguageFeatures?.has("subgroup_id") ?? false;
}
