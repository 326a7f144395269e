/** Conversations that are saved with their keys and values, and those that outgrow the context. */
import { expect, test } from "./lab.js";

test("a saved chat computes nothing again of what was saved; another backend and damaged files do without", async ({ lab }) => {
  const seen = await lab.evaluate(async () => {
    const { store } = headwater;
    const model = await headwater.load("embedded:tiny-assistant");
    const defaults = { temperature: 0, maxTokens: 12 };
    const chat = model.chat({ system: "You are a helpful assistant.", defaults });
    await chat.send("My name is Zelda.").result();
    await chat.send("My favorite color is green. What do I like to read, and where do I go for a walk?").result();
    const empty = await (await model.chat().save()).arrayBuffer();
    await store.chats.keep("a chat/1", await chat.save());
    const kept = await store.chats.list();
    const saved = await store.chats.open("a chat/1");
    const own = (await chat.fork().send("What is my name?").result()).text;

    const fresh = await headwater.load("embedded:tiny-assistant");
    const again = fresh.chat({ defaults });
    const before = (await fresh.stats()).promptTokens;
    const restored = await again.restore(saved);
    const reply = await again.send("What is my name?").result();
    const stats = await fresh.stats();

    const kind = (promise: Promise<unknown>): Promise<unknown> => promise.then(() => "done", (error: { kind: string }) => error.kind);
    const bytes = new Uint8Array(await saved.arrayBuffer());
    bytes[bytes.length - 5000] = 1 ^ (bytes[bytes.length - 5000] ?? 0);
    const damaged = await kind(again.restore(new Blob([bytes])));
    const cut = await kind(again.restore(saved.slice(0, saved.size - 3)));
    const messages = again.messages.length;
    await fresh.dispose();

    const cpu = await headwater.load("embedded:tiny-assistant", { backend: "cpu" });
    const elsewhere = cpu.chat({ defaults });
    const replayed = await elsewhere.restore(saved);
    const there = await elsewhere.send("What is my name?").result();
    return {
      empty: empty.byteLength, kept, own, restored, cached: reply.usage.cachedTokens, prompt: reply.usage.promptTokens, text: reply.text,
      before, counted: stats.cachedTokens, damaged, cut, messages, replayed, there: { text: there.text, cached: there.usage.cachedTokens },
      removed: [await store.chats.remove("a chat/1"), await store.chats.remove("a chat/1")],
      missing: await kind(store.chats.open("a chat/1")),
      wrong: await kind(again.restore("x" as unknown as Blob)),
    };
  });
  expect(seen.kept).toEqual([{ name: "a chat/1", sizeBytes: expect.any(Number), storedAt: expect.any(Number) }]);
  expect(seen.kept[0]?.sizeBytes, "keys and values are in it").toBeGreaterThan(100_000);
  expect(seen.empty, "a line of JSON alone").toBeLessThan(100);
  expect(seen.restored.tokens).toBeGreaterThan(50);
  expect(seen.restored.note).toBeUndefined();
  expect(seen.cached, "all of it was there").toBe(seen.restored.tokens);
  expect(seen).toMatchObject({ before: 0, counted: seen.cached, text: seen.own, damaged: "IntegrityMismatch", cut: "SizeMismatch", messages: 7 });
  expect(seen.prompt - seen.cached, "the question, and the end of the reply before it").toBeLessThan(24);
  expect(seen.replayed).toEqual({ tokens: 0, note: expect.stringContaining("another model's") });
  expect(seen.there).toEqual({ text: seen.own, cached: 0 });
  expect(seen).toMatchObject({ removed: [true, false], missing: "NotFound", wrong: "InvalidArgument" });
});

test("turns leave a conversation that is too long, and a reply goes on past the end of the context", async ({ lab }) => {
  const seen = await lab.evaluate(async () => {
    const model = await headwater.load("embedded:tiny-assistant", { context: 96 });
    const chat = model.chat({ system: "You are a helpful assistant.", defaults: { temperature: 0, maxTokens: 6 } });
    const say = async (text: string, options = {}): Promise<[number, number, boolean]> => {
      const reply = chat.send(text, options);
      let told = 0;
      for await (const { dropped } of reply) told = dropped?.messages ?? told;
      const { dropped } = await reply.result();
      return [told, dropped?.messages ?? 0, (dropped?.tokens ?? 0) > 0];
    };
    const turns: [number, number, boolean][] = [];
    for (const text of ["My name is Zelda.", "I like the sea.", "I live in Oslo.", "I have a dog.", "What is your name?"]) {
      turns.push(await say(text, { onOverflow: "truncate-middle" }));
    }
    const { usedTokens, totalTokens } = chat.contextUsage;
    const full = await say("What is your name?").catch((error: { kind: string }) => error.kind);
    const ids = Array.from({ length: 40 }, (_, i) => (i * 37 + 11) % 2000);
    const on = await model.generate(ids, { onOverflow: "sliding", ignoreEos: true, maxTokens: 70, temperature: 0 }).result();
    return { turns, full, usedTokens, totalTokens, messages: chat.messages.length, tokens: on.tokens.length, reason: on.finishReason, dropped: on.dropped };
  });
  const [first] = seen.turns;
  const last = seen.turns.at(-1);
  expect(first).toEqual([0, 0, false]);
  expect(last?.[0], "told with a piece, and with the result").toBe(last?.[1]);
  expect(last?.[1]).toBeGreaterThan(0);
  expect(last?.[2]).toBe(true);
  expect(seen).toMatchObject({ full: "ContextFull", messages: 11, tokens: 70, reason: "length", totalTokens: 96 });
  expect(seen.usedTokens).toBeLessThanOrEqual(96);
  expect(seen.dropped?.tokens).toBeGreaterThanOrEqual(24);
});
