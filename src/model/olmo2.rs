//! `olmo2`: norms after the blocks instead of before them, and over all queries and keys at once (arXiv 2501.00656).

use super::names::NORMS_AFTER;
use super::{Architecture, Hyper, decoder};
use crate::error::Result;
use crate::format::Checkpoint;
use crate::graph::{Builder, RopePairs};

pub(super) const OLMO2: Architecture =
    Architecture { gguf: Some("olmo2"), hub: Some("olmo2"), names: NORMS_AFTER, fused: &[], hyper, graph };

fn hyper(checkpoint: &Checkpoint) -> Result<Hyper> {
    Hyper::read(checkpoint, RopePairs::Halves, &[])
}

fn graph(h: &Hyper, g: &mut Builder) {
    let mut x = decoder::embed(h, g);
    for layer in 0..h.n_layers {
        let heads = decoder::project_plain(h, g, layer, x);
        let heads = decoder::norm_heads(h, g, layer, heads, (1, 1));
        let mixed = decoder::mix(h, g, layer, heads);
        let mixed = decoder::norm(h, g, &format!("blk.{layer}.post_attention_norm"), mixed, 1);
        x = g.add(format!("blk.{layer}.attn_residual"), x, mixed);
        let output = decoder::gated(h, g, layer, x);
        let output = decoder::norm(h, g, &format!("blk.{layer}.post_ffw_norm"), output, 1);
        x = g.add(format!("blk.{layer}.ffn_residual"), x, output);
    }
    decoder::logits(h, g, x);
}
