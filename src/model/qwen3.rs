//! `qwen3`: the dense Qwen3 models (arXiv 2505.09388): a norm on every query and key head before its rotation. Qwen3
//! Embedding (arXiv 2506.05176) is the same without a head.

use super::{Architecture, Hyper, decoder};
use crate::error::Result;
use crate::format::Checkpoint;
use crate::graph::{Builder, Output, RopePairs};

pub(super) const QWEN3: Architecture =
    Architecture { gguf: Some("qwen3"), hub: Some("qwen3"), names: &[], fused: &[], hyper, graph };

fn hyper(checkpoint: &Checkpoint) -> Result<Hyper> {
    let mut h = Hyper::read(checkpoint, RopePairs::Halves, &[])?;
    if h.ends == Output::Hidden {
        h.end_token = Some("<|endoftext|>");
    }
    Ok(h)
}

/// Also the computation of the class with experts.
pub(super) fn graph(h: &Hyper, g: &mut Builder) {
    let mut x = decoder::embed(h, g);
    for layer in 0..h.n_layers {
        let heads = decoder::project(h, g, layer, x);
        let heads = decoder::norm_heads(h, g, layer, heads, (h.n_heads, h.n_kv_heads));
        x = decoder::attend(h, g, layer, x, heads);
        x = decoder::feed_forward(h, g, layer, x);
    }
    decoder::logits(h, g, x);
}
