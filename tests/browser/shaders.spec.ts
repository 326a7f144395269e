/** Every combination of shader files that can be joined, compiled by the browser's own compiler to a pipeline. */
import { execFileSync } from "node:child_process";
import { expect, test } from "./lab.js";

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

test("every shader that can be joined compiles in the browser", async ({ lab }) => {
  // Some three hundred pipelines, one after another, on a processor that plays a GPU.
  test.setTimeout(1_800_000);
  const printed = execFileSync("cargo", ["run", "--quiet", "--package", "headwater", "--example", "shaders"], {
    cwd: new URL("../..", import.meta.url),
    maxBuffer: 64 << 20,
    encoding: "utf8",
  });
  const sources = JSON.parse(printed) as Record<string, string>;
  expect(Object.keys(sources).length).toBeGreaterThan(100);
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
