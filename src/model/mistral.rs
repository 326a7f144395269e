//! `mistral`: llama's computation where each row sees a window of positions (arXiv 2310.06825). GGUF files of this
//! class call themselves `llama`.

use super::hyper::Key;
use super::{Architecture, Hyper, llama};
use crate::error::Result;
use crate::format::Checkpoint;
use crate::graph::RopePairs;

pub(super) const MISTRAL: Architecture =
    Architecture { gguf: None, hub: Some("mistral"), names: &[], fused: &[], hyper, graph: llama::graph };

const WINDOW: Key<u64> = Key::new("", "sliding_window", 1, 1 << 24);

pub(super) fn hyper(checkpoint: &Checkpoint) -> Result<Hyper> {
    let mut h = Hyper::read(checkpoint, RopePairs::Halves, &[])?;
    let window = WINDOW.get(&checkpoint.metadata)?;
    h.layers.iter_mut().for_each(|layer| layer.window = window);
    Ok(h)
}
