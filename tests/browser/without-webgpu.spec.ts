/** A browser that has no WebGPU: it is said, with a kind for programs and in words for people, and the processor answers. */
import { expect, openLab, test } from "./lab.js";

const ANSWER = "I am Tiny Assistant, a very small language model that runs in your browser.";

test("asking for WebGPU fails with GpuUnavailable, in the worker and on the page", async ({ page }) => {
  await openLab(page);
  const seen = await page.evaluate(async () => {
    const { webgpu } = await headwater.support();
    const kinds = [];
    for (const worker of [true, false]) {
      kinds.push(await headwater.load("embedded:tiny-assistant", { backend: "webgpu", worker }).then(() => "loaded", (error: { kind: string }) => error.kind));
    }
    return { webgpu, kinds };
  });
  expect(seen.webgpu).toEqual({ available: false, reason: expect.stringMatching(/WebGPU/) });
  expect(seen.kinds).toEqual(["GpuUnavailable", "GpuUnavailable"]);
});

test("the page says so, answers on the processor, and says that", async ({ page }) => {
  await page.goto("./");
  await expect(page.locator("#gpu-notice")).toContainText("No WebGPU here");
  await expect(page.locator("#gpu-notice")).toContainText("slower");
  await page.screenshot({ path: "test-results/screenshots/without-webgpu.png" });
  await page.getByRole("button", { name: /Tiny Assistant/ }).click();
  await expect(page.getByLabel("Your message")).toBeFocused();
  await expect(page.locator("#device")).toContainText("Processor (no WebGPU, slower)");
  await page.getByRole("button", { name: "What are you?" }).click();
  await expect(page.locator(".assistant .words")).toHaveText(ANSWER);
});

test("a page that insists on WebGPU shows the error and what to do", async ({ page }) => {
  await page.goto("./?backend=webgpu");
  await page.getByRole("button", { name: /Tiny Assistant/ }).click();
  const alert = page.getByRole("alert").filter({ visible: true });
  await expect(alert).toContainText("GpuUnavailable");
  await expect(alert).toContainText("This browser gives the page no graphics device");
  await page.screenshot({ path: "test-results/screenshots/gpu-unavailable.png" });
});
