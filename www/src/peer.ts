/**
 * Another engine beside this one, where the server has it: wllama (llama.cpp compiled to WebAssembly, npm `@wllama/wllama`) at
 * `peers/wllama/` beside the page. Nothing of it comes with the package; `cargo xtask demo --peers` serves it.
 */

/** As much of wllama 3.8 as is called here. */
interface Wllama {
  loadModel(files: readonly Blob[], options: object): Promise<void>;
  createCompletion(asked: object): Promise<{
    timings: { prompt_n: number; prompt_per_second: number; predicted_per_second: number };
    usage: { completion_tokens: number };
  }>;
  exit(): Promise<void>;
}

interface WllamaModule {
  Wllama: new (paths: { default: string }, config: { logger: object }) => Wllama;
}

/** Tokens a second of a prompt and of a reply. */
export interface Rates {
  readonly prefill: number;
  readonly decode: number;
}

export interface Peer {
  /** Measures a prompt of about `prefill` tokens (8 fewer at most) and a reply of `decode`, by the engine's own clock. */
  measure(round: number, request: { readonly prefill: number; readonly decode: number }): Promise<Rates>;
  close(): Promise<void>;
}

/** Words of which texts are made, one token each in most vocabularies. */
const WORDS = ["river", "stone", "garden", "seven", "paper", "music", "winter", "table"];

/** wllama over GGUF files; `count` counts a text's tokens, since it takes texts only. */
export async function wllama(
  files: readonly Blob[],
  count: (text: string) => Promise<number>,
  options: { readonly threads: number; readonly gpuLayers?: number; readonly context: number },
): Promise<Peer> {
  const url = new URL("../peers/wllama/index.min.js", import.meta.url).href;
  const { Wllama } = (await import(url)) as WllamaModule;
  const said: string[] = [];
  const keep = (...words: unknown[]): void => void said.push(words.join(" "));
  const logger = { debug: keep, log: keep, warn: keep, error: keep };
  const engine = new Wllama({ default: new URL("wasm/wllama.wasm", url).href }, { logger });
  const { threads: n_threads, gpuLayers: n_gpu_layers = 0, context: n_ctx } = options;
  await engine.loadModel(files, { n_threads, n_gpu_layers, n_ctx });
  // It says nothing but in its log when it leaves a device alone.
  if (n_gpu_layers > 0 && !said.some((line) => /WebGPU\S* model buffer/i.test(line))) {
    await engine.exit();
    throw new Error("wllama leaves this device alone: all its buffers are the CPU's");
  }

  /** Words of so many tokens at most, another one first in every round, so that nothing is cached. */
  const text = async (round: number, tokens: number): Promise<string> => {
    let text = WORDS[round % WORDS.length] ?? "";
    for (let at = round; ; at = (at * 5 + 3) % 100_003) {
      const longer = `${text} ${WORDS[(at >> 3) % WORDS.length]}`;
      if ((await count(longer)) > tokens) return text;
      text = longer;
    }
  };
  return {
    async measure(round, { prefill, decode }) {
      const asked = { prompt: await text(round, prefill), max_tokens: decode, temperature: 0, ignore_eos: true, cache_prompt: false };
      const { timings, usage } = await engine.createCompletion(asked);
      // A word more would have been too many.
      if (timings.prompt_n < prefill - 8 || timings.prompt_n > prefill || usage.completion_tokens !== decode) {
        throw new Error(`wllama ran ${timings.prompt_n} and ${usage.completion_tokens} tokens`);
      }
      return { prefill: timings.prompt_per_second, decode: timings.predicted_per_second };
    },
    close: () => engine.exit(),
  };
}
