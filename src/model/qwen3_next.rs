//! `qwen3_next`: layers with the gated delta rule and, every so often, gated attention; mixtures of experts beside a gated
//! expert for every token (Qwen3-Next; the rule is that of arXiv 2412.06464).

use super::experts::{Experts, Family};
use super::hyper::{Key, LAYER_TYPES, malformed, unsupported};
use super::locate::Fused;
use super::names::Name;
use super::{Architecture, Hyper, decoder, qwen3moe};
use crate::error::Result;
use crate::format::{Checkpoint, Metadata};
use crate::graph::{Activation, Builder, GatedDelta, RopePairs, RouterScore, ShortConv, ValueId};

pub(super) const QWEN3_NEXT: Architecture =
    Architecture { gguf: None, hub: Some("qwen3_next"), names: NAMES, fused: FUSED, hyper, graph };

const NAMES: &[Name] = &[
    ("blk.{i}.ssm_in.weight", "model.layers.{i}.linear_attn.in_proj_qkvz.weight"),
    ("blk.{i}.ssm_ba.weight", "model.layers.{i}.linear_attn.in_proj_ba.weight"),
    ("blk.{i}.ssm_conv1d.weight", "model.layers.{i}.linear_attn.conv1d.weight"),
    ("blk.{i}.ssm_a_log", "model.layers.{i}.linear_attn.A_log"),
    ("blk.{i}.ssm_dt", "model.layers.{i}.linear_attn.dt_bias"),
    ("blk.{i}.ssm_norm.weight", "model.layers.{i}.linear_attn.norm.weight"),
    ("blk.{i}.ssm_out.weight", "model.layers.{i}.linear_attn.out_proj.weight"),
    ("blk.{i}.ffn_gate_inp_shexp.weight", "model.layers.{i}.mlp.shared_expert_gate.weight"),
    ("blk.{i}.ffn_gate_shexp.weight", "model.layers.{i}.mlp.shared_expert.gate_proj.weight"),
    ("blk.{i}.ffn_up_shexp.weight", "model.layers.{i}.mlp.shared_expert.up_proj.weight"),
    ("blk.{i}.ffn_down_shexp.weight", "model.layers.{i}.mlp.shared_expert.down_proj.weight"),
];

/// Head by head.
const FUSED: &[Fused] = &[
    Fused::rows("attn_q.weight", &["attn_query.weight", "attn_gate.weight"]),
    Fused::rows("ssm_in.weight", &["ssm_q.weight", "ssm_k.weight", "ssm_v.weight", "ssm_z.weight"]),
    Fused::rows("ssm_ba.weight", &["ssm_beta.weight", "ssm_decay.weight"]),
];

/// What the gated delta rule is described by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Delta {
    /// Heads of queries and keys; divides `value_heads`.
    pub key_heads: usize,
    /// Heads of values.
    pub value_heads: usize,
    /// Elements of one query or key.
    pub key_dim: usize,
    /// Elements of one value.
    pub value_dim: usize,
}

const KEY_HEADS: Key<u64> = Key::new("", "linear_num_key_heads", 1, 1024);
const VALUE_HEADS: Key<u64> = Key::new("", "linear_num_value_heads", 1, 1024);
const KEY_DIM: Key<u64> = Key::new("", "linear_key_head_dim", 1, 1024);
const VALUE_DIM: Key<u64> = Key::new("", "linear_value_head_dim", 1, 1024);
const TAPS: Key<u64> = Key::new("", "linear_conv_kernel_dim", 2, 16);
const SHARED_DIM: Key<u64> = Key::new("", "shared_expert_intermediate_size", 8, 1 << 20);
/// Without types of layers: every so many layers one attends.
const INTERVAL: Key<u64> = Key::new("", "full_attention_interval", 1, 1024);

fn hyper(checkpoint: &Checkpoint) -> Result<Hyper> {
    let metadata = &checkpoint.metadata;
    let mut h = Hyper::read(checkpoint, RopePairs::Halves, &[LAYER_TYPES])?;
    h.norm_offset = 1.0;
    h.conv_taps = TAPS.need(metadata)?;
    h.delta = Some(delta(metadata)?);
    let interval = INTERVAL.get(metadata)?.unwrap_or(4);
    let types = h.layer_types(metadata)?;
    for (index, layer) in h.layers.iter_mut().enumerate() {
        layer.recurrent = match types.and_then(|types| types.get(index)).map(String::as_str) {
            None => index.saturating_add(1).checked_rem(interval) != Some(0),
            Some("full_attention") => false,
            Some("linear_attention") => true,
            Some(other) => return Err(unsupported(LAYER_TYPES, format!("{other} is not supported"))),
        };
    }
    let family = Family { score: RouterScore::Softmax, normalise: true, shared: false };
    let experts = Experts::read(metadata, h.ffn_dim, &family)?;
    h.experts = Some(Experts { shared_dim: SHARED_DIM.need(metadata)?, shared_gate: true, ..experts });
    qwen3moe::place_experts(&mut h, metadata)?;
    Ok(h)
}

fn delta(metadata: &Metadata) -> Result<Delta> {
    let (key_heads, value_heads) = (KEY_HEADS.need(metadata)?, VALUE_HEADS.need(metadata)?);
    if value_heads.checked_rem(key_heads) != Some(0) {
        let problem = format!("{value_heads} heads cannot share {key_heads} key heads evenly");
        return Err(malformed(KEY_HEADS.name(metadata), problem));
    }
    Ok(Delta { key_heads, value_heads, key_dim: KEY_DIM.need(metadata)?, value_dim: VALUE_DIM.need(metadata)? })
}

fn graph(h: &Hyper, g: &mut Builder) {
    let Some(delta) = h.delta else { return };
    let mut x = decoder::embed(h, g);
    for layer in 0..h.n_layers {
        let normed = decoder::norm(h, g, &format!("blk.{layer}.attn_norm"), x, 1);
        let output = match h.layers.get(layer).is_some_and(|layer| layer.recurrent) {
            true => remember(h, g, layer, normed, &delta),
            false => attend(h, g, layer, normed),
        };
        x = g.add(format!("blk.{layer}.attn_residual"), x, output);
        x = decoder::feed_forward(h, g, layer, x);
    }
    decoder::logits(h, g, x);
}

/// `heads` products of `rows` rows each.
fn of_heads(h: &Hyper, g: &mut Builder, name: String, x: ValueId, (heads, rows): (usize, usize)) -> ValueId {
    let weight = g.matrices(format!("{name}.weight"), heads, rows, h.dim);
    g.matmul(name, x, weight)
}

/// Attention whose result goes through a gate.
fn attend(h: &Hyper, g: &mut Builder, layer: usize, x: ValueId) -> ValueId {
    let named = |part: &str| format!("blk.{layer}.{part}");
    let q = of_heads(h, g, named("attn_query"), x, (h.n_heads, h.head_dim));
    let gate = of_heads(h, g, named("attn_gate"), x, (h.n_heads, h.head_dim));
    let narrow = h.n_kv_heads.saturating_mul(h.head_dim);
    let k = decoder::linear(h, g, &named("attn_k"), x, narrow);
    let v = decoder::linear(h, g, &named("attn_v"), x, narrow);
    let heads = decoder::norm_heads(h, g, layer, decoder::Heads { q, k, v }, (h.n_heads, h.n_kv_heads));
    let mixed = decoder::attention(h, g, layer, heads);
    let gated = g.glu(named("attn_gated"), gate, mixed, Activation::Sigmoid);
    decoder::linear(h, g, &named("attn_output"), gated, h.dim)
}

/// A short convolution, the gated delta rule, and a norm whose result goes through a gate.
fn remember(h: &Hyper, g: &mut Builder, layer: usize, x: ValueId, delta: &Delta) -> ValueId {
    let Delta { key_heads, value_heads, key_dim, value_dim } = *delta;
    let named = |part: &str| format!("blk.{layer}.{part}");
    // Value heads that share a key head.
    let sharing = value_heads.checked_div(key_heads).unwrap_or(0);
    let values = sharing.saturating_mul(value_dim);
    let mut part = |name: &str, rows: usize| of_heads(h, g, named(name), x, (key_heads, rows));
    let (q, k, v) = (part("ssm_q", key_dim), part("ssm_k", key_dim), part("ssm_v", values));
    let (z, beta, decay) = (part("ssm_z", values), part("ssm_beta", sharing), part("ssm_decay", sharing));

    let qkv = g.concat(named("ssm_qkv"), &[q, k, v], 1);
    let weight = g.table(named("ssm_conv1d.weight"), g.width(qkv), h.conv_taps);
    let conv = ShortConv { state: g.states(), taps: h.conv_taps, weight, activation: Some(Activation::Silu) };
    let qkv = g.short_conv(named("ssm_conv1d"), qkv, None, conv);
    let a_log = g.vector(named("ssm_a_log"), value_heads);
    let dt = g.vector(named("ssm_dt"), value_heads);
    let rule = GatedDelta { state: g.states(), key_heads, value_heads, key_dim, value_dim, a_log, dt };
    let found = g.gated_delta(named("ssm_delta"), qkv, [beta, decay], rule);
    let normed = decoder::norm(h, g, &named("ssm_norm"), found, value_heads);
    let gated = g.glu(named("ssm_gated"), z, normed, Activation::Silu);
    decoder::linear(h, g, &named("ssm_out"), gated, h.dim)
}
