/** Pulls from a hub whose files lie on another origin, with real sockets and the browser's own cross-origin rules. */
import { readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { chromium, expect, test as base, type Page } from "@playwright/test";
import type { PullOptions } from "headwater";
import { executablePath, webgpuArgs } from "./chromium.mjs";
import { sha256 } from "./mirror.js";
import { openSite, Origins, REFERENCE, TOKEN } from "./origins.js";

/** Several requests: the first block alone, then 16 blocks each. */
const SIZE_BYTES = 20 * 1024 * 1024;

interface Fixtures {
  site: Page;
}

const test = base.extend<Fixtures, { origins: Origins }>({
  origins: [async ({}, use) => {
    const origins = new Origins(SIZE_BYTES);
    await origins.start();
    await use(origins);
    origins.stop();
  }, { scope: "worker" }],
  site: async ({ page, origins }, use) => {
    origins.reset();
    const faults: string[] = [];
    page.on("pageerror", (error) => faults.push(String(error)));
    await openSite(page, origins);
    await use(page);
    expect(faults, "errors nobody caught").toEqual([]);
  },
});

interface Pulled {
  readonly kind: string;
  readonly message: string;
  readonly hashes: readonly string[];
  readonly hosts: readonly string[];
  /** Everything that was told on the way. */
  readonly told: string;
}

/** Pulls, and tells how it went. */
function pull(page: Page, options: PullOptions): Promise<Pulled> {
  return page.evaluate(async ({ REFERENCE, options }) => {
    const told: unknown[] = [];
    const onProgress = (progress: unknown): void => void told.push(progress);
    try {
      const { files, hosts } = await headwater.store.pull(REFERENCE, { ...options, onProgress });
      return { kind: "", message: "", hashes: files.map((file) => file.sha256), hosts, told: JSON.stringify(told) };
    } catch (thrown) {
      const error = thrown as InstanceType<typeof headwater.HeadwaterError>;
      const all = JSON.stringify([told, error.details, error.stack, error]);
      return { kind: error.kind ?? "?", message: error.message, hashes: [], hosts: [], told: all };
    }
  }, { REFERENCE, options });
}

test("files of another origin come by signed addresses, which are asked for anew when they expire", async ({ site, origins }) => {
  origins.faults.signedUses = 1;
  const { kind, message, hashes, hosts } = await pull(site, origins.options);
  expect([kind, message]).toEqual(["", ""]);
  expect(hashes).toEqual([sha256(origins.weights)]);
  expect(hosts).toEqual([new URL(origins.hub).host, new URL(origins.files).host].sort());
  const asked = origins.seen.hub.filter(({ method, url }) => method === "GET" && url.endsWith(".gguf")).length;
  expect(asked, "signed addresses").toBeGreaterThan(1);
  expect(origins.weightBytes).toBe(SIZE_BYTES);
});

test("one signed address serves as long as it lasts", async ({ site, origins }) => {
  expect((await pull(site, origins.options)).kind).toBe("");
  expect(origins.seen.hub.filter(({ url }) => url.endsWith(".gguf")).length, "signed addresses").toBe(1);
  expect(origins.weightBytes).toBe(SIZE_BYTES);
});

test("a host that does not let pages read its answers is told from one that cannot be reached, and named", async ({ site, origins }) => {
  origins.faults.corsAnswers = 0;
  const redirected = await pull(site, origins.options);
  expect(redirected.kind).toBe("CorsBlocked");
  expect(redirected.message).toContain(origins.hub);
  // The first block came from where the hub redirects to; that host itself is asked for the rest.
  origins.faults.corsAnswers = 1;
  const direct = await pull(site, origins.options);
  expect(direct.kind).toBe("CorsBlocked");
  expect(direct.message).toContain(origins.files);
  const dead = await pull(site, { endpoint: origins.dead });
  expect(dead.kind).toBe("Network");
  expect(dead.message).toContain(origins.dead);
});

for (const { status, kind, failures = Infinity, retryAfter } of [
  { status: 401, kind: "AuthRequired" },
  { status: 403, kind: "Gated" },
  { status: 404, kind: "NotFound" },
  { status: 429, kind: "HttpStatus", retryAfter: "0" },
  { status: 429, kind: "", failures: 1, retryAfter: "1" },
  { status: 500, kind: "HttpStatus" },
  { status: 503, kind: "", failures: 2 },
  { status: 418, kind: "HttpStatus" },
]) {
  test(`${status}, ${failures === Infinity ? "for good" : `${failures} times`}: ${kind === "" ? "it goes on" : kind}`, async ({ site, origins }) => {
    Object.assign(origins.faults, { hubStatus: status, hubFailures: failures, retryAfter });
    const told = await pull(site, origins.options);
    expect(told.kind, told.message).toBe(kind);
    if (kind !== "") {
      expect(told.message).toContain(String(status));
      expect(told.message).toContain("noise-Q8_0.gguf");
    }
    expect(told.hashes).toEqual(kind === "" ? [sha256(origins.weights)] : []);
  });
}

test("a token goes to the hub's origin and nowhere else", async ({ site, origins }) => {
  const said: string[] = [];
  site.on("console", (message) => said.push(message.text()));
  origins.faults.needsToken = true;
  const without = await pull(site, origins.options);
  expect(without.kind).toBe("AuthRequired");
  const withIt = await pull(site, { ...origins.options, token: TOKEN });
  expect(withIt.kind, withIt.message).toBe("");
  // A refusal that repeats the token, and a redirect to somebody who was never named.
  await site.evaluate(() => headwater.store.clear());
  origins.faults.hubStatus = 418;
  const refused = await pull(site, { ...origins.options, token: TOKEN });
  expect(refused.kind).toBe("HttpStatus");
  origins.faults.hubStatus = undefined;
  origins.faults.toStranger = true;
  const strange = await pull(site, { ...origins.options, token: TOKEN });
  expect(strange.kind).toBe("PolicyRefused");
  expect(strange.message).toContain(new URL(origins.stranger).host);
  expect(origins.seen.hub.filter(({ headers }) => headers.authorization === `Bearer ${TOKEN}`).length).toBeGreaterThan(3);
  expect(origins.seen.files.length, "requests to the file host").toBeGreaterThan(0);
  expect(origins.seen.stranger.length, "requests that were redirected").toBeGreaterThan(0);
  const elsewhere = JSON.stringify([origins.seen.files, origins.seen.stranger, origins.seen.hub.map(({ url }) => url)]);
  const kept = await site.evaluate(async () => JSON.stringify([await headwater.store.list(), await headwater.store.lock(), { ...localStorage }, document.cookie]));
  for (const text of [elsewhere, kept, ...said, ...[without, withIt, refused, strange].map((one) => JSON.stringify(one))]) {
    expect(text).not.toContain(TOKEN);
  }
});

test("signed addresses are not told", async ({ site, origins }) => {
  origins.faults.wrongByte = true;
  const wrong = await pull(site, origins.options);
  expect(wrong.kind).toBe("IntegrityMismatch");
  expect(wrong.message).toContain(sha256(origins.weights));
  const seen = origins.seen.files.map(({ url }) => new URL(url, origins.files).searchParams.get("X-Signature") ?? "");
  expect(seen.length).toBeGreaterThan(0);
  for (const signature of seen) expect(JSON.stringify(wrong)).not.toContain(signature);
  expect(await site.evaluate(() => headwater.store.usage())).toEqual({ models: 0, modelBytes: 0, partialBytes: 0 });
});

test("neither token nor signatures are in any file of the profile", async ({ origins }, info) => {
  origins.reset();
  origins.faults.needsToken = true;
  const profile = info.outputPath("profile");
  const context = await chromium.launchPersistentContext(profile, { executablePath, args: webgpuArgs, headless: true });
  const page = await context.newPage();
  await openSite(page, origins);
  origins.faults.hubStatus = 418;
  expect((await pull(page, { ...origins.options, token: TOKEN })).kind).toBe("HttpStatus");
  origins.faults.hubStatus = undefined;
  expect((await pull(page, { ...origins.options, token: TOKEN })).kind).toBe("");
  await context.close();
  const signatures = origins.seen.files.map(({ url }) => new URL(url, origins.files).searchParams.get("X-Signature") ?? "");
  expect(signatures.filter((text) => text.length >= 32).length).toBeGreaterThan(0);
  const files = readdirSync(profile, { recursive: true, encoding: "utf8" }).map((name) => join(profile, name)).filter((path) => statSync(path).isFile());
  expect(Math.max(...files.map((path) => statSync(path).size)), "the model's own bytes").toBe(SIZE_BYTES);
  const found: string[] = [];
  for (const path of files) {
    const bytes = readFileSync(path);
    for (const secret of new Set([TOKEN, ...signatures])) {
      if (bytes.includes(secret) || bytes.includes(Buffer.from(secret, "utf16le"))) found.push(path.slice(profile.length));
    }
  }
  expect(found).toEqual([]);
});

test("a host that falls silent in the middle is asked again for what is missing", async ({ site, origins }) => {
  origins.faults.stallAfter = 512 * 1024;
  const { kind, message, hashes } = await pull(site, origins.options);
  expect([kind, message]).toEqual(["", ""]);
  expect(hashes).toEqual([sha256(origins.weights)]);
  expect(origins.weightBytes).toBeLessThanOrEqual(SIZE_BYTES + 4 * 1024 * 1024);
});

test("a device that is offline, before or in the middle, is told so, and goes on when it is online again", async ({ site, origins }) => {
  await site.context().setOffline(true);
  const before = await pull(site, origins.options);
  expect([before.kind, origins.requests]).toEqual(["Network", 0]);
  await site.context().setOffline(false);
  origins.faults.rate = 2 * 1024 * 1024;
  const going = pull(site, origins.options);
  await expect.poll(() => origins.weightBytes, { intervals: [10] }).toBeGreaterThan(4 * 1024 * 1024);
  // Streams that are open go on; what is asked next is refused, so they are cut as well.
  await site.context().setOffline(true);
  origins.cut();
  const { kind, message } = await going;
  expect(kind, message).toBe("Network");
  await site.context().setOffline(false);
  origins.faults.rate = Infinity;
  expect((await pull(site, origins.options)).hashes).toEqual([sha256(origins.weights)]);
  // A block of each connection, and what each socket held.
  expect(origins.weightBytes).toBeLessThanOrEqual(SIZE_BYTES + 4 * 1024 * 1024 + 4 * 64 * 1024);
});

test("offline asks nobody: what is kept is there, what is not is missing", async ({ site, origins }) => {
  const missing = await pull(site, { ...origins.options, offline: true });
  expect(missing.kind).toBe("NotFound");
  expect(origins.requests).toBe(0);
  expect((await pull(site, origins.options)).kind).toBe("");
  const before = origins.requests;
  const kept = await pull(site, { ...origins.options, offline: true, refresh: false });
  expect(kept.hashes).toEqual([sha256(origins.weights)]);
  expect(origins.requests).toBe(before);
});
