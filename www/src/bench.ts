/**
 * The bench page: a model's rates on the reader's device as a plot and a table, and each kernel's time as bars; beside them
 * those of wllama on the same file, where the server has it.
 */
import { HeadwaterError, load, type BenchReport, type KernelTime, type LoadOptions, type Model } from "../pkg/dist/index.js";
import { make } from "./dom.js";
import { wllama, type Rates } from "./peer.js";
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
  comparable: sheet.find("comparable", HTMLLabelElement),
  compare: sheet.find("compare", HTMLInputElement),
  peers: sheet.find("peers", HTMLElement),
  peerRows: sheet.find("peer-rows", HTMLTableSectionElement),
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
    page.peers.hidden = true;
    const reports: BenchReport[] = [];
    for (const [index, depth] of asked.entries()) {
      sheet.work(`Measuring behind ${depth} tokens`, index / asked.length);
      // Kernels take the same time behind any number of tokens but for attention; once is enough to see where it goes.
      const profile = page.profile.checked && index === asked.length - 1;
      reports.push(await model.bench({ prefill: page.prefill.valueAsNumber, decode: page.decode.valueAsNumber, depth, profile }));
      show(reports);
    }
    if (page.compare.checked) await compare(model, files);
  } finally {
    await model.dispose();
  }
}

/** Turns that each engine takes; the median counts. */
const TURNS = 3;

/** Rates of this engine and of wllama, on one thread, in turns behind nothing. */
async function compare(model: Model, picked: readonly File[]): Promise<void> {
  const files = picked.length > 0 ? picked : await embedded(sheet.reference.value.trim());
  const request = { prefill: page.prefill.valueAsNumber, decode: page.decode.valueAsNumber };
  sheet.work("Loading wllama");
  const context = request.prefill + request.decode + 8;
  const peer = await wllama(files, async (text) => (await model.tokenize(text)).length, { threads: 1, context });
  try {
    const ours: Rates[] = [];
    const theirs: Rates[] = [];
    // The first turn warms up.
    for (let turn = 0; turn <= TURNS; turn++) {
      sheet.work("Measuring in turns with wllama", turn / (TURNS + 1));
      const { prefill, decode } = await model.bench(request);
      const rates = await peer.measure(turn, request);
      if (turn === 0) continue;
      ours.push({ prefill: prefill.tokensPerSecond, decode: decode.tokensPerSecond });
      theirs.push(rates);
    }
    const { name, device } = model.info.backend;
    const lines = [[`headwater, ${[name, device].filter(Boolean).join(", ")}`, ours], ["wllama, processor, one thread", theirs]] as const;
    page.peerRows.replaceChildren(...lines.map(([engine, turns]) => cells([engine, rate(median(turns, "prefill")), rate(median(turns, "decode"))])));
    page.peers.hidden = false;
  } finally {
    await peer.close();
  }
}

/** The file of the model that comes with the page; wllama knows no other reference of ours. */
async function embedded(reference: string): Promise<Blob[]> {
  if (reference !== "embedded:tiny-assistant") {
    throw new HeadwaterError("InvalidArgument", "beside wllama a model is measured that is a file of this device, or the one that comes with this page");
  }
  return [await (await fetch("models/tiny-assistant/tiny-assistant-q8_0.gguf")).blob()];
}

function median(turns: readonly Rates[], part: keyof Rates): number {
  return turns.map((turn) => turn[part]).sort((a, b) => a - b)[Math.floor(turns.length / 2)] ?? NaN;
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
  return cells([depth.toLocaleString("en"), rate(prefill.tokensPerSecond), rate(decode.tokensPerSecond), decodeCounters.dispatches.toFixed(0), bytesPerToken.toLocaleString("en"), ((bytesPerToken * decode.tokensPerSecond) / 1e9).toPrecision(2)]);
}

function cells(texts: readonly string[]): HTMLTableRowElement {
  const line = make("tr", "");
  line.append(...texts.map((text) => make("td", "", text)));
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

// Only a server that says so by its link has it; nothing is asked for otherwise.
page.comparable.hidden = !new URLSearchParams(location.search).has("peers");
