//! `qwen3`: the dense Qwen3 models (arXiv 2505.09388): a norm on every query and key head before its rotation.

use super::decoder::{self, Heads};
use super::{Architecture, Hyper};
use crate::error::Result;
use crate::format::Checkpoint;
use crate::graph::{Builder, RopePairs};

pub(super) const QWEN3: Architecture = Architecture { name: "qwen3", hyper, graph };

fn hyper(checkpoint: &Checkpoint) -> Result<Hyper> {
    Hyper::read(checkpoint, RopePairs::Halves)
}

fn graph(h: &Hyper, g: &mut Builder) {
    let rope = g.rotary(h.rope.clone());
    let mut x = decoder::embed(h, g);
    for layer in 0..h.n_layers {
        let Heads { q, k, v } = decoder::project(h, g, layer, x);
        let q = decoder::norm(g, h, &format!("blk.{layer}.attn_q_norm"), q, h.n_heads);
        let k = decoder::norm(g, h, &format!("blk.{layer}.attn_k_norm"), k, h.n_kv_heads);
        x = decoder::attend(h, g, layer, rope, x, Heads { q, k, v });
        x = decoder::feed_forward(h, g, layer, x);
    }
    decoder::logits(h, g, x);
}
