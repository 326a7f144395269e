//! `gemma2`: norms around the blocks, soft caps, layers with and without a window in turns (arXiv 2408.00118).

use super::hyper::{Key, LAYER_TYPES, unsupported};
use super::names::NORMS_AFTER;
use super::{Architecture, Hyper, decoder};
use crate::error::Result;
use crate::format::{Checkpoint, Dialect};
use crate::graph::{Activation, Builder, RopePairs};

pub(super) const GEMMA2: Architecture =
    Architecture { gguf: Some("gemma2"), hub: Some("gemma2"), names: NORMS_AFTER, fused: &[], hyper, graph };

const WINDOW: Key<u64> = Key::new("attention.sliding_window", "sliding_window", 1, 1 << 24);
const PATTERN: Key<u64> = Key::new("", "sliding_window_pattern", 1, 1024);
const QUERY_SCALE: Key<f64> = Key::new("", "query_pre_attn_scalar", 1e-3, 1e6);
const ATTENTION_CAP: Key<f64> = Key::new("attn_logit_softcapping", "attn_logit_softcapping", 1e-3, 1e6);
const LOGIT_CAP: Key<f64> = Key::new("final_logit_softcapping", "final_logit_softcapping", 1e-3, 1e6);
const ACTIVATION: &str = "gelu_pytorch_tanh";

/// What Gemma 2 and 3 share. Of `pattern` layers the last sees everything, where the files do not say otherwise; GGUF
/// does not tell that the models of `largest` layers scale queries by the width of a head's share of the stream.
pub(super) fn read(checkpoint: &Checkpoint, pattern: usize, largest: usize) -> Result<Hyper> {
    let metadata = &checkpoint.metadata;
    let own = &["hidden_act", LAYER_TYPES, "attention.sliding_window"];
    let mut h = Hyper::read(checkpoint, RopePairs::Halves, own)?;
    for key in ["hidden_act", "hidden_activation"] {
        if let Some(other) = metadata.text(key)?.filter(|found| *found != ACTIVATION) {
            return Err(unsupported(key, format!("{other} is not supported")));
        }
    }
    h.activation = Activation::GeluTanh;
    h.embedding_scale = Some((h.dim as f32).sqrt());
    h.attention_softcap = ATTENTION_CAP.get(metadata)?.map(|cap| cap as f32);
    h.logit_softcap = LOGIT_CAP.get(metadata)?.map(|cap| cap as f32);
    match metadata.dialect {
        Dialect::Hub => {
            h.norm_offset = 1.0;
            h.attention_scale = (1.0 / QUERY_SCALE.need(metadata)?.sqrt()) as f32;
        }
        Dialect::Gguf if h.n_layers == largest => h.attention_scale = (h.n_heads as f32 / h.dim as f32).sqrt(),
        Dialect::Gguf => {}
    }
    let pattern = PATTERN.get(metadata)?.unwrap_or(pattern);
    h.read_windows(metadata, &WINDOW, pattern)?;
    Ok(h)
}

fn hyper(checkpoint: &Checkpoint) -> Result<Hyper> {
    if checkpoint.metadata.dialect == Dialect::Gguf {
        // A file without them means values of its reader's own.
        ATTENTION_CAP.need(&checkpoint.metadata)?;
        LOGIT_CAP.need(&checkpoint.metadata)?;
    }
    read(checkpoint, 2, 46)
}

fn graph(h: &Hyper, g: &mut Builder) {
    decoder::sandwich(h, g, decoder::project);
}
