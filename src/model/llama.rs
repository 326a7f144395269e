//! `llama`: Llama 2 and 3, SmolLM2 and others of that class (arXiv 2302.13971); in GGUF, mixtral too.

use super::{Architecture, Hyper, decoder, experts, mixtral};
use crate::error::Result;
use crate::format::{Checkpoint, Dialect};
use crate::graph::{Builder, RopePairs};

pub(super) const LLAMA: Architecture =
    Architecture { gguf: Some("llama"), hub: Some("llama"), names: &[], fused: &[], hyper, graph };

/// llama.cpp's converter permutes the rows of q and k of this class, so that pairs are neighbours.
pub(super) fn pairs(dialect: Dialect) -> RopePairs {
    match dialect {
        Dialect::Gguf => RopePairs::Adjacent,
        Dialect::Hub => RopePairs::Halves,
    }
}

fn hyper(checkpoint: &Checkpoint) -> Result<Hyper> {
    let metadata = &checkpoint.metadata;
    let mut h = Hyper::read(checkpoint, pairs(metadata.dialect), &["expert_count"])?;
    if metadata.dialect == Dialect::Gguf && experts::declared(metadata)? {
        mixtral::mix(&mut h, metadata)?;
    }
    Ok(h)
}

/// Also the computation of families that differ from this one only in their hyperparameters.
pub(super) fn graph(h: &Hyper, g: &mut Builder) {
    let mut x = decoder::embed(h, g);
    for layer in 0..h.n_layers {
        let heads = decoder::project(h, g, layer, x);
        x = decoder::attend(h, g, layer, x, heads);
        x = decoder::feed_forward(h, g, layer, x);
    }
    decoder::logits(h, g, x);
}
