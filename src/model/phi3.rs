//! `phi3`: llama's computation with a window, from fused tensors (arXiv 2404.14219).

use super::hyper::{Key, unsupported};
use super::names::Name;
use super::{Architecture, Fused, Hyper, llama};
use crate::error::Result;
use crate::format::Checkpoint;
use crate::graph::RopePairs;

pub(super) const PHI3: Architecture =
    Architecture { gguf: Some("phi3"), hub: Some("phi3"), names: NAMES, fused: FUSED, hyper, graph: llama::graph };

const NAMES: &[Name] = &[
    ("blk.{i}.attn_qkv.weight", "model.layers.{i}.self_attn.qkv_proj.weight"),
    ("blk.{i}.ffn_up.weight", "model.layers.{i}.mlp.gate_up_proj.weight"),
];

const FUSED: &[Fused] = &[
    Fused { whole: "attn_qkv.weight", parts: &["attn_q.weight", "attn_k.weight", "attn_v.weight"] },
    Fused { whole: "ffn_up.weight", parts: &["ffn_gate.weight", "ffn_up.weight"] },
];

/// GGUF writes 0 where there is none.
const WINDOW: Key<u64> = Key::new("attention.sliding_window", "sliding_window", 0, 1 << 24);
/// Factors of a scaling that is not computed.
const LONG_FACTORS: &str = "rope_factors_long.weight";

fn hyper(checkpoint: &Checkpoint) -> Result<Hyper> {
    let mut h = Hyper::read(checkpoint, RopePairs::Halves, &["attention.sliding_window"])?;
    if checkpoint.tensor(LONG_FACTORS).is_some() {
        return Err(unsupported(LONG_FACTORS, "rope scaling of the type \"longrope\" is not supported"));
    }
    let window = WINDOW.get(&checkpoint.metadata)?.filter(|window| *window > 0);
    h.layers.iter_mut().for_each(|layer| layer.window = window);
    Ok(h)
}
