//! `bert`: BERT and the embedders and judges made of it, MiniLM and BGE among them (arXiv 1810.04805); in GGUF files also
//! XLM-RoBERTa, whose table of positions lost the rows of no position on the way there.

use super::decoder::linear;
use super::names::Name;
use super::{Architecture, Hyper, encoder};
use crate::error::Result;
use crate::format::Checkpoint;
use crate::graph::{Activation, Builder, ValueId};

pub(super) const BERT: Architecture =
    Architecture { gguf: Some("bert"), hub: Some("bert"), names: NAMES, fused: &[], hyper, graph };

const NAMES: &[Name] = &[
    ("token_embd.weight", "bert.embeddings.word_embeddings.weight"),
    ("position_embd.weight", "bert.embeddings.position_embeddings.weight"),
    ("token_types.weight", "bert.embeddings.token_type_embeddings.weight"),
    ("token_embd_norm.weight", "bert.embeddings.LayerNorm.weight"),
    ("blk.{i}.attn_q.weight", "bert.encoder.layer.{i}.attention.self.query.weight"),
    ("blk.{i}.attn_k.weight", "bert.encoder.layer.{i}.attention.self.key.weight"),
    ("blk.{i}.attn_v.weight", "bert.encoder.layer.{i}.attention.self.value.weight"),
    ("blk.{i}.attn_output.weight", "bert.encoder.layer.{i}.attention.output.dense.weight"),
    ("blk.{i}.attn_output_norm.weight", "bert.encoder.layer.{i}.attention.output.LayerNorm.weight"),
    ("blk.{i}.ffn_up.weight", "bert.encoder.layer.{i}.intermediate.dense.weight"),
    ("blk.{i}.ffn_down.weight", "bert.encoder.layer.{i}.output.dense.weight"),
    ("blk.{i}.layer_output_norm.weight", "bert.encoder.layer.{i}.output.LayerNorm.weight"),
    ("cls.weight", "bert.pooler.dense.weight"),
    ("cls.output.weight", "classifier.weight"),
];

fn hyper(checkpoint: &Checkpoint) -> Result<Hyper> {
    let mut h = encoder::read(checkpoint, Activation::Gelu, NAMES)?;
    require_biases(&mut h);
    encoder::with_positions(checkpoint, &mut h, 0)?;
    Ok(h)
}

/// No key says so: every projection of this class has a bias.
pub(super) fn require_biases(h: &mut Hyper) {
    h.require_biases(&["attn_q", "attn_k", "attn_v", "attn_output", "ffn_up", "ffn_down"]);
    h.biases.extend(["cls.bias", "cls.output.bias"].map(str::to_owned));
}

/// Also the computation of families that differ from this one only in their hyperparameters.
pub(super) fn graph(h: &Hyper, g: &mut Builder) {
    let mut x = encoder::embed(h, g);
    for layer in 0..h.n_layers {
        x = encoder::block(h, g, layer, x, feed_forward);
    }
    encoder::end(h, g, x);
}

fn feed_forward(h: &Hyper, g: &mut Builder, layer: usize, x: ValueId) -> ValueId {
    let wide = linear(h, g, &format!("blk.{layer}.ffn_up"), x, h.ffn_dim);
    let active = g.activate(format!("blk.{layer}.ffn_act"), wide, h.activation);
    linear(h, g, &format!("blk.{layer}.ffn_down"), active, h.dim)
}
