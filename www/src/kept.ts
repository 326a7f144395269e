/** What is kept on this device: shown, opened, removed. */
import { store, type StoredModel } from "../pkg/dist/index.js";
import { make } from "./dom.js";
import { announce, elements, showError } from "./elements.js";
import { bytes, day } from "./words.js";

/** Opens a kept model. */
type Open = (model: StoredModel) => void;

let opening: Open | undefined;

/** Reads the list anew where it is shown: something may have come. */
export function keptChanged(): void {
  if (elements.kept.open && opening !== undefined) void refreshKept(opening);
}

/** Makes the list work; it is read when it is first opened, or at once where the origin is known to keep something. */
export function startKept(open: Open, usedBytes: number): void {
  opening = open;
  const show = (): void => void refreshKept(open);
  elements.kept.addEventListener("toggle", () => {
    if (elements.kept.open) show();
  });
  elements.clear.addEventListener("click", () => {
    if (confirm("Remove every model that is kept, and what was begun?")) void change(() => store.clear(), "Everything was removed", open);
  });
  if (usedBytes > 0) elements.kept.open = true;
}

async function change(work: () => Promise<unknown>, said: string, open: Open): Promise<void> {
  try {
    await work();
    announce(said);
  } catch (error) {
    return showError(elements.keptError, error);
  }
  await refreshKept(open);
}

/** Reads what is kept anew. */
async function refreshKept(open: Open): Promise<void> {
  try {
    const models = await store.list();
    const { modelBytes, partialBytes } = await store.usage();
    const parts = [models.length === 0 ? "Nothing is kept yet." : `${models.length} ${models.length === 1 ? "model" : "models"}, ${bytes(modelBytes)}.`];
    if (partialBytes > 0) parts.push(`${bytes(partialBytes)} were begun and not finished.`);
    elements.keptSum.textContent = parts.join(" ");
    elements.clear.hidden = models.length === 0 && partialBytes === 0;
    elements.keptModels.replaceChildren(...models.map((model) => line(model, open)));
    showError(elements.keptError, undefined);
  } catch (error) {
    showError(elements.keptError, error);
  }
}

function line(model: StoredModel, open: Open): HTMLLIElement {
  const item = make("li", "model");
  const words = make("div", "model-words");
  const name = make("p", "model-name", model.reference);
  const license = model.license?.name ?? model.license?.id;
  if (license != null) name.append(" ", make("span", "badge", license));
  const used = model.usedAt === null ? `stored ${day(model.storedAt)}` : `used ${day(model.usedAt)}`;
  words.append(name, make("p", "fine", [bytes(model.sizeBytes), used, `commit ${model.commit.slice(0, 10)}`, new URL(model.hub).host].join(" · ")));
  const use = make("button", "quiet", "Open");
  use.type = "button";
  use.setAttribute("aria-label", `Open ${model.reference}`);
  use.addEventListener("click", () => open(model));
  const remove = make("button", "quiet", "Remove");
  remove.type = "button";
  remove.setAttribute("aria-label", `Remove ${model.reference}`);
  remove.addEventListener("click", () => {
    remove.disabled = true;
    void change(() => store.remove(model.reference, { endpoint: model.hub }), `${model.reference} was removed`, open);
  });
  const buttons = make("div", "model-buttons");
  buttons.append(use, remove);
  item.append(words, buttons);
  return item;
}
