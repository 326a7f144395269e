//! `deepseek_v2`, `deepseek2` in GGUF: latent attention and mixtures of experts (DeepSeek-V2, arXiv 2405.04434).
//!
//! Keys and values are products of one short vector a position. The products are left to the queries and to the result
//! (section 2.1.2 of the paper), so that the pages hold that vector and the one rotated key that all heads share, and
//! nothing else.

use super::experts::{Experts, Family};
use super::hyper::{Key, malformed, unsupported};
use super::locate::Fused;
use super::names::Name;
use super::{Architecture, Hyper, decoder, rotary};
use crate::error::Result;
use crate::format::{Checkpoint, Dialect};
use crate::graph::{Attention, Builder, RopeId, RopePairs, RouterScore, ValueId};

pub(super) const DEEPSEEK_V2: Architecture =
    Architecture { gguf: Some("deepseek2"), hub: Some("deepseek_v2"), names: NAMES, fused: FUSED, hyper, graph };

pub(super) const NAMES: &[Name] = &[
    ("blk.{i}.attn_q_a.weight", "model.layers.{i}.self_attn.q_a_proj.weight"),
    ("blk.{i}.attn_q_a_norm.weight", "model.layers.{i}.self_attn.q_a_layernorm.weight"),
    ("blk.{i}.attn_q_b.weight", "model.layers.{i}.self_attn.q_b_proj.weight"),
    ("blk.{i}.attn_kv_a_mqa.weight", "model.layers.{i}.self_attn.kv_a_proj_with_mqa.weight"),
    ("blk.{i}.attn_kv_a_norm.weight", "model.layers.{i}.self_attn.kv_a_layernorm.weight"),
    ("blk.{i}.attn_kv_b.weight", "model.layers.{i}.self_attn.kv_b_proj.weight"),
    // What only GGUF files have apart, and those not always.
    ("blk.{i}.attn_k_b.weight", ""),
    ("blk.{i}.attn_v_b.weight", ""),
];

/// Every head's queries have a part that is not rotated and one that is. The hub keeps the factors of every head's keys
/// and values together, those of the keys for the vector's use and so the other way round; so did GGUF files at first.
pub(super) const FUSED: &[Fused] = &[
    Fused::rows("attn_q.weight", &["attn_q_plain.weight", "attn_q_turning.weight"]),
    Fused::rows("attn_q_b.weight", &["attn_q_b_plain.weight", "attn_q_b_turning.weight"]),
    Fused {
        turned: &["attn_k_b.weight"],
        dialect: Some(Dialect::Hub),
        ..Fused::rows("attn_kv_b.weight", &["attn_k_b.weight", "attn_v_b.weight"])
    },
];

/// What latent attention is described by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Latent {
    /// Width that queries are made of; `None` where they are made of the stream itself.
    pub q_rank: Option<usize>,
    /// Width that keys and values are made of.
    pub kv_rank: usize,
    /// Elements of a head's query that are not rotated.
    pub plain_dim: usize,
    /// Elements of a head's query that are rotated, and of the key that all heads share.
    pub turning_dim: usize,
    /// Elements of a head's value.
    pub value_dim: usize,
    /// Added to the mean square in the norms of both widths.
    pub norm_eps: f32,
}

const Q_RANK: Key<u64> = Key::new("attention.q_lora_rank", "q_lora_rank", 8, 1 << 16);
const KV_RANK: Key<u64> = Key::new("attention.kv_lora_rank", "kv_lora_rank", 8, 1 << 16);
const TURNING_DIM: Key<u64> = Key::new("rope.dimension_count", "qk_rope_head_dim", 2, 1024);
const PLAIN_DIM: Key<u64> = Key::new("", "qk_nope_head_dim", 2, 1024);
const QUERY_DIM: Key<u64> = Key::new("attention.key_length_mla", "", 4, 2048);
const VALUE_DIM: Key<u64> = Key::new("attention.value_length_mla", "v_head_dim", 2, 1024);
/// The same in GGUF files that keep the factors of keys and values together, and the tensor that tells them.
const UNDIVIDED_QUERY_DIM: Key<u64> = Key::new("attention.key_length", "", 4, 2048);
const UNDIVIDED_VALUE_DIM: Key<u64> = Key::new("attention.value_length", "", 2, 1024);
const UNDIVIDED: &str = "blk.0.attn_kv_b.weight";
const DENSE_LAYERS: Key<u64> = Key::new("leading_dense_block_count", "first_k_dense_replace", 0, 1024);
const EXPERT_STEP: Key<u64> = Key::new("", "moe_layer_freq", 1, 1);
const BIASES: &str = "attention_bias";

/// What GGUF files call this family's own numbers that are elsewhere refused.
const OWN: &[&str] = &["expert_count", "attention.value_length", "rope.scaling.yarn_log_multiplier"];

/// Reads both versions.
pub(super) fn read(checkpoint: &Checkpoint, family: &Family) -> Result<Hyper> {
    let metadata = &checkpoint.metadata;
    let mut h = Hyper::read(checkpoint, RopePairs::Adjacent, OWN)?;
    let latent = latent(checkpoint, h.norm_eps)?;
    if metadata.boolean(BIASES)? == Some(true) {
        return Err(unsupported(BIASES, "biases of latent attention are not supported"));
    }
    h.ropes = vec![rotary::encoding(metadata, latent.turning_dim, RopePairs::Adjacent)?];
    h.n_kv_heads = 1;
    h.head_dim = latent.kv_rank.saturating_add(latent.turning_dim);
    let query_dim = latent.plain_dim.saturating_add(latent.turning_dim);
    let factor = rotary::score_factor(metadata)?;
    h.attention_scale = (factor * factor / (query_dim as f64).sqrt()) as f32;
    h.latent = Some(latent);

    EXPERT_STEP.get(metadata)?;
    h.experts = Some(Experts::read(metadata, h.ffn_dim, family)?);
    let dense = DENSE_LAYERS.get(metadata)?.unwrap_or(0);
    h.layers.iter_mut().skip(dense).for_each(|layer| layer.experts = true);
    Ok(h)
}

fn latent(checkpoint: &Checkpoint, norm_eps: f32) -> Result<Latent> {
    let metadata = &checkpoint.metadata;
    let (query_key, value_key) = match checkpoint.tensor(UNDIVIDED) {
        Some(_) => (UNDIVIDED_QUERY_DIM, UNDIVIDED_VALUE_DIM),
        None => (QUERY_DIM, VALUE_DIM),
    };
    let turning_dim = TURNING_DIM.need(metadata)?;
    let (plain_dim, norm_eps) = match metadata.dialect {
        // transformers does not hand the configuration's epsilon to these norms.
        Dialect::Hub => (PLAIN_DIM.need(metadata)?, 1e-6),
        Dialect::Gguf => {
            let query_dim = query_key.need(metadata)?;
            let plain = query_dim.checked_sub(turning_dim).filter(|plain| *plain > 0);
            let problem = || format!("{turning_dim} rotary dimensions in queries of {query_dim}");
            (plain.ok_or_else(|| malformed(query_key.name(metadata), problem()))?, norm_eps)
        }
    };
    Ok(Latent {
        q_rank: Q_RANK.get(metadata)?,
        kv_rank: KV_RANK.need(metadata)?,
        plain_dim,
        turning_dim,
        value_dim: value_key.need(metadata)?,
        norm_eps,
    })
}

fn hyper(checkpoint: &Checkpoint) -> Result<Hyper> {
    read(checkpoint, &Family { score: RouterScore::Softmax, normalise: false, shared: true })
}

pub(super) fn graph(h: &Hyper, g: &mut Builder) {
    let Some(latent) = h.latent else { return };
    let mut x = decoder::embed(h, g);
    for layer in 0..h.n_layers {
        let normed = decoder::norm(h, g, &format!("blk.{layer}.attn_norm"), x, 1);
        let mixed = attend(h, g, layer, normed, &latent);
        let output = decoder::linear(h, g, &format!("blk.{layer}.attn_output"), mixed, h.dim);
        x = g.add(format!("blk.{layer}.attn_residual"), x, output);
        x = decoder::feed_forward(h, g, layer, x);
    }
    decoder::logits(h, g, x);
}

/// From the normed stream `(tokens, dim)` to every head's value `(tokens, n_heads * value_dim)`.
fn attend(h: &Hyper, g: &mut Builder, layer: usize, x: ValueId, latent: &Latent) -> ValueId {
    let Latent { kv_rank, plain_dim, turning_dim, value_dim, norm_eps, .. } = *latent;
    let named = |part: &str| format!("blk.{layer}.{part}");
    let short_norm = |g: &mut Builder, name: &str, x: ValueId, cols: usize| {
        let weight = g.vector(format!("{}.weight", named(name)), cols);
        g.rms_norm(named(name), x, weight, norm_eps, 1)
    };
    let (source, name) = match latent.q_rank {
        None => (x, "attn_q"),
        Some(rank) => {
            let short = decoder::linear(h, g, &named("attn_q_a"), x, rank);
            (short_norm(g, "attn_q_a_norm", short, rank), "attn_q_b")
        }
    };
    let cols = g.width(source);
    let mut part = |kind: &str, rows: usize| {
        let name = named(&format!("{name}_{kind}"));
        let weight = g.matrices(format!("{name}.weight"), h.n_heads, rows, cols);
        g.matmul(name, source, weight)
    };
    let (plain, turning) = (part("plain", plain_dim), part("turning", turning_dim));
    // (n_heads, kv_rank) a row: what a head asks of the vector that keys and values are made of.
    let k_b = g.matrices(named("attn_k_b.weight"), h.n_heads, kv_rank, plain_dim);
    let asked = g.expert_matmul(named("attn_k_b"), plain, None, (k_b, None), false);
    let q = g.concat(named("attn_query"), &[asked, turning], h.n_heads);
    let kv = decoder::linear(h, g, &named("attn_kv_a_mqa"), x, h.head_dim);
    let k = short_norm(g, "attn_kv_a_norm", kv, kv_rank);

    let q = g.rope_from(named("attn_q_rope"), q, RopeId(0), h.n_heads, kv_rank);
    let k = g.rope_from(named("attn_k_rope"), k, RopeId(0), 1, kv_rank);
    let plain = Attention::new(g.kv_layers(), (h.n_heads, 1), h.head_dim, h.attention_scale);
    let mixed = g.attention(named("attn"), q, k, k, Attention { value_dim: kv_rank, latent: true, ..plain });
    let v_b = g.matrices(named("attn_v_b.weight"), h.n_heads, value_dim, kv_rank);
    g.expert_matmul(named("attn_v_b"), mixed, None, (v_b, None), false)
}
