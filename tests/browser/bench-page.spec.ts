/** The page that measures a model on the reader's device. */
import { expect, test } from "./lab.js";

test("rates are shown as a plot and a table, kernels as bars, and what cannot be measured is named", async ({ page }) => {
  await page.goto("bench.html");
  // No server says here that it has another engine.
  await expect(page.locator("#comparable")).toBeHidden();
  await page.getByLabel("Prompt, tokens").fill("16");
  await page.getByLabel("Reply, tokens").fill("8");
  await page.getByLabel("Tokens before").fill("64, 0");
  await page.getByLabel("Time each kernel").check();
  await page.getByRole("button", { name: "Run" }).click();
  const rows = page.locator("#rows tr");
  await expect(rows).toHaveCount(2);
  await expect(page.locator("#kernels-decode li").first()).toContainText("ms");
  expect(await rows.locator("td:first-child").allTextContents()).toEqual(["0", "64"]);
  for (const text of await rows.locator("td:nth-child(2), td:nth-child(3)").allTextContents()) expect(Number(text)).toBeGreaterThan(0);
  await expect(page.locator("#plot svg")).toHaveAttribute("aria-label", /tokens a second of a prompt/);
  await expect(page.locator("#plot polyline.prefill, #plot polyline.decode")).toHaveCount(2);
  await expect(page.locator("#plot circle")).toHaveCount(4);
  // The longest first, and together the whole.
  const shares = await page.locator("#kernels-decode meter").evaluateAll((bars) => bars.map((bar) => (bar as HTMLMeterElement).value));
  expect(shares).toEqual([...shares].sort((a, b) => b - a));
  expect(shares.reduce((sum, share) => sum + share, 0)).toBeCloseTo(1, 6);
  await expect(page.locator("#device")).toContainText("Tiny Assistant");
  await page.screenshot({ path: "test-results/screenshots/bench.png", fullPage: true });

  await page.getByLabel("Backend").selectOption("cpu");
  await page.getByLabel("Time each kernel").uncheck();
  await page.getByRole("button", { name: "Run" }).click();
  await expect(page.locator("#kernels")).toBeHidden();
  await expect(page.locator("#device")).toContainText("cpu");
  await expect(rows).toHaveCount(2);

  await page.getByLabel("Tokens before").fill("many");
  await page.getByRole("button", { name: "Run" }).click();
  await expect(page.getByRole("alert")).toContainText('"many" is not a list of numbers of tokens');
});
