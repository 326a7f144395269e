/**
 * How fast a model comes: from servers of their own on the loopback address into the store, verified, and onto the device,
 * beside the same bytes read by `fetch`, past the browser's cache as the package asks for them, and let go of (by the stream's own
 * memory, and into one memory again and again, as the package reads); and from the store again, beside its files merely read. Into a profile
 * on the disk, as a visitor has: a private window keeps files in another process's memory, where each write costs four times
 * as much. Loads also into no device but this thread's memory: software WebGPU takes seconds to begin. Medians of five, taken
 * in turns. Rates depend on the machine and on what else it does, so they are told here and in
 * `docs/decisions.md`; held are the bytes, each of which is sent once and stored once.
 */
import { chromium, expect, test } from "@playwright/test";
import type { Progress } from "headwater";
import { executablePath, webgpuArgs } from "./chromium.mjs";
import { giantGguf } from "./giant.js";
import { Origins, openSite, REFERENCE } from "./origins.js";

const LAYERS = 2;
const TIMES = 5;
const MIB = 2 ** 20;

const median = (values: readonly number[]): number => [...values].sort((a, b) => a - b)[values.length >> 1] ?? NaN;

test("a model is fetched once, kept whole, and loaded again without the network; rates", async ({}, info) => {
  test.setTimeout(1_800_000);
  const { header, sizeBytes } = giantGguf(LAYERS);
  const origins = new Origins(sizeBytes, header);
  await origins.start();
  const context = await chromium.launchPersistentContext(info.outputPath("profile"), { executablePath, args: webgpuArgs, headless: true });
  try {
    const page = await context.newPage();
    await openSite(page, origins);
    const url = `${origins.hub}/acme/noise/resolve/${origins.commit}/noise-Q8_0.gguf`;
    const times = { drained: [] as number[], byMemory: [] as number[], stored: [] as number[], ready: [] as number[], read: [] as number[], again: [] as number[], onCpu: [] as number[] };
    /** Of each kind of load: until weights come, while they come, and after. */
    const parts: Record<string, number[][]> = {};
    const given = { reference: REFERENCE, options: origins.options };
    for (let turn = 0; turn < TIMES; turn++) {
      times.drained.push(await page.evaluate(async (url) => {
        const from = performance.now();
        const reader = (await fetch(url, { cache: "no-store" })).body?.getReader();
        while (reader !== undefined && !(await reader.read()).done);
        return performance.now() - from;
      }, url));
      times.byMemory.push(await page.evaluate(async (url) => {
        const from = performance.now();
        const reader = (await fetch(url, { cache: "no-store" })).body?.getReader({ mode: "byob" });
        let room = new ArrayBuffer(1 << 20);
        for (;;) {
          const { value, done } = await reader!.read(new Uint8Array(room));
          if (done) break;
          room = value.buffer;
        }
        return performance.now() - from;
      }, url));
      const clear = (): Promise<void> => page.evaluate(() => headwater.store.clear());
      await clear();
      origins.reset();
      // From the first block on: a worker and its module are there already when a page loads its second model.
      times.stored.push(await page.evaluate(async ({ reference, options }) => {
        let from = NaN;
        const onProgress = ({ loadedBytes }: { loadedBytes: number }): void => {
          if (Number.isNaN(from) && loadedBytes > 0) from = performance.now();
        };
        await headwater.store.pull(reference, { ...options, onProgress });
        return performance.now() - from;
      }, given));
      const read = await page.evaluate(async () => {
        const files = async function* (folder: FileSystemDirectoryHandle): AsyncGenerator<File> {
          for await (const entry of folder.values()) {
            if (entry.kind === "directory") yield* files(entry as FileSystemDirectoryHandle);
            else yield await (entry as FileSystemFileHandle).getFile();
          }
        };
        const from = performance.now();
        let largest = 0;
        for await (const file of files(await navigator.storage.getDirectory())) {
          for (let at = 0; at < file.size; at += 8 << 20) await file.slice(at, at + (8 << 20)).arrayBuffer();
          largest = Math.max(largest, file.size);
        }
        return { ms: performance.now() - from, largest };
      });
      expect(read.largest, "bytes of the largest file").toBe(sizeBytes);
      times.read.push(read.ms);
      const load = async (more: { offline: boolean; backend: "webgpu" | "cpu" }): Promise<number> => {
        const { ms, parts: found } = await page.evaluate(async ({ reference, options, more }) => {
          const from = performance.now();
          const at: Partial<Record<string, number>> = {};
          const onProgress = ({ phase, loadedBytes, totalBytes }: Progress): void => {
            at[phase] ??= performance.now() - from;
            if (phase === "weights" && loadedBytes === totalBytes) at["loaded"] ??= performance.now() - from;
          };
          const model = await headwater.load(reference, { ...options, ...more, context: 64, onProgress });
          const ms = performance.now() - from;
          await model.dispose();
          const { weights = NaN, loaded = NaN } = at;
          return { ms, parts: [weights, loaded - weights, ms - loaded] };
        }, { ...given, more });
        const kind = more.offline ? more.backend : "network";
        (parts[kind] ??= [[], [], []]).forEach((list, part) => list.push(found[part] ?? NaN));
        return ms;
      };
      times.again.push(await load({ offline: true, backend: "webgpu" }));
      times.onCpu.push(await load({ offline: true, backend: "cpu" }));
      expect(origins.weightBytes, "bytes that were sent for the store").toBe(sizeBytes);
      await clear();
      origins.reset();
      times.ready.push(await load({ offline: false, backend: "webgpu" }));
      expect(origins.weightBytes, "bytes that were sent for a load").toBe(sizeBytes);
    }
    const rate = (of: keyof typeof times): number => sizeBytes / MIB / (median(times[of]) / 1000);
    const ratio = (of: keyof typeof times, to: keyof typeof times): string => (rate(of) / rate(to)).toFixed(2);
    console.log(`${(sizeBytes / MIB).toFixed(0)} MiB; MiB/s: ${Object.keys(times).map((of) => `${of} ${rate(of as keyof typeof times).toFixed(0)}`).join(", ")}`);
    for (const [kind, lists] of Object.entries(parts)) {
      const [before = NaN, during = NaN, after = NaN] = lists.map(median);
      console.log(`${kind}: weights begin after ${before.toFixed(0)} ms, come in ${during.toFixed(0)} (${(sizeBytes / MIB / (during / 1000)).toFixed(0)} MiB/s), ready ${after.toFixed(0)} later`);
    }
    console.log(`stored / drained ${ratio("stored", "drained")}, stored / read into one memory ${ratio("stored", "byMemory")}, ready / drained ${ratio("ready", "drained")}, again / read ${ratio("again", "read")}, onCpu / read ${ratio("onCpu", "read")}`);
  } finally {
    await context.close();
    origins.stop();
  }
});
