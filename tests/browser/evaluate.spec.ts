/** The page that runs a multiple-choice evaluation, as a reader uses it. */
import { expect, test } from "./lab.js";

test("questions are judged, line by line, and what cannot be read is named", async ({ page }) => {
  await page.goto("evaluate.html");
  await page.getByRole("button", { name: "Run" }).click();
  const rows = page.locator("#rows tr");
  await expect(rows).toHaveCount(4);
  await expect(page.locator("#summary")).toHaveText(/^\d of 4 right \(\d+ %\); by length \d of 4 right \(\d+ %\)\.$/);
  // What the model comes with a golden reply for.
  await expect(rows.last().locator("td").last()).toHaveText("right");
  await expect(rows.last().locator("li").first()).toContainText("What you type stays on your device.");
  await expect(page.locator("#device")).toContainText("Tiny Assistant");

  await page.getByLabel(/^Questions/).fill('{"question": "Make a list of apples and pears.", "choices": ["- apples"], "answer": 0}');
  await page.getByRole("button", { name: "Run" }).click();
  await expect(page.getByRole("alert")).toContainText('line 1: "choices" are not two or more texts');
  await page.getByLabel(/^Questions/).fill("\n{nothing}");
  await page.getByRole("button", { name: "Run" }).click();
  await expect(page.getByRole("alert")).toContainText("line 2 is not JSON");
  await page.getByLabel("Model").fill("/nowhere/model.gguf");
  await page.getByLabel(/^Questions/).fill('{"question": "?", "choices": ["a", "b"], "answer": 0}');
  await page.getByRole("button", { name: "Run" }).click();
  await expect(page.getByRole("alert")).toContainText("404");
});
