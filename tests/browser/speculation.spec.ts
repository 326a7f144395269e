/** Drafts of what a reply copies, in the browser: the same ids, and fewer steps. */
import { expect, test } from "./lab.js";

test("a reply with drafts is the reply without", async ({ lab }) => {
  test.setTimeout(240_000);
  for (const backend of ["webgpu", "cpu"] as const) {
    const seen = await lab.evaluate(async (backend) => {
      const model = await headwater.load("embedded:tiny-assistant", { backend });
      const prompt = Array.from({ length: 12 }, () => 1);
      const of = (speculation: "lookup" | "off", rest: object) =>
        model.generate(prompt, { maxTokens: 48, ignoreEos: true, seed: 7, speculation, ...rest }).result();
      const tell = async (rest: object) => {
        const [plain, drafted] = [await of("off", rest), await of("lookup", rest)];
        return { plain: [...plain.tokens], drafted: [...drafted.tokens], counts: drafted.speculation, without: plain.speculation };
      };
      const greedy = await tell({ temperature: 0, repetitionPenalty: 1 });
      const drawn = await tell({ temperature: 0.7, repetitionPenalty: 1 });
      const refused = await of("guess" as "off", {}).catch((error: unknown) => [(error as Error & { kind: string }).kind, (error as Error).message]);
      const stats = (await model.stats()).speculation;
      await model.dispose();
      return { greedy, drawn, refused, stats };
    }, backend);
    expect(seen.greedy.drafted).toEqual(seen.greedy.plain);
    expect(seen.drawn.drafted).toEqual(seen.drawn.plain);
    const { greedy, drawn } = seen;
    // What repeats itself was expected, and came in fewer steps than ids.
    expect(greedy.counts?.accepted, backend).toBeGreaterThan(10);
    expect(greedy.without).toBeUndefined();
    expect(seen.stats.accepted).toBe((greedy.counts?.accepted ?? 0) + (drawn.counts?.accepted ?? 0));
    expect(seen.refused).toEqual(["InvalidArgument", expect.stringContaining("\"lookup\"")]);
  }
});
