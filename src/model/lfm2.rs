//! `lfm2`: gated short convolutions, with attention in every few layers (LFM2, arXiv 2511.23404).

use super::hyper::{Key, N_KV_HEADS, malformed, unsupported};
use super::locate::Fused;
use super::names::Name;
use super::{Architecture, Hyper, decoder};
use crate::error::Result;
use crate::format::{Checkpoint, Dialect, Metadata};
use crate::graph::{Builder, Gates, RopePairs, ShortConv, ValueId};

pub(super) const LFM2: Architecture =
    Architecture { gguf: Some("lfm2"), hub: Some("lfm2"), names: NAMES, fused: FUSED, hyper, graph };

const NAMES: &[Name] = &[
    ("blk.{i}.attn_norm.weight", "model.layers.{i}.operator_norm.weight"),
    ("blk.{i}.attn_q_norm.weight", "model.layers.{i}.self_attn.q_layernorm.weight"),
    ("blk.{i}.attn_k_norm.weight", "model.layers.{i}.self_attn.k_layernorm.weight"),
    ("blk.{i}.attn_output.weight", "model.layers.{i}.self_attn.out_proj.weight"),
    ("blk.{i}.shortconv.in_proj.weight", "model.layers.{i}.conv.in_proj.weight"),
    ("blk.{i}.shortconv.conv.weight", "model.layers.{i}.conv.conv.weight"),
    ("blk.{i}.shortconv.out_proj.weight", "model.layers.{i}.conv.out_proj.weight"),
    ("blk.{i}.ffn_norm.weight", "model.layers.{i}.ffn_norm.weight"),
    ("blk.{i}.ffn_gate.weight", "model.layers.{i}.feed_forward.w1.weight"),
    ("blk.{i}.ffn_up.weight", "model.layers.{i}.feed_forward.w3.weight"),
    ("blk.{i}.ffn_down.weight", "model.layers.{i}.feed_forward.w2.weight"),
    // GGUF's own name of the last norm of this family.
    ("token_embd_norm.weight", "model.embedding_norm.weight"),
];

const FUSED: &[Fused] = &[Fused::rows(
    "shortconv.in_proj.weight",
    &["shortconv.before.weight", "shortconv.after.weight", "shortconv.x.weight"],
)];

const TAPS: Key<u64> = Key::new("shortconv.l_cache", "conv_L_cache", 2, 16);
const ATTENTION_LAYERS: &str = "full_attn_idxs";
const LAYER_TYPES: &str = "layer_types";
const BASE: &str = "rope_theta";

/// How wide the feed-forward block is, from how wide it would be without a gate.
const FFN_DIM: Key<u64> = Key::new("", "block_ff_dim", 8, 1 << 20);
const FFN_ADJUSTS: &str = "block_auto_adjust_ff_dim";
const FFN_FACTOR: Key<f64> = Key::new("", "block_ffn_dim_multiplier", 1e-3, 1e3);
const FFN_STEP: Key<u64> = Key::new("", "block_multiple_of", 1, 1 << 16);

fn hyper(checkpoint: &Checkpoint) -> Result<Hyper> {
    let metadata = &checkpoint.metadata;
    let mut h = Hyper::read(checkpoint, RopePairs::Halves, &[LAYER_TYPES, "attention.head_count_kv"])?;
    h.conv_taps = TAPS.need(metadata)?;
    let attends = match metadata.dialect {
        Dialect::Gguf => N_KV_HEADS.of_layers(metadata)?.iter().map(|heads| *heads > 0).collect(),
        Dialect::Hub => {
            h.ffn_dim = ffn_dim(metadata, h.ffn_dim)?;
            // Silence means another base here than elsewhere.
            metadata.number(BASE)?.ok_or_else(|| malformed(BASE, "the key is missing"))?;
            attention_layers(metadata, h.n_layers)?
        }
    };
    if attends.len() != h.n_layers {
        let key = if metadata.dialect == Dialect::Hub { LAYER_TYPES } else { "lfm2.attention.head_count_kv" };
        return Err(malformed(key, format!("{} entries for {} layers", attends.len(), h.n_layers)));
    }
    for (layer, attends) in h.layers.iter_mut().zip(attends) {
        layer.recurrent = !attends;
    }
    Ok(h)
}

/// Which layers attend; the others convolve.
fn attention_layers(metadata: &Metadata, n_layers: usize) -> Result<Vec<bool>> {
    if let Some(types) = metadata.texts(LAYER_TYPES)? {
        return types
            .iter()
            .map(|name| match name.as_str() {
                "full_attention" => Ok(true),
                "conv" => Ok(false),
                other => Err(unsupported(LAYER_TYPES, format!("{other} is not supported"))),
            })
            .collect();
    }
    let listed = metadata.integers(ATTENTION_LAYERS)?;
    let listed = listed.ok_or_else(|| malformed(ATTENTION_LAYERS, "the key is missing, and layer_types too"))?;
    let mut attends = vec![false; n_layers];
    for index in listed {
        let layer = usize::try_from(*index).ok().and_then(|index| attends.get_mut(index));
        *layer.ok_or_else(|| malformed(ATTENTION_LAYERS, format!("{index} of {n_layers} layers")))? = true;
    }
    Ok(attends)
}

/// Two thirds of what is told, made larger by a factor and up to a multiple, unless told as it is.
fn ffn_dim(metadata: &Metadata, told: usize) -> Result<usize> {
    let told = FFN_DIM.get(metadata)?.unwrap_or(told);
    if !metadata.boolean(FFN_ADJUSTS)?.unwrap_or(true) {
        return Ok(told);
    }
    let (factor, step) = (FFN_FACTOR.get(metadata)?.unwrap_or(1.0), FFN_STEP.get(metadata)?.unwrap_or(256));
    let two_thirds = told.saturating_mul(2).checked_div(3).unwrap_or(0);
    let wanted = (two_thirds as f64 * factor) as usize;
    Ok(wanted.div_ceil(step).saturating_mul(step))
}

fn graph(h: &Hyper, g: &mut Builder) {
    let mut x = decoder::embed(h, g);
    for layer in 0..h.n_layers {
        x = match h.layers.get(layer).is_some_and(|layer| layer.recurrent) {
            true => convolve(h, g, layer, x),
            false => {
                let heads = decoder::project(h, g, layer, x);
                let heads = decoder::norm_heads(h, g, layer, heads, (h.n_heads, h.n_kv_heads));
                decoder::attend(h, g, layer, x, heads)
            }
        };
        x = decoder::feed_forward(h, g, layer, x);
    }
    let rows = g.output_rows("output_rows", x);
    let weight = g.vector("token_embd_norm.weight", h.dim);
    let normed = g.rms_norm("output_norm", rows, weight, h.norm_eps, 1);
    decoder::head(h, g, normed);
}

/// Norm, gated convolution, output projection, and the sum with the residual stream.
fn convolve(h: &Hyper, g: &mut Builder, layer: usize, x: ValueId) -> ValueId {
    let normed = decoder::norm(h, g, &format!("blk.{layer}.attn_norm"), x, 1);
    let mut part = |name: &str| decoder::linear(h, g, &format!("blk.{layer}.shortconv.{name}"), normed, h.dim);
    let (before, after, inner) = (part("before"), part("after"), part("x"));
    let weight = g.table(format!("blk.{layer}.shortconv.conv.weight"), h.dim, h.conv_taps);
    let spec = ShortConv { state: g.states(), taps: h.conv_taps, weight, activation: None };
    let mixed = g.short_conv(format!("blk.{layer}.shortconv"), inner, Some(Gates { before, after }), spec);
    let output = decoder::linear(h, g, &format!("blk.{layer}.shortconv.out_proj"), mixed, h.dim);
    g.add(format!("blk.{layer}.attn_residual"), x, output)
}
