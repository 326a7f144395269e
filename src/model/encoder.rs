//! The pieces that encoders share, each written once: embeddings by token, position and segment, layer norms, attention in
//! both directions, and what a model ends in (hidden states, or the scores of a judge).
//!
//! Activations are `(tokens, width)`; the residual stream `x` is `(tokens, dim)`.

use super::decoder::{Heads, linear};
use super::hyper::{Key, malformed, unsupported};
use super::names::{self, Name};
use super::{Hyper, Pooling};
use crate::error::Result;
use crate::format::{Checkpoint, Dialect};
use crate::graph::{Activation, Attention, Builder, EmbedBy, Output, RopePairs, ValueId};

/// What encoders have beside the hyperparameters of all models.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Encoder {
    /// Rows of the table of positions, and how many of them stand for no position; `None` where positions are rotations.
    pub positions: Option<(usize, usize)>,
    /// Rows of the table of segments; 0 where there is none.
    pub segments: usize,
    /// Whether layer norms add a vector.
    pub norm_bias: bool,
    /// Scores of the classification head; 0 where the model has none.
    pub labels: usize,
}

const SEGMENTS: Key<u64> = Key::new("", "type_vocab_size", 0, 1024);
const CLASSIFIER: &str = "cls.output.weight";
const POSITIONS: &str = "position_embd.weight";
const SEGMENT_TABLE: &str = "token_types.weight";

/// Keys that encoders read themselves, of those that are refused elsewhere.
const OWN: &[&str] = &["hidden_act", "layer_types", "attention.sliding_window"];

/// The functions that the feed-forward blocks of encoders go through, by the names of `config.json`.
const ACTIVATIONS: &[(&str, Activation)] = &[
    ("gelu", Activation::Gelu),
    ("gelu_new", Activation::GeluTanh),
    ("gelu_pytorch_tanh", Activation::GeluTanh),
    ("silu", Activation::Silu),
    ("swish", Activation::Silu),
    ("swiglu", Activation::Silu),
];

/// Reads the hyperparameters that encoders share. `otherwise` is the activation where the file names none; `names` are the
/// lines of the family's table.
///
/// Fails as [`Hyper::read`] does, and with `UnsupportedFormat` for a head that is not computed.
pub(super) fn read(checkpoint: &Checkpoint, otherwise: Activation, names: &[Name]) -> Result<Hyper> {
    let metadata = &checkpoint.metadata;
    let mut h = Hyper::read(checkpoint, RopePairs::Halves, OWN)?;
    for key in ["is_decoder", "add_cross_attention"] {
        if metadata.boolean(key)? == Some(true) {
            return Err(unsupported(key, "true is not supported"));
        }
    }
    let key = format!("{}.attention.causal", metadata.architecture);
    if metadata.dialect == Dialect::Gguf && metadata.boolean(&key)? == Some(true) {
        return Err(unsupported(key, "true is not supported"));
    }
    h.activation = otherwise;
    for key in ["hidden_act", "hidden_activation", "activation_function"] {
        if let Some(name) = metadata.text(key)? {
            let known = ACTIVATIONS.iter().find(|(known, _)| *known == name);
            h.activation = known.ok_or_else(|| unsupported(key, format!("{name} is not supported")))?.1;
        }
    }
    h.biases =
        checkpoint.tensors.iter().filter_map(|tensor| names::bias(&tensor.name, metadata.dialect, names)).collect();
    h.tied = false;
    h.encoder.norm_bias = true;
    h.encoder.segments = match metadata.dialect {
        Dialect::Hub => SEGMENTS.get(metadata)?.unwrap_or(0),
        Dialect::Gguf => rows(checkpoint, SEGMENT_TABLE),
    };
    (h.ends, h.encoder.labels) = ending(checkpoint, names)?;
    h.pooling = Pooling::Mean;
    Ok(h)
}

/// Positions come from a table of which the first `offset` rows stand for none; nothing rotates.
pub(super) fn with_positions(checkpoint: &Checkpoint, h: &mut Hyper, offset: usize) -> Result<()> {
    let key = "position_embedding_type";
    if let Some(other) = checkpoint.metadata.text(key)?.filter(|found| *found != "absolute") {
        return Err(unsupported(key, format!("{other} is not supported")));
    }
    h.ropes.clear();
    h.layers.iter_mut().for_each(|layer| layer.rope = None);
    let rows = match checkpoint.metadata.dialect {
        Dialect::Hub => h.context,
        Dialect::Gguf => rows(checkpoint, POSITIONS),
    };
    if rows <= offset {
        return Err(malformed("max_position_embeddings", format!("{rows} rows, the first {offset} for no position")));
    }
    h.encoder.positions = Some((rows, offset));
    h.context = h.context.min(rows.saturating_sub(offset));
    Ok(())
}

/// Rows of a table that GGUF tells by its tensor's shape alone.
fn rows(checkpoint: &Checkpoint, name: &str) -> usize {
    checkpoint
        .tensor(name)
        .map_or(0, |tensor| if tensor.shape.len() < 2 { 1 } else { tensor.shape.first().copied().unwrap_or(0) })
}

/// What the model ends in, and the number of its labels.
fn ending(checkpoint: &Checkpoint, names: &[Name]) -> Result<(Output, usize)> {
    let metadata = &checkpoint.metadata;
    let named = match metadata.dialect {
        Dialect::Hub => metadata.texts("architectures")?.and_then(|all| all.first()).map(String::as_str),
        Dialect::Gguf => None,
    };
    match named {
        Some(name) if name.ends_with("ForSequenceClassification") => {}
        Some(name) if ["Model", "ForMaskedLM", "ForPreTraining"].iter().any(|end| name.ends_with(end)) => {
            return Ok((Output::Hidden, 0));
        }
        Some(name) => return Err(unsupported("architectures", format!("{name} is not supported"))),
        None => {}
    }
    let name = names::in_file(CLASSIFIER, metadata.dialect, names);
    let head = name.as_ref().and_then(|name| checkpoint.tensor(name));
    match (head, named, name) {
        (Some(head), ..) if head.shape.len() < 2 => Ok((Output::Scores, 1)),
        (Some(head), ..) => Ok((Output::Scores, head.shape.first().copied().unwrap_or(1))),
        (None, None, _) => Ok((Output::Hidden, 0)),
        (None, Some(named), None) => Err(unsupported("architectures", format!("{named} is not supported"))),
        (None, Some(_), Some(name)) => Err(malformed(name, "the tensor is missing")),
    }
}

/// Layer norm with the weight `name.weight (dim)` and, where the family has them, the bias `name.bias`.
pub(super) fn norm(h: &Hyper, g: &mut Builder, name: &str, x: ValueId) -> ValueId {
    let cols = g.width(x);
    let weight = g.vector(format!("{name}.weight"), cols);
    let bias = h.encoder.norm_bias.then(|| g.vector(format!("{name}.bias"), cols));
    g.layer_norm(name, x, weight, bias, h.norm_eps)
}

/// Token, position and segment to the residual stream; declares the rotary encodings, so this comes first.
pub(super) fn embed(h: &Hyper, g: &mut Builder) -> ValueId {
    for rope in &h.ropes {
        g.rotary(rope.clone());
    }
    let table = g.matrix("token_embd.weight", h.vocab, h.dim);
    let mut x = g.embed("token_embd_rows", table);
    if h.encoder.segments > 0 {
        let table = g.matrix(SEGMENT_TABLE, h.encoder.segments, h.dim);
        let segments = g.embed_by("token_types", table, EmbedBy::Segment);
        x = g.add("token_embd_types", x, segments);
    }
    if let Some((rows, offset)) = h.encoder.positions {
        let table = g.matrix(POSITIONS, rows, h.dim);
        let positions = g.embed_by("position_embd", table, EmbedBy::Position { offset });
        x = g.add("token_embd", x, positions);
    }
    norm(h, g, "token_embd_norm", x)
}

/// Projections, rotation where the layer rotates, attention in both directions, output projection.
pub(super) fn mix(h: &Hyper, g: &mut Builder, layer: usize, x: ValueId) -> ValueId {
    let wide = h.n_heads.saturating_mul(h.head_dim);
    let how = h.layers.get(layer).copied().unwrap_or_default();
    let mut heads = Heads {
        q: linear(h, g, &format!("blk.{layer}.attn_q"), x, wide),
        k: linear(h, g, &format!("blk.{layer}.attn_k"), x, wide),
        v: linear(h, g, &format!("blk.{layer}.attn_v"), x, wide),
    };
    if let Some(rope) = how.rope {
        heads.q = g.rope(format!("blk.{layer}.attn_q_rope"), heads.q, rope, h.n_heads);
        heads.k = g.rope(format!("blk.{layer}.attn_k_rope"), heads.k, rope, h.n_heads);
    }
    let spec = Attention {
        causal: false,
        window: how.window,
        // All layers keep their keys and values in one place, one after another.
        ..Attention::new(0, (h.n_heads, h.n_heads), h.head_dim, h.attention_scale)
    };
    let mixed = g.attention(format!("blk.{layer}.attn"), heads.q, heads.k, heads.v, spec);
    linear(h, g, &format!("blk.{layer}.attn_output"), mixed, h.dim)
}

/// A block with its norms after the sums, as BERT has them; `feed_forward` makes what is added second.
pub(super) fn block(
    h: &Hyper,
    g: &mut Builder,
    layer: usize,
    x: ValueId,
    feed_forward: fn(&Hyper, &mut Builder, usize, ValueId) -> ValueId,
) -> ValueId {
    let mixed = mix(h, g, layer, x);
    let sum = g.add(format!("blk.{layer}.attn_residual"), x, mixed);
    let x = norm(h, g, &format!("blk.{layer}.attn_output_norm"), sum);
    let output = feed_forward(h, g, layer, x);
    let sum = g.add(format!("blk.{layer}.ffn_residual"), x, output);
    norm(h, g, &format!("blk.{layer}.layer_output_norm"), sum)
}

/// The rows that were asked for: hidden states or, where the model judges, the scores of their texts.
pub(super) fn end(h: &Hyper, g: &mut Builder, x: ValueId) {
    let rows = g.output_rows("output_rows", x);
    g.hidden(rows);
    g.output(h.ends);
    if h.ends == Output::Scores {
        let pooled = linear(h, g, "cls", rows, h.dim);
        let pooled = g.activate("cls_tanh", pooled, Activation::Tanh);
        linear(h, g, "cls.output", pooled, h.encoder.labels);
    }
}
