/** The bench page: a model's rates on the reader's device as a plot and a table, and each kernel's time as bars. */
import { HeadwaterError, load, type BenchReport, type KernelTime, type LoadOptions } from "../pkg/dist/index.js";
import { make } from "./dom.js";
import { plot } from "./plot.js";
import { openSheet } from "./sheet.js";

const sheet = openSheet("bench.html");

const page = {
  file: sheet.find("file", HTMLInputElement),
  backend: sheet.find("backend", HTMLSelectElement),
  prefill: sheet.find("prefill", HTMLInputElement),
  decode: sheet.find("decode", HTMLInputElement),
  depths: sheet.find("depths", HTMLInputElement),
  profile: sheet.find("profile", HTMLInputElement),
  plot: sheet.find("plot", HTMLDivElement),
  notes: sheet.find("notes", HTMLParagraphElement),
  kernels: sheet.find("kernels", HTMLElement),
  kernelsPrefill: sheet.find("kernels-prefill", HTMLOListElement),
  kernelsDecode: sheet.find("kernels-decode", HTMLOListElement),
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
    onProgress: ({ loadedBytes, totalBytes }) => sheet.work("Loading", totalBytes > 0 ? loadedBytes / totalBytes : 0),
  };
  sheet.work("Loading", 0);
  const model = await load(files.length > 0 ? files : sheet.reference.value.trim(), options);
  try {
    sheet.name(model);
    const reports: BenchReport[] = [];
    for (const [index, depth] of asked.entries()) {
      sheet.work(`Measuring behind ${depth} tokens`, index / asked.length);
      // Kernels take the same time behind any number of tokens but for attention; once is enough to see where it goes.
      const profile = page.profile.checked && index === asked.length - 1;
      reports.push(await model.bench({ prefill: page.prefill.valueAsNumber, decode: page.decode.valueAsNumber, depth, profile }));
      show(reports);
    }
  } finally {
    await model.dispose();
  }
}

function show(reports: readonly BenchReport[]): void {
  const line = (name: "prefill" | "decode") => ({ name, points: reports.map((report) => [report.depth, report[name].tokensPerSecond] as const) });
  const last = reports.at(-1);
  if (last === undefined) return;
  const told = `${rate(reports[0]?.prefill.tokensPerSecond ?? 0)} tokens a second of a prompt, ${rate(reports[0]?.decode.tokensPerSecond ?? 0)} of a reply`;
  sheet.summary.textContent = `${told}, behind ${reports[0]?.depth} tokens.`;
  page.plot.replaceChildren(plot([line("prefill"), line("decode")], told));
  sheet.rows.replaceChildren(...reports.map(row));
  page.notes.textContent = [...new Set(reports.flatMap(({ notes }) => notes))].join(" ");
  sheet.results.hidden = false;
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

sheet.form.addEventListener("submit", async (event) => {
  event.preventDefault();
  sheet.run.disabled = true;
  await sheet.during(measure);
  sheet.run.disabled = false;
});
