//! `deepseek_v3`, also R1: DeepSeek-V2's computation with experts chosen by sigmoids, a bias and groups (arXiv
//! 2412.19437). GGUF calls both by one name.

use super::deepseek_v2::{self, FUSED, NAMES};
use super::experts::Family;
use super::{Architecture, Hyper};
use crate::error::Result;
use crate::format::Checkpoint;
use crate::graph::RouterScore;

pub(super) const DEEPSEEK_V3: Architecture =
    Architecture { gguf: None, hub: Some("deepseek_v3"), names: NAMES, fused: FUSED, hyper, graph: deepseek_v2::graph };

fn hyper(checkpoint: &Checkpoint) -> Result<Hyper> {
    let family = Family { score: RouterScore::Sigmoid, normalise: true, shared: true };
    let mut h = deepseek_v2::read(checkpoint, &family)?;
    h.require_biases(&["exp_probs_b"]);
    Ok(h)
}
