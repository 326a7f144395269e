//! Names of tensors: the project's own, which are GGUF's, and those of the hub, in one table.
//!
//! `{i}` stands for the number of a layer, `{e}` for that of an expert: the hub may have a tensor for each.

use crate::format::Dialect;

const WEIGHT: &str = ".weight";
const BIAS: &str = ".bias";
/// Where a name in a file has the number of an expert.
pub(super) const EXPERT: &str = "{e}";

/// The project's name and the hub's, for every tensor that a model file may declare.
const NAMES: &[Name] = &[
    ("token_embd.weight", "model.embed_tokens.weight"),
    ("blk.{i}.attn_norm.weight", "model.layers.{i}.input_layernorm.weight"),
    ("blk.{i}.attn_q.weight", "model.layers.{i}.self_attn.q_proj.weight"),
    ("blk.{i}.attn_k.weight", "model.layers.{i}.self_attn.k_proj.weight"),
    ("blk.{i}.attn_v.weight", "model.layers.{i}.self_attn.v_proj.weight"),
    ("blk.{i}.attn_q_norm.weight", "model.layers.{i}.self_attn.q_norm.weight"),
    ("blk.{i}.attn_k_norm.weight", "model.layers.{i}.self_attn.k_norm.weight"),
    ("blk.{i}.attn_output.weight", "model.layers.{i}.self_attn.o_proj.weight"),
    ("blk.{i}.ffn_norm.weight", "model.layers.{i}.post_attention_layernorm.weight"),
    ("blk.{i}.ffn_gate.weight", "model.layers.{i}.mlp.gate_proj.weight"),
    ("blk.{i}.ffn_up.weight", "model.layers.{i}.mlp.up_proj.weight"),
    ("blk.{i}.ffn_down.weight", "model.layers.{i}.mlp.down_proj.weight"),
    ("blk.{i}.ffn_gate_inp.weight", "model.layers.{i}.mlp.gate.weight"),
    ("blk.{i}.exp_probs_b.bias", "model.layers.{i}.mlp.gate.e_score_correction_bias"),
    ("blk.{i}.ffn_gate_exps.weight", "model.layers.{i}.mlp.experts.{e}.gate_proj.weight"),
    ("blk.{i}.ffn_up_exps.weight", "model.layers.{i}.mlp.experts.{e}.up_proj.weight"),
    ("blk.{i}.ffn_down_exps.weight", "model.layers.{i}.mlp.experts.{e}.down_proj.weight"),
    ("blk.{i}.ffn_gate_shexp.weight", "model.layers.{i}.mlp.shared_experts.gate_proj.weight"),
    ("blk.{i}.ffn_up_shexp.weight", "model.layers.{i}.mlp.shared_experts.up_proj.weight"),
    ("blk.{i}.ffn_down_shexp.weight", "model.layers.{i}.mlp.shared_experts.down_proj.weight"),
    ("output_norm.weight", "model.norm.weight"),
    ("output.weight", "lm_head.weight"),
];

/// One line of a table of names: the project's name and the hub's.
pub(super) type Name = (&'static str, &'static str);

/// Lines that go before the others in families with norms after the blocks, whose hub names differ in meaning.
pub(super) const NORMS_AFTER: &[Name] = &[
    ("blk.{i}.post_attention_norm.weight", "model.layers.{i}.post_attention_layernorm.weight"),
    ("blk.{i}.ffn_norm.weight", "model.layers.{i}.pre_feedforward_layernorm.weight"),
    ("blk.{i}.post_ffw_norm.weight", "model.layers.{i}.post_feedforward_layernorm.weight"),
];

/// What stands before the names of a whole model's tensors, those of a head excepted. Files that hold the model without a
/// head leave it out.
const ROOTS: &[&str] = &["model.", "bert.", "roberta."];

/// The roots that no tensor has.
pub(super) fn bare(has: impl Fn(&str) -> bool) -> Vec<&'static str> {
    ROOTS.iter().copied().filter(|root| !has(root)).collect()
}

/// A name without its root, if that is one of those that no tensor has.
pub(super) fn without_roots(name: String, bare: &[&str]) -> String {
    match bare.iter().find_map(|root| name.strip_prefix(root)) {
        Some(rest) => rest.to_owned(),
        None => name,
    }
}

/// `blk.7.attn_q.weight` as the pattern `blk.{i}.attn_q.weight` and the number `7`.
fn pattern(canonical: &str) -> (String, &str) {
    match canonical.strip_prefix("blk.").and_then(|rest| rest.split_once('.')) {
        Some((layer, part)) => (format!("blk.{{i}}.{part}"), layer),
        None => (canonical.to_owned(), ""),
    }
}

/// What the files of `dialect` call the tensor that the project calls `canonical`; `None` when no table line names it.
/// The lines `first` go before the common ones. A bias without a line of its own is called after its weight.
pub(super) fn in_file(canonical: &str, dialect: Dialect, first: &[Name]) -> Option<String> {
    let (pattern, layer) = pattern(canonical);
    let line = first.iter().chain(NAMES).find(|(ours, _)| *ours == pattern);
    if let (None, Some(stem)) = (line, canonical.strip_suffix(BIAS)) {
        let weight = in_file(&format!("{stem}{WEIGHT}"), dialect, first)?;
        return weight.strip_suffix(WEIGHT).map(|stem| format!("{stem}{BIAS}"));
    }
    let (_, hub) = line?;
    Some(match dialect {
        Dialect::Gguf => canonical.to_owned(),
        Dialect::Hub => hub.replace("{i}", layer),
    })
}

/// The project's name of a bias in a layer, from its name in a file, with its root or without; `None` for every other
/// tensor. The lines `first` go before the common ones.
pub(super) fn bias(in_file: &str, dialect: Dialect, first: &[Name]) -> Option<String> {
    let stem = in_file.strip_suffix(BIAS)?;
    if dialect == Dialect::Gguf {
        return Some(in_file.to_owned());
    }
    let weight = format!("{stem}{WEIGHT}");
    let layer_in = |hub: &str| {
        let (before, after) = hub.split_once("{i}")?;
        let layer = weight.strip_prefix(before)?.strip_suffix(after)?;
        (!layer.is_empty() && layer.bytes().all(|digit| digit.is_ascii_digit())).then(|| layer.to_owned())
    };
    first.iter().chain(NAMES).find_map(|(ours, hub)| {
        let rootless = ROOTS.iter().find_map(|root| hub.strip_prefix(root)).unwrap_or(hub);
        let layer = layer_in(hub).or_else(|| layer_in(rootless))?;
        Some(format!("{}{BIAS}", ours.strip_suffix(WEIGHT)?.replace("{i}", &layer)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_both_dialects() {
        let cases = [
            ("token_embd.weight", "model.embed_tokens.weight"),
            ("blk.0.attn_q.weight", "model.layers.0.self_attn.q_proj.weight"),
            ("blk.127.ffn_down.weight", "model.layers.127.mlp.down_proj.weight"),
            ("output.weight", "lm_head.weight"),
        ];
        for (ours, hub) in cases {
            assert_eq!(in_file(ours, Dialect::Hub, &[]).as_deref(), Some(hub));
            assert_eq!(in_file(ours, Dialect::Gguf, &[]).as_deref(), Some(ours));
        }
        assert_eq!(in_file("blk.0.attn_sinks.weight", Dialect::Hub, &[]), None);
        let after = in_file("blk.3.ffn_norm.weight", Dialect::Hub, NORMS_AFTER);
        assert_eq!(after.as_deref(), Some("model.layers.3.pre_feedforward_layernorm.weight"));
    }

    #[test]
    fn biases_are_called_after_their_weights() {
        let (ours, hub) = ("blk.12.attn_q.bias", "model.layers.12.self_attn.q_proj.bias");
        assert_eq!(in_file(ours, Dialect::Hub, &[]).as_deref(), Some(hub));
        assert_eq!(bias(hub, Dialect::Hub, &[]).as_deref(), Some(ours));
        assert_eq!(bias(&hub["model.".len()..], Dialect::Hub, &[]).as_deref(), Some(ours));
        assert_eq!(bias(ours, Dialect::Gguf, &[]).as_deref(), Some(ours));
        assert_eq!(bias("model.layers.12.self_attn.q_proj.weight", Dialect::Hub, &[]), None);
        assert_eq!(bias("model.layers.x.self_attn.q_proj.bias", Dialect::Hub, &[]), None);
        let own = [("blk.{i}.ffn_up.weight", "bert.encoder.layer.{i}.intermediate.dense.weight")];
        let (ours, hub) = ("blk.3.ffn_up.bias", "bert.encoder.layer.3.intermediate.dense.bias");
        assert_eq!(bias(hub, Dialect::Hub, &own).as_deref(), Some(ours));
        assert_eq!(bias(&hub["bert.".len()..], Dialect::Hub, &own).as_deref(), Some(ours));
    }

    #[test]
    fn files_without_a_head_leave_the_root_out() {
        let bare = bare(|root| root == "model.");
        assert_eq!(bare, ["bert.", "roberta."]);
        let without = |name: &str| without_roots(name.to_owned(), &bare);
        assert_eq!(without("model.norm.weight"), "model.norm.weight");
        assert_eq!(without("bert.pooler.dense.weight"), "pooler.dense.weight");
        assert_eq!(without("classifier.weight"), "classifier.weight");
    }

    #[test]
    fn no_name_stands_twice() {
        for (index, (ours, hub)) in NAMES.iter().enumerate() {
            for (other_ours, other_hub) in &NAMES[..index] {
                assert!(ours != other_ours && hub != other_hub, "{ours} {hub}");
            }
        }
    }
}
