/** Asks the demo page one question, as a visitor would, and writes the answer to standard output as it comes. */
import { address, launch } from "./chromium.mjs";

/** Long enough for a software device on a busy machine. */
const LOAD_MS = 300_000;
const ANSWER_MS = 900_000;

const question = process.argv[2];
if (question === undefined || question.trim() === "") {
  console.error("usage: node ask.mjs QUESTION");
  process.exit(2);
}

const browser = await launch();
try {
  const page = await browser.newPage();
  page.on("console", (message) => {
    if (message.type() === "error") console.error(message.text());
  });
  await page.exposeFunction("tell", (text) => process.stdout.write(text));
  await page.goto(address());
  await page.getByRole("button", { name: /Tiny Assistant/ }).click();
  await page.locator("#chat:not([hidden]), #load-error:not([hidden])").waitFor({ timeout: LOAD_MS });
  await failWith(page, "#load-error");
  // What the page writes, watched from outside: it has no part for this.
  await page.evaluate(() => {
    let told = 0;
    new MutationObserver(() => {
      const text = document.querySelector(".assistant .words")?.textContent ?? "";
      if (text.length > told) globalThis.tell(text.slice(told));
      told = Math.max(told, text.length);
    }).observe(document.querySelector("#messages"), { childList: true, subtree: true, characterData: true });
  });
  await page.getByLabel("Your message").fill(question);
  await page.getByRole("button", { name: "Send" }).click();
  await page.locator(".assistant .again, #chat-error:not([hidden])").waitFor({ timeout: ANSWER_MS });
  await failWith(page, "#chat-error");
  process.stdout.write("\n");
  console.error(`${await page.locator("#device").textContent()}: ${await page.locator(".figures").innerText()}`);
} finally {
  await browser.close();
}

async function failWith(page, notice) {
  const place = page.locator(notice);
  if (await place.isVisible()) {
    process.exitCode = 1;
    throw new Error(await place.innerText());
  }
}
