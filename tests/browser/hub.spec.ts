/** Models from a hub: fetched once, verified, kept in the origin's private file system, judged by their licence. */
import { readFileSync } from "node:fs";
import type { Fit, FitOptions } from "headwater";
import { inTree } from "./golden.js";
import { expect, openLab, test as base } from "./lab.js";
import { Mirror, REFERENCE, sha256 } from "./mirror.js";

const QUESTION = "Does anything leave my device?";
const ANSWER = "What you type stays on your device. Nothing is sent to a server.";
/** What may be fetched again of a file that was open. */
const AGAIN = 4 * 1024 * 1024;

const test = base.extend<{ mirror: Mirror }>({
  mirror: async ({ context }, use) => {
    const mirror = new Mirror();
    await mirror.serve(context);
    await use(mirror);
  },
});

test("a model of a hub is fetched once, verified and kept; then nobody is asked", async ({ lab, mirror }) => {
  const seen = await lab.evaluate(async ({ REFERENCE, QUESTION }) => {
    const endpoint = `${location.origin}/mirror`;
    const phases = new Set<string>();
    const ask = async (options: object): Promise<unknown> => {
      const model = await headwater.load(REFERENCE, { endpoint, ...options, onProgress: (progress) => phases.add(progress.phase) });
      const { text } = await model.generate([{ role: "user", content: QUESTION }], { temperature: 0 }).result();
      const { origin, hosts } = model.info;
      await model.dispose();
      return { text, hosts, commit: origin?.commit, license: origin?.license.id, shown: origin?.license.attribution, fetched: origin?.fetchedBytes };
    };
    const first = await ask({});
    return { first, second: await ask({}), offline: await ask({ offline: true }), phases: [...phases], host: location.host };
  }, { REFERENCE, QUESTION });
  const told = { text: ANSWER, commit: mirror.commit, license: "llama3.2", shown: "Built with Llama" };
  expect(seen.first).toEqual({ ...told, hosts: [seen.host], fetched: mirror.weights.length });
  expect(seen.second).toEqual({ ...told, hosts: [], fetched: 0 });
  expect(seen.offline).toEqual(seen.second);
  expect(seen.phases).toEqual(expect.arrayContaining(["resolve", "download", "weights", "ready"]));
  expect(mirror.weightBytes).toBe(mirror.weights.length);
});

test("a reload in the middle of a download goes on where it was", async ({ lab, mirror }) => {
  // The first block comes, the rest is refused.
  mirror.bend = (path, range) => (path.endsWith(".gguf") && (range?.[0] ?? 0) > 0 ? { status: 503 } : undefined);
  const kind = await lab.evaluate(async (REFERENCE) => {
    const endpoint = `${location.origin}/mirror`;
    return headwater.store.pull(REFERENCE, { endpoint }).then(() => "done", (error: unknown) => (error as { kind: string }).kind);
  }, REFERENCE);
  expect(kind).toBe("HttpStatus");
  mirror.bend = () => undefined;
  await openLab(lab);
  const stored = await lab.evaluate(async (REFERENCE) => {
    const origin = await headwater.store.pull(REFERENCE, { endpoint: `${location.origin}/mirror` });
    return origin.files.map(({ sha256 }) => sha256);
  }, REFERENCE);
  expect(stored).toEqual([sha256(mirror.weights)]);
  expect(mirror.weightBytes).toBeLessThanOrEqual(mirror.weights.length + AGAIN);
});

test("two pages fetch one copy", async ({ lab, mirror, context }) => {
  const other = await context.newPage();
  await openLab(other);
  const pull = (reference: string): Promise<string> =>
    headwater.store.pull(reference, { endpoint: `${location.origin}/mirror` }).then(({ commit }) => commit);
  const commits = await Promise.all([lab.evaluate(pull, REFERENCE), other.evaluate(pull, REFERENCE)]);
  expect(commits).toEqual([mirror.commit, mirror.commit]);
  expect(mirror.weightBytes).toBe(mirror.weights.length);
  await other.close();
});

test("licences are judged, and the user is asked, before a byte of weights", async ({ lab, mirror }) => {
  const seen = await lab.evaluate(async (REFERENCE) => {
    const endpoint = `${location.origin}/mirror`;
    const asked: unknown[] = [];
    const fail = async (options: object): Promise<string> =>
      headwater.load(REFERENCE, { endpoint, ...options }).then(() => "loaded", (error: unknown) => (error as { kind: string }).kind);
    const failures = [
      await fail({ policy: { licenses: { allow: ["apache-2.0"] } } }),
      await fail({ policy: { licenses: { deny: ["@acceptable-use"] } } }),
      await fail({ policy: { maxBytes: 1000 } }),
      await fail({ policy: { license: {} } }),
      await fail({ consent: (license: { id: string }, reason: string) => { asked.push([license.id, reason]); return false; } }),
      await fail({ offline: true }),
    ];
    const origin = await headwater.store.pull(REFERENCE, { endpoint, consent: async () => true });
    return { failures, asked, license: origin.license.id };
  }, REFERENCE);
  expect(seen.failures).toEqual(["PolicyRefused", "PolicyRefused", "PolicyRefused", "InvalidArgument", "PolicyRefused", "NotFound"]);
  expect(seen.asked).toEqual([["llama3.2", ""]]);
  expect(seen.license).toBe("llama3.2");
  expect(mirror.weightBytes).toBe(mirror.weights.length);
});

test("wrong bytes are never kept", async ({ lab, mirror }) => {
  const wrong = Buffer.from(mirror.weights);
  wrong[2_000_000] = (wrong[2_000_000] ?? 0) ^ 1;
  mirror.bend = (path) => (path.endsWith(".gguf") ? { body: wrong } : undefined);
  const seen = await lab.evaluate(async (REFERENCE) => {
    const error = await headwater.store.pull(REFERENCE, { endpoint: `${location.origin}/mirror` }).then(() => undefined, (thrown: unknown) => thrown);
    const { kind, message } = error as { kind: string; message: string };
    return { kind, message, kept: await headwater.store.list(), usage: await headwater.store.usage() };
  }, REFERENCE);
  expect(seen.kind).toBe("IntegrityMismatch");
  expect(seen.message).toContain(sha256(mirror.weights));
  expect(seen.message).toContain(sha256(wrong));
  expect(seen.kept).toEqual([]);
  expect(seen.usage).toEqual({ models: 0, modelBytes: 0, partialBytes: 0 });
});

test("what is kept is listed, locked, exported, imported and removed", async ({ lab, mirror }) => {
  const seen = await lab.evaluate(async (REFERENCE) => {
    const endpoint = `${location.origin}/mirror`;
    await headwater.store.pull(REFERENCE, { endpoint });
    const listed = await headwater.store.list();
    const lock = await headwater.store.lock();
    const files = await headwater.store.export(REFERENCE, { endpoint });
    const copy = new File([await files[0]!.arrayBuffer()], files[0]!.name);
    const freed = await headwater.store.remove(REFERENCE, { endpoint });
    const empty = await headwater.store.list();
    const imported = await headwater.store.import(REFERENCE, [copy], { endpoint, lock, offline: true });
    const refused = await headwater.store.import(REFERENCE, [new File([copy.slice(0, copy.size - 1), "x"], copy.name)], {
      endpoint,
      lock: lock.replace(/"sha256": "./, '"sha256": "0'),
      offline: true,
    }).then(() => "kept", (error: unknown) => (error as { kind: string }).kind);
    const usage = await headwater.store.usage();
    await headwater.store.clear();
    return {
      listed, lock: JSON.parse(lock) as { models: { reference: string; commit: string }[] }, names: files.map(({ name, size }) => ({ name, size })),
      freed, empty, imported: imported.files, fetched: imported.fetchedBytes, refused, usage, after: await headwater.store.list(),
    };
  }, REFERENCE);
  const size = mirror.weights.length;
  expect(seen.listed).toMatchObject([{ reference: REFERENCE, commit: mirror.commit, sizeBytes: size, license: { id: "llama3.2" } }]);
  expect(seen.lock.models).toMatchObject([{ reference: REFERENCE, commit: mirror.commit }]);
  expect(seen.names).toEqual([{ name: "tiny-Q8_0.gguf", size }]);
  expect([seen.freed, seen.empty, seen.fetched, seen.after]).toEqual([size, [], 0, []]);
  expect(seen.imported).toEqual([{ path: "tiny-Q8_0.gguf", sizeBytes: size, sha256: sha256(mirror.weights) }]);
  expect(seen.refused).toBe("IntegrityMismatch");
  expect(seen.usage).toMatchObject({ models: 1, modelBytes: size });
});

test("inspect tells what a model is and keeps nothing", async ({ lab, mirror }) => {
  const seen = await lab.evaluate(async (REFERENCE) => {
    const info = await headwater.inspect(REFERENCE, { endpoint: `${location.origin}/mirror` });
    const own = await headwater.inspect("embedded:tiny-assistant");
    return { info, own: own.architecture, kept: await headwater.store.list() };
  }, REFERENCE);
  expect(seen.info).toMatchObject({ architecture: "qwen3", origin: { commit: mirror.commit, license: { id: "llama3.2" } } });
  expect([seen.own, seen.kept]).toEqual(["qwen3", []]);
  expect(mirror.weightBytes).toBeLessThan(600_000);
});

test("without a worker the model is kept in memory only, and loads all the same", async ({ lab, mirror }) => {
  const text = await lab.evaluate(async ({ REFERENCE, QUESTION }) => {
    const model = await headwater.load(REFERENCE, { endpoint: `${location.origin}/mirror`, worker: false });
    const reply = await model.generate([{ role: "user", content: QUESTION }], { temperature: 0 }).result();
    await model.dispose();
    return reply.text;
  }, { REFERENCE, QUESTION });
  expect(text).toBe(ANSWER);
  expect(mirror.weightBytes).toBe(mirror.weights.length);
});

test("a load tells that what was kept is gone, fetches it again and says nothing else", async ({ lab, mirror }) => {
  const seen = await lab.evaluate(async ({ REFERENCE, QUESTION }) => {
    const endpoint = `${location.origin}/mirror`;
    const events: string[][] = [];
    const ask = async (): Promise<string> => {
      const model = await headwater.load(REFERENCE, { endpoint, onEvent: (event) => events.push([event.type, "message" in event ? event.message : ""]) });
      const { text } = await model.generate([{ role: "user", content: QUESTION }], { temperature: 0 }).result();
      await model.dispose();
      return text;
    };
    const before = await ask();
    const quiet = events.splice(0).filter(([type]) => type !== "warning").length;
    const empty = async (folder: FileSystemDirectoryHandle): Promise<void> => {
      for await (const [name, entry] of folder.entries()) {
        if (entry.kind === "directory") await empty(entry as FileSystemDirectoryHandle);
        else if ((await (entry as FileSystemFileHandle).getFile()).size > 1_000_000) await folder.removeEntry(name);
      }
    };
    await empty(await navigator.storage.getDirectory());
    return { before, quiet, after: await ask(), events: events.filter(([type]) => type !== "warning") };
  }, { REFERENCE, QUESTION });
  expect(seen).toEqual({ before: ANSWER, quiet: 0, after: ANSWER, events: [["storageLost", expect.stringContaining("it is fetched again")]] });
  expect(mirror.weightBytes).toBe(2 * mirror.weights.length);
});

test("site data that is cleared while a model answers does not touch the answer, and what is gone is not said to be there", async ({ lab, mirror }) => {
  const session = await lab.context().newCDPSession(lab);
  await lab.exposeFunction("clearSite", () => session.send("Storage.clearDataForOrigin", { origin: new URL(lab.url()).origin, storageTypes: "all" }));
  const seen = await lab.evaluate(async ({ REFERENCE, QUESTION }) => {
    const { clearSite } = globalThis as unknown as { clearSite: () => Promise<void> };
    const model = await headwater.load(REFERENCE, { endpoint: `${location.origin}/mirror` });
    const before = (await headwater.store.list()).length;
    const generation = model.generate([{ role: "user", content: QUESTION }], { temperature: 0 });
    let cleared = false;
    for await (const _ of generation) {
      if (!cleared) await clearSite();
      cleared = true;
    }
    const { text } = await generation.result();
    const again = await model.generate([{ role: "user", content: QUESTION }], { temperature: 0 }).result();
    await model.dispose();
    return { before, text, again: again.text, after: (await headwater.store.list()).length };
  }, { REFERENCE, QUESTION });
  expect(seen).toEqual({ before: 1, text: ANSWER, again: ANSWER, after: 0 });
  await openLab(lab);
  const fetched = await lab.evaluate(async (REFERENCE) => {
    const endpoint = `${location.origin}/mirror`;
    const offline = await headwater.store.pull(REFERENCE, { endpoint, offline: true }).then(() => "kept", (error: unknown) => (error as { kind: string }).kind);
    return [offline, (await headwater.store.pull(REFERENCE, { endpoint })).fetchedBytes];
  }, REFERENCE);
  expect(fetched).toEqual(["NotFound", mirror.weights.length]);
});

test("the browser is asked once to keep what is stored, and not at all where the page does not want it", async ({ lab, mirror }) => {
  const seen = await lab.evaluate(async (REFERENCE) => {
    let asked = 0;
    const real = navigator.storage.persist.bind(navigator.storage);
    StorageManager.prototype.persist = () => {
      asked += 1;
      return real();
    };
    const endpoint = `${location.origin}/mirror`;
    await headwater.store.pull(REFERENCE, { endpoint, persist: false });
    const without = asked;
    await headwater.store.pull(REFERENCE, { endpoint });
    const agreed = await headwater.store.persist();
    await (await headwater.load(REFERENCE, { endpoint, backend: "cpu" })).dispose();
    return { without, asked, agreed, told: await navigator.storage.persisted() };
  }, REFERENCE);
  expect(seen).toEqual({ without: 0, asked: 1, agreed: seen.told, told: seen.told });
  expect(mirror.weightBytes).toBe(mirror.weights.length);
});

test("whether a model fits is tried on the device and the store, and what would fit instead is told", async ({ lab, mirror }) => {
  mirror.files.set("tiny-Q4_0.gguf", readFileSync(inTree("www/models/tiny-assistant/tiny-assistant-q4_0.gguf")));
  const fit = (options: FitOptions): Promise<Fit> => lab.evaluate(({ REFERENCE, options }) => {
    return headwater.fit(REFERENCE, { endpoint: `${location.origin}/mirror`, ...options });
  }, { REFERENCE, options });
  const plenty = await fit({});
  expect(plenty).toMatchObject({ verdict: "fits", choices: [], givenBytes: plenty.totalBytes, fetchBytes: mirror.weights.length });
  expect((await fit({ probe: false })).givenBytes).toBeNull();
  expect((await fit({ backend: "cpu" })).givenBytes).toBeGreaterThan(0);

  const memoryBytes = Math.ceil(plenty.totalBytes - plenty.weightBytes / 3);
  const little = await fit({ memoryBytes, context: 16 });
  expect(little).toMatchObject({ verdict: "no", givenBytes: null });
  const other = little.choices.find(({ reference }) => reference !== undefined);
  expect(other?.reference).toBe("tiny/assistant/tiny-Q4_0.gguf");
  expect(other?.totalBytes).toBeLessThanOrEqual(memoryBytes);
  const shorter = (await fit({ memoryBytes: plenty.totalBytes - 1 })).choices[0]?.options ?? {};
  expect((await fit({ memoryBytes: plenty.totalBytes - 1, ...shorter })).verdict).not.toBe("no");

  // A device that gives no more than so much, whatever its limits say.
  const refused = await lab.evaluate(async ({ REFERENCE, mostBytes }) => {
    const device = (globalThis as unknown as { GPUDevice: { prototype: { createBuffer(descriptor: { size: number }): unknown } } }).GPUDevice.prototype;
    const real = device.createBuffer;
    let given = 0;
    device.createBuffer = function (descriptor) {
      given += descriptor.size;
      // More than any device has: a real refusal of its allocator or its rules.
      return real.call(this, given > mostBytes ? { ...descriptor, size: 2 ** 52 } : descriptor);
    };
    try {
      return await headwater.fit(REFERENCE, { endpoint: `${location.origin}/mirror` });
    } finally {
      device.createBuffer = real;
    }
  }, { REFERENCE, mostBytes: plenty.largestBufferBytes });
  expect(refused).toMatchObject({ verdict: "no", givenBytes: plenty.largestBufferBytes, totalBytes: plenty.totalBytes });
  expect(refused.notes.join()).toContain(`the device gave ${plenty.largestBufferBytes}`);
  expect(refused.choices.every(({ totalBytes }) => totalBytes <= plenty.totalBytes)).toBe(true);
  expect(await lab.evaluate(() => headwater.store.usage())).toEqual({ models: 0, modelBytes: 0, partialBytes: 0 });
});

