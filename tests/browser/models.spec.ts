/** The demo page's models from a hub: found, checked, accepted, fetched, kept, removed; nobody is asked before the visitor asks. */
import { readFileSync } from "node:fs";
import { inTree } from "./golden.js";
import { expect, test as base, type Page } from "./lab.js";
import { card, Mirror } from "./mirror.js";
import type * as Headwater from "headwater";

const QUESTION = "Does anything leave my device?";
const ANSWER = "What you type stays on your device. Nothing is sent to a server.";
/** What may be fetched again of a file that was open. */
const AGAIN = 4 * 1024 * 1024;

/** The mirror plays the hub of an entry of the page's list. */
const test = base.extend<{ mirror: Mirror }>({
  mirror: async ({ context }, use) => {
    const mirror = new Mirror("Qwen/Qwen3-0.6B-GGUF");
    await mirror.serve(context);
    await use(mirror);
  },
});

async function start(page: Page): Promise<void> {
  await page.goto("./?hub=mirror");
  await expect(page.locator("html[data-ready]")).toBeAttached();
}

async function check(page: Page): Promise<void> {
  await page.getByRole("button", { name: "Check Qwen3 0.6B" }).click();
  await expect(page.locator(".verdict")).toBeVisible();
}

async function accept(page: Page): Promise<void> {
  await page.getByLabel("I accept the licence").check();
  await page.getByRole("button", { name: /Fetch .* and open/ }).click();
}

test("nobody is asked until the visitor asks", async ({ page, mirror }) => {
  await start(page);
  const names = page.locator("#models .model-name");
  const all = await names.count();
  expect(all).toBeGreaterThan(10);
  for (const family of ["Llama", "Qwen", "Mistral", "DeepSeek", "Gemma", "SmolLM", "Phi"]) {
    await page.getByRole("searchbox").fill(family.toLowerCase());
    await expect(names.first()).toContainText(family);
    expect(await names.count(), family).toBeLessThan(all / 2);
  }
  await page.getByRole("searchbox").fill("reasoning google");
  await expect(page.locator("#no-models")).toBeVisible();
  await page.getByRole("searchbox").fill("nobody/nothing:Q8_0");
  await expect(names).toHaveText(["nobody/nothing:Q8_0"]);
  await page.locator("#kept summary").click();
  await expect(page.locator("#kept-sum")).toHaveText("Nothing is kept yet.");
  expect(mirror.requests).toBe(0);
  await page.getByRole("searchbox").press("Enter");
  await expect(page.locator(".panel [role=alert]")).toContainText("NotFound");
  expect(mirror.requests).toBeGreaterThan(0);
});

test("a model is checked, its licence accepted, fetched, kept, opened again without a request, and removed", async ({ page, mirror }) => {
  await start(page);
  await page.getByRole("searchbox").fill("qwen3 0.6");
  await check(page);
  const panel = page.locator(".panel");
  await expect(panel.locator(".verdict")).toContainText(/^Fits takes [\d.]+ MB of memory/);
  await expect(panel).toContainText("To fetch5.7 MB from");
  await expect(panel).toContainText(`commit ${mirror.commit.slice(0, 10)}`);
  await expect(panel.getByRole("link")).toHaveText(/Llama 3.2/);
  await expect(panel).toContainText("credit has to be shown");
  expect(mirror.weightBytes, "bytes of the header").toBeLessThan(600_000);
  const fetchIt = page.getByRole("button", { name: "Fetch 5.7 MB and open" });
  await expect(fetchIt).toBeDisabled();
  const before = mirror.weightBytes;
  await accept(page);
  await expect(page.getByLabel("Your message")).toBeFocused();
  expect(mirror.weightBytes - before).toBe(mirror.weights.length);
  await expect(page.locator("#device")).toContainText("Built with Llama");
  await page.getByLabel("Your message").fill(QUESTION);
  await page.keyboard.press("Enter");
  await expect(page.getByRole("button", { name: "Regenerate" })).toBeVisible();
  await expect(page.locator(".assistant .words")).toHaveText(ANSWER);

  const asked = mirror.requests;
  await start(page);
  const kept = page.locator("#kept-models .model");
  await expect(kept).toHaveCount(1);
  await expect(kept).toContainText("Qwen/Qwen3-0.6B-GGUF:Q8_0");
  await expect(kept).toContainText(/Llama 3\.2/);
  await expect(kept).toContainText(new RegExp(`5\\.7 MB · used .* · commit ${mirror.commit.slice(0, 10)}`));
  await kept.getByRole("button", { name: /^Open/ }).click();
  await expect(page.getByLabel("Your message")).toBeFocused();
  await page.getByRole("button", { name: "Change model" }).click();
  await kept.getByRole("button", { name: /^Remove/ }).click();
  await expect(kept).toHaveCount(0);
  await expect(page.locator("#kept-sum")).toHaveText("Nothing is kept yet.");
  expect(mirror.requests).toBe(asked);
});

test("progress tells rate and time; what was cut off is offered again, also after a reload, and goes on", async ({ page, mirror }) => {
  // Long enough for more than one request: the first block, then 16 blocks each.
  const long = Buffer.concat([mirror.weights, Buffer.alloc(24 * 1024 * 1024 - mirror.weights.length)]);
  mirror.files.set("tiny-Q8_0.gguf", long);
  await start(page);
  await check(page);
  const header = mirror.weightBytes;
  let release = (): void => {};
  const held = new Promise<void>((resolve) => (release = resolve));
  mirror.pause = (path, range) => (path.endsWith(".gguf") && range?.[0] === 1024 * 1024 ? held : Promise.resolve());
  await accept(page);
  await expect(page.locator("#loading-label")).toHaveText("Fetching Qwen3 0.6B");
  await expect(page.locator("#loading-note")).toHaveText(/^[\d.]+ MB of 25\.2 MB · [\d.]+ [kMG]B\/s · \d+ (s|min|h) left$/, { timeout: 20_000 });
  await expect(page.locator("#progress")).toHaveAttribute("value", /^0\.(0[1-9]|[1-9])/);
  mirror.bend = (path) => (path.endsWith(".gguf") ? { status: 503 } : undefined);
  release();
  await expect(page.locator("#load-error")).toContainText("HttpStatus");
  await expect(page.locator("#unfinished")).toContainText("Qwen3 0.6B was not finished");
  await expect(page.getByRole("button", { name: "Go on" })).toBeFocused();
  await start(page);
  await expect(page.locator("#unfinished")).toBeVisible();
  await expect(page.locator("#kept-sum")).toContainText("were begun and not finished");
  mirror.bend = () => undefined;
  mirror.pause = () => Promise.resolve();
  await page.getByRole("button", { name: "Go on" }).click();
  await expect(page.getByLabel("Your message")).toBeFocused();
  expect(mirror.weightBytes - header).toBeLessThanOrEqual(long.length + AGAIN);
  await page.getByRole("button", { name: "Change model" }).click();
  await expect(page.locator("#unfinished")).toBeHidden();
  // The list was open all the while, and said what was so before.
  await expect(page.locator("#kept-models .model")).toHaveCount(1);
  await expect(page.locator("#kept-sum")).toHaveText("1 model, 25.2 MB.");
});

test("where a model does not fit, a smaller file of it is offered and looked at", async ({ page, mirror }) => {
  mirror.files.set("tiny-Q4_0.gguf", readFileSync(inTree("www/models/tiny-assistant/tiny-assistant-q4_0.gguf")));
  await page.addInitScript(() => Object.defineProperty(navigator, "deviceMemory", { value: 1 / 64 }));
  await start(page);
  await check(page);
  const panel = page.locator(".panel").filter({ visible: true });
  await expect(panel.locator(".verdict")).toContainText("May not fit");
  await expect(panel.locator(".verdict")).toBeInViewport();
  await expect(panel).toContainText("A smaller file of the same model would fit: tiny-Q4_0.gguf.");
  await panel.getByRole("button", { name: "Look at that one" }).click();
  await expect(page.locator("#models .model-name")).toHaveText("Qwen/Qwen3-0.6B-GGUF/tiny-Q4_0.gguf");
  await expect(page.locator(".verdict")).toContainText("Tight");
  await accept(page);
  await expect(page.getByLabel("Your message")).toBeFocused();
});

test("terms that changed after they were shown are not accepted", async ({ page, mirror }) => {
  await start(page);
  await check(page);
  const header = mirror.weightBytes;
  mirror.files.set("README.md", card("cc-by-nc-4.0"));
  await accept(page);
  await expect(page.locator("#load-error")).toContainText("PolicyRefused");
  expect(mirror.weightBytes).toBe(header);
});

test.describe("looks", () => {
  for (const { name, viewport } of [
    { name: "phone", viewport: { width: 390, height: 844 } },
    { name: "desktop", viewport: { width: 1280, height: 860 } },
  ]) {
    for (const colorScheme of ["light", "dark"] as const) {
      test(`right on a ${name}, ${colorScheme}`, async ({ page, mirror }) => {
        await page.setViewportSize(viewport);
        await page.emulateMedia({ colorScheme });
        await start(page);
        await check(page);
        const panel = page.locator(".panel").filter({ visible: true });
        await panel.scrollIntoViewIfNeeded();
        const shoot = (state: string): Promise<Buffer> => page.screenshot({ path: `test-results/screenshots/${name}-${colorScheme}-${state}.png` });
        await shoot("models");
        await page.evaluate(async () => {
          const { store } = (await import("/pkg/dist/index.js" as string)) as typeof Headwater;
          await store.pull("Qwen/Qwen3-0.6B-GGUF:Q8_0", { endpoint: `${location.origin}/mirror` });
        });
        await page.locator("#kept summary").click();
        await expect(page.locator("#kept-models .model")).toHaveCount(1);
        await page.locator("#kept").scrollIntoViewIfNeeded();
        await shoot("kept");
        expect(mirror.requests).toBeGreaterThan(0);
        const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
        expect(wide, "pixels that stick out sideways").toBeLessThanOrEqual(0);
        for (const button of await page.locator("button:visible").all()) {
          const box = await button.boundingBox();
          expect(Math.min(box?.width ?? 0, box?.height ?? 0), "a finger's room").toBeGreaterThanOrEqual(24);
        }
      });
    }
  }
});
