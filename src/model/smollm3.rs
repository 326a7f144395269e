//! `smollm3`: llama's computation with layers that do not rotate queries and keys (SmolLM3; arXiv 2501.18795).

use super::hyper::{Key, malformed};
use super::{Architecture, Hyper, llama};
use crate::error::Result;
use crate::format::{Checkpoint, Metadata};

pub(super) const SMOLLM3: Architecture =
    Architecture { gguf: Some("smollm3"), hub: Some("smollm3"), names: &[], fused: &[], hyper, graph: llama::graph };

/// One number a layer: 1 where it rotates, 0 where it does not.
const ROTATED: &str = "no_rope_layers";
/// Without that list: every so many layers one does not rotate. GGUF has neither and means 4.
const INTERVAL: Key<u64> = Key::new("", "no_rope_layer_interval", 1, 1024);

fn hyper(checkpoint: &Checkpoint) -> Result<Hyper> {
    let metadata = &checkpoint.metadata;
    let mut h = Hyper::read(checkpoint, llama::pairs(metadata.dialect), &[])?;
    leave_unrotated(&mut h, metadata)?;
    Ok(h)
}

/// Takes the rotation from the layers that have none.
pub(super) fn leave_unrotated(h: &mut Hyper, metadata: &Metadata) -> Result<()> {
    // An empty list says nothing.
    let rotated = metadata.integers(ROTATED)?.filter(|listed| !listed.is_empty());
    if let Some(listed) = rotated.filter(|listed| listed.len() != h.n_layers) {
        return Err(malformed(ROTATED, format!("{} numbers for {} layers", listed.len(), h.n_layers)));
    }
    let interval = INTERVAL.get(metadata)?.unwrap_or(4);
    for (index, layer) in h.layers.iter_mut().enumerate() {
        let rotates = match rotated.and_then(|listed| listed.get(index)) {
            Some(number) => *number != 0,
            None => index.saturating_add(1).checked_rem(interval) != Some(0),
        };
        if !rotates {
            layer.rope = None;
        }
    }
    Ok(())
}
