//! `phi3`: llama's computation with a window, from fused tensors (arXiv 2404.14219); Phi-4-mini is of this class.

use super::hyper::{Key, unsupported};
use super::locate::Fused;
use super::names::Name;
use super::{Architecture, Hyper, llama};
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
    Fused::rows("attn_qkv.weight", &["attn_q.weight", "attn_k.weight", "attn_v.weight"]),
    Fused::rows("ffn_up.weight", &["ffn_gate.weight", "ffn_up.weight"]),
];

/// GGUF writes 0 where there is none.
const WINDOW: Key<u64> = Key::new("attention.sliding_window", "sliding_window", 0, 1 << 24);
/// Belongs to the scaling by two lists of factors, which reads it.
const ROPE_SCALE: &str = "rope.scaling.attn_factor";
const ROPE_FACTOR: Key<f64> = Key::new(ROPE_SCALE, "", 1e-3, 1e3);

fn hyper(checkpoint: &Checkpoint) -> Result<Hyper> {
    let mut h = Hyper::read(checkpoint, RopePairs::Halves, &["attention.sliding_window", ROPE_SCALE])?;
    if h.long_rope.is_none()
        && let Some(other) = ROPE_FACTOR.get(&checkpoint.metadata)?.filter(|factor| *factor != 1.0)
    {
        let key = ROPE_FACTOR.name(&checkpoint.metadata);
        return Err(unsupported(key, format!("{other} is not supported without lists of factors")));
    }
    let window = WINDOW.get(&checkpoint.metadata)?.filter(|window| *window > 0);
    h.layers.iter_mut().for_each(|layer| layer.window = window);
    Ok(h)
}
