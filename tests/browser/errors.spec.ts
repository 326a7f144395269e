/** What goes wrong goes wrong with a kind, and what can be used afterwards is. */
import { readFileSync } from "node:fs";
import { ERROR_KINDS, HeadwaterError } from "headwater";
import { expect, test } from "./lab.js";
import { inTree } from "./golden.js";

const QUESTION = [{ role: "user", content: "What are you?" }];
const ANSWER = "I am Tiny Assistant, a very small language model that runs in your browser.";

test("the kinds and what may be tried again are the same in Rust and in TypeScript", () => {
  const source = readFileSync(inTree("src/error.rs"), "utf8");
  const table = source.slice(source.indexOf("kinds! {\n"));
  const rust = [...table.matchAll(/^ {4}(\w+) => (true|false),$/gm)].map(([, name, retry]) => [name, retry === "true"]);
  expect(rust.length).toBeGreaterThan(30);
  expect(ERROR_KINDS.map((kind) => [kind, new HeadwaterError(kind, "").retryable])).toEqual(rust);
});

for (const worker of [true, false]) {
  test.describe(worker ? "in a worker" : "on the page's thread", () => {
    test("what is not a model is refused by name, and the next load works", async ({ lab }) => {
      const seen = await lab.evaluate(async ({ worker, QUESTION }) => {
        const url = "/models/tiny-assistant/tiny-assistant-q8_0.gguf";
        const whole = await (await fetch(url)).blob();
        const html = "<!doctype html><title>Sign in</title>";
        const kindOf = async (reference: import("headwater").ModelReference, options = {}): Promise<unknown[]> => {
          try {
            await headwater.load(reference, { worker, ...options });
            return ["loaded"];
          } catch (error) {
            const fault = error as import("headwater").HeadwaterError;
            return [fault instanceof headwater.HeadwaterError, fault.kind, fault.message];
          }
        };
        const failures = {
          html: await kindOf(new File([html.padEnd(4096)], "login.gguf")),
          empty: await kindOf(new File([], "empty.gguf")),
          cutHeader: await kindOf(new File([whole.slice(0, 5000)], "cut-header.gguf")),
          cutWeights: await kindOf(new File([whole.slice(0, whole.size - 1)], "cut-weights.gguf")),
          version: await kindOf(new File([whole.slice(0, 4), new Uint8Array([9, 0, 0, 0]), whole.slice(8)], "version.gguf")),
          absent: await kindOf("/models/no-such-model.gguf"),
          absentFolder: await kindOf("/models/no-such-folder/"),
          elsewhere: await kindOf("http://example.invalid/model.gguf"),
          hub: await kindOf("hf:owner"),
          embedded: await kindOf("embedded:huge-assistant"),
          nothing: await kindOf([]),
          short: await kindOf({ name: "short.gguf", size: whole.size, read: async () => new Uint8Array(3) }),
          throwing: await kindOf({ name: "throwing.gguf", size: whole.size, read: () => { throw new Error("the disk is gone"); } }),
          wrongType: await kindOf({ name: "odd.gguf", size: 100, read: (() => "text") as never }),
          unknownOption: await kindOf(url, { colour: "red" }),
          laterOption: await kindOf(url, { revision: "main" }),
          functionOption: await kindOf(url, { token: () => "secret" }),
          shared: await kindOf(new File(["x"], "x.gguf"), { worker: "shared" }),
          kv: await kindOf(url, { kvFormat: "int3" }),
          context: await kindOf(url, { context: 100_000 }),
        };
        const model = await headwater.load(whole, { worker });
        const { text } = await model.generate(QUESTION).result();
        await model.dispose();
        return { failures, text };
      }, { worker, QUESTION });
      const kinds = Object.fromEntries(Object.entries(seen.failures).map(([name, [typed, kind]]) => [name, typed === true ? kind : typed]));
      expect(kinds).toEqual({
        html: "UnsupportedFormat", empty: "UnsupportedFormat", cutHeader: "MalformedGguf", cutWeights: "MalformedGguf",
        version: "UnsupportedFormat", absent: "NotFound", absentFolder: "NotFound", elsewhere: "InvalidArgument",
        hub: "InvalidArgument", embedded: "InvalidArgument", nothing: "InvalidArgument", short: "SizeMismatch",
        throwing: "Io", wrongType: "Io", unknownOption: "InvalidArgument", laterOption: "InvalidArgument",
        functionOption: "InvalidArgument", shared: "InvalidArgument", kv: "InvalidArgument", context: "InvalidArgument",
      });
      const words = Object.fromEntries(Object.entries(seen.failures).map(([name, [, , message]]) => [name, message]));
      for (const [name, part] of Object.entries({
        html: "login.gguf", cutHeader: "cut-header.gguf", cutWeights: "cut-weights.gguf", short: "short.gguf",
        throwing: "the disk is gone", unknownOption: "colour", laterOption: "revision", functionOption: "token",
        shared: "shared", kv: "kvFormat", context: "100000", hub: "owner/name",
      })) expect(words[name], name).toContain(part);
      expect(seen.text).toBe(ANSWER);
    });

    test("loading and generating end when the caller says so, and the model answers afterwards", async ({ lab }) => {
      const seen = await lab.evaluate(async ({ worker, QUESTION }) => {
        const kindOf = (error: unknown): string => (error as { kind: string }).kind;
        const loads: string[] = [];
        const before = AbortSignal.abort();
        await headwater.load("embedded:tiny-assistant", { worker, signal: before }).catch((error: unknown) => loads.push(kindOf(error)));
        for (const phase of ["inspect", "weights"]) {
          const stop = new AbortController();
          await headwater.load("embedded:tiny-assistant", {
            worker,
            signal: stop.signal,
            onProgress: (progress) => {
              if (progress.phase === phase) stop.abort();
            },
          }).then(() => loads.push("loaded"), (error: unknown) => loads.push(kindOf(error)));
        }
        const slow = new AbortController();
        const never = { name: "never.gguf", size: 1000, read: (): Promise<Uint8Array> => new Promise(() => setTimeout(() => slow.abort(), 50)) };
        await headwater.load(never, { worker, signal: slow.signal }).catch((error: unknown) => loads.push(kindOf(error)));

        const model = await headwater.load("embedded:tiny-assistant", { worker });
        const ends: string[] = [];
        for (const after of [0, 1, 2, 5]) {
          const stop = new AbortController();
          if (after === 0) stop.abort();
          let count = 0;
          const story = model.generate("Once upon a time", { ignoreEos: true, signal: stop.signal });
          try {
            for await (const _ of story) {
              count += 1;
              if (count === after) stop.abort();
            }
            ends.push("whole");
          } catch (error) {
            ends.push(kindOf(error));
          }
        }
        const queued = new AbortController();
        const long = model.generate("Once upon a time", { ignoreEos: true, maxTokens: 40 });
        const waiting = model.generate(QUESTION, { signal: queued.signal }).result();
        queued.abort();
        const waited = await waiting.then(() => "whole", kindOf);
        await long.result();
        const { text } = await model.generate(QUESTION).result();
        await model.dispose();
        return { loads, ends, waited, text };
      }, { worker, QUESTION });
      expect(seen.loads).toEqual(["Aborted", "Aborted", "Aborted", "Aborted"]);
      expect(seen).toMatchObject({ ends: ["Aborted", "Aborted", "Aborted", "Aborted"], waited: "Aborted", text: ANSWER });
    });

    test("bad requests are refused by name, and the model answers afterwards", async ({ lab }) => {
      const seen = await lab.evaluate(async ({ worker, QUESTION }) => {
        const model = await headwater.load("embedded:tiny-assistant", { worker });
        const kindOf = async (call: () => Promise<unknown>): Promise<string[]> => {
          try {
            await call();
            return ["done"];
          } catch (error) {
            const { kind, message } = error as { kind: string; message: string };
            return [kind, message];
          }
        };
        let deep: unknown = "end";
        for (let depth = 0; depth < 100_000; depth += 1) deep = [deep];
        const cycle: Record<string, unknown> = {};
        cycle["self"] = cycle;
        const ask = (prompt: unknown, options: object = {}) => () => model.generate(prompt as string, options).result();
        const faults = {
          empty: await kindOf(ask([])),
          far: await kindOf(ask([2048])),
          negative: await kindOf(ask([-1])),
          nan: await kindOf(ask([NaN])),
          number: await kindOf(ask(7)),
          hot: await kindOf(ask("a", { temperature: -1 })),
          unknown: await kindOf(ask("a", { colour: "red" })),
          two: await kindOf(ask("a", { json: {}, regex: "a" })),
          overflow: await kindOf(ask("a", { onOverflow: "explode" })),
          deep: await kindOf(ask(QUESTION, { tools: deep })),
          cycle: await kindOf(ask(QUESTION, { templateVariables: cycle })),
          callback: await kindOf(ask(QUESTION, { templateVariables: { now: () => 0 } })),
          map: await kindOf(ask(QUESTION, { templateVariables: new Map() })),
          full: await kindOf(ask("word ".repeat(1000))),
          ids: await kindOf(() => model.detokenize([4_000_000_000])),
          text: await kindOf(() => model.tokenize(7 as never)),
          tokenizeOption: await kindOf(() => model.tokenize("a", { colour: "red" } as never)),
        };
        const { text } = await model.generate(QUESTION).result();
        await model.dispose();
        const later = await kindOf(() => model.generate(QUESTION).result());
        const again = await kindOf(() => model.dispose());
        return { faults, text, later, again };
      }, { worker, QUESTION });
      const kinds = Object.fromEntries(Object.entries(seen.faults).map(([name, [kind]]) => [name, kind]));
      const wrong = "InvalidArgument";
      expect(kinds).toEqual({
        empty: wrong, far: wrong, negative: wrong, nan: wrong, number: wrong, hot: wrong, unknown: wrong, two: wrong,
        overflow: wrong, deep: "LimitExceeded", cycle: "LimitExceeded", callback: wrong, map: wrong, full: "ContextFull",
        ids: wrong, text: wrong, tokenizeOption: wrong,
      });
      for (const [name, part] of [["hot", "temperature"], ["unknown", "colour"], ["overflow", "onOverflow"]] as const) {
        expect(seen.faults[name]?.[1], name).toContain(part);
      }
      expect(seen.text).toBe(ANSWER);
      expect(seen.later[0]).toBe("Disposed");
      expect(seen.again).toEqual(["done"]);
    });
  });
}

test("a worker that ends rejects what is open at once, and a new one answers", async ({ lab }) => {
  const seen = await lab.evaluate(async (QUESTION) => {
    const worker = new Worker("/pkg/dist/worker.js", { type: "module" });
    const model = await headwater.load("embedded:tiny-assistant", { worker });
    const story = model.generate("Once upon a time", { ignoreEos: true }).result();
    const startMs = performance.now();
    worker.terminate();
    const kind = await story.then(() => "whole", (error: { kind: string }) => error.kind);
    const tookMs = performance.now() - startMs;
    const later = await model.tokenize("a").then(() => "done", (error: { kind: string }) => error.kind);
    const fresh = await headwater.load("embedded:tiny-assistant");
    return { kind, tookMs, later, text: (await fresh.generate(QUESTION).result()).text };
  }, QUESTION);
  expect(seen).toMatchObject({ kind: "WorkerGone", later: "WorkerGone", text: ANSWER });
  expect(seen.tookMs).toBeLessThan(1000);
});

test("a worker or an engine that is not where it should be is told", async ({ lab }) => {
  const seen = await lab.evaluate(async () => {
    const kindOf = (options: object): Promise<string> =>
      headwater.load("embedded:tiny-assistant", options).then(() => "loaded", (error: { kind: string }) => error.kind);
    return [
      await kindOf({ workerUrl: "/no-such-worker.js" }),
      await kindOf({ workerUrl: "http://localhost:9/worker.js" }),
      await kindOf({ wasmUrl: "/no-such-engine.wasm" }),
      await kindOf({ wasmUrl: "/index.html" }),
      await kindOf({ workerUrl: "/worker.js", worker: false }),
    ];
  });
  expect(seen).toEqual(["WorkerGone", "CspBlocked", "HttpStatus", "Internal", "InvalidArgument"]);
});

test("an engine that traps says so from then on, and a new one answers", async ({ lab }) => {
  const seen = await lab.evaluate(async (QUESTION) => {
    const model = await headwater.load("embedded:tiny-assistant", { worker: false });
    const url = "/pkg/wasm/headwater.js";
    const { WebEngine } = (await import(url)) as { WebEngine: { prototype: { tokenize: unknown } } };
    // The real trap of a real module, in the place of one in ours.
    const trap = new WebAssembly.Module(new Uint8Array([
      0, 97, 115, 109, 1, 0, 0, 0, 1, 4, 1, 96, 0, 0, 3, 2, 1, 0, 7, 5, 1, 1, 116, 0, 0, 10, 5, 1, 3, 0, 0, 11,
    ]));
    WebEngine.prototype.tokenize = () => (new WebAssembly.Instance(trap).exports["t"] as () => void)();
    const kindOf = (call: Promise<unknown>): Promise<string> => call.then(() => "done", (error: { kind: string }) => error.kind);
    const open = model.generate("Once upon a time", { ignoreEos: true }).result();
    return {
      call: await kindOf(model.tokenize("a")),
      open: await kindOf(open),
      later: await kindOf(model.generate(QUESTION).result()),
      load: await kindOf(headwater.load("embedded:tiny-assistant", { worker: false })),
      worker: (await (await headwater.load("embedded:tiny-assistant")).generate(QUESTION).result()).text,
    };
  }, QUESTION);
  const poisoned = "EnginePoisoned";
  expect(seen).toEqual({ call: poisoned, open: poisoned, later: poisoned, load: poisoned, worker: ANSWER });
});
