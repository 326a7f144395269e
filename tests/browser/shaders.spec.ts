/** Every combination of shader files that can be joined, compiled by the browser's own compiler to a pipeline. */
import { execFileSync } from "node:child_process";
import { expect, test } from "./lab.js";
import { SWEEP } from "./sweep.js";

/** Formats of weights that are tried every day, each made in another way; a sweep tries all. The native tests validate all. */
const CHOICE = ["", "f16", "q8_0", "q4_k", "mxfp4", "iq2_s"];

/** As much of WebGPU as this test calls; the types of the standard library do not have it yet. */
interface Gpu {
  requestAdapter(): Promise<{
    features: ReadonlySet<string>;
    requestDevice(request: { requiredFeatures: string[] }): Promise<{
      createShaderModule(source: { code: string }): unknown;
      createComputePipelineAsync(descriptor: { layout: "auto"; compute: { module: unknown; entryPoint: string } }): Promise<unknown>;
    }>;
  } | null>;
}

test("shaders compile in the browser", async ({ lab }) => {
  // Some three hundred pipelines, one after another, on a processor that plays a GPU.
  test.setTimeout(1_800_000);
  const printed = execFileSync("cargo", ["run", "--quiet", "--package", "headwater", "--example", "shaders"], {
    cwd: new URL("../..", import.meta.url),
    maxBuffer: 64 << 20,
    encoding: "utf8",
  });
  const all = JSON.parse(printed) as Record<string, string>;
  expect(Object.keys(all).length).toBeGreaterThan(100);
  // A name is kernel, format, keys and values, dialect.
  const chosen = Object.entries(all).filter(([name]) => SWEEP || CHOICE.includes(name.split(" ")[1] ?? ""));
  const kernels = (names: readonly string[]): number => new Set(names.map((name) => name.split(" ")[0])).size;
  expect(kernels(chosen.map(([name]) => name))).toBe(kernels(Object.keys(all)));
  const sources = Object.fromEntries(chosen);
  const failures = await lab.evaluate(async (all) => {
    const adapter = await (navigator as unknown as { gpu: Gpu }).gpu.requestAdapter();
    if (adapter === null) return ["no adapter"];
    const requiredFeatures = adapter.features.has("subgroups") ? ["subgroups"] : [];
    const device = await adapter.requestDevice({ requiredFeatures });
    const failed: string[] = [];
    for (const [name, code] of Object.entries(all)) {
      if (code.includes("enable subgroups;") && requiredFeatures.length === 0) {
        failed.push(`${name}: the device has no subgroups to compile it with`);
        continue;
      }
      const module = device.createShaderModule({ code });
      await device
        .createComputePipelineAsync({ layout: "auto", compute: { module, entryPoint: "main" } })
        .catch((error: unknown) => failed.push(`${name}: ${String(error)}`));
    }
    return failed;
  }, sources);
  expect(failures).toEqual([]);
});
