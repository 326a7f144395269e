//! `qwen3moe`, `qwen3_moe` on the hub: qwen3's computation with a mixture of experts in every layer, or in those that the
//! configuration names (arXiv 2505.09388).

use super::experts::{Experts, Family};
use super::hyper::{Key, malformed};
use super::{Architecture, Hyper, qwen3};
use crate::error::Result;
use crate::format::{Checkpoint, Dialect, Metadata};
use crate::graph::{RopePairs, RouterScore};

pub(super) const QWEN3MOE: Architecture =
    Architecture { gguf: Some("qwen3moe"), hub: Some("qwen3_moe"), names: &[], fused: &[], hyper, graph: qwen3::graph };

/// Every so many layers one has experts.
const STEP: Key<u64> = Key::new("", "decoder_sparse_step", 1, 1024);
/// Layers that have none.
const DENSE: &str = "mlp_only_layers";

fn hyper(checkpoint: &Checkpoint) -> Result<Hyper> {
    let metadata = &checkpoint.metadata;
    let mut h = Hyper::read(checkpoint, RopePairs::Halves, &["expert_count"])?;
    // llama.cpp divides by the sum for this class; the configuration of the hub says it, and means no where it does not.
    let normalise = metadata.dialect == Dialect::Gguf;
    let family = Family { score: RouterScore::Softmax, normalise, shared: false };
    h.experts = Some(Experts::read(metadata, h.ffn_dim, &family)?);
    place_experts(&mut h, metadata)?;
    Ok(h)
}

/// Says which layers have experts.
pub(super) fn place_experts(h: &mut Hyper, metadata: &Metadata) -> Result<()> {
    let step = STEP.get(metadata)?.unwrap_or(1);
    let dense = metadata.integers(DENSE)?.unwrap_or_default();
    let layers = i64::try_from(h.n_layers).unwrap_or(i64::MAX);
    if let Some(other) = dense.iter().find(|layer| !(0..layers).contains(layer)) {
        return Err(malformed(DENSE, format!("layer {other} of {layers}")));
    }
    for (index, layer) in (1usize..).zip(&mut h.layers) {
        let named = dense.iter().any(|dense| usize::try_from(*dense).ok() == index.checked_sub(1));
        layer.experts = index.checked_rem(step) == Some(0) && !named;
    }
    Ok(())
}
