//! The pieces that dense decoders share, each written once. A model file puts them together and says what differs.
//!
//! Activations are `(tokens, width)`; the residual stream `x` is `(tokens, dim)`.

use super::Hyper;
use crate::graph::{Activation, Attention, Builder, RopeId, ValueId};

/// Queries, keys and values: `(tokens, n_heads * head_dim)` and twice `(tokens, n_kv_heads * head_dim)`.
#[derive(Clone, Copy)]
pub(super) struct Heads {
    pub q: ValueId,
    pub k: ValueId,
    pub v: ValueId,
}

/// `x W^T` with the weight `name.weight (rows, width of x)`.
pub(super) fn linear(g: &mut Builder, name: &str, x: ValueId, rows: usize) -> ValueId {
    let cols = g.width(x);
    let weight = g.matrix(format!("{name}.weight"), rows, cols);
    g.matmul(name, x, weight)
}

/// RMS norm of each of `groups` equal parts of a row, with the weight `name.weight (width / groups)`.
pub(super) fn norm(g: &mut Builder, h: &Hyper, name: &str, x: ValueId, groups: usize) -> ValueId {
    let cols = g.width(x).checked_div(groups).unwrap_or(0);
    let weight = g.vector(format!("{name}.weight"), cols);
    g.rms_norm(name, x, weight, h.norm_eps, groups)
}

/// Token ids to the residual stream.
pub(super) fn embed(h: &Hyper, g: &mut Builder) -> ValueId {
    let table = g.matrix("token_embd.weight", h.vocab, h.dim);
    g.embed("token_embd", table)
}

/// Norm and the three projections of an attention block.
pub(super) fn project(h: &Hyper, g: &mut Builder, layer: usize, x: ValueId) -> Heads {
    let (wide, narrow) = (h.n_heads.saturating_mul(h.head_dim), h.n_kv_heads.saturating_mul(h.head_dim));
    let normed = norm(g, h, &format!("blk.{layer}.attn_norm"), x, 1);
    Heads {
        q: linear(g, &format!("blk.{layer}.attn_q"), normed, wide),
        k: linear(g, &format!("blk.{layer}.attn_k"), normed, narrow),
        v: linear(g, &format!("blk.{layer}.attn_v"), normed, narrow),
    }
}

/// Rotation, attention, output projection, and the sum with the residual stream.
pub(super) fn attend(h: &Hyper, g: &mut Builder, layer: usize, rope: RopeId, x: ValueId, heads: Heads) -> ValueId {
    let q = g.rope(format!("blk.{layer}.attn_q_rope"), heads.q, rope, h.n_heads);
    let k = g.rope(format!("blk.{layer}.attn_k_rope"), heads.k, rope, h.n_kv_heads);
    let spec = Attention {
        layer,
        heads: h.n_heads,
        kv_heads: h.n_kv_heads,
        head_dim: h.head_dim,
        scale: 1.0 / (h.head_dim as f32).sqrt(),
        window: None,
        softcap: None,
    };
    let mixed = g.attention(format!("blk.{layer}.attn"), q, k, heads.v, spec);
    let output = linear(g, &format!("blk.{layer}.attn_output"), mixed, h.dim);
    g.add(format!("blk.{layer}.attn_residual"), x, output)
}

/// Norm, gated feed-forward (SwiGLU), and the sum with the residual stream.
pub(super) fn feed_forward(h: &Hyper, g: &mut Builder, layer: usize, x: ValueId) -> ValueId {
    let normed = norm(g, h, &format!("blk.{layer}.ffn_norm"), x, 1);
    let gate = linear(g, &format!("blk.{layer}.ffn_gate"), normed, h.ffn_dim);
    let up = linear(g, &format!("blk.{layer}.ffn_up"), normed, h.ffn_dim);
    let hidden = g.glu(format!("blk.{layer}.ffn_glu"), gate, up, Activation::Silu);
    let down = linear(g, &format!("blk.{layer}.ffn_down"), hidden, h.dim);
    g.add(format!("blk.{layer}.ffn_residual"), x, down)
}

/// The rows that were asked for, their norm, and their logits `(outputs, vocab)`.
pub(super) fn logits(h: &Hyper, g: &mut Builder, x: ValueId) {
    let rows = g.output_rows("output_rows", x);
    let normed = norm(g, h, "output_norm", rows, 1);
    let head = if h.tied { "token_embd.weight" } else { "output.weight" };
    let head = g.matrix(head, h.vocab, h.dim);
    g.matmul("output", normed, head);
}
