/** How Chromium is started, for the tests, `ask.mjs` and `bench.mjs` alike. */

/** The browser's file. */
export const executablePath = process.env.HEADWATER_CHROMIUM || "/usr/bin/chromium";

/** No sandbox (tests run in containers), no traffic of the browser's own. */
export const quietArgs = [
  "--no-sandbox",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

/** WebGPU on SwiftShader, the software device that is everywhere the same; HEADWATER_GPU=1 takes the machine's own. */
export const webgpuArgs = [
  ...quietArgs,
  "--enable-unsafe-webgpu",
  "--enable-features=Vulkan,WebGPU",
  ...(process.env.HEADWATER_GPU === "1" ? [] : ["--use-webgpu-adapter=swiftshader", "--use-vulkan=swiftshader"]),
];

/** Starts it, headless. */
export async function launch() {
  const { chromium } = await import("@playwright/test");
  return chromium.launch({ executablePath, args: webgpuArgs, headless: true });
}

/** The address of the page, which the caller serves. */
export function address() {
  const url = process.env.HEADWATER_URL;
  if (url === undefined) throw new Error("HEADWATER_URL must name the served page (cargo xtask demo does that)");
  return url;
}
