//! `qwen2`: Qwen2 and Qwen2.5 (arXiv 2412.15115): llama's computation with biases on queries, keys and values.

use super::{Architecture, Hyper, llama};
use crate::error::Result;
use crate::format::Checkpoint;
use crate::graph::RopePairs;

pub(super) const QWEN2: Architecture =
    Architecture { gguf: Some("qwen2"), hub: Some("qwen2"), names: &[], fused: &[], hyper, graph: llama::graph };

fn hyper(checkpoint: &Checkpoint) -> Result<Hyper> {
    let mut h = Hyper::read(checkpoint, RopePairs::Halves, &[])?;
    // No key says so: every model of this class has them.
    h.require_biases(&["attn_q", "attn_k", "attn_v"]);
    Ok(h)
}
