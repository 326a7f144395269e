/** Places to keep models in beside the private file system: the browser's caches, storage that sites share, one file. */
import { execFileSync } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { expect, openLab, test as base, type Page } from "./lab.js";
import { Mirror, REFERENCE, sha256 } from "./mirror.js";

const QUESTION = "Does anything leave my device?";
const ANSWER = "What you type stays on your device. Nothing is sent to a server.";
/** Written between two flushes of a log. */
const UNFLUSHED = 16 * 1024 * 1024;

const test = base.extend<{ mirror: Mirror }>({
  mirror: async ({ context }, use) => {
    const mirror = new Mirror();
    await mirror.serve(context);
    await use(mirror);
  },
});

/** A worker of the package in a browser that is changed by a script first; gives its address. */
async function changed(page: Page, script: string): Promise<string> {
  await page.context().route("**/changed/change.js", (route) => route.fulfill({ contentType: "text/javascript", body: script }));
  // Imported in this order, and all before the first message is taken.
  const worker = 'import "/changed/change.js"; import "/pkg/dist/worker.js";';
  await page.context().route("**/changed/worker.js", (route) => route.fulfill({ contentType: "text/javascript", body: worker }));
  return new URL("/changed/worker.js", page.url()).href;
}

const WITHOUT_FILES = "delete StorageManager.prototype.getDirectory;";

test("without a private file system models are kept in the browser's caches", async ({ lab, mirror }) => {
  const workerUrl = await changed(lab, WITHOUT_FILES);
  const seen = await lab.evaluate(async ({ REFERENCE, QUESTION, workerUrl }) => {
    const options = { endpoint: `${location.origin}/mirror`, workerUrl };
    const ask = async (): Promise<unknown> => {
      const model = await headwater.load(REFERENCE, options);
      const { text } = await model.generate([{ role: "user", content: QUESTION }], { temperature: 0 }).result();
      await model.dispose();
      return [text, model.info.origin?.fetchedBytes];
    };
    const answers = [await ask(), await ask()];
    const listed = (await headwater.store.list({ workerUrl })).map(({ sizeBytes }) => sizeBytes);
    const usage = await headwater.store.usage({ workerUrl });
    const [file] = await headwater.store.export(REFERENCE, options);
    const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", await file!.arrayBuffer()));
    const files: string[] = [];
    for await (const name of (await navigator.storage.getDirectory()).keys()) files.push(name);
    const places = { caches: await caches.keys(), files };
    const freed = await headwater.store.remove(REFERENCE, options);
    await headwater.store.clear({ workerUrl });
    const left = (await (await caches.open("headwater")).keys()).filter(({ url }) => !url.endsWith("/probe")).length;
    return { answers, listed, usage, hash: [...digest].map((byte) => byte.toString(16).padStart(2, "0")).join(""), places, freed, left };
  }, { REFERENCE, QUESTION, workerUrl });
  const size = mirror.weights.length;
  expect(seen.answers).toEqual([[ANSWER, size], [ANSWER, 0]]);
  expect(mirror.weightBytes).toBe(size);
  expect([seen.listed, seen.usage, seen.freed]).toEqual([[size], { models: 1, modelBytes: size, partialBytes: 0 }, size]);
  expect(seen.hash).toBe(sha256(mirror.weights));
  // The second is what was measured of the device, which every load keeps.
  expect(seen.places).toEqual({ caches: ["headwater", "headwater-kernels"], files: [] });
  expect(seen.left).toBe(0);
});

test("a download into caches goes on after a reload, and wrong bytes are not kept there either", async ({ lab, mirror }) => {
  const workerUrl = await changed(lab, WITHOUT_FILES);
  const pull = (): Promise<string> => lab.evaluate(async ({ REFERENCE, workerUrl }) => {
    const options = { endpoint: `${location.origin}/mirror`, workerUrl };
    return headwater.store.pull(REFERENCE, options).then(({ files }) => files[0]!.sha256, (error: unknown) => (error as { kind: string }).kind);
  }, { REFERENCE, workerUrl });
  mirror.bend = (path, range) => (path.endsWith(".gguf") && (range?.[0] ?? 0) > 0 ? { status: 503 } : undefined);
  expect(await pull()).toBe("HttpStatus");
  const first = mirror.weightBytes;
  expect(first).toBeGreaterThan(1_000_000);
  mirror.bend = () => undefined;
  await openLab(lab);
  expect(await pull()).toBe(sha256(mirror.weights));
  // The log was written out when the files were closed.
  expect(mirror.weightBytes).toBe(mirror.weights.length);
  expect(first).toBeLessThan(UNFLUSHED);

  await lab.evaluate((workerUrl) => headwater.store.clear({ workerUrl }), workerUrl);
  const wrong = Buffer.from(mirror.weights);
  wrong[2_000_000] = (wrong[2_000_000] ?? 0) ^ 1;
  mirror.bend = (path) => (path.endsWith(".gguf") ? { body: wrong } : undefined);
  expect(await pull()).toBe("IntegrityMismatch");
});

/** What the proposal describes, with the files in a folder of this origin: no browser has it yet. */
const SHARED_STORAGE = `
  const folder = async () => (await navigator.storage.getDirectory()).getDirectoryHandle("shared", { create: true });
  Object.defineProperty(navigator, "crossOriginStorage", { value: {
    async requestFileHandle({ algorithm, value }, { create = false, origins } = {}) {
      if (algorithm !== "SHA-256" || !/^[0-9a-f]{64}$/.test(value)) throw new TypeError("a hash is needed");
      const handle = await (await folder()).getFileHandle(value, { create });
      if (create) await (await folder()).getFileHandle("to-" + String(origins), { create });
      return handle;
    },
  } });`;

test("what other sites share is used by its hash, if it is what its hash says, and models are offered", async ({ lab, mirror }) => {
  const workerUrl = await changed(lab, SHARED_STORAGE);
  const seen = await lab.evaluate(async ({ REFERENCE, workerUrl }) => {
    const options = { endpoint: `${location.origin}/mirror`, workerUrl };
    const pull = async (): Promise<number> => {
      await headwater.store.clear({ workerUrl });
      return (await headwater.store.pull(REFERENCE, options)).fetchedBytes;
    };
    const shared = async (): Promise<FileSystemDirectoryHandle> => (await navigator.storage.getDirectory()).getDirectoryHandle("shared");
    const fetched = [await pull()];
    const names: string[] = [];
    for await (const name of (await shared()).keys()) names.push(name);
    fetched.push(await pull());
    const handle = await (await shared()).getFileHandle(names.find((name) => name.length === 64)!);
    const stream = await handle.createWritable({ keepExistingData: true });
    await stream.write({ type: "write", position: 1_500_000, data: new Uint8Array(9) });
    await stream.close();
    fetched.push(await pull());
    const [kept] = await headwater.store.export(REFERENCE, options);
    const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", await kept!.arrayBuffer()));
    return { fetched, names: names.sort(), hash: [...digest].map((byte) => byte.toString(16).padStart(2, "0")).join("") };
  }, { REFERENCE, workerUrl });
  const size = mirror.weights.length;
  expect(seen.names).toEqual([sha256(mirror.weights), "to-*"]);
  expect(seen.fetched).toEqual([size, 0, size]);
  expect(seen.hash).toBe(sha256(mirror.weights));
});

test("a model is written to one file as it streams, and read back from it", async ({ lab, mirror }, info) => {
  const long = `${"deep/".repeat(24)}config.json`;
  mirror.files.set("config.json", Buffer.from('{"model_type": "llama"}'));
  mirror.files.set("model.safetensors", Buffer.from(mirror.weights.subarray(0, 1_300_000)));
  const seen = await lab.evaluate(async ({ REFERENCE, long }) => {
    const endpoint = `${location.origin}/mirror`;
    const root = await navigator.storage.getDirectory();
    const written = async (reference: string, to: string): Promise<[string, string]> => {
      const handle = await root.getFileHandle(to, { create: true });
      const name = await headwater.store.exportTo(reference, handle, { endpoint });
      const bytes = new Uint8Array(await (await handle.getFile()).arrayBuffer());
      let text = "";
      for (let at = 0; at < bytes.length; at += 30_000) text += String.fromCharCode(...bytes.subarray(at, at + 30_000));
      return [name, btoa(text)];
    };
    const folder = REFERENCE.replace(/:.*/, "/config.json");
    await headwater.store.pull(REFERENCE, { endpoint });
    await headwater.store.pull(folder, { endpoint });
    const lock = await headwater.store.lock();
    const one = await written(REFERENCE, "one");
    const several = await written(folder, "several");
    await headwater.store.clear();
    const archive = new File([await (await root.getFileHandle("several")).getFile()], several[0]);
    const imported = await headwater.store.import(folder, [archive], { endpoint, lock, offline: true });
    const cut = new File([archive.slice(0, 700_000)], "cut.tar");
    const kinds = [];
    for (const file of [cut, new File(["no archive at all".repeat(100)], "x.tar")]) {
      kinds.push(await headwater.store.import(folder, [file], { endpoint, lock, offline: true }).then(() => "", (error: unknown) => (error as { kind: string }).kind));
    }
    const url = "/pkg/dist/archive.js";
    const { archived, unarchived } = (await import(url)) as { archived(files: File[]): ReadableStream; unarchived(file: File): Promise<File[]> };
    const again = await unarchived(new File([await new Response(archived([new File(["abc"], long), new File([], "empty")])).blob()], "y.tar"));
    const stop = new WritableStream({ write: () => Promise.reject(new Error("no room")) });
    const full = await headwater.store.exportTo(folder, stop, { endpoint }).then(() => "", (error: unknown) => (error as { kind: string }).kind);
    return { one, several, imported: imported.files, kinds, again: await Promise.all(again.map(async (file) => [file.name, await file.text()])), full };
  }, { REFERENCE, long });
  expect(seen.one[0]).toBe("tiny-Q8_0.gguf");
  expect(sha256(Buffer.from(seen.one[1], "base64"))).toBe(sha256(mirror.weights));
  // Another program reads the archive.
  expect(seen.several[0]).toBe("tiny-assistant-config.json.tar");
  const archive = info.outputPath("model.tar");
  const out = info.outputPath("out");
  mkdirSync(out, { recursive: true });
  writeFileSync(archive, Buffer.from(seen.several[1], "base64"));
  execFileSync("tar", ["-xf", archive, "-C", out]);
  for (const { path, sha256: hash } of seen.imported) expect(sha256(readFileSync(`${out}/${path}`)), path).toBe(hash);
  expect(seen.imported.map(({ path }) => path)).toEqual(["config.json", "model.safetensors"]);
  expect(seen.kinds).toEqual(["UnsupportedFormat", "UnsupportedFormat"]);
  expect(seen.again).toEqual([[long, "abc"], ["empty", ""]]);
  expect(seen.full).toBe("Io");
});
