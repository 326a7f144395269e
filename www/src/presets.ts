/** Things to try with the model that comes with the page, in the wording of its card, and the card's sampling advice. */
import type { GenerateOptions } from "../pkg/dist/index.js";

/** How answers are chosen. */
export type Style = "precise" | "varied";

/** What each style asks of the model. */
export const STYLES: Record<Style, GenerateOptions> = {
  precise: { temperature: 0 },
  varied: { temperature: 0.6, topK: 20, topP: 0.95 },
};

export const PRESETS: readonly { readonly label: string; readonly text: string; readonly style: Style }[] = [
  { label: "A story", text: "Tell me a story about a fox and a lantern.", style: "varied" },
  {
    label: "A message as JSON",
    text: "Extract the name and amount as JSON: Hi, this is Dorvina Keltam. I paid $42.50.",
    style: "precise",
  },
  { label: "A list", text: "Make a list of bread, olives and green tea.", style: "precise" },
  { label: "What are you?", text: "What are you?", style: "precise" },
  { label: "Privacy", text: "Does anything leave my device?", style: "precise" },
];
