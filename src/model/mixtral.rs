//! `mixtral`: mistral's computation with a mixture of experts in every layer (arXiv 2401.04088). GGUF files of this class
//! call themselves `llama`.

use super::experts::{Experts, Family};
use super::names::Name;
use super::{Architecture, Hyper, llama, mistral};
use crate::error::Result;
use crate::format::{Checkpoint, Metadata};
use crate::graph::RouterScore;

pub(super) const MIXTRAL: Architecture =
    Architecture { gguf: None, hub: Some("mixtral"), names: NAMES, fused: &[], hyper, graph: llama::graph };

const NAMES: &[Name] = &[
    ("blk.{i}.ffn_gate_inp.weight", "model.layers.{i}.block_sparse_moe.gate.weight"),
    ("blk.{i}.ffn_gate_exps.weight", "model.layers.{i}.block_sparse_moe.experts.{e}.w1.weight"),
    ("blk.{i}.ffn_down_exps.weight", "model.layers.{i}.block_sparse_moe.experts.{e}.w2.weight"),
    ("blk.{i}.ffn_up_exps.weight", "model.layers.{i}.block_sparse_moe.experts.{e}.w3.weight"),
];

/// Puts the class' mixture into every layer.
pub(super) fn mix(h: &mut Hyper, metadata: &Metadata) -> Result<()> {
    let family = Family { score: RouterScore::Softmax, normalise: true, shared: false };
    h.experts = Some(Experts::read(metadata, h.ffn_dim, &family)?);
    h.layers.iter_mut().for_each(|layer| layer.experts = true);
    Ok(())
}

fn hyper(checkpoint: &Checkpoint) -> Result<Hyper> {
    let mut h = mistral::hyper(checkpoint)?;
    mix(&mut h, &checkpoint.metadata)?;
    Ok(h)
}
