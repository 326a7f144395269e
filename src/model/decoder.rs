//! The pieces that dense decoders share, each written once. A model file puts them together and says what differs.
//!
//! Activations are `(tokens, width)`; the residual stream `x` is `(tokens, dim)`.

use super::{Hyper, experts};
use crate::graph::{Attention, Builder, Output, ValueId};

/// Queries, keys and values: `(tokens, n_heads * head_dim)` and twice `(tokens, n_kv_heads * head_dim)`.
#[derive(Clone, Copy)]
pub(super) struct Heads {
    pub q: ValueId,
    pub k: ValueId,
    pub v: ValueId,
}

/// `x W^T`, plus the bias where the model has one, with the weight `name.weight (rows, width of x)`.
pub(super) fn linear(h: &Hyper, g: &mut Builder, name: &str, x: ValueId, rows: usize) -> ValueId {
    let cols = g.width(x);
    let weight = g.matrix(format!("{name}.weight"), rows, cols);
    let bias = format!("{name}.bias");
    if !h.biases.contains(&bias) {
        return g.matmul(name, x, weight);
    }
    let product = g.matmul(format!("{name}_product"), x, weight);
    let bias = g.vector(bias, rows);
    g.add_bias(name, product, bias)
}

/// RMS norm of each of `groups` equal parts of a row, with the weight `name.weight (width / groups)`.
pub(super) fn norm(h: &Hyper, g: &mut Builder, name: &str, x: ValueId, groups: usize) -> ValueId {
    let cols = g.width(x).checked_div(groups).unwrap_or(0);
    let weight = g.vector(format!("{name}.weight"), cols);
    g.rms_norm(name, x, weight, h.norm_eps, groups)
}

/// Token ids to the residual stream; declares the rotary encodings, so this comes first.
pub(super) fn embed(h: &Hyper, g: &mut Builder) -> ValueId {
    for rope in &h.ropes {
        g.rotary(rope.clone());
    }
    let table = g.matrix("token_embd.weight", h.vocab, h.dim);
    match h.embedding_scale {
        None => g.embed("token_embd", table),
        Some(factor) => {
            let rows = g.embed("token_embd_rows", table);
            g.scale("token_embd", rows, factor)
        }
    }
}

/// The three projections of an attention block.
pub(super) fn project_plain(h: &Hyper, g: &mut Builder, layer: usize, x: ValueId) -> Heads {
    let (wide, narrow) = (h.n_heads.saturating_mul(h.head_dim), h.n_kv_heads.saturating_mul(h.head_dim));
    Heads {
        q: linear(h, g, &format!("blk.{layer}.attn_q"), x, wide),
        k: linear(h, g, &format!("blk.{layer}.attn_k"), x, narrow),
        v: linear(h, g, &format!("blk.{layer}.attn_v"), x, narrow),
    }
}

/// Norm and the three projections of an attention block.
pub(super) fn project(h: &Hyper, g: &mut Builder, layer: usize, x: ValueId) -> Heads {
    let normed = norm(h, g, &format!("blk.{layer}.attn_norm"), x, 1);
    project_plain(h, g, layer, normed)
}

/// Norms of queries and keys, each in so many groups.
pub(super) fn norm_heads(h: &Hyper, g: &mut Builder, layer: usize, heads: Heads, groups: (usize, usize)) -> Heads {
    let q = norm(h, g, &format!("blk.{layer}.attn_q_norm"), heads.q, groups.0);
    let k = norm(h, g, &format!("blk.{layer}.attn_k_norm"), heads.k, groups.1);
    Heads { q, k, ..heads }
}

/// [`attention`] and output projection.
pub(super) fn mix(h: &Hyper, g: &mut Builder, layer: usize, heads: Heads) -> ValueId {
    let mixed = attention(h, g, layer, heads);
    linear(h, g, &format!("blk.{layer}.attn_output"), mixed, h.dim)
}

/// Rotation where the layer rotates, and attention.
pub(super) fn attention(h: &Hyper, g: &mut Builder, layer: usize, heads: Heads) -> ValueId {
    let how = h.layers.get(layer).copied().unwrap_or_default();
    let (q, k) = match how.rope {
        None => (heads.q, heads.k),
        Some(rope) => (
            g.rope(format!("blk.{layer}.attn_q_rope"), heads.q, rope, h.n_heads),
            g.rope(format!("blk.{layer}.attn_k_rope"), heads.k, rope, h.n_kv_heads),
        ),
    };
    let spec = Attention {
        window: how.window,
        chunk: how.chunk,
        softcap: h.attention_softcap,
        sinks: h.attention_sinks.then(|| g.vector(format!("blk.{layer}.attn_sinks.weight"), h.n_heads)),
        temperature: how.temperature,
        ..Attention::new(g.kv_layers(), (h.n_heads, h.n_kv_heads), h.head_dim, h.attention_scale)
    };
    g.attention(format!("blk.{layer}.attn"), q, k, heads.v, spec)
}

/// [`mix`], and the sum with the residual stream.
pub(super) fn attend(h: &Hyper, g: &mut Builder, layer: usize, x: ValueId, heads: Heads) -> ValueId {
    let output = mix(h, g, layer, heads);
    g.add(format!("blk.{layer}.attn_residual"), x, output)
}

/// Gated feed-forward.
pub(super) fn gated(h: &Hyper, g: &mut Builder, layer: usize, x: ValueId) -> ValueId {
    gated_part(h, g, layer, x, "", h.ffn_dim)
}

/// Gated feed-forward of a width, with weights `ffn_gate<suffix>` and so on.
pub(super) fn gated_part(h: &Hyper, g: &mut Builder, layer: usize, x: ValueId, suffix: &str, width: usize) -> ValueId {
    let gate = linear(h, g, &format!("blk.{layer}.ffn_gate{suffix}"), x, width);
    let up = linear(h, g, &format!("blk.{layer}.ffn_up{suffix}"), x, width);
    let hidden = g.glu(format!("blk.{layer}.ffn_glu{suffix}"), gate, up, h.activation);
    linear(h, g, &format!("blk.{layer}.ffn_down{suffix}"), hidden, h.dim)
}

/// Norm, gated feed-forward or the layer's mixture of experts, and the sum with the residual stream.
pub(super) fn feed_forward(h: &Hyper, g: &mut Builder, layer: usize, x: ValueId) -> ValueId {
    if let Some(experts) = h.experts.as_ref().filter(|_| h.layers.get(layer).is_some_and(|layer| layer.experts)) {
        return experts::feed_forward(h, g, layer, x, experts);
    }
    let normed = norm(h, g, &format!("blk.{layer}.ffn_norm"), x, 1);
    let output = gated(h, g, layer, normed);
    g.add(format!("blk.{layer}.ffn_residual"), x, output)
}

/// The whole of a model with norms before and after its blocks; `project` makes a layer's queries, keys and values.
pub(super) fn sandwich(h: &Hyper, g: &mut Builder, project: fn(&Hyper, &mut Builder, usize, ValueId) -> Heads) {
    let mut x = embed(h, g);
    for layer in 0..h.n_layers {
        let heads = project(h, g, layer, x);
        let mixed = mix(h, g, layer, heads);
        let mixed = norm(h, g, &format!("blk.{layer}.post_attention_norm"), mixed, 1);
        x = g.add(format!("blk.{layer}.attn_residual"), x, mixed);
        let normed = norm(h, g, &format!("blk.{layer}.ffn_norm"), x, 1);
        let output = gated(h, g, layer, normed);
        let output = norm(h, g, &format!("blk.{layer}.post_ffw_norm"), output, 1);
        x = g.add(format!("blk.{layer}.ffn_residual"), x, output);
    }
    logits(h, g, x);
}

/// The rows that were asked for, their norm and, unless the model is for embeddings, their logits `(outputs, vocab)`.
pub(super) fn logits(h: &Hyper, g: &mut Builder, x: ValueId) {
    let rows = g.output_rows("output_rows", x);
    let normed = norm(h, g, "output_norm", rows, 1);
    head(h, g, normed);
}

/// The logits of rows that are normalised already; in models for embeddings those rows are the end.
pub(super) fn head(h: &Hyper, g: &mut Builder, normed: ValueId) {
    g.hidden(normed);
    g.output(h.ends);
    if h.ends == Output::Hidden {
        return;
    }
    let head = if h.tied { "token_embd.weight" } else { "output.weight" };
    let head = g.matrix(head, h.vocab, h.dim);
    match h.logit_softcap {
        None => g.matmul("output", normed, head),
        Some(cap) => {
            let logits = g.matmul("output_uncapped", normed, head);
            g.soft_cap("output", logits, cap)
        }
    };
}
