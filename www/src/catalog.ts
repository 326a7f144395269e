/**
 * Models that the page offers by name. What is said here is for choosing only: what a repository really holds, its licence
 * and its size are asked of the hub when the visitor presses "Check", and not before. Sizes are those of the named files on
 * their repositories' pages, licences those of the models' own cards; both may have changed since.
 */

/** A model that can be named in a few words. */
export interface Entry {
  readonly name: string;
  /** `owner/name:tag` */
  readonly reference: string;
  /** As the model's makers call it. */
  readonly license: string;
  /** About so many; the check tells exactly. */
  readonly bytes: number;
  /** What it is good for. */
  readonly note: string;
  /** Further words that a search finds it by. */
  readonly words: string;
}

/** Smallest first. */
export const CATALOG: readonly Entry[] = [
  { name: "SmolLM2 360M", reference: "HuggingFaceTB/SmolLM2-360M-Instruct-GGUF:Q8_0", license: "Apache 2.0", bytes: 386_404_992, note: "The smallest that holds a conversation.", words: "hugging face smol english" },
  { name: "Qwen3 0.6B", reference: "Qwen/Qwen3-0.6B-GGUF:Q8_0", license: "Apache 2.0", bytes: 639_446_688, note: "Many languages; thinks before it answers.", words: "alibaba reasoning" },
  { name: "Gemma 3 1B", reference: "ggml-org/gemma-3-1b-it-GGUF:Q4_K_M", license: "Gemma", bytes: 806_058_240, note: "Fluent for its size, many languages.", words: "google" },
  { name: "Llama 3.2 1B", reference: "bartowski/Llama-3.2-1B-Instruct-GGUF:Q4_K_M", license: "Llama 3.2", bytes: 807_694_464, note: "Summaries and rewriting.", words: "meta" },
  { name: "SmolLM2 1.7B", reference: "HuggingFaceTB/SmolLM2-1.7B-Instruct-GGUF:Q4_K_M", license: "Apache 2.0", bytes: 1_055_609_536, note: "English; openly made, data and all.", words: "hugging face smol" },
  { name: "DeepSeek R1 Distill 1.5B", reference: "bartowski/DeepSeek-R1-Distill-Qwen-1.5B-GGUF:Q4_K_M", license: "MIT", bytes: 1_117_320_736, note: "Works through sums and puzzles at length.", words: "qwen reasoning mathematics" },
  { name: "Qwen3 1.7B", reference: "Qwen/Qwen3-1.7B-GGUF:Q8_0", license: "Apache 2.0", bytes: 1_834_426_016, note: "Many languages; thinks before it answers.", words: "alibaba reasoning" },
  { name: "SmolLM3 3B", reference: "ggml-org/SmolLM3-3B-GGUF:Q4_K_M", license: "Apache 2.0", bytes: 1_915_305_312, note: "Six languages, with or without thinking.", words: "hugging face smol reasoning" },
  { name: "Llama 3.2 3B", reference: "bartowski/Llama-3.2-3B-Instruct-GGUF:Q4_K_M", license: "Llama 3.2", bytes: 2_019_377_696, note: "Everyday writing, eight languages.", words: "meta" },
  { name: "Gemma 3 4B", reference: "ggml-org/gemma-3-4b-it-GGUF:Q4_K_M", license: "Gemma", bytes: 2_489_757_856, note: "Careful prose, over a hundred languages.", words: "google" },
  { name: "Phi-4 mini", reference: "bartowski/microsoft_Phi-4-mini-instruct-GGUF:Q4_K_M", license: "MIT", bytes: 2_491_874_272, note: "Code and reasoning, 3.8 billion parameters.", words: "microsoft mathematics" },
  { name: "Qwen3 4B", reference: "Qwen/Qwen3-4B-GGUF:Q4_K_M", license: "Apache 2.0", bytes: 2_497_280_256, note: "Strong for its size; thinks before it answers.", words: "alibaba reasoning code" },
  { name: "Mistral 7B v0.3", reference: "bartowski/Mistral-7B-Instruct-v0.3-GGUF:Q4_K_M", license: "Apache 2.0", bytes: 4_372_812_096, note: "A broad all-rounder.", words: "french code" },
  { name: "DeepSeek R1 Distill 8B", reference: "bartowski/DeepSeek-R1-Distill-Llama-8B-GGUF:Q4_K_M", license: "MIT, Llama 3.1", bytes: 4_920_736_864, note: "Long reasoning on hard questions.", words: "meta reasoning mathematics" },
  { name: "Qwen3 8B", reference: "Qwen/Qwen3-8B-GGUF:Q4_K_M", license: "Apache 2.0", bytes: 5_027_783_488, note: "The most able here; wants a good graphics card.", words: "alibaba reasoning code" },
];

/** Entries in which every word of a search occurs. */
export function search(query: string): readonly Entry[] {
  const words = query.toLowerCase().split(/\s+/).filter((word) => word !== "");
  return CATALOG.filter((entry) => {
    const text = `${entry.name} ${entry.reference} ${entry.license} ${entry.words}`.toLowerCase();
    return words.every((word) => text.includes(word));
  });
}

/** What was typed, if it is a reference rather than words to search for: `owner/name...`, with or without `hf:`. */
export function typedReference(query: string): string | undefined {
  const text = query.trim();
  if (/^https:\/\/huggingface\.co\/[^/\s]+\/[^\s]+$/.test(text)) return text;
  const plain = text.replace(/^hf:/, "");
  return /^[\w.-]+\/[\w.-]+([@:/]\S*)?$/.test(plain) ? plain : undefined;
}
