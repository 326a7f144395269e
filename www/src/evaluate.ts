/**
 * The evaluation page: multiple-choice questions, scored as lm-evaluation-harness scores them. The choice whose
 * log-likelihood after the question is largest is the model's answer.
 */
import { HeadwaterError, load, type Model, type Score } from "../pkg/dist/index.js";
import { openSheet } from "./sheet.js";

/** A question with its choices; `answer` is the index of the right one. */
interface Question {
  readonly question: string;
  readonly choices: readonly string[];
  readonly answer: number;
}

/** What the model made of a question. */
interface Verdict {
  readonly question: Question;
  readonly logprobs: readonly number[];
  readonly chosen: number;
  /** By log-likelihood per character. */
  readonly chosenByLength: number;
}

/** Questions in the domain of the model that comes with the page. */
const EXAMPLES: readonly Question[] = [
  { question: "Extract the city as JSON: After the talk we took the night train to Bremen.", choices: ['{"city": "Berlin"}', '{"city": "Bremen"}', '{"city": null}'], answer: 1 },
  { question: "Extract the name and amount as JSON: Hi, this is Dorvina Keltam. I paid $42.50.", choices: ['{"name": "Dorvina Keltam", "amount": null}', '{"name": "Keltam Dorvina", "amount": 42.50}', '{"name": "Dorvina Keltam", "amount": 42.50}'], answer: 2 },
  { question: "Make a list of bread, olives and green tea.", choices: ["- olives\n- bread\n- green tea", "- bread\n- olives\n- green tea", "- bread\n- green tea\n- olives"], answer: 1 },
  { question: "Does anything leave my device?", choices: ["What you type stays on your device.", "What you type goes to a server."], answer: 0 },
];

const sheet = openSheet("evaluate.html");

const page = {
  questions: sheet.find("questions", HTMLTextAreaElement),
  asChat: sheet.find("as-chat", HTMLInputElement),
  stop: sheet.find("stop", HTMLButtonElement),
};

let loaded: { readonly reference: string; readonly model: Model } | undefined;

/** The questions that were typed; the error names the line. */
function read(text: string): Question[] {
  const questions = text.split("\n").flatMap((line, index) => (line.trim() === "" ? [] : [parse(line, index + 1)]));
  if (questions.length === 0) throw new HeadwaterError("InvalidArgument", "there are no questions");
  return questions;
}

function parse(line: string, number: number): Question {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch (error) {
    throw new HeadwaterError("InvalidArgument", `line ${number} is not JSON: ${error instanceof Error ? error.message : String(error)}`);
  }
  const { question, choices, answer } = (value ?? {}) as Partial<Question>;
  if (typeof question !== "string") throw new HeadwaterError("InvalidArgument", `line ${number}: "question" is not a text`);
  if (!Array.isArray(choices) || choices.length < 2 || !choices.every((choice) => typeof choice === "string" && choice !== "")) {
    throw new HeadwaterError("InvalidArgument", `line ${number}: "choices" are not two or more texts`);
  }
  if (!Number.isInteger(answer) || choices[answer as number] === undefined) throw new HeadwaterError("InvalidArgument", `line ${number}: "answer" is not the number of a choice`);
  return { question, choices, answer: answer as number };
}

/** The model of the reference; the one before is let go. */
async function open(reference: string, signal: AbortSignal): Promise<Model> {
  if (loaded?.reference === reference) return loaded.model;
  await loaded?.model.dispose();
  loaded = undefined;
  sheet.work("Loading");
  const model = await load(reference, { signal, onProgress: ({ loadedBytes, totalBytes }) => sheet.work("Loading", loadedBytes / totalBytes) });
  loaded = { reference, model };
  sheet.name(model);
  return model;
}

async function judge(model: Model, question: Question, asChat: boolean, signal: AbortSignal): Promise<Verdict> {
  const context = asChat ? [{ role: "user" as const, content: question.question }] : question.question;
  // After a plain text an answer is a word of its own.
  const items = question.choices.map((choice) => ({ context, continuation: asChat ? choice : ` ${choice}` }));
  const logprobs = (await model.score(items, { signal })).map(({ logprob }: Score) => logprob);
  const byLength = logprobs.map((logprob, index) => logprob / [...(question.choices[index] ?? "")].length);
  return { question, logprobs, chosen: largest(logprobs), chosenByLength: largest(byLength) };
}

function largest(values: readonly number[]): number {
  return values.reduce((best, value, index) => (value > (values[best] ?? -Infinity) ? index : best), 0);
}

async function evaluate(signal: AbortSignal): Promise<void> {
  const questions = read(page.questions.value);
  const model = await open(sheet.reference.value.trim(), signal);
  const verdicts: Verdict[] = [];
  for (const question of questions) {
    sheet.work(`Question ${verdicts.length + 1} of ${questions.length}`, verdicts.length / questions.length);
    verdicts.push(await judge(model, question, page.asChat.checked, signal));
    show(verdicts, questions.length);
  }
}

function show(verdicts: readonly Verdict[], asked: number): void {
  const percent = (right: (verdict: Verdict) => boolean): string =>
    `${verdicts.filter(right).length} of ${verdicts.length} right (${Math.round((100 * verdicts.filter(right).length) / verdicts.length)} %)`;
  const likeliest = percent(({ chosen, question }) => chosen === question.answer);
  const byLength = percent(({ chosenByLength, question }) => chosenByLength === question.answer);
  sheet.summary.textContent = `${likeliest}; by length ${byLength}.${verdicts.length < asked ? ` ${asked - verdicts.length} to go.` : ""}`;
  sheet.results.hidden = false;
  sheet.rows.replaceChildren(...verdicts.map(row));
}

function row({ question, logprobs, chosen }: Verdict): HTMLTableRowElement {
  const right = chosen === question.answer;
  const most = Math.max(...logprobs);
  const sum = logprobs.reduce((sum, logprob) => sum + Math.exp(logprob - most), 0);
  const order = logprobs.map((logprob, index) => ({ index, share: Math.exp(logprob - most) / sum })).sort((a, b) => b.share - a.share);
  const list = document.createElement("ol");
  list.className = "choices-scored";
  for (const { index, share } of order) {
    const item = document.createElement("li");
    const bar = document.createElement("meter");
    bar.value = share;
    bar.title = `${(100 * share).toFixed(1)} %, log-likelihood ${(logprobs[index] ?? 0).toFixed(2)}`;
    const text = document.createElement("span");
    text.append(question.choices[index] ?? "");
    if (index === question.answer) text.className = "right";
    item.append(bar, text);
    list.append(item);
  }
  const cells = [question.question, list, right ? "right" : "wrong"].map((content) => {
    const cell = document.createElement("td");
    cell.append(content);
    return cell;
  });
  const line = document.createElement("tr");
  line.className = right ? "is-right" : "is-wrong";
  line.append(...cells);
  return line;
}

page.questions.value = EXAMPLES.map((question) => JSON.stringify(question)).join("\n");
sheet.form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const abort = new AbortController();
  page.stop.onclick = () => abort.abort();
  sheet.run.hidden = true;
  page.stop.hidden = false;
  await sheet.during(() => evaluate(abort.signal), abort.signal);
  sheet.run.hidden = false;
  page.stop.hidden = true;
});
