//! `gemma3`, `gemma3_text` on the hub: Gemma 2's blocks with norms on queries and keys, no caps, and rotations of
//! another base in the layers with a window (arXiv 2503.19786).

use super::hyper::Key;
use super::names::NORMS_AFTER;
use super::{Architecture, Hyper, decoder, gemma2, rotary};
use crate::error::Result;
use crate::format::Checkpoint;
use crate::graph::{Builder, Rope, RopeId, RopePairs};

pub(super) const GEMMA3: Architecture =
    Architecture { gguf: Some("gemma3"), hub: Some("gemma3_text"), names: NORMS_AFTER, fused: &[], hyper, graph };

const LOCAL_BASE: Key<f64> = Key::new("rope.freq_base_swa", "rope_local_base_freq", 1.0, 1e12);

fn hyper(checkpoint: &Checkpoint) -> Result<Hyper> {
    let mut h = gemma2::read(checkpoint, 6, 62)?;
    let base = LOCAL_BASE.get(&checkpoint.metadata)?.unwrap_or(10_000.0);
    let inv_freq = rotary::plain(base, h.head_dim).collect();
    let local = RopeId(h.ropes.len());
    h.ropes.push(Rope { inv_freq, pairs: RopePairs::Halves, scale: 1.0 });
    for layer in h.layers.iter_mut().filter(|layer| layer.window.is_some()) {
        layer.rope = Some(local);
    }
    Ok(h)
}

fn graph(h: &Hyper, g: &mut Builder) {
    decoder::sandwich(h, g, |h, g, layer, x| {
        let heads = decoder::project(h, g, layer, x);
        decoder::norm_heads(h, g, layer, heads, (h.n_heads, h.n_kv_heads))
    });
}
