/** The choice of a model from the hub: search, check, see the terms, accept, open. */
import { fit, type Fit, type FitChoice, type License, type Obligation } from "../pkg/dist/index.js";
import { search, typedReference, type Entry } from "./catalog.js";
import { make } from "./dom.js";
import { announce, elements, showError } from "./elements.js";
import { HUB_NAME, hubOptions, licenseKey, setToken, toReference, type Accepted } from "./hub.js";
import { bytes } from "./words.js";

/** What a licence asks for, as the page says it. */
const OBLIGATIONS: Record<Obligation, string> = {
  attribution: "credit has to be shown",
  naming: "derived models carry its name",
  notice: "copies come with its notice",
  "user-count": "very large services need an agreement of their own",
  "revenue-limit": "limited to companies below a revenue",
  "acceptable-use": "some uses are forbidden",
  "non-commercial": "not for commercial use",
  "share-alike": "derived works under the same terms",
  region: "not licensed in every region",
};

const VERDICTS: Record<Fit["verdict"], string> = { fits: "Fits", tight: "Tight", no: "May not fit" };

type Open = (accepted: Accepted) => void;

/** A line of the list, made once so that a search does not lose what was found out. */
interface Line {
  readonly entry: Entry;
  readonly item: HTMLLIElement;
}

const lines = new Map<string, Line>();

/** Makes the list work. `open` is told what to open, once its terms are accepted. */
export function startPicker(open: Open): void {
  elements.hubName.textContent = HUB_NAME;
  const show = (): void => list(elements.search.value, open);
  elements.search.addEventListener("input", show);
  elements.finder.addEventListener("submit", (event) => {
    event.preventDefault();
    elements.models.querySelector<HTMLButtonElement>("button.check")?.click();
  });
  elements.token.addEventListener("input", () => setToken(elements.token.value));
  show();
}

function list(query: string, open: Open): void {
  const typed = typedReference(query);
  const entries = [...search(query)];
  if (typed !== undefined && !entries.some(({ reference }) => reference === typed)) {
    entries.unshift({ name: typed, reference: typed, license: "", bytes: 0, note: `As you wrote it, from ${HUB_NAME}.`, words: "" });
  }
  elements.models.replaceChildren(...entries.map((entry) => line(entry, open).item));
  elements.noModels.hidden = entries.length > 0;
}

function line(entry: Entry, open: Open): Line {
  const known = lines.get(entry.reference);
  if (known !== undefined) return known;
  const item = make("li", "model");
  const words = make("div", "model-words");
  const name = make("p", "model-name", entry.name);
  if (entry.license !== "") name.append(" ", make("span", "badge", entry.license));
  const tag = entry.reference.split(":")[1];
  const size = entry.bytes === 0 ? [] : [`about ${bytes(entry.bytes)}`];
  words.append(name, make("p", "fine", [...(tag === undefined || entry.bytes === 0 ? [] : [tag.toUpperCase()]), ...size, entry.note].join(" · ")));
  const check = make("button", "quiet check", "Check");
  check.type = "button";
  check.setAttribute("aria-label", `Check ${entry.name}`);
  const panel = make("div", "panel");
  panel.hidden = true;
  item.append(words, check, panel);
  let checking: AbortController | undefined;
  check.addEventListener("click", () => {
    if (checking !== undefined) return checking.abort();
    checking = new AbortController();
    check.textContent = "Cancel";
    void look(entry, panel, checking.signal, open).finally(() => {
      checking = undefined;
      check.textContent = "Check again";
    });
  });
  const made = { entry, item };
  lines.set(entry.reference, made);
  return made;
}

/** Asks the hub what a model is, and shows it. */
async function look(entry: Entry, panel: HTMLElement, signal: AbortSignal, open: Open): Promise<void> {
  panel.hidden = false;
  panel.replaceChildren(make("p", "fine waiting", `Asking ${HUB_NAME} `));
  announce(`Asking about ${entry.name}`);
  const reference = toReference(entry.reference);
  try {
    const found = await fit(reference, { ...hubOptions(), signal });
    show(entry, reference, found, panel, open);
    announce(`${entry.name}: ${VERDICTS[found.verdict]}`);
  } catch (error) {
    if (signal.aborted) {
      panel.hidden = true;
      return;
    }
    const notice = make("div", "notice error");
    notice.setAttribute("role", "alert");
    panel.replaceChildren(notice);
    showError(notice, error);
  }
}

function show(entry: Entry, reference: string, found: Fit, panel: HTMLElement, open: Open): void {
  const { origin } = found.model;
  if (origin === undefined) return;
  const verdict = make("p", "verdict");
  verdict.dataset["verdict"] = found.verdict;
  verdict.append(make("strong", "badge", VERDICTS[found.verdict]), ` takes ${bytes(found.totalBytes)} of memory${limit(found)}.`);
  const facts = make("dl", "facts");
  const fact = (name: string, value: string): void => facts.append(make("dt", "", name), make("dd", "", value));
  fact("Model", `${found.model.name} (${found.model.architecture})`);
  fact("Weights", `${bytes(found.weightBytes)}: ${Object.keys(found.model.formats).join(", ")}`);
  fact("Context", `${found.context} tokens, ${bytes(found.kvBytes)}`);
  fact(origin.kept ? "Kept" : "To fetch", origin.kept ? "on this device already" : `${bytes(found.fetchBytes)} from ${HUB_NAME}`);
  if (!origin.kept && found.freeBytes !== null) fact("Room left", bytes(found.freeBytes));
  fact("Version", `commit ${origin.commit.slice(0, 10)}`);
  const notes = found.notes.map((note) => make("p", "fine", `${note[0]?.toUpperCase() ?? ""}${note.slice(1)}.`));
  const changed = found.choices.find((choice) => choice.reference === undefined)?.options;
  if (changed !== undefined) notes.push(make("p", "fine", `It is opened with ${inWords(changed)}, which fits.`));
  const smaller = found.choices.find((choice) => choice.reference !== undefined)?.reference;
  if (smaller !== undefined) notes.push(instead(smaller));
  const accepted: Accepted = { reference, name: entry.name, license: licenseKey(origin.license), changed };
  panel.replaceChildren(verdict, facts, ...notes, ...terms(origin.license), ...consent(accepted, found, origin.kept, open));
}

/** What is changed so that a model fits. */
function inWords({ context, kvFormat, quantize, backend }: FitChoice["options"]): string {
  const words = [
    context === undefined ? "" : `a context of ${context} tokens`,
    kvFormat === undefined ? "" : `keys and values as ${kvFormat}`,
    quantize === undefined ? "" : `weights made smaller (${quantize})`,
    backend === undefined ? "" : "the processor in place of the graphics card",
  ];
  return words.filter((text) => text !== "").join(", ");
}

/** Offers to look at a smaller file of the same model. */
function instead(reference: string): HTMLParagraphElement {
  const plain = reference.replace(/^hf:/, "");
  const look = make("button", "quiet", "Look at that one");
  look.type = "button";
  look.addEventListener("click", () => {
    elements.search.value = plain;
    elements.search.dispatchEvent(new Event("input"));
    elements.finder.requestSubmit();
  });
  const line = make("p", "fine", `A smaller file of the same model would fit: ${plain.split("/").slice(2).join("/")}. `);
  line.append(look);
  return line;
}

/** What it was compared with. */
function limit({ limits }: Fit): string {
  return limits.memoryBytes === null ? "" : `; this browser tells of ${bytes(limits.memoryBytes)}`;
}

function terms(license: License): HTMLElement[] {
  const line = make("p", "");
  line.append("Licence: ");
  const name = license.name ?? license.id ?? "none is told";
  if (license.link !== null && /^https:\/\//.test(license.link)) {
    const link = make("a", "", name);
    link.href = license.link;
    link.target = "_blank";
    link.rel = "noopener noreferrer";
    line.append(link);
  } else line.append(make("strong", "", name));
  line.append(license.obligations.length > 0 ? `: ${license.obligations.map((one) => OBLIGATIONS[one]).join("; ")}.` : ".");
  const more: HTMLElement[] = [];
  if (!license.known) more.push(make("p", "fine", "What it asks for is not known here; read it before you accept."));
  if (license.gated) more.push(make("p", "fine", "Its terms have to be accepted on the hub, and it wants an access token (below)."));
  if (license.baseModels.length > 0) more.push(make("p", "fine", `Made from ${license.baseModels.join(", ")}.`));
  return [line, ...more];
}

function consent(accepted: Accepted, { fetchBytes }: Fit, kept: boolean, open: Open): HTMLElement[] {
  const go = make("button", "send", kept ? "Open" : `Fetch ${bytes(fetchBytes)} and open`);
  go.type = "button";
  go.addEventListener("click", () => open(accepted));
  if (kept) return [go];
  go.disabled = true;
  const label = make("label", "accept");
  const box = make("input", "");
  box.type = "checkbox";
  box.addEventListener("change", () => {
    go.disabled = !box.checked;
  });
  label.append(box, " I accept the licence");
  return [label, go];
}
