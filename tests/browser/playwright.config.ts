/** Everything a user sees, in a real Chromium: with WebGPU on its software device, and without WebGPU. */
import { defineConfig } from "@playwright/test";
import { executablePath, quietArgs, webgpuArgs } from "./chromium.mjs";

const PORT = 8123;
const served = process.env["HEADWATER_URL"];

export default defineConfig({
  testDir: ".",
  outputDir: "../../test-results",
  // One at a time: the software device is the same processor that everything else runs on.
  workers: 1,
  fullyParallel: false,
  forbidOnly: true,
  retries: 0,
  // Generous: what is measured here is never wall time, and the machine may be shared.
  timeout: 600_000,
  expect: { timeout: 180_000 },
  reporter: [["list"]],
  use: {
    baseURL: served ?? `http://127.0.0.1:${PORT}/`,
    headless: true,
    launchOptions: { executablePath, args: webgpuArgs },
  },
  projects: [
    { name: "webgpu", testIgnore: "without-webgpu.spec.ts" },
    { name: "without-webgpu", testMatch: "without-webgpu.spec.ts", use: { launchOptions: { executablePath, args: quietArgs } } },
  ],
  ...(served === undefined
    ? {
        webServer: {
          command: `cargo xtask demo --tests --port ${PORT}`,
          url: `http://127.0.0.1:${PORT}/`,
          timeout: 1_800_000,
          reuseExistingServer: true,
        },
      }
    : {}),
});
