/** The bench page: a model's rates on the reader's device as a plot and a table, and each kernel's time as bars. */
import { HeadwaterError, load, type BenchReport, type KernelTime, type LoadOptions } from "../pkg/dist/index.js";
import { finder, make } from "./dom.js";
import { plot } from "./plot.js";
import { explain } from "./words.js";

const element = finder("bench.html");

const page = {
  device: element("device", HTMLParagraphElement),
  form: element("form", HTMLFormElement),
  reference: element("reference", HTMLInputElement),
  file: element("file", HTMLInputElement),
  backend: element("backend", HTMLSelectElement),
  prefill: element("prefill", HTMLInputElement),
  decode: element("decode", HTMLInputElement),
  depths: element("depths", HTMLInputElement),
  profile: element("profile", HTMLInputElement),
  run: element("run", HTMLButtonElement),
  working: element("working", HTMLDivElement),
  workingLabel: element("working-label", HTMLLabelElement),
  progress: element("progress", HTMLProgressElement),
  error: element("error", HTMLDivElement),
  results: element("results", HTMLElement),
  summary: element("summary", HTMLParagraphElement),
  plot: element("plot", HTMLDivElement),
  rows: element("rows", HTMLTableSectionElement),
  notes: element("notes", HTMLParagraphElement),
  kernels: element("kernels", HTMLElement),
  kernelsPrefill: element("kernels-prefill", HTMLOListElement),
  kernelsDecode: element("kernels-decode", HTMLOListElement),
};

/** Tokens before, in rising order. */
function depths(text: string): number[] {
  const read = text.split(/[\s,]+/).filter((word) => word !== "").map(Number);
  if (read.length === 0 || !read.every((depth) => Number.isInteger(depth) && depth >= 0)) {
    throw new HeadwaterError("InvalidArgument", `"${text}" is not a list of numbers of tokens`);
  }
  return [...new Set(read)].sort((a, b) => a - b);
}

async function measure(): Promise<void> {
  const asked = depths(page.depths.value);
  const files = [...(page.file.files ?? [])];
  const options: LoadOptions = {
    backend: page.backend.value as NonNullable<LoadOptions["backend"]>,
    onProgress: ({ loadedBytes, totalBytes }) => work("Loading", totalBytes > 0 ? loadedBytes / totalBytes : 0),
  };
  work("Loading", 0);
  const model = await load(files.length > 0 ? files : page.reference.value.trim(), options);
  try {
    const { name, device } = model.info.backend;
    page.device.textContent = [model.info.name, name, device].filter(Boolean).join(" · ");
    page.device.hidden = false;
    const reports: BenchReport[] = [];
    for (const [index, depth] of asked.entries()) {
      work(`Measuring behind ${depth} tokens`, index / asked.length);
      // Kernels take the same time behind any number of tokens but for attention; once is enough to see where it goes.
      const profile = page.profile.checked && index === asked.length - 1;
      reports.push(await model.bench({ prefill: page.prefill.valueAsNumber, decode: page.decode.valueAsNumber, depth, profile }));
      show(reports);
    }
  } finally {
    await model.dispose();
  }
}

function work(words: string, share: number): void {
  page.working.hidden = false;
  page.workingLabel.textContent = words;
  page.progress.value = share;
}

function show(reports: readonly BenchReport[]): void {
  const line = (name: "prefill" | "decode") => ({ name, points: reports.map((report) => [report.depth, report[name].tokensPerSecond] as const) });
  const last = reports.at(-1);
  if (last === undefined) return;
  const told = `${rate(reports[0]?.prefill.tokensPerSecond ?? 0)} tokens a second of a prompt, ${rate(reports[0]?.decode.tokensPerSecond ?? 0)} of a reply`;
  page.summary.textContent = `${told}, behind ${reports[0]?.depth} tokens.`;
  page.plot.replaceChildren(plot([line("prefill"), line("decode")], told));
  page.rows.replaceChildren(...reports.map(row));
  page.notes.textContent = [...new Set(reports.flatMap(({ notes }) => notes))].join(" ");
  page.results.hidden = false;
  page.kernels.hidden = last.profile === undefined;
  if (last.profile === undefined) return;
  page.kernelsPrefill.replaceChildren(...bars(last.profile.prefill));
  page.kernelsDecode.replaceChildren(...bars(last.profile.decode));
}

function row(report: BenchReport): HTMLTableRowElement {
  const { depth, prefill, decode, decodeCounters, bytesPerToken } = report;
  const line = make("tr", "");
  const cells = [depth.toLocaleString("en"), rate(prefill.tokensPerSecond), rate(decode.tokensPerSecond), decodeCounters.dispatches.toFixed(0), bytesPerToken.toLocaleString("en"), ((bytesPerToken * decode.tokensPerSecond) / 1e9).toPrecision(2)];
  line.append(...cells.map((text) => make("td", "", text)));
  return line;
}

function rate(value: number): string {
  return value >= 100 ? value.toFixed(0) : value.toPrecision(3);
}

/** Kernels with the share of the time that each takes, the longest first. */
function bars(kernels: readonly KernelTime[]): HTMLLIElement[] {
  const sum = kernels.reduce((sum, { secs }) => sum + secs, 0);
  return [...kernels].sort((a, b) => b.secs - a.secs).map(({ kernel, format, shape, dispatches, secs }) => {
    const item = make("li", "");
    const bar = make("meter", "");
    bar.value = sum > 0 ? secs / sum : 0;
    const what = [kernel, format, shape?.join(" × "), dispatches > 1 ? `${dispatches} launches` : ""].filter(Boolean).join(", ");
    item.append(bar, make("span", "", what), make("span", "fine", `${(1e3 * secs).toPrecision(3)} ms, ${(100 * bar.value).toFixed(0)} %`));
    return item;
  });
}

page.form.addEventListener("submit", async (event) => {
  event.preventDefault();
  page.run.disabled = true;
  page.error.hidden = true;
  try {
    await measure();
  } catch (error) {
    const { words, advice } = explain(error);
    page.error.textContent = [words, advice].filter(Boolean).join(" ");
    page.error.hidden = false;
  } finally {
    page.working.hidden = true;
    page.run.disabled = false;
  }
});
