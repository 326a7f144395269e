"""Writes what DeepSeek-R1's distills are tested by: in tests/data/tokenizers/r1-distill-<base> their tokenizers, with what the
tokenizers library and transformers' chat templates make of texts and conversations, in tests/data/models/r1-distill-<base>
a configuration and what transformers computes with it.

    python3 tests/r1/write.py

Needs transformers 5.23.0, torch 2.15.0, tokenizers 0.23.3. The distills are qwen2 and llama with the base's vocabulary, DeepSeek's
control tokens in the place of the base's, and DeepSeek's template; so the small base models among the test data lend
vocabulary and weights, and tests/data/tokenizers/deepseek lends template and conversations.
"""
import gzip
import json
import os

os.environ["CUDA_VISIBLE_DEVICES"] = ""
import tokenizers
import torch
import transformers
from safetensors.torch import save_file

DATA = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "data")
BOS, EOS, USER, ASSISTANT, PAD = ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>", "<｜▁pad▁｜>")
# Control tokens in the order of their ids; the published ones have theirs in these orders, too.
BASES = {
    "qwen": ("qwen2-untied", "qwen2", [EOS, USER, ASSISTANT, BOS, "<|EOT|>", "<think>", "</think>"]),
    "llama": ("llama3", "llama3", [BOS, EOS, USER, ASSISTANT, "<think>", "</think>", PAD, "<|reserved_special_token_7|>"]),
}


def read(path):
    with open(os.path.join(DATA, path), encoding="utf-8") as file:
        return json.load(file)


def write(path, value):
    with open(os.path.join(DATA, path), "w", encoding="utf-8") as file:
        json.dump(value, file, ensure_ascii=True, indent=1)


def tokenizer(base, specials):
    made = read(f"models/{base}/tokenizer.json")
    first = min(token["id"] for token in made["added_tokens"])
    made["added_tokens"] = [{"id": first + i, "content": name, "single_word": False, "lstrip": False, "rstrip": False,
                             "normalized": False, "special": "think" not in name} for i, name in enumerate(specials)]
    bos = first + specials.index(BOS)
    one = lambda kind: [{"SpecialToken": {"id": BOS, "type_id": kind}}, {"Sequence": {"id": "AB"[kind], "type_id": kind}}]
    made["post_processor"] = {"type": "TemplateProcessing", "single": one(0), "pair": one(0) + one(1),
                              "special_tokens": {BOS: {"id": BOS, "ids": [bos], "tokens": [BOS]}}}
    return made


def main():
    torch.set_num_threads(1)
    settings = read("tokenizers/deepseek/tokenizer_config.json")
    for name, (base, texts, specials) in BASES.items():
        folder = f"r1-distill-{name}"
        for kind in ("tokenizers", "models"):
            os.makedirs(os.path.join(DATA, kind, folder), exist_ok=True)
        made = tokenizer(base, specials)
        write(f"tokenizers/{folder}/tokenizer.json", made)
        ids_of = {token["content"]: token["id"] for token in made["added_tokens"]}
        added = {str(t["id"]): {key: t[key] for key in t if key != "id"} for t in made["added_tokens"]}
        write(f"tokenizers/{folder}/tokenizer_config.json",
              {**settings, "pad_token": EOS if PAD not in specials else PAD, "added_tokens_decoder": added})
        path = os.path.join(DATA, "tokenizers", folder)
        tok = tokenizers.Tokenizer.from_file(os.path.join(path, "tokenizer.json"))
        ids = lambda text, special: tok.encode(text, add_special_tokens=special).ids

        with gzip.open(os.path.join(DATA, f"tokenizers/{texts}/goldens.jsonl.gz"), "rt", encoding="utf-8") as file:
            sources = [json.loads(line)["text"] for line in file if '"text"' in line][::3]
        sources += [f"{USER}Hi{ASSISTANT}<think>\nso\n</think>\n\nHello{EOS}", f" {BOS} <think></think>", "<｜User", EOS * 3]
        with open(os.path.join(path, "goldens.jsonl.gz"), "wb") as raw, gzip.GzipFile(fileobj=raw, mode="wb", mtime=0) as file:
            for text in sources:
                own = ids(text, False)
                record = {"text": text, "ids": own, "ids_special": ids(text, True),
                          "decoded": tok.decode(own, skip_special_tokens=False), "decoded_skip": tok.decode(own)}
                file.write((json.dumps(record) + "\n").encode())

        fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tok, bos_token=BOS, eos_token=EOS)
        chats = []
        for chat in read("tokenizers/deepseek/chat.json"):
            if "error" in chat:
                continue
            kwargs = {"add_generation_prompt": True, **chat["kwargs"]}
            rendered = fast.apply_chat_template(chat["messages"], chat_template=settings["chat_template"], tokenize=False, **kwargs)
            chats.append({**{key: chat[key] for key in ("name", "messages", "kwargs", "clock")},
                          "rendered": rendered, "ids": ids(rendered, False)})
        write(f"tokenizers/{folder}/chat.json", chats)

        config = read(f"models/{base}/config.json")
        config.update({"bos_token_id": ids_of[BOS], "eos_token_id": ids_of[EOS], "pad_token_id": None, "rope_theta": 10000.0})
        if name == "qwen":
            config.pop("rope_scaling")
            config.update({"use_mrope": False, "sliding_window": 512, "max_window_layers": 2})
        write(f"models/{folder}/config.json", config)
        model = transformers.AutoModelForCausalLM.from_pretrained(
            os.path.join(DATA, "models", base), config=transformers.AutoConfig.from_pretrained(os.path.join(DATA, "models", folder)),
            dtype=torch.float32, attn_implementation="eager").eval()
        chosen = {chat["name"]: chat for chat in chats}
        prompts, tensors = [], {}
        for prompt, text in (("short", chosen["one_turn"]["rendered"]), ("mid", chosen["system"]["rendered"]),
                             ("long", chosen["multi"]["rendered"])):
            start = ids(text, False)
            seq, greedy, margins = list(start), [], []
            with torch.no_grad():
                logits = model(torch.tensor([start])).logits[0]
                for _ in range(32):
                    top = model(torch.tensor([seq])).logits[0, -1].topk(2)
                    greedy.append(int(top.indices[0]))
                    margins.append(round(float(top.values[0] - top.values[1]), 4))
                    seq.append(greedy[-1])
            tensors[f"{prompt}.logits"] = logits.contiguous()
            prompts.append({"name": prompt, "text": text, "ids": start, "greedy": greedy, "margins": margins})
            print(folder, prompt, len(start), min(margins), float(logits.std()))
        write(f"models/{folder}/goldens.json", {"kind": "causal-lm", "prompts": prompts, "made_with": {
            "transformers": transformers.__version__, "torch": torch.__version__.split("+")[0], "tokenizers": tokenizers.__version__}})
        save_file(tensors, os.path.join(DATA, f"models/{folder}/goldens.safetensors"))


main()
