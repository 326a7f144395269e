//! `llama4_text`, `llama4` in GGUF: Llama 4 without its eyes. Most layers rotate and see only their chunk; the others see
//! everything, do not rotate, and scale queries by their position (arXiv 2501.19399). Layers have one feed-forward block or
//! a mixture of experts, whose weights go on what the experts are given, beside an expert for every token.

use super::experts::{Experts, Family};
use super::hyper::{Key, LAYER_TYPES, malformed, unsupported};
use super::locate::{Fused, Order};
use super::names::Name;
use super::{Architecture, Hyper, decoder, smollm3};
use crate::error::Result;
use crate::format::{Checkpoint, Dialect, Metadata, Value};
use crate::graph::{Builder, RopePairs, RouterScore, Temperature};

pub(super) const LLAMA4: Architecture =
    Architecture { gguf: Some("llama4"), hub: Some("llama4_text"), names: NAMES, fused: FUSED, hyper, graph };

const NAMES: &[Name] = &[
    ("blk.{i}.ffn_gate.weight", "model.layers.{i}.feed_forward.gate_proj.weight"),
    ("blk.{i}.ffn_up.weight", "model.layers.{i}.feed_forward.up_proj.weight"),
    ("blk.{i}.ffn_down.weight", "model.layers.{i}.feed_forward.down_proj.weight"),
    ("blk.{i}.ffn_gate_inp.weight", "model.layers.{i}.feed_forward.router.weight"),
    ("blk.{i}.ffn_gate_up_exps.weight", "model.layers.{i}.feed_forward.experts.gate_up_proj"),
    ("blk.{i}.ffn_down_exps.weight", "model.layers.{i}.feed_forward.experts.down_proj"),
    ("blk.{i}.ffn_gate_shexp.weight", "model.layers.{i}.feed_forward.shared_expert.gate_proj.weight"),
    ("blk.{i}.ffn_up_shexp.weight", "model.layers.{i}.feed_forward.shared_expert.up_proj.weight"),
    ("blk.{i}.ffn_down_shexp.weight", "model.layers.{i}.feed_forward.shared_expert.down_proj.weight"),
];

/// The hub's tensors multiply from the right, and have the columns of up after those of gate.
const FUSED: &[Fused] = &[
    Fused::rows("ffn_gate_up_exps.weight", &["ffn_gate_exps.weight", "ffn_up_exps.weight"])
        .on_hub(Order::Following, true),
    Fused::rows("ffn_down_exps.weight", &["ffn_down_exps.weight"]).on_hub(Order::Following, true),
];

const DENSE_DIM: Key<u64> = Key::new("feed_forward_length", "intermediate_size_mlp", 8, 1 << 20);
const CHUNK: Key<u64> = Key::new("", "attention_chunk_size", 1, 1 << 24);
const MOE_STEP: Key<u64> = Key::new("interleave_moe_layer_step", "interleave_moe_layer_step", 1, 1024);
const MOE_LAYERS: &str = "moe_layers";
const FLOOR: Key<f64> = Key::new("", "floor_scale", 1.0, 1e9);
const SCALE: Key<f64> = Key::new("", "attn_scale", 0.0, 1e3);
const TUNING: &str = "attn_temperature_tuning";
const NORMED: &str = "use_qk_norm";
/// What GGUF's reader means by a chunk, whatever the file says.
const GGUF_CHUNK: usize = 8192;
/// Of all models only those of so many experts have no norm of queries and keys; GGUF does not tell.
const GGUF_UNNORMED: usize = 128;

fn hyper(checkpoint: &Checkpoint) -> Result<Hyper> {
    let metadata = &checkpoint.metadata;
    let mut h = Hyper::read(checkpoint, RopePairs::Adjacent, &["expert_count", LAYER_TYPES])?;
    let family = Family { score: RouterScore::Sigmoid, normalise: false, shared: false };
    let experts = Experts::read(metadata, h.ffn_dim, &family)?;
    let (experts_dim, count) = (experts.ffn_dim, experts.routing.experts);
    h.experts = Some(Experts { weighs_input: true, shared_dim: experts_dim, ..experts });
    h.ffn_dim = DENSE_DIM.need(metadata)?;
    place_experts(&mut h, metadata)?;
    smollm3::leave_unrotated(&mut h, metadata)?;

    // The norm comes after the rotation, which keeps the size of a head, so that it may as well come before.
    let normed = match metadata.dialect {
        Dialect::Hub => metadata.boolean(NORMED)?.unwrap_or(true),
        Dialect::Gguf => count != GGUF_UNNORMED,
    };
    if normed && h.ropes.iter().any(|rope| rope.scale != 1.0) {
        return Err(unsupported("rope_scaling.rope_type", "a rotation that scales before a norm is not supported"));
    }
    let chunk = match metadata.dialect {
        Dialect::Hub => CHUNK.get(metadata)?,
        Dialect::Gguf => Some(GGUF_CHUNK),
    };
    let temperature = match tuned(metadata)? {
        true => Some(Temperature {
            floor: FLOOR.get(metadata)?.unwrap_or(8192.0) as f32,
            scale: SCALE.get(metadata)?.unwrap_or(0.1) as f32,
        }),
        false => None,
    };
    let types = h.layer_types(metadata)?;
    for (index, layer) in h.layers.iter_mut().enumerate() {
        let rotates = layer.rope.is_some();
        let chunked = match types.and_then(|types| types.get(index)).map(String::as_str) {
            None => rotates,
            Some("chunked_attention") => true,
            Some("full_attention") => false,
            Some(other) => return Err(unsupported(LAYER_TYPES, format!("{other} is not supported"))),
        };
        layer.chunk = chunk.filter(|_| chunked);
        layer.normed = normed && rotates;
        layer.temperature = temperature.filter(|_| !rotates);
    }
    Ok(h)
}

/// Says which layers have experts: every so many one, or those that are listed.
fn place_experts(h: &mut Hyper, metadata: &Metadata) -> Result<()> {
    let step = MOE_STEP.get(metadata)?.unwrap_or(1);
    let listed = metadata.integers(MOE_LAYERS)?;
    let layers = i64::try_from(h.n_layers).unwrap_or(i64::MAX);
    if let Some(other) = listed.unwrap_or_default().iter().find(|layer| !(0..layers).contains(layer)) {
        return Err(malformed(MOE_LAYERS, format!("layer {other} of {layers}")));
    }
    for (number, layer) in (1usize..).zip(&mut h.layers) {
        layer.experts = match listed {
            Some(listed) => listed.iter().any(|index| usize::try_from(*index).ok() == number.checked_sub(1)),
            None => number.checked_rem(step) == Some(0),
        };
    }
    Ok(())
}

/// Whether queries of layers that do not rotate are scaled by position; some configurations write a number for it.
fn tuned(metadata: &Metadata) -> Result<bool> {
    match metadata.values.get(TUNING) {
        Some(Value::Integer(number)) => Ok(*number != 0),
        _ => Ok(metadata.boolean(TUNING)?.unwrap_or(true)),
    }
}

fn graph(h: &Hyper, g: &mut Builder) {
    let mut x = decoder::embed(h, g);
    for layer in 0..h.n_layers {
        let mut heads = decoder::project(h, g, layer, x);
        if h.layers.get(layer).is_some_and(|layer| layer.normed) {
            heads.q = g.rms_norm(format!("blk.{layer}.attn_q_norm"), heads.q, None, h.norm_eps, h.n_heads);
            heads.k = g.rms_norm(format!("blk.{layer}.attn_k_norm"), heads.k, None, h.norm_eps, h.n_kv_heads);
        }
        x = decoder::attend(h, g, layer, x, heads);
        x = decoder::feed_forward(h, g, layer, x);
    }
    decoder::logits(h, g, x);
}
