"""Writes `tests/data/scripted`: a Llama whose every token is followed by one certain other, so that its replies are known.

The block's outputs are zero, the embedding of a token of the script is a unit vector of its own, and the head gives the
likeliest id by that vector alone. The template ends a prompt with one of four tokens, from which one of four replies
follows: an answer; where there are tools, a thought, a word and a call; after a tool's result, an answer; where the last
message has the word "think", a thought and an answer.

    python3 tests/scripted/write.py
"""

import json
import pathlib
import struct

OUT = pathlib.Path(__file__).resolve().parent.parent / "data" / "scripted"
WIDTH, MLP, HEADS = 64, 32, 2

# Tokens of the replies; those in angle brackets are added tokens.
ANSWER = ["<|answer|>", "Hel", "lo the", "re."]
CALL = [
    "<|call_or_answer|>", "<think>", "\nI need ", "the weather", ".\n", "</think>", "\n\n", "Let me look.", "\n",
    "<tool_call>", '\n{"name": "get_weather", "argum', 'ents": {"city": "Par', 'is"}}\n', "</tool_call>",
]
RESULT = ["<|answer_after_tool|>", "It is ", "sunny in ", "Paris."]
# The signs around the thought are spelled out here, across the borders of tokens.
THOUGHT = ["<|thought|>", "<think>\nEa", "sy.\n</th", "ink>\n\nHi", "!"]
END = "<|end|>"

TEMPLATE = """\
{%- if tools %}{{ '<|system|>' }}{% for tool in tools %}{{ tool | tojson }}{{ '\\n' }}{% endfor %}{% endif -%}
{%- for message in messages -%}
    {{- '<|' + message.role + '|>' + (message.content or '') -}}
    {%- for call in message.tool_calls or [] -%}
        {{- '<tool_call>' + call.function.name + (call.function.arguments | tojson) + '</tool_call>' -}}
    {%- endfor -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {%- if messages[-1].role == 'tool' -%}{{- '<|answer_after_tool|>' -}}
    {%- elif tools and enable_thinking is not false -%}{{- '<|call_or_answer|>' -}}
    {%- elif 'think' in messages[-1].content -%}{{- '<|thought|>' -}}
    {%- else -%}{{- '<|answer|>' -}}
    {%- endif -%}
{%- endif -%}
"""


def byte_letters():
    """The letters that byte-level vocabularies write bytes with."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in plain]
    return {byte: chr(byte) for byte in plain} | {byte: chr(0x100 + i) for i, byte in enumerate(others)}


def is_added(token):
    return token.startswith("<") and token.endswith(">")


def main():
    letters = byte_letters()
    script = [*ANSWER, *CALL, *RESULT, *THOUGHT]
    added = [token for token in script if is_added(token)] + [END, "<|system|>", "<|user|>", "<|assistant|>", "<|tool|>"]
    words = [token for token in script if not is_added(token)]
    written = [letters[byte] for byte in range(256)]
    spelled = ["".join(letters[byte] for byte in word.encode()) for word in words]
    # A token that is one letter already has an id.
    vocab = {letter: i for i, letter in enumerate(written)}
    for word in spelled:
        vocab.setdefault(word, len(vocab))
    ids = {word: vocab[spelling] for word, spelling in zip(words, spelled)}
    first_added = len(vocab)
    ids |= {token: first_added + i for i, token in enumerate(added)}
    n_vocab = first_added + len(added)

    embed = [[0.0] * WIDTH for _ in range(n_vocab)]
    head = [[0.0] * WIDTH for _ in range(n_vocab)]
    used = 0
    for reply in (ANSWER, CALL, RESULT, THOUGHT):
        for token, following in zip(reply, [*reply[1:], END]):
            assert not any(embed[ids[token]]), f"{token!r} occurs twice"
            embed[ids[token]][used] = 1.0
            head[ids[following]][used] = 4.0
            used += 1
    assert used <= WIDTH

    zeros = lambda rows, cols: [[0.0] * cols for _ in range(rows)]
    ones = [1.0] * WIDTH
    block = "model.layers.0."
    tensors = {
        "lm_head.weight": head,
        "model.embed_tokens.weight": embed,
        "model.norm.weight": ones,
        block + "input_layernorm.weight": ones,
        block + "post_attention_layernorm.weight": ones,
        **{block + f"self_attn.{name}_proj.weight": zeros(WIDTH, WIDTH) for name in "qkvo"},
        **{block + f"mlp.{name}_proj.weight": zeros(MLP, WIDTH) for name in ("gate", "up")},
        block + "mlp.down_proj.weight": zeros(WIDTH, MLP),
    }
    header, body = {}, b""
    for name in sorted(tensors):
        rows = tensors[name]
        flat = rows if isinstance(rows[0], float) else [x for row in rows for x in row]
        shape = [len(rows)] if isinstance(rows[0], float) else [len(rows), len(rows[0])]
        data = struct.pack(f"<{len(flat)}e", *flat)
        header[name] = {"dtype": "F16", "shape": shape, "data_offsets": [len(body), len(body) + len(data)]}
        body += data
    head_text = json.dumps(header, separators=(",", ":")).encode()
    head_text += b" " * (-len(head_text) % 8)

    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "model.safetensors").write_bytes(struct.pack("<Q", len(head_text)) + head_text + body)
    write("config.json", {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": WIDTH, "intermediate_size": MLP,
        "num_hidden_layers": 1, "num_attention_heads": HEADS, "num_key_value_heads": HEADS, "vocab_size": n_vocab,
        "max_position_embeddings": 2048, "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "hidden_act": "silu",
        "tie_word_embeddings": False, "eos_token_id": ids[END], "torch_dtype": "float16",
    })
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    write("tokenizer.json", {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [
            {"id": ids[token], "content": token, "single_word": False, "lstrip": False, "rstrip": False,
             "normalized": False, "special": not token.strip("</>") == "think"}
            for token in added
        ],
        "normalizer": None, "pre_tokenizer": byte_level, "post_processor": None, "decoder": byte_level,
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "vocab": vocab, "merges": []},
    })
    write("tokenizer_config.json", {"eos_token": END, "chat_template": TEMPLATE})


def write(name, value):
    (OUT / name).write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n")


main()
