//! `modernbert`: norms before the blocks, gated feed-forward, and rotations of two bases in layers that see everything or
//! a window to both sides (arXiv 2412.13663).

use super::decoder::gated;
use super::hyper::{Key, malformed, unsupported};
use super::names::Name;
use super::{Architecture, Fused, Hyper, Layer, encoder, rotary};
use crate::error::Result;
use crate::format::Checkpoint;
use crate::graph::{Activation, Builder, Rope, RopeId, RopePairs};

pub(super) const MODERNBERT: Architecture =
    Architecture { gguf: None, hub: Some("modernbert"), names: NAMES, fused: FUSED, hyper, graph };

const NAMES: &[Name] = &[
    ("token_embd.weight", "model.embeddings.tok_embeddings.weight"),
    ("token_embd_norm.weight", "model.embeddings.norm.weight"),
    ("blk.{i}.attn_norm.weight", "model.layers.{i}.attn_norm.weight"),
    ("blk.{i}.attn_qkv.weight", "model.layers.{i}.attn.Wqkv.weight"),
    ("blk.{i}.attn_output.weight", "model.layers.{i}.attn.Wo.weight"),
    ("blk.{i}.ffn_norm.weight", "model.layers.{i}.mlp_norm.weight"),
    ("blk.{i}.ffn_up.weight", "model.layers.{i}.mlp.Wi.weight"),
    ("blk.{i}.ffn_down.weight", "model.layers.{i}.mlp.Wo.weight"),
    ("output_norm.weight", "model.final_norm.weight"),
];

const FUSED: &[Fused] = &[
    Fused::rows("attn_qkv.weight", &["attn_q.weight", "attn_k.weight", "attn_v.weight"]),
    Fused::rows("ffn_up.weight", &["ffn_gate.weight", "ffn_up.weight"]),
];

const WINDOW: Key<u64> = Key::new("", "local_attention", 2, 1 << 24);
const PATTERN: Key<u64> = Key::new("", "global_attn_every_n_layers", 1, 1024);
const GLOBAL_BASE: Key<f64> = Key::new("", "global_rope_theta", 1.0, 1e12);
const LOCAL_BASE: Key<f64> = Key::new("", "local_rope_theta", 1.0, 1e12);
/// The same in the newer layout.
const NEWER_LOCAL_BASE: Key<f64> = Key::new("", "rope_local_base_freq", 1.0, 1e12);
const LAYER_TYPES: &str = "layer_types";

const GLOBAL: RopeId = RopeId(0);
const LOCAL: RopeId = RopeId(1);

fn hyper(checkpoint: &Checkpoint) -> Result<Hyper> {
    let metadata = &checkpoint.metadata;
    let mut h = encoder::read(checkpoint, Activation::Gelu, NAMES)?;
    h.encoder.norm_bias = metadata.boolean("norm_bias")?.unwrap_or(false);
    let rope =
        |base| Rope { inv_freq: rotary::plain(base, h.head_dim).collect(), pairs: RopePairs::Halves, scale: 1.0 };
    // Without the older key, what was read is the newer one's.
    let global = GLOBAL_BASE.get(metadata)?.map(rope).or(h.ropes.first().cloned());
    let local = match LOCAL_BASE.get(metadata)? {
        Some(base) => base,
        None => NEWER_LOCAL_BASE.get(metadata)?.unwrap_or(10_000.0),
    };
    h.ropes = global.into_iter().chain([rope(local)]).collect();
    // Half of the window lies on each side; the row itself belongs to neither.
    let window = WINDOW.need(metadata)?.checked_div(2).unwrap_or(0).saturating_add(1);
    let pattern = PATTERN.get(metadata)?.unwrap_or(3);
    let types = metadata.texts(LAYER_TYPES)?;
    if let Some(types) = types.filter(|types| types.len() != h.n_layers) {
        return Err(malformed(LAYER_TYPES, format!("{} types for {} layers", types.len(), h.n_layers)));
    }
    for (index, layer) in h.layers.iter_mut().enumerate() {
        let sees_all = match types.and_then(|types| types.get(index)).map(String::as_str) {
            None => index.checked_rem(pattern) == Some(0),
            Some("full_attention") => true,
            Some("sliding_attention") => false,
            Some(other) => return Err(unsupported(LAYER_TYPES, format!("{other} is not supported"))),
        };
        *layer = match sees_all {
            true => Layer { rope: Some(GLOBAL), ..Layer::default() },
            false => Layer { rope: Some(LOCAL), window: Some(window), ..Layer::default() },
        };
    }
    Ok(h)
}

fn graph(h: &Hyper, g: &mut Builder) {
    let mut x = encoder::embed(h, g);
    for layer in 0..h.n_layers {
        // The norm of the embeddings is the first layer's too.
        let normed = if layer == 0 { x } else { encoder::norm(h, g, &format!("blk.{layer}.attn_norm"), x) };
        let mixed = encoder::mix(h, g, layer, normed);
        x = g.add(format!("blk.{layer}.attn_residual"), x, mixed);
        let normed = encoder::norm(h, g, &format!("blk.{layer}.ffn_norm"), x);
        let output = gated(h, g, layer, normed);
        x = g.add(format!("blk.{layer}.ffn_residual"), x, output);
    }
    let normed = encoder::norm(h, g, "output_norm", x);
    encoder::end(h, g, normed);
}
