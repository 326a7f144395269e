//! `gpt_oss`, `gpt-oss` in GGUF: layers with and without a window in turns, a sink for every head, and mixtures of experts
//! with biases whose gates are clamped (arXiv 2508.10925).

use super::experts::{self, Experts, Family};
use super::hyper::{Key, LAYER_TYPES};
use super::locate::{Fused, Order};
use super::names::Name;
use super::{Architecture, Hyper, decoder};
use crate::error::Result;
use crate::format::Checkpoint;
use crate::graph::{Activation, Builder, RopePairs, RouterScore};

pub(super) const GPT_OSS: Architecture =
    Architecture { gguf: Some("gpt-oss"), hub: Some("gpt_oss"), names: NAMES, fused: FUSED, hyper, graph };

const NAMES: &[Name] = &[
    ("blk.{i}.post_attention_norm.weight", "model.layers.{i}.post_attention_layernorm.weight"),
    ("blk.{i}.attn_sinks.weight", "model.layers.{i}.self_attn.sinks"),
    ("blk.{i}.ffn_gate_inp.weight", "model.layers.{i}.mlp.router.weight"),
    ("blk.{i}.ffn_gate_up_exps.weight", "model.layers.{i}.mlp.experts.gate_up_proj"),
    ("blk.{i}.ffn_gate_up_exps.bias", "model.layers.{i}.mlp.experts.gate_up_proj_bias"),
    ("blk.{i}.ffn_down_exps.weight", "model.layers.{i}.mlp.experts.down_proj"),
    ("blk.{i}.ffn_down_exps.bias", "model.layers.{i}.mlp.experts.down_proj_bias"),
];

/// The hub's tensors multiply from the right, and have the columns of gate and up in turns.
const FUSED: &[Fused] = &[
    Fused::rows("ffn_gate_up_exps.weight", &["ffn_gate_exps.weight", "ffn_up_exps.weight"])
        .on_hub(Order::Alternating, true),
    Fused::rows("ffn_gate_up_exps.bias", &["ffn_gate_exps.bias", "ffn_up_exps.bias"]).on_hub(Order::Alternating, false),
    Fused::rows("ffn_down_exps.weight", &["ffn_down_exps.weight"]).on_hub(Order::Following, true),
];

const WINDOW: Key<u64> = Key::new("attention.sliding_window", "sliding_window", 1, 1 << 24);
/// GGUF has no keys for these two and means the same numbers.
const LIMIT: Key<f64> = Key::new("", "swiglu_limit", 1e-3, 1e6);
const SLOPE: Key<f64> = Key::new("", "swiglu_alpha", 1e-3, 1e6);

fn hyper(checkpoint: &Checkpoint) -> Result<Hyper> {
    let metadata = &checkpoint.metadata;
    let own = &["expert_count", "attention.sliding_window", LAYER_TYPES];
    let mut h = Hyper::read(checkpoint, RopePairs::Halves, own)?;
    h.read_windows(metadata, &WINDOW, 2)?;
    h.attention_sinks = true;
    h.activation = Activation::Clamped {
        limit: LIMIT.get(metadata)?.unwrap_or(7.0) as f32,
        slope: SLOPE.get(metadata)?.unwrap_or(1.702) as f32,
    };
    let family = Family { score: RouterScore::SoftmaxOfChosen, normalise: false, shared: false };
    h.experts = Some(Experts::read(metadata, h.ffn_dim, &family)?);
    h.require_biases(&["ffn_gate_inp", "ffn_gate_exps", "ffn_up_exps", "ffn_down_exps"]);
    Ok(h)
}

fn graph(h: &Hyper, g: &mut Builder) {
    let mut x = decoder::embed(h, g);
    for layer in 0..h.n_layers {
        let heads = decoder::project(h, g, layer, x);
        x = decoder::attend(h, g, layer, x, heads);
        let normed = decoder::norm(h, g, &format!("blk.{layer}.post_attention_norm"), x, 1);
        let Some(experts) = &h.experts else { return };
        let output = experts::mixture(h, g, layer, normed, experts);
        x = g.add(format!("blk.{layer}.ffn_residual"), x, output);
    }
    decoder::logits(h, g, x);
}
