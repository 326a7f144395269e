/** `/v1/...` for a whole site: from plain fetches of other pages, streamed, when pages come and go. */
import { expect, openLab, test, type Page } from "./lab.js";

const ASKED = {
  model: "tiny",
  messages: [{ role: "user", content: "Does anything leave my device?" }],
  temperature: 0,
};
const ANSWER = "What you type stays on your device. Nothing is sent to a server.";
const SCRIPT = "/tests/browser/sw.js";

declare global {
  var serving: { stop(): void };
}

async function serve(page: Page): Promise<void> {
  await page.evaluate(async (script) => {
    const url = "/pkg/dist/service-worker/index.js";
    const { serve } = (await import(url)) as typeof import("headwater/service-worker");
    globalThis.model = await headwater.load("embedded:tiny-assistant", { worker: "shared" });
    globalThis.serving = await serve({ tiny: model }, { script });
  }, SCRIPT);
}

/** A chat completion by a plain fetch, whole. */
async function ask(page: Page): Promise<unknown> {
  return page.evaluate(async (body) => {
    const answer = await fetch("/v1/chat/completions", { method: "POST", body: JSON.stringify(body) });
    const { choices, error } = (await answer.json()) as { choices?: { message: { content: string } }[]; error?: { code: string } };
    return { status: answer.status, said: choices?.[0]?.message.content ?? error?.code };
  }, ASKED);
}

test("a page that imports nothing is answered by another one, whole and streamed", async ({ lab }) => {
  await serve(lab);
  const other = await lab.context().newPage();
  await other.goto("tests/browser/blank.html");
  expect(await ask(other)).toEqual({ status: 200, said: ANSWER });
  const streamed = await other.evaluate(async (body) => {
    const answer = await fetch("/v1/chat/completions", { method: "POST", body: JSON.stringify({ ...body, stream: true }) });
    const chunks: string[] = [];
    for (const reader = answer.body!.pipeThrough(new TextDecoderStream()).getReader(); ;) {
      const { done, value } = await reader.read();
      if (done) break;
      chunks.push(value);
    }
    const lines = chunks.join("").split("\n\n").filter((line) => line !== "");
    const said = lines.slice(0, -1).map((line) => (JSON.parse(line.slice("data: ".length)) as { choices: { delta: { content?: string } }[] }).choices[0]?.delta.content ?? "");
    return { type: answer.headers.get("content-type"), parts: chunks.length > 2, said: said.join(""), last: lines.at(-1) };
  }, ASKED);
  expect(streamed).toEqual({ type: "text/event-stream; charset=utf-8", parts: true, said: ANSWER, last: "data: [DONE]" });

  // Errors, methods and other addresses.
  const others = await other.evaluate(async () => {
    const status = async (path: string, init?: RequestInit): Promise<number> => (await fetch(path, init)).status;
    return {
      models: await (await fetch("/v1/models")).json() as unknown,
      unknown: await status("/v1/nothing"),
      method: await status("/v1/chat/completions"),
      model: await status("/v1/chat/completions", { method: "POST", body: '{"model": "other", "messages": []}' }),
      page: await status("/tests/browser/blank.html"),
      early: await fetch("/v1/chat/completions", { method: "POST", body: "{}", signal: AbortSignal.abort() }).catch((error: Error) => error.name),
    };
  });
  expect(others).toMatchObject({ models: { data: [{ id: "tiny" }] }, unknown: 404, model: 404, page: 200, early: "AbortError" });
  expect(others.method).toBeGreaterThanOrEqual(400);

  // A reader that goes away ends the reply: the next one is not kept waiting by it.
  const ended = await other.evaluate(async (body) => {
    const abort = new AbortController();
    const long = { ...body, stream: true, max_tokens: 400, ignore_eos: true };
    const answer = await fetch("/v1/chat/completions", { method: "POST", body: JSON.stringify(long), signal: abort.signal });
    const reader = answer.body!.getReader();
    await reader.read();
    abort.abort();
    return reader.read().then(() => "it went on", (error: Error) => error.name);
  }, ASKED);
  expect(ended).toBe("AbortError");
  expect(await ask(other)).toEqual({ status: 200, said: ANSWER });
  await lab.evaluate(() => serving.stop());
  expect(await ask(other)).toEqual({ status: 503, said: "model_not_loaded" });
  await other.close();
});

test("the next page answers when one is closed, also after the browser ended the worker", async ({ lab }) => {
  await serve(lab);
  const other = await lab.context().newPage();
  await openLab(other);
  await serve(other);
  expect(await ask(lab)).toEqual({ status: 200, said: ANSWER });
  await other.close();
  expect(await ask(lab)).toEqual({ status: 200, said: ANSWER });
  // What it knew of pages is gone with it.
  const tools = await lab.context().newCDPSession(lab);
  await tools.send("ServiceWorker.enable");
  await tools.send("ServiceWorker.stopAllWorkers");
  expect(await ask(lab)).toEqual({ status: 200, said: ANSWER });
  await lab.evaluate(() => serving.stop());
});

test("a request on its way when its page stops is refused, or answered by the page's other models", async ({ lab }) => {
  await serve(lab);
  const seen = await lab.evaluate(async () => {
    const url = "/pkg/dist/service-worker/index.js";
    const { serve } = (await import(url)) as typeof import("headwater/service-worker");
    const statuses = [];
    // The worker hears of the stop before the request or after it, as it comes.
    for (let round = 0; round < 6; round += 1) {
      const answer = fetch("/v1/models");
      serving.stop();
      statuses.push((await answer).status);
      globalThis.serving = await serve({ tiny: model });
    }
    const second = await serve({ other: model });
    const ids = async (): Promise<string[]> => ((await (await fetch("/v1/models")).json()) as { data: { id: string }[] }).data.map(({ id }) => id);
    const both = await ids();
    second.stop();
    return { statuses: [...new Set(statuses)], both, first: await ids() };
  });
  expect(seen).toEqual({ statuses: [503], both: ["other"], first: ["tiny"] });
  await lab.evaluate(() => serving.stop());
});

test("what cannot be served is refused by its kind", async ({ lab }) => {
  const kinds = await lab.evaluate(async () => {
    const url = "/pkg/dist/service-worker/index.js";
    const { serve } = (await import(url)) as typeof import("headwater/service-worker");
    const kind = (work: Promise<unknown>): Promise<string> => work.then(() => "it worked", (error: InstanceType<typeof headwater.HeadwaterError>) => `${error.kind} ${error.details.at ?? ""}`);
    return [
      await kind(serve({} as never, { colour: 1 } as never)),
      await kind(serve({ any: {} as never }, { script: "/nowhere/sw.js" })),
    ];
  });
  expect(kinds).toEqual(["InvalidArgument colour", "Network script"]);
});
