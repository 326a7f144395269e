/**
 * Measures models of one shape in one page of a headless Chromium: a GGUF file with this package and with wllama, ONNX files of
 * the same shape with transformers.js; on the CPU and on WebGPU, in turns. Prints the medians and every turn as JSON.
 *
 * usage: node page.mjs MODEL.gguf [ROUNDS]
 */
import { address, launch } from "../browser/chromium.mjs";

const [path, rounds = "5"] = process.argv.slice(2);
if (path === undefined) {
  console.error("usage: node page.mjs MODEL.gguf [ROUNDS]");
  process.exit(2);
}

/** What is timed: ids of a prompt, then ids of a reply; of an engine that is slow, fewer, so that a turn ends in this time. */
const request = { prefill: 128, decode: 64, turnSeconds: 10 };

const browser = await launch();
try {
  // The other engines make their workers of texts, which our own pages' policy forbids.
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
  const { engines, threads } = await input.evaluate(
    async (element, { request, rounds }) => {
      const [file] = element.files;
      const nodeModules = "/tests/peers/node_modules";
      const headwater = await import("/pkg/dist/index.js");
      const bench = await import("/dist/peer.js");
      const transformers = await import(`${nodeModules}/@huggingface/transformers/dist/transformers.min.js`);
      const threads = navigator.hardwareConcurrency;

      /** This package on a backend: its own clock. */
      const ours = async (backend) => {
        const model = await headwater.load([file], { backend, context: 512 });
        return async (_round, request) => {
          const { prefill, decode } = await model.bench(request);
          return { prefill: prefill.tokensPerSecond, decode: decode.tokensPerSecond };
        };
      };

      /** wllama as the bench page measures it; this package counts the tokens of its texts. */
      const counter = await headwater.load([file], { backend: "cpu", context: 16 });
      const wllama = async (options) => {
        const count = async (text) => (await counter.tokenize(text)).length;
        const peer = await bench.wllama([file], count, { context: 512, ...options });
        return (round, request) => peer.measure(round, request);
      };

      const { env } = transformers;
      env.allowRemoteModels = false;
      env.allowLocalModels = true;
      env.localModelPath = "/peers/";
      env.useBrowserCache = false;
      const runtime = `${location.origin}${nodeModules}/onnxruntime-web/dist/ort-wasm-simd-threaded.asyncify`;
      env.backends.onnx.wasm.wasmPaths = { mjs: `${runtime}.mjs`, wasm: `${runtime}.wasm` };
      env.backends.onnx.wasm.numThreads = 1;
      /** transformers.js: from the call to its first id, and from there to its last. */
      const transformersJs = async (device, dtype) => {
        const model = await transformers.AutoModelForCausalLM.from_pretrained("noise", { device, dtype });
        return async (round, { prefill, decode }) => {
          const ids = BigInt64Array.from({ length: prefill }, (_, at) => BigInt(1 + ((at * 7 + round) % 200)));
          const moments = [];
          const streamer = { put: () => moments.push(performance.now()), end: () => {} };
          const started = performance.now();
          const output = await model.generate({
            inputs: new transformers.Tensor("int64", ids, [1, prefill]),
            attention_mask: new transformers.Tensor("int64", new BigInt64Array(prefill).fill(1n), [1, prefill]),
            max_new_tokens: decode,
            min_new_tokens: decode,
            do_sample: false,
            streamer,
          });
          // The streamer is told the prompt first.
          const [, first, ...further] = moments;
          if (output.dims.at(-1) !== prefill + decode || further.length !== decode - 1) {
            throw new Error(`transformers.js gave ${output.dims.at(-1)} ids in ${moments.length} pieces`);
          }
          return { prefill: (1000 * prefill) / (first - started), decode: (1000 * further.length) / (further.at(-1) - first) };
        };
      };

      const made = {
        "headwater, CPU": () => ours("cpu"),
        "wllama, 1 thread": () => wllama({ threads: 1 }),
        [`wllama, ${threads} threads`]: () => wllama({ threads }),
        "transformers.js wasm, fp32": () => transformersJs("wasm", "fp32"),
        "transformers.js wasm, q8": () => transformersJs("wasm", "q8"),
        "transformers.js wasm, q4": () => transformersJs("wasm", "q4"),
        "headwater, WebGPU": () => ours("webgpu"),
        "wllama, WebGPU": () => wllama({ threads: 1, gpuLayers: 999 }),
        "transformers.js WebGPU, q4": () => transformersJs("webgpu", "q4"),
        "transformers.js WebGPU, fp32": () => transformersJs("webgpu", "fp32"),
      };
      const engines = [];
      for (const [edge, make] of Object.entries(made)) {
        try {
          const run = await make();
          // Round 0 warms up, code being compiled in tiers, and tells how much fits into a turn.
          const least = { prefill: request.prefill, decode: 2 };
          await run(0, least);
          const { prefill, decode } = await run(0, least);
          const left = request.turnSeconds - request.prefill / prefill;
          const tokens = Math.max(2, Math.min(request.decode, Math.floor(left * decode)));
          engines.push({ edge, run, request: { prefill: request.prefill, decode: tokens }, turns: [] });
        } catch (error) {
          // Not every engine runs on every device; what it says stands in the table.
          engines.push({ edge, failed: String(error?.message ?? error) });
        }
      }
      for (let round = 1; round <= rounds; round++) {
        for (const engine of engines) {
          if (engine.run !== undefined) engine.turns.push(await engine.run(round, engine.request));
        }
      }
      return { engines: engines.map(({ run, ...rest }) => rest), threads };
    },
    { request, rounds: Number(rounds) },
  );
  const median = (numbers) => numbers.toSorted((a, b) => a - b)[Math.floor(numbers.length / 2)];
  const reports = engines.map(({ edge, failed, request, turns }) => {
    if (failed !== undefined) return { edge, failed };
    return {
      edge,
      browser: browser.version(),
      threads,
      prefill: { tokens: request.prefill, tokensPerSecond: median(turns.map((turn) => turn.prefill)) },
      decode: { tokens: request.decode, tokensPerSecond: median(turns.map((turn) => turn.decode)) },
      turns,
    };
  });
  console.log(JSON.stringify(reports));
} finally {
  await browser.close();
}
