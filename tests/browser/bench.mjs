/**
 * Measures a model (a file or a folder) in a headless Chromium with the package's own `bench`; prints its report as JSON,
 * with the device's name.
 */
import { readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { address, launch } from "./chromium.mjs";

const path = process.argv[2];
if (path === undefined) {
  console.error("usage: node bench.mjs MODEL");
  process.exit(2);
}
const files = statSync(path).isDirectory()
  ? readdirSync(path).filter((name) => /\.(safetensors|json|jinja)$/.test(name)).map((name) => join(path, name))
  : [path];

const browser = await launch();
try {
  const page = await browser.newPage();
  await page.goto(new URL("tests/browser/blank.html", address()).href);
  const input = await page.evaluateHandle(() => {
    const element = document.createElement("input");
    element.type = "file";
    element.multiple = true;
    document.body.append(element);
    return element;
  });
  await input.setInputFiles(files);
  const report = await input.evaluate(async (element) => {
    const headwater = await import("/pkg/dist/index.js");
    const model = await headwater.load([...element.files], { backend: "webgpu" });
    const bench = await model.bench({ prefill: 256, decode: 128 });
    const { webgpu } = await headwater.support();
    const { memoryBytes, weightBytes, kvBytes } = await model.stats();
    await model.dispose();
    return { bench, webgpu, memoryBytes, weightBytes, kvBytes };
  });
  const { bench, webgpu, ...memory } = report;
  // wgpu is not told the adapter's name on the web; the browser tells the page at least its family.
  const device = [webgpu.description, `${webgpu.vendor} ${webgpu.architecture}`, bench.backend.device];
  const name = device.find((words) => words.trim() !== "");
  console.log(JSON.stringify({ ...bench, device: name, browser: browser.version(), memory }));
} finally {
  await browser.close();
}
