//! `xlm-roberta`: BERT's computation with positions that begin after the padding's (arXiv 1911.02116).

use super::hyper::{Key, malformed};
use super::names::Name;
use super::{Architecture, Hyper, Pooling, bert, encoder};
use crate::error::Result;
use crate::format::Checkpoint;
use crate::graph::Activation;

pub(super) const XLM_ROBERTA: Architecture =
    Architecture { gguf: None, hub: Some("xlm-roberta"), names: NAMES, fused: &[], hyper, graph: bert::graph };

const NAMES: &[Name] = &[
    ("token_embd.weight", "roberta.embeddings.word_embeddings.weight"),
    ("position_embd.weight", "roberta.embeddings.position_embeddings.weight"),
    ("token_types.weight", "roberta.embeddings.token_type_embeddings.weight"),
    ("token_embd_norm.weight", "roberta.embeddings.LayerNorm.weight"),
    ("blk.{i}.attn_q.weight", "roberta.encoder.layer.{i}.attention.self.query.weight"),
    ("blk.{i}.attn_k.weight", "roberta.encoder.layer.{i}.attention.self.key.weight"),
    ("blk.{i}.attn_v.weight", "roberta.encoder.layer.{i}.attention.self.value.weight"),
    ("blk.{i}.attn_output.weight", "roberta.encoder.layer.{i}.attention.output.dense.weight"),
    ("blk.{i}.attn_output_norm.weight", "roberta.encoder.layer.{i}.attention.output.LayerNorm.weight"),
    ("blk.{i}.ffn_up.weight", "roberta.encoder.layer.{i}.intermediate.dense.weight"),
    ("blk.{i}.ffn_down.weight", "roberta.encoder.layer.{i}.output.dense.weight"),
    ("blk.{i}.layer_output_norm.weight", "roberta.encoder.layer.{i}.output.LayerNorm.weight"),
    ("cls.weight", "classifier.dense.weight"),
    ("cls.output.weight", "classifier.out_proj.weight"),
];

const PADDING: Key<u64> = Key::new("", "pad_token_id", 0, 1 << 22);

fn hyper(checkpoint: &Checkpoint) -> Result<Hyper> {
    let mut h = encoder::read(checkpoint, Activation::Gelu, NAMES)?;
    bert::require_biases(&mut h);
    // The rows up to that of the padding's own id stand for no position.
    let offset = PADDING.get(&checkpoint.metadata)?.unwrap_or(1).checked_add(1);
    encoder::with_positions(checkpoint, &mut h, offset.ok_or_else(|| malformed("pad_token_id", "too large"))?)?;
    // What files without a word about pooling (BGE's and Arctic's class) read is the first state.
    h.pooling = Pooling::Cls;
    Ok(h)
}
