/** What the pages with a form and results share: the model's name, the work that is under way, and what went wrong. */
import type { Model } from "../pkg/dist/index.js";
import { finder } from "./dom.js";
import { explain } from "./words.js";

/** The shared part of the page `name`, and `find` for its own elements. */
export function openSheet(name: string) {
  const find = finder(name);
  const device = find("device", HTMLParagraphElement);
  const working = find("working", HTMLDivElement);
  const workingLabel = find("working-label", HTMLLabelElement);
  const progress = find("progress", HTMLProgressElement);
  const error = find("error", HTMLDivElement);
  return {
    find,
    form: find("form", HTMLFormElement),
    reference: find("reference", HTMLInputElement),
    run: find("run", HTMLButtonElement),
    results: find("results", HTMLElement),
    summary: find("summary", HTMLParagraphElement),
    rows: find("rows", HTMLTableSectionElement),

    /** Says what is under way, and how much of it is done. */
    work(words: string, share = 0): void {
      working.hidden = false;
      workingLabel.textContent = words;
      progress.value = share;
    },

    /** Names a model and what computes. */
    name({ info }: Model): void {
      device.textContent = [info.name, info.backend.name, info.backend.device].filter(Boolean).join(" · ");
      device.hidden = false;
    },

    /** Does what a form asks for; an error is told, unless the visitor ended the work. */
    async during(task: () => Promise<void>, signal?: AbortSignal): Promise<void> {
      error.hidden = true;
      try {
        await task();
      } catch (thrown) {
        if (signal?.aborted) return;
        const { words, advice } = explain(thrown);
        error.textContent = [words, advice].filter(Boolean).join(" ");
        error.hidden = false;
      } finally {
        working.hidden = true;
      }
    },
  };
}
