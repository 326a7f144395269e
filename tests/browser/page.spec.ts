/** The demo page as its visitor meets it, on WebGPU. */
import { writeFileSync } from "node:fs";
import { expect, test, type Page } from "./lab.js";
import { inTree, safeCases } from "./golden.js";

const questions = safeCases.flatMap(({ messages, greedy_text }) => {
  const [only, ...more] = messages;
  return only?.role === "user" && more.length === 0 ? [{ question: only.content, answer: greedy_text }] : [];
});

async function open(page: Page, query = ""): Promise<void> {
  await page.goto(`./${query}`);
  await page.getByRole("button", { name: /Tiny Assistant/ }).click();
  await expect(page.getByLabel("Your message")).toBeFocused();
}

async function ask(page: Page, question: string): Promise<void> {
  await page.getByLabel("Your message").fill(question);
  await page.keyboard.press("Enter");
}

async function finished(page: Page): Promise<void> {
  await expect(page.getByRole("button", { name: "Regenerate" })).toBeVisible();
}

// All of them in the worker, as visitors meet it; the package's own tests ask them all of both.
for (const { where, query, count } of [
  { where: "in the worker", query: "", count: questions.length },
  { where: "on the page's own thread", query: "?worker=0", count: 1 },
]) {
  test(`answers with the reference's words, ${where}`, async ({ page }) => {
    expect(questions.length, "golden cases that one message asks").toBeGreaterThan(5);
    await open(page, query);
    await expect(page.locator("#device")).toContainText("WebGPU");
    for (const { question, answer } of questions.slice(0, count)) {
      await page.getByRole("button", { name: "New chat" }).click();
      await ask(page, question);
      await finished(page);
      await expect(page.locator(".assistant .words")).toHaveText(answer);
      await expect(page.locator(".figures")).toContainText(/\d+ tokens · [\d.]+ tokens\/s · first after [\d.]+ m?s/);
    }
    expect(page.workers().length, "workers").toBe(query === "" ? 1 : 0);
  });
}

test("what a model thinks is folded above its words", async ({ page }) => {
  await page.goto("./?model=/tests/data/scripted/");
  await expect(page.getByLabel("Your message")).toBeFocused();
  await ask(page, "Please think.");
  await finished(page);
  await expect(page.locator(".assistant .words")).toHaveText("Hi!");
  await expect(page.locator(".thought p")).toBeHidden();
  await page.getByText("Thought", { exact: true }).click();
  await expect(page.locator(".thought p")).toHaveText("Easy.");
});

test("a turn sees the turns before it; regenerating gives the same likeliest answer", async ({ page }) => {
  await open(page);
  await ask(page, "My name is Zelda.");
  await finished(page);
  await ask(page, "What is my name?");
  await expect(page.locator(".assistant .words").nth(1)).toHaveText("Your name is Zelda.");
  await finished(page);
  await page.getByRole("button", { name: "Regenerate" }).click();
  await finished(page);
  await expect(page.locator(".assistant .words")).toHaveCount(2);
  await expect(page.locator(".assistant .words").nth(1)).toHaveText("Your name is Zelda.");
  await expect(page.locator("#context")).toHaveText(/^[1-9]\d* of 512 tokens used$/);
});

test("stopping keeps what was said, and the next answer is whole", async ({ page }) => {
  await open(page);
  await ask(page, "Tell me a story about a fox and a lantern.");
  await expect(page.locator(".assistant .words")).toContainText("Once upon");
  await page.getByRole("button", { name: "Stop" }).click();
  await expect(page.locator(".figures")).toContainText("stopped");
  await expect(page.locator(".assistant .words")).not.toContainText("good to help others");
  await page.getByRole("button", { name: "New chat" }).click();
  await ask(page, "Does anything leave my device?");
  await finished(page);
  await expect(page.locator(".assistant .words")).toHaveText("What you type stays on your device. Nothing is sent to a server.");
});

test("everything can be done by keyboard, and is said to a screen reader", async ({ page }) => {
  await page.goto("./");
  await expect(page.locator("html[data-ready]")).toBeAttached();
  await page.keyboard.press("Tab");
  await expect(page.getByRole("button", { name: /Tiny Assistant/ })).toBeFocused();
  await page.keyboard.press("Tab");
  await expect(page.locator("#file")).toBeFocused();
  await page.keyboard.press("Shift+Tab");
  await page.keyboard.press("Enter");
  await expect(page.getByLabel("Your message")).toBeFocused();
  await expect(page.getByRole("status")).toHaveText(/is ready/);
  await page.keyboard.type("What are you?");
  await page.keyboard.press("Enter");
  await expect(page.getByRole("status")).toHaveText("I am Tiny Assistant, a very small language model that runs in your browser.");
  await expect(page.getByLabel("Your message")).toBeFocused();
  await page.keyboard.type("Tell me a story about a fox and a lantern.");
  await page.keyboard.press("Enter");
  await expect(page.locator(".assistant .words").nth(1)).toContainText("Once");
  await page.keyboard.press("Escape");
  await expect(page.locator(".figures").nth(1)).toContainText("stopped");
});

test("a file from the device is loaded; what is not a model is refused in words", async ({ page }, info) => {
  await page.goto("./");
  const page404 = info.outputPath("login.gguf");
  writeFileSync(page404, "<!doctype html><title>Sign in</title>".padEnd(4096, " "));
  await page.locator("#file").setInputFiles(page404);
  await expect(page.getByRole("alert").filter({ visible: true })).toContainText("UnsupportedFormat");
  await expect(page.getByRole("alert").filter({ visible: true })).toContainText("not a model that can be read here");
  await page.screenshot({ path: "test-results/screenshots/wrong-file.png" });
  await page.locator("#file").setInputFiles(inTree("www/models/tiny-assistant/tiny-assistant-q4_0.gguf"));
  await expect(page.getByLabel("Your message")).toBeFocused();
  await ask(page, "Reverse the words: bread green cat milk");
  await finished(page);
  await expect(page.locator(".assistant .words")).toHaveText("milk cat green bread");
});

test("what a model or a visitor writes is never markup", async ({ page }) => {
  await open(page);
  await ask(page, "Repeat the words: <img src=x onerror=alert(1)><b>bold</b>");
  await finished(page);
  await expect(page.locator(".user .words")).toHaveText("Repeat the words: <img src=x onerror=alert(1)><b>bold</b>");
  expect(await page.locator(".message img, .message b").count()).toBe(0);
});

test("a conversation past the context's end is refused in words and can go on anew", async ({ page }) => {
  await open(page);
  await ask(page, "word ".repeat(600));
  await expect(page.getByRole("alert").filter({ visible: true })).toContainText("ContextFull");
  await expect(page.getByRole("alert").filter({ visible: true })).toContainText("Begin a new chat");
  await page.getByRole("button", { name: "New chat" }).click();
  await ask(page, "What are you?");
  await finished(page);
  await expect(page.locator(".assistant .words")).toContainText("I am Tiny Assistant");
});

test.describe("looks", () => {
  const screens = [
    { name: "phone", viewport: { width: 390, height: 844 } },
    { name: "desktop", viewport: { width: 1280, height: 860 } },
  ];
  for (const { name, viewport } of screens) {
    for (const colorScheme of ["light", "dark"] as const) {
      test(`right on a ${name}, ${colorScheme}`, async ({ page }) => {
        await page.setViewportSize(viewport);
        await page.emulateMedia({ colorScheme });
        const shoot = (state: string): Promise<Buffer> =>
          page.screenshot({ path: `test-results/screenshots/${name}-${colorScheme}-${state}.png` });
        await page.goto("./");
        await expect(page.locator("html[data-ready]")).toBeAttached();
        await shoot("start");
        await open(page);
        await shoot("ready");
        await ask(page, "Make a list of bread, olives and green tea.");
        await finished(page);
        await ask(page, "What are you?");
        await expect(page.locator(".assistant .words")).toHaveCount(2);
        await finished(page);
        await shoot("chat");
        const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
        expect(wide, "pixels that stick out sideways").toBeLessThanOrEqual(0);
        for (const button of await page.getByRole("button").filter({ visible: true }).all()) {
          const box = await button.boundingBox();
          expect(Math.min(box?.width ?? 0, box?.height ?? 0), "a finger's room").toBeGreaterThanOrEqual(24);
        }
      });
    }
  }
});
