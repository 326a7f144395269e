/** Replies that are bound to schemas, each another one, as ajv judges them. With `HEADWATER_SWEEP` a thousand of them. */
import { Ajv2020 } from "ajv/dist/2020.js";
import formats from "ajv-formats";
import { expect, test } from "./lab.js";
import { schema } from "./schemas.js";
import { SWEEP } from "./sweep.js";

/** What is asked for at once. */
const GROUP = 8;

for (const [backend, wanted] of [["webgpu", GROUP], ["cpu", SWEEP ? 1000 : 5 * GROUP]] as const) {
  test(`${wanted} replies are valid in the eyes of another, on ${backend}`, async ({ lab }) => {
    test.setTimeout(SWEEP ? 3_600_000 : 600_000);
    const ajv = new Ajv2020({ allErrors: true, strict: false });
    formats.default(ajv);
    await lab.evaluate(async (backend) => {
      Object.assign(globalThis, { model: await headwater.load("embedded:tiny-assistant", { backend }) });
    }, backend);
    let [whole, cut] = [0, 0];
    for (let first = 0; whole < wanted; first += GROUP) {
      const schemas = Array.from({ length: GROUP }, (_, at) => schema(first + at));
      const replies = await lab.evaluate(({ schemas, first }) => {
        const { model } = globalThis as unknown as { model: Awaited<ReturnType<typeof headwater.load>> };
        return Promise.all(schemas.map(async (json, at) => {
          const options = { json, temperature: 1.5, seed: first + at, maxTokens: 300 };
          const { text, finishReason, constraintComplete } = await model.generate([{ role: "user", content: "Tell me everything." }], options).result();
          return { text, finishReason, constraintComplete };
        }));
      }, { schemas, first });
      for (const [at, { text, finishReason, constraintComplete }] of replies.entries()) {
        if (constraintComplete !== true) {
          expect(finishReason, `schema ${first + at}`).toBe("length");
          cut += 1;
          continue;
        }
        const judge = ajv.compile(schemas[at]!);
        expect(judge(JSON.parse(text)), `schema ${first + at}: ${text}: ${JSON.stringify(judge.errors)}`).toBe(true);
        whole += 1;
      }
      expect(cut, "cut by their length").toBeLessThan(GROUP + whole / 5);
    }
    console.log(`${backend}: ${whole} complete and valid, ${cut} cut by their length`);
    // A judge that judges nothing would find all of them right.
    expect(ajv.compile(schema(0))({ no: "such field" })).toBe(false);
  });
}
