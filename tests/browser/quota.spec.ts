/**
 * Storage that is full before a download or in the middle of it, on a disk and in a private window's memory; site data that
 * is cleared while it is used; downloads that are given up; weights that come packed.
 */
import { mkdirSync, writeFileSync } from "node:fs";
import { chromium, expect, test, type BrowserContext, type CDPSession, type Page } from "@playwright/test";
import type { Fit } from "headwater";
import { executablePath, webgpuArgs } from "./chromium.mjs";
import { giantGguf } from "./giant.js";
import { sha256 } from "./mirror.js";
import { openSite, Origins, REFERENCE } from "./origins.js";

const MIB = 2 ** 20;
const SIZE_BYTES = 40 * MIB;
/** A block of each connection, and what is on its way to it. */
const AGAIN_BYTES = 4 * MIB + 4 * 64 * 1024;
const RATE = 2 * MIB;

const origins = new Origins(SIZE_BYTES);
test.beforeAll(() => origins.start());
test.afterAll(() => origins.stop());
test.beforeEach(() => origins.reset());

interface Pulled {
  readonly kind: string;
  readonly message: string;
  readonly hashes: readonly string[];
}

/** Pulls the model; `abortAt` gives it up when so many of its bytes are there. */
function pull(page: Page, abortAt = Infinity): Promise<Pulled> {
  return page.evaluate(async ({ REFERENCE, options, abortAt }) => {
    const abort = new AbortController();
    const onProgress = ({ loadedBytes }: { loadedBytes: number }): void => {
      if (loadedBytes >= abortAt) abort.abort();
    };
    try {
      const { files } = await headwater.store.pull(REFERENCE, { ...options, onProgress, signal: abort.signal });
      return { kind: "", message: "", hashes: files.map((file) => file.sha256) };
    } catch (thrown) {
      const { kind, message } = thrown as { kind?: string; message: string };
      return { kind: kind ?? "?", message, hashes: [] };
    }
  }, { REFERENCE, options: origins.options, abortAt });
}

/** Sets what the site may store; it holds as long as the session. */
async function setQuota(session: CDPSession, quotaSize: number): Promise<void> {
  await session.send("Storage.overrideQuotaForOrigin", { origin: origins.site, quotaSize });
}

/** Files of another size than nothing, beside the logs. */
function keptFiles(page: Page): Promise<number> {
  return page.evaluate(async () => {
    const visit = async (folder: FileSystemDirectoryHandle): Promise<number> => {
      let found = 0;
      for await (const [name, entry] of folder.entries()) {
        if (entry.kind === "directory") found += await visit(entry as FileSystemDirectoryHandle);
        else if (!name.endsWith(".log") && (await (entry as FileSystemFileHandle).getFile()).size > 0) found += 1;
      }
      return found;
    };
    return visit(await navigator.storage.getDirectory());
  });
}

/** Where files are; memory that grows asks for no room before it is written. */
const WHERE: Readonly<Record<string, { tellsBefore: boolean; open: (folder: string) => Promise<BrowserContext> }>> = {
  "on a disk": { tellsBefore: true, open: (folder) => chromium.launchPersistentContext(folder, { executablePath, args: webgpuArgs, headless: true }) },
  "in a private window": { tellsBefore: false, open: async () => {
    const browser = await chromium.launch({ executablePath, args: webgpuArgs, headless: true });
    const context = await browser.newContext();
    context.once("close", () => void browser.close());
    return context;
  } },
};

for (const [where, { tellsBefore, open }] of Object.entries(WHERE)) {
  test(`too little room is told ${tellsBefore ? "before the first byte of weights" : "at once"}, and in the middle keeps what came, ${where}`, async ({}, info) => {
    const context = await open(info.outputPath("profile"));
    try {
      const page = await context.newPage();
      await openSite(page, origins);
      const session = await context.newCDPSession(page);
      await setQuota(session, SIZE_BYTES / 2);
      const refused = await pull(page);
      expect(refused.kind).toBe("QuotaExceeded");
      if (tellsBefore) {
        expect(refused.message).toContain(`${SIZE_BYTES} bytes`);
        expect(origins.weightBytes).toBe(0);
      }

      await setQuota(session, 1024 * MIB);
      origins.faults.rate = RATE;
      const going = pull(page);
      await expect.poll(() => origins.weightBytes, { intervals: [10] }).toBeGreaterThan(4 * MIB);
      await setQuota(session, 2 * MIB);
      origins.faults.rate = Infinity;
      const filled = await going;
      expect(filled.kind, filled.message).toBe("QuotaExceeded");

      await setQuota(session, 1024 * MIB);
      expect(await pull(page)).toEqual({ kind: "", message: "", hashes: [sha256(origins.weights)] });
      // What was on its way when the storage refused is fetched again: more than a kill costs, for the servers write ahead.
      expect(origins.weightBytes).toBeLessThan(2 * SIZE_BYTES);
    } finally {
      await context.close();
    }
  });
}

test("whether there is room is tried before it is said that a model fits", async ({}, info) => {
  const { header, sizeBytes } = giantGguf(1);
  const servers = new Origins(sizeBytes, header);
  await servers.start();
  const context = await chromium.launchPersistentContext(info.outputPath("profile"), { executablePath, args: webgpuArgs, headless: true });
  try {
    const page = await context.newPage();
    await openSite(page, servers);
    const session = await context.newCDPSession(page);
    const fit = (): Promise<Fit> => page.evaluate(({ REFERENCE, options }) => headwater.fit(REFERENCE, { ...options, context: 64 }), { REFERENCE, options: servers.options });
    expect((await fit()).verdict).toBe("fits");
    await session.send("Storage.overrideQuotaForOrigin", { origin: servers.site, quotaSize: sizeBytes / 2 });
    const full = await fit();
    // The browser's own guess knows nothing of it.
    expect(full.freeBytes).toBeGreaterThan(sizeBytes);
    expect(full.verdict).toBe("no");
    expect(full.notes.join()).toContain(`${sizeBytes} bytes have to be kept`);
    expect(servers.weightBytes, "bytes of two headers").toBeLessThan(sizeBytes / 20);
    expect(await keptFiles(page), "files that the trial left").toBe(0);
  } finally {
    await context.close();
    servers.stop();
  }
});

/** A browser whose profile has a disk of its own, in a namespace where an ordinary user may give it one. */
const ON_A_SMALL_DISK = (folder: string, mib: number): string => `#!/bin/sh
exec unshare --user --map-root-user --mount sh -c 'mount -t tmpfs -o size=${mib}m none "${folder}" && exec "${executablePath}" "$@"' sh "$@"
`;

test("a disk that is really full is told, and what came is kept", async ({}, info) => {
  const [folder, browser] = [info.outputPath("profile"), info.outputPath("browser")];
  mkdirSync(folder, { recursive: true });
  // The profile itself has some megabytes; the browser grants room ahead of what is written.
  writeFileSync(browser, ON_A_SMALL_DISK(folder, 90), { mode: 0o755 });
  const context = await chromium.launchPersistentContext(folder, { executablePath: browser, args: webgpuArgs, headless: true });
  try {
    const page = await context.newPage();
    await openSite(page, origins);
    origins.faults.rate = RATE;
    const going = pull(page);
    await expect.poll(() => origins.weightBytes, { intervals: [10] }).toBeGreaterThan(8 * MIB);
    // Another program takes all that is left.
    const fill = (): Promise<number> => page.evaluate(async () => {
      const handle = await (await navigator.storage.getDirectory()).getFileHandle("other", { create: true });
      const stream = await handle.createWritable();
      let mib = 0;
      try {
        for (; mib < 200; mib += 1) await stream.write(new Uint8Array(2 ** 20));
        await stream.close();
      } catch {
        // As full as it gets.
      }
      return mib;
    });
    expect(await fill(), "MiB that the disk took").toBeLessThan(90);
    origins.faults.rate = Infinity;
    const { kind, message } = await going;
    expect(kind, message).toBe("QuotaExceeded");
  } finally {
    await context.close();
  }
});

test("a download that is given up at any point goes on from there", async ({ page }) => {
  await openSite(page, origins);
  origins.faults.rate = 4 * RATE;
  for (const abortAt of [1, 6 * MIB, 20 * MIB]) {
    const before = origins.weightBytes;
    expect((await pull(page, abortAt)).kind).toBe("Aborted");
    expect(origins.weightBytes - before, "bytes of one attempt").toBeLessThanOrEqual(20 * MIB + AGAIN_BYTES);
  }
  origins.faults.rate = Infinity;
  expect(await pull(page)).toEqual({ kind: "", message: "", hashes: [sha256(origins.weights)] });
  expect(origins.weightBytes).toBeLessThanOrEqual(SIZE_BYTES + 3 * AGAIN_BYTES);
});

test("site data that is cleared in the middle of a download is told or fetched again, and never called stored", async ({ page }) => {
  await openSite(page, origins);
  origins.faults.rate = RATE;
  const going = pull(page);
  await expect.poll(() => origins.weightBytes, { intervals: [10] }).toBeGreaterThan(4 * MIB);
  const session = await page.context().newCDPSession(page);
  await session.send("Storage.clearDataForOrigin", { origin: origins.site, storageTypes: "all" });
  origins.faults.rate = Infinity;
  const { kind, hashes } = await going;
  if (kind === "") expect(hashes).toEqual([sha256(origins.weights)]);
  else expect(kind).toBe("StorageLost");
  // Until it is loaded anew the page sees other locks than its workers, and takes them for ended.
  await openSite(page, origins);
  expect(await pull(page)).toEqual({ kind: "", message: "", hashes: [sha256(origins.weights)] });
  expect(await keptFiles(page)).toBeGreaterThan(0);
});

test("weights that a server packs, which browsers refuse of ranges, are no matter of permissions", async ({ page }) => {
  await openSite(page, origins);
  origins.faults.gzip = true;
  const { kind, message } = await pull(page);
  expect(kind, message).toBe("Network");
  origins.faults.gzip = false;
  expect(await pull(page)).toEqual({ kind: "", message: "", hashes: [sha256(origins.weights)] });
});
