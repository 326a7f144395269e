/**
 * What every test gets: a page whose conduct is watched (no request to another origin, no violation of the content
 * security policy, no error nobody caught), and a lab, which is an empty page with the package at hand.
 */
import { test as base, expect, type Page } from "@playwright/test";
import type * as Headwater from "headwater";

export { expect, type Page };

declare global {
  var headwater: typeof Headwater;
  var violations: string[] | undefined;
}

interface Fixtures {
  /** A page that is watched. */
  page: Page;
  /** An empty page of the demo's origin; `headwater` is a global of it. */
  lab: Page;
}

export const test = base.extend<Fixtures>({
  page: async ({ page, baseURL }, use) => {
    const strangers: string[] = [];
    const faults: string[] = [];
    const origin = new URL(baseURL ?? "").origin;
    page.context().on("request", (request) => {
      if (!/^(blob|data):/.test(request.url()) && new URL(request.url()).origin !== origin) strangers.push(request.url());
    });
    page.on("pageerror", (error) => faults.push(String(error)));
    page.on("console", (message) => {
      if (/Content Security Policy|WebGPU|validation/i.test(message.text()) && ["error", "warning"].includes(message.type())) {
        faults.push(message.text());
      }
    });
    await page.addInitScript(() => {
      globalThis.violations = [];
      addEventListener("securitypolicyviolation", (event) => globalThis.violations?.push(event.blockedURI));
    });
    await use(page);
    expect(strangers, "requests to other origins").toEqual([]);
    expect(faults, "errors nobody caught, and the browser's complaints").toEqual([]);
    expect(await page.evaluate(() => globalThis.violations), "violations of the policy").toEqual([]);
  },
  lab: async ({ page }, use) => {
    await openLab(page);
    await use(page);
  },
});

/** Makes a page the lab. */
export async function openLab(page: Page): Promise<void> {
  await page.goto("tests/browser/blank.html");
  await page.evaluate(async () => {
    const url = "/pkg/dist/index.js";
    globalThis.headwater = (await import(url)) as typeof Headwater;
  });
}
