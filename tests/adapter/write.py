"""Writes the adapters of experts in tests/data/lora, with what peft makes of them.

    python3 tests/adapter/write.py [BASE..]

Needs peft 0.21.2, transformers 5.23.0 and torch 2.15.0.
"""

import os, sys, json
os.environ["CUDA_VISIBLE_DEVICES"] = ""
import torch, peft, transformers
from transformers import AutoModelForCausalLM
from peft import LoraConfig, get_peft_model, PeftModel
from safetensors.torch import save_file
torch.set_num_threads(1)
DATA = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "data")
FIX = os.path.join(DATA, "models/")

def load(base):
    return AutoModelForCausalLM.from_pretrained(FIX + base, dtype=torch.float32, attn_implementation="eager",
                                                experts_implementation="eager").eval()

def by_tensor(base, out, seed):
    """A pair of matrices for each expert, as peft saved them with transformers 4."""
    torch.manual_seed(seed)
    m = load(base)
    cfg = m.config
    E, dim, ffn, r = cfg.num_local_experts, cfg.hidden_size, cfg.intermediate_size, 4
    t = {}
    def pair(name, rows, cols):
        t[f"base_model.model.{name}.lora_A.weight"] = torch.randn(r, cols) * 0.05
        t[f"base_model.model.{name}.lora_B.weight"] = torch.randn(rows, r) * 0.05
    kv = cfg.num_key_value_heads * (getattr(cfg, "head_dim", None) or dim // cfg.num_attention_heads)
    for i in range(cfg.num_hidden_layers):
        p = f"model.layers.{i}"
        pair(f"{p}.self_attn.v_proj", kv, dim)
        for e in range(E):
            q = f"{p}.block_sparse_moe.experts.{e}"
            pair(q + ".w1", ffn, dim); pair(q + ".w2", dim, ffn); pair(q + ".w3", ffn, dim)
    os.makedirs(out, exist_ok=True)
    c = LoraConfig(r=r, lora_alpha=16, target_modules=["v_proj", "w1", "w2", "w3"], task_type="CAUSAL_LM", inference_mode=True)
    c.base_model_name_or_path = base
    c.save_pretrained(out)
    save_file(t, out + "/adapter_model.safetensors")
    return PeftModel.from_pretrained(m, out)

def by_parameter(base, out, seed):
    torch.manual_seed(seed)
    m = load(base)
    c = LoraConfig(r=3, lora_alpha=9, target_modules=["q_proj", "o_proj"], task_type="CAUSAL_LM",
                   target_parameters=["mlp.experts.gate_up_proj", "mlp.experts.down_proj"])
    p = get_peft_model(m, c)
    with torch.no_grad():
        for n, w in p.named_parameters():
            if "lora_" in n: w.copy_(torch.randn_like(w) * (0.12 if "experts" in n else 0.08))
    p.peft_config["default"].base_model_name_or_path = base
    p.save_pretrained(out)
    if os.path.exists(out + "/README.md"): os.remove(out + "/README.md")
    return PeftModel.from_pretrained(load(base), out)

def goldens(base, model, out, kind):
    model = model.eval()
    src = json.load(open(FIX + base + "/goldens.json"))
    prompts, tensors = [], {}
    with torch.no_grad():
        for p in src["prompts"]:
            ids = list(p["ids"])
            logits = model(torch.tensor([ids])).logits[0]
            seq, greedy, margins = list(ids), [], []
            for _ in range(32):
                l = model(torch.tensor([seq])).logits[0, -1]
                top = l.topk(2)
                greedy.append(int(top.indices[0])); margins.append(round(float(top.values[0] - top.values[1]), 4))
                seq.append(greedy[-1])
            safe = next((i for i, x in enumerate(margins) if x < 0.01), 32)
            if p["name"] == "short": tensors["short.logits"] = logits.contiguous()
            else: tensors[p["name"] + ".logits_last"] = logits[-1].clone()
            prompts.append({"name": p["name"], "text": p["text"], "ids": ids, "greedy": greedy, "margins": margins, "safe_steps": safe, "_l": logits})
        plain = load(base)
        for p in prompts:
            print(p["name"], "adapter moves logits by", float((plain(torch.tensor([p["ids"]])).logits[0] - p["_l"]).abs().max()), "safe", p["safe_steps"])
        merged = model.merge_and_unload()
        for p in prompts:
            p["merged_maxdiff"] = float(f'{float((merged(torch.tensor([p["ids"]])).logits[0] - p.pop("_l")).abs().max()):.3g}')
            print(p["name"], "merged", p["merged_maxdiff"])
    json.dump({"kind": kind, "base": base, "prompts": prompts, "made_with": {"peft": peft.__version__, "transformers": transformers.__version__}}, open(out + "/goldens.json", "w"), ensure_ascii=True, indent=1)
    save_file(tensors, out + "/goldens.safetensors")

for base, name, make, kind in [("mixtral", "mixtral-experts", by_tensor, "lora"), ("qwen3moe", "qwen3moe-parameters", by_parameter, "lora"), ("gpt-oss", "gpt-oss-parameters", by_parameter, "lora")]:
    if len(sys.argv) > 1 and base not in sys.argv[1:]: continue
    out = os.path.join(DATA, "lora", name)
    print("==", name)
    goldens(base, make(base, out, 11), out, kind)
