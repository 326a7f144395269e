//! `nomic_bert`: BERT's blocks with rotations for positions and gated feed-forward (arXiv 2402.01613).

use super::decoder::gated;
use super::hyper::{Key, unsupported};
use super::names::Name;
use super::{Architecture, Fused, Hyper, encoder};
use crate::error::Result;
use crate::format::Checkpoint;
use crate::graph::{Activation, Builder};

pub(super) const NOMIC_BERT: Architecture =
    Architecture { gguf: Some("nomic-bert"), hub: Some("nomic_bert"), names: NAMES, fused: FUSED, hyper, graph };

const NAMES: &[Name] = &[
    ("token_embd.weight", "bert.embeddings.word_embeddings.weight"),
    ("token_types.weight", "bert.embeddings.token_type_embeddings.weight"),
    ("token_embd_norm.weight", "bert.emb_ln.weight"),
    ("blk.{i}.attn_qkv.weight", "bert.encoder.layers.{i}.attn.Wqkv.weight"),
    ("blk.{i}.attn_output.weight", "bert.encoder.layers.{i}.attn.out_proj.weight"),
    ("blk.{i}.attn_output_norm.weight", "bert.encoder.layers.{i}.norm1.weight"),
    ("blk.{i}.ffn_up.weight", "bert.encoder.layers.{i}.mlp.fc11.weight"),
    ("blk.{i}.ffn_gate.weight", "bert.encoder.layers.{i}.mlp.fc12.weight"),
    ("blk.{i}.ffn_down.weight", "bert.encoder.layers.{i}.mlp.fc2.weight"),
    ("blk.{i}.layer_output_norm.weight", "bert.encoder.layers.{i}.norm2.weight"),
];

const FUSED: &[Fused] = &[Fused::rows("attn_qkv.weight", &["attn_q.weight", "attn_k.weight", "attn_v.weight"])];

/// Positions up to which the angles are those of the training; beyond, the authors' code changes the base.
const TRAINED: Key<u64> = Key::new("", "max_trained_positions", 1, 1 << 24);

/// Settings of the authors' own configuration, with the one value that is computed.
const FALSE: &[&str] = &["prenorm", "parallel_block", "use_rms_norm", "rotary_emb_interleaved", "causal"];
const FRACTION: Key<f64> = Key::new("", "rotary_emb_fraction", 0.0, 1.0);
const SCALING: Key<f64> = Key::new("", "rotary_scaling_factor", 0.0, 1e6);

fn hyper(checkpoint: &Checkpoint) -> Result<Hyper> {
    let metadata = &checkpoint.metadata;
    for key in FALSE {
        if metadata.boolean(key)? == Some(true) {
            return Err(unsupported(*key, "true is not supported"));
        }
    }
    if let Some(other) = FRACTION.get(metadata)?.filter(|fraction| *fraction != 1.0) {
        return Err(unsupported("rotary_emb_fraction", format!("{other} is not supported")));
    }
    let mut h = encoder::read(checkpoint, Activation::Silu, NAMES)?;
    let trained = TRAINED.get(metadata)?;
    if trained.is_none() && SCALING.get(metadata)?.is_some() {
        return Err(unsupported("rotary_scaling_factor", "without max_trained_positions it is not supported"));
    }
    h.context = h.context.min(trained.unwrap_or(h.context));
    Ok(h)
}

fn graph(h: &Hyper, g: &mut Builder) {
    let mut x = encoder::embed(h, g);
    for layer in 0..h.n_layers {
        x = encoder::block(h, g, layer, x, gated);
    }
    encoder::end(h, g, x);
}
