/** What a model is, and whether it fits this device: told from its headers, before a byte of weights is fetched. */
import { connect, wasmAt, wireReference } from "./connect.js";
import { HeadwaterError } from "./errors.js";
import { toJson } from "./json.js";
import { checkLoadOptions, refuse, type FitOptions, type InspectOptions } from "./options.js";
import { splitOptions } from "./hub/call.js";
import { probeGpu, probeModule } from "./probe.js";
import { support } from "./support.js";
import type { ModelReference } from "./sources.js";
import type { DeviceLimits, Fit, FitReport, Inspection } from "./types.js";

/** Browsers cut their hint of the memory at this much or somewhat more; a device that tells so much may have more. */
const MEMORY_HINT_CAP_BYTES = 8 * 2 ** 30;
/** What the engine's module can address, weights on the processor included. */
const MODULE_BYTES = 4 * 2 ** 30;

/** Tells what a model is from its headers: architecture, formats, context, template, licence, files. No weight is read. */
export async function inspect(reference: ModelReference, options: InspectOptions = {}): Promise<Inspection> {
  return look(reference, options);
}

/**
 * Tells whether a model fits: what it takes with these options, against what the browser tells of this device's buffers and
 * memory, and against what the device and the storage give when they are asked for as much; and what would fit instead. No
 * weight is read, nothing is kept. `load` is the proof.
 */
export async function fit(reference: ModelReference, options: FitOptions = {}): Promise<Fit> {
  const { memoryBytes, probe = true, ...rest } = options;
  if (memoryBytes !== undefined && !(Number.isSafeInteger(memoryBytes) && memoryBytes > 0)) {
    throw refuse("memoryBytes", "takes a count of bytes");
  }
  if (typeof probe !== "boolean") throw refuse("probe", "takes true or false");
  const device = await support();
  const onGpu = device.webgpu.available && rest.backend !== "cpu";
  if (!onGpu) rest.backend = "cpu";
  const told = memoryBytes ?? device.memoryBytes;
  const cpuMemoryBytes = Math.min(told ?? MODULE_BYTES, MODULE_BYTES);
  const limits: DeviceLimits = {
    bindingBytes: device.webgpu.available && onGpu ? device.webgpu.limits["maxStorageBufferBindingSize"] ?? null : null,
    memoryBytes: onGpu ? told : cpuMemoryBytes,
    cpuMemoryBytes,
  };
  const judged = async (limits: DeviceLimits): Promise<Looked & { fit: FitReport }> => {
    const looked = await look(reference, rest, limits);
    const { fit } = looked;
    if (fit === undefined) throw new HeadwaterError("Internal", "the engine did not judge");
    return { ...looked, fit };
  };
  let found = await judged(limits);
  const asked = found.fit;
  let givenBytes: number | null = null;
  if (probe && asked.verdict !== "no") {
    givenBytes = onGpu ? await probeGpu(asked.totalBytes, asked.largestBufferBytes) : probeModule(asked.totalBytes);
    // What the device has is known better now, and what would fit it.
    if (givenBytes !== null && givenBytes < asked.totalBytes) {
      found = await judged(onGpu ? { ...limits, memoryBytes: givenBytes } : { ...limits, memoryBytes: givenBytes, cpuMemoryBytes: givenBytes });
    }
  }
  const { fit: report, noRoom, ...model } = found;
  const { verdict, notes, ...figures } = report;
  const fetchBytes = model.origin === undefined || model.origin.kept ? 0 : model.origin.files.reduce((sum, file) => sum + file.sizeBytes, 0);
  const freeBytes = device.storage === null ? null : Math.max(0, device.storage.quotaBytes - device.storage.usedBytes);
  const more: string[] = [];
  const full = noRoom ?? (freeBytes !== null && fetchBytes > freeBytes ? `its files have ${fetchBytes} bytes, and the browser's storage has ${freeBytes} left` : undefined);
  if (full !== undefined) more.push(full);
  if (givenBytes !== null && givenBytes < asked.totalBytes) more.push(`asked for ${asked.totalBytes} bytes of memory, the device gave ${givenBytes}`);
  if (verdict === "no" && memoryBytes === undefined && onGpu && (told ?? 0) >= MEMORY_HINT_CAP_BYTES) {
    more.push("browsers tell only roughly how much memory there is, and large ones not at all; the device may have more");
  }
  return { ...figures, verdict: full === undefined ? verdict : "no", fetchBytes, freeBytes, givenBytes, notes: [...notes, ...more], model };
}

/** What the engine tells: with limits, whether it fits, and why the storage would not take it, null where it would. */
type Looked = Inspection & { fit?: FitReport; noRoom?: string | null };

async function look(reference: ModelReference, options: InspectOptions, limits?: DeviceLimits): Promise<Looked> {
  checkLoadOptions(options);
  const { hub: hubOptions, rest } = splitOptions(options);
  const { signal, worker, workerUrl, wasmUrl, ...own } = rest;
  const engineOptions = toJson("", own);
  const { asked, ...from } = await wireReference(reference, hubOptions);
  const client = await connect({ asked, ...from }, { worker, workerUrl });
  try {
    const call = {
      call: "inspect", ...from, options: engineOptions, ...wasmAt(wasmUrl),
      ...(limits === undefined ? {} : { limits: toJson("", limits) }),
    } as const;
    return JSON.parse(await client.call(call, { signal })) as Looked;
  } finally {
    client.close(new HeadwaterError("Disposed", "the call has ended"));
  }
}
