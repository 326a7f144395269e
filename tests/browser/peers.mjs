/**
 * Measures a GGUF file in one page of a headless Chromium with this package and with wllama, both on the CPU with one thread,
 * in turns; prints what every turn took as JSON, and the medians.
 *
 * usage: node peers.mjs MODEL [ROUNDS]
 */
import { address, launch } from "./chromium.mjs";

const [path, rounds = "5"] = process.argv.slice(2);
if (path === undefined) {
  console.error("usage: node peers.mjs MODEL [ROUNDS]");
  process.exit(2);
}

/** What is timed: ids of a prompt, then ids of a reply. */
const request = { prefill: 128, decode: 64 };

const browser = await launch();
try {
  // The other engine makes its worker of a text, which our own pages' policy forbids.
  const page = await browser.newPage({ bypassCSP: true });
  page.on("console", (message) => console.error(`[${message.type()}] ${message.text()}`));
  page.on("pageerror", (error) => console.error(String(error)));
  await page.goto(new URL("tests/browser/blank.html", address()).href);
  const input = await page.evaluateHandle(() => {
    const element = document.createElement("input");
    element.type = "file";
    document.body.append(element);
    return element;
  });
  await input.setInputFiles(path);
  const turns = await input.evaluate(
    async (element, { request, rounds }) => {
      const [file] = element.files;
      const headwater = await import("/pkg/dist/index.js");
      const { Wllama, LoggerWithoutDebug } = await import("/node_modules/@wllama/wllama/esm/index.min.js");
      const ours = await headwater.load([file], { backend: "cpu", context: 512 });
      const quiet = { ...LoggerWithoutDebug, log: () => {}, warn: () => {} };
      const theirs = new Wllama({ default: "/node_modules/@wllama/wllama/esm/wasm/wllama.wasm" }, { logger: quiet });
      await theirs.loadModel([file], { n_threads: 1, n_gpu_layers: 0, n_ctx: 512 });
      // wllama takes texts only: words that make as many ids, another one first in every round, so that nothing is cached.
      const prompt = async (round) => {
        const words = ["river", "stone", "garden", "seven", "paper", "music", "winter", "table"];
        let text = words[round % words.length];
        for (let at = round; ; at = at * 5 + 3) {
          const longer = `${text} ${words[(at >> 3) % words.length]}`;
          if ((await ours.tokenize(longer)).length > request.prefill) return text;
          text = longer;
          at %= 100_003;
        }
      };

      const engines = {
        headwater: async () => {
          const { prefill, decode } = await ours.bench(request);
          return { prefill: prefill.tokensPerSecond, decode: decode.tokensPerSecond };
        },
        wllama: async (round) => {
          const { timings, usage } = await theirs.createCompletion({
            prompt: await prompt(round),
            max_tokens: request.decode,
            temperature: 0,
            ignore_eos: true,
            cache_prompt: false,
          });
          // A word more would have been too many.
          const few = request.prefill - 8;
          if (timings.prompt_n < few || timings.prompt_n > request.prefill || usage.completion_tokens !== request.decode) {
            throw new Error(`wllama ran ${timings.prompt_n} and ${usage.completion_tokens} ids`);
          }
          return { prefill: timings.prompt_per_second, decode: timings.predicted_per_second };
        },
      };
      const turns = Object.fromEntries(Object.keys(engines).map((name) => [name, []]));
      // Round 0 warms up: code is compiled in tiers.
      for (let round = 0; round <= rounds; round++) {
        for (const [name, run] of Object.entries(engines)) {
          const turn = await run(round);
          if (round > 0) turns[name].push(turn);
        }
      }
      await ours.dispose();
      await theirs.exit();
      return turns;
    },
    { request, rounds: Number(rounds) },
  );
  const median = (numbers) => numbers.toSorted((a, b) => a - b)[Math.floor(numbers.length / 2)];
  const medians = Object.entries(turns).map(([edge, all]) => ({
    edge,
    browser: browser.version(),
    prefill: { tokens: request.prefill, tokensPerSecond: median(all.map((turn) => turn.prefill)) },
    decode: { tokens: request.decode, tokensPerSecond: median(all.map((turn) => turn.decode)) },
    turns: all,
  }));
  console.log(JSON.stringify(medians));
} finally {
  await browser.close();
}
