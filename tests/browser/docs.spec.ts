/** The examples of `docs/`, as they stand there: what a comment `// →` promises is printed. */
import { readFileSync } from "node:fs";
import { bundleText } from "./clients/bundle.mjs";
import { inTree } from "./golden.js";
import { expect, test } from "./lab.js";

/** Examples name models of a hub; here one answers whose replies are known. */
const HUB = "hf:Qwen/Qwen3-0.6B-GGUF:Q8_0";
const SCRIPTED = "/tests/data/scripted/";

/** Their service worker lies beside the tests' pages. */
const SCRIPT = "/tests/browser/sw.js";

for (const name of ["chats", "evaluation", "loading", "openai", "prompt-api", "remote", "service-worker", "structured", "tools"]) {
  test(`docs/${name}.md`, async ({ lab }) => {
    const page = readFileSync(inTree(`docs/${name}.md`), "utf8");
    const example = /```js\n(.*?)```/s.exec(page)?.[1] ?? "";
    const promised = Array.from(example.matchAll(/\/\/ → (.*)/g), ([, words]) => words);
    expect(promised.length).toBeGreaterThan(0);
    const url = await bundleText(example.replace(HUB, SCRIPTED).replace("/sw.js", SCRIPT), `docs-${name}`);
    const printed: string[] = [];
    lab.on("console", (message) => {
      if (message.type() === "log") printed.push(message.text());
    });
    await lab.evaluate((url) => import(url), url);
    expect(printed).toEqual(promised);
  });
}
