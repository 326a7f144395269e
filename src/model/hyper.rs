//! Hyperparameters: one table of keys in both dialects, read with types and ranges.
//!
//! After [`Hyper`] nobody asks whether a number makes sense: every count is in its range and products of two of them
//! fit 32 bits.

use std::collections::BTreeSet;

use super::longrope::LongRope;
use super::{Delta, Encoder, Experts, Latent, Pooling, names, pooling, rotary};
use crate::error::{Error, ErrorKind, Result};
use crate::format::{Checkpoint, Dialect, Metadata};
use crate::graph::{Activation, Output, Rope, RopeId, RopePairs, Temperature};

/// What a transformer is described by.
#[derive(Clone, Debug, PartialEq)]
pub struct Hyper {
    /// Width of the residual stream.
    pub dim: usize,
    /// Transformer blocks.
    pub n_layers: usize,
    /// Query heads.
    pub n_heads: usize,
    /// Key and value heads; divides `n_heads`.
    pub n_kv_heads: usize,
    /// Elements of one head.
    pub head_dim: usize,
    /// Width inside the feed-forward block.
    pub ffn_dim: usize,
    /// Rows of the embedding table, which may be more than the tokenizer has ids.
    pub vocab: usize,
    /// Added to the mean square in norms.
    pub norm_eps: f32,
    /// The rotary position encodings of queries and keys that layers choose from.
    pub ropes: Vec<Rope>,
    /// The encodings that the first one is chosen from by the context, where there are such.
    pub long_rope: Option<LongRope>,
    /// What differs between layers.
    pub layers: Vec<Layer>,
    /// Factor on attention scores.
    pub attention_scale: f32,
    /// Soft cap on attention scores.
    pub attention_softcap: Option<f32>,
    /// Whether every head has a score that takes part in the softmax and stands for no value.
    pub attention_sinks: bool,
    /// Soft cap on logits.
    pub logit_softcap: Option<f32>,
    /// Factor on embeddings.
    pub embedding_scale: Option<f32>,
    /// Positions that a short convolution sees, in layers that have one.
    pub conv_taps: usize,
    /// How keys and values are made of one short vector, where they are.
    pub latent: Option<Latent>,
    /// What the layers with the gated delta rule are, where there are such.
    pub delta: Option<Delta>,
    /// The mixture of experts that layers have in place of one feed-forward block.
    pub experts: Option<Experts>,
    /// What the gates (or, where there are none, the insides) of the feed-forward block go through.
    pub activation: Activation,
    /// Added to the weights of norms as they are read: 1 where files keep them less one.
    pub norm_offset: f32,
    /// The project's names of the biases that the files have, or that the configuration says they have.
    pub biases: BTreeSet<String>,
    /// Positions that the model was made for.
    pub context: usize,
    /// Whether the embedding table is the output matrix too.
    pub tied: bool,
    /// What the computation ends in: a model that was published without a head, or for embeddings, has no logits.
    pub ends: Output,
    /// How the family makes an embedding of the final states.
    pub pooling: Pooling,
    /// The token whose state stands for a text in models for embeddings, to be put after texts where the tokenizer does not.
    pub end_token: Option<&'static str>,
    /// What encoders have beside.
    pub encoder: Encoder,
}

/// What differs between layers.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Layer {
    /// Index into [`Hyper::ropes`]; `None` where queries and keys are not rotated.
    pub rope: Option<RopeId>,
    /// Positions that a row sees, its own included; `None` for all before it.
    pub window: Option<usize>,
    /// Whether it keeps a state in place of keys and values.
    pub recurrent: bool,
    /// Whether queries and keys are normalised, head by head, without a weight.
    pub normed: bool,
    /// A row sees only positions of its own chunk of so many.
    pub chunk: Option<usize>,
    /// How queries grow with their position.
    pub temperature: Option<Temperature>,
    /// Whether it has a mixture of experts.
    pub experts: bool,
}

/// One hyperparameter: what each dialect calls it, and the values that are accepted.
pub(super) struct Key<T> {
    /// After the architecture and a dot, in GGUF; empty when GGUF has no such key.
    gguf: &'static str,
    /// In `config.json`; empty when it has no such key.
    hub: &'static str,
    min: T,
    max: T,
}

type Count = Key<u64>;
type Number = Key<f64>;

const DIM: Count = Key { gguf: "embedding_length", hub: "hidden_size", min: 8, max: 1 << 16 };
const N_LAYERS: Count = Key { gguf: "block_count", hub: "num_hidden_layers", min: 1, max: 1024 };
const N_HEADS: Count = Key { gguf: "attention.head_count", hub: "num_attention_heads", min: 1, max: 1024 };
pub(super) const N_KV_HEADS: Count =
    Key { gguf: "attention.head_count_kv", hub: "num_key_value_heads", min: 1, max: 1024 };
const HEAD_DIM: Count = Key { gguf: "attention.key_length", hub: "head_dim", min: 2, max: 1024 };
const VALUE_DIM: Count = Key { gguf: "attention.value_length", hub: "", min: 2, max: 1024 };
const FFN_DIM: Count = Key { gguf: "feed_forward_length", hub: "intermediate_size", min: 8, max: 1 << 20 };
const VOCAB: Count = Key { gguf: "", hub: "vocab_size", min: 1, max: 1 << 22 };
const CONTEXT: Count = Key { gguf: "context_length", hub: "max_position_embeddings", min: 1, max: 1 << 24 };
/// The first that is there; families differ in the name alone.
const NORM_EPS: &[Number] = &[
    Key { gguf: "attention.layer_norm_rms_epsilon", hub: "rms_norm_eps", min: 0.0, max: 1.0 },
    Key { gguf: "attention.layer_norm_epsilon", hub: "layer_norm_eps", min: 0.0, max: 1.0 },
    Key { gguf: "", hub: "norm_eps", min: 0.0, max: 1.0 },
    Key { gguf: "", hub: "layer_norm_epsilon", min: 0.0, max: 1.0 },
];

/// Usual keys of `config.json` and what some families call them.
const OTHER_NAMES: &[(&str, &str)] = &[("intermediate_size", "block_ff_dim")];

impl<T> Key<T> {
    pub(super) const fn new(gguf: &'static str, hub: &'static str, min: T, max: T) -> Self {
        Key { gguf, hub, min, max }
    }
}

/// An error of kind `MalformedModel` about one key.
pub(super) fn malformed(key: impl Into<String>, problem: impl Into<String>) -> Error {
    Error::new(ErrorKind::MalformedModel, problem).at(key)
}

/// An error of kind `UnsupportedFormat` about one key.
pub(super) fn unsupported(key: impl Into<String>, problem: impl Into<String>) -> Error {
    Error::new(ErrorKind::UnsupportedFormat, problem).at(key)
}

impl<T: PartialOrd + std::fmt::Display> Key<T> {
    /// Its name in this file; empty when there is none.
    pub(super) fn name(&self, metadata: &Metadata) -> String {
        match metadata.dialect {
            Dialect::Gguf if self.gguf.is_empty() => String::new(),
            Dialect::Gguf => format!("{}.{}", metadata.architecture, self.gguf),
            Dialect::Hub => {
                let there = |name: &&str| metadata.values.contains_key(*name);
                let others = OTHER_NAMES.iter().filter(|(usual, _)| *usual == self.hub).map(|(_, other)| *other);
                let mut names = std::iter::once(self.hub).chain(others);
                names.find(there).unwrap_or(self.hub).to_owned()
            }
        }
    }

    fn read(&self, metadata: &Metadata, get: impl Fn(&Metadata, &str) -> Result<Option<T>>) -> Result<Option<T>> {
        let name = self.name(metadata);
        match get(metadata, &name)? {
            // Written so that what is no number is out of range.
            Some(value) if !(value >= self.min && value <= self.max) => {
                Err(malformed(name, format!("{value} is not between {} and {}", self.min, self.max)))
            }
            value => Ok(value),
        }
    }

    fn missing(&self, metadata: &Metadata) -> Error {
        malformed(self.name(metadata), "the key is missing")
    }
}

impl Count {
    /// The value, if it is there.
    pub(super) fn get(&self, metadata: &Metadata) -> Result<Option<usize>> {
        let value = self.read(metadata, Metadata::integer)?;
        Ok(value.and_then(|value| usize::try_from(value).ok()))
    }

    /// One value for each layer, 0 for those that have none of it; fails where layers have different ones.
    pub(super) fn of_layers(&self, metadata: &Metadata) -> Result<Vec<usize>> {
        let name = self.name(metadata);
        let listed = metadata.integers(&name)?.ok_or_else(|| self.missing(metadata))?;
        let one = listed.iter().copied().max().unwrap_or(0);
        let value = u64::try_from(one).ok().filter(|value| (self.min..=self.max).contains(value));
        let value = value
            .and_then(|value| usize::try_from(value).ok())
            .ok_or_else(|| malformed(name.as_str(), format!("{one} is not between {} and {}", self.min, self.max)))?;
        match listed.iter().find(|found| **found != 0 && **found != one) {
            Some(other) => Err(unsupported(name, format!("{other} in one layer and {one} in another"))),
            None => Ok(listed.iter().map(|found| if *found == 0 { 0 } else { value }).collect()),
        }
    }

    /// The value, which must be there.
    pub(super) fn need(&self, metadata: &Metadata) -> Result<usize> {
        self.get(metadata)?.ok_or_else(|| self.missing(metadata))
    }
}

impl Number {
    /// The value, if it is there.
    pub(super) fn get(&self, metadata: &Metadata) -> Result<Option<f64>> {
        self.read(metadata, Metadata::number)
    }

    /// The value, which must be there.
    pub(super) fn need(&self, metadata: &Metadata) -> Result<f64> {
        self.get(metadata)?.ok_or_else(|| self.missing(metadata))
    }
}

impl Hyper {
    /// Reads the hyperparameters that dense decoders share. `pairs` is which elements rotations pair in this file,
    /// `own` the keys of the refusal tables that the family computes itself.
    ///
    /// Fails with `MalformedModel` naming the key where a value is missing or out of range, with `UnsupportedFormat`
    /// where a setting asks for mathematics that is not here.
    pub(super) fn read(checkpoint: &Checkpoint, pairs: RopePairs, own: &[&str]) -> Result<Hyper> {
        let metadata = &checkpoint.metadata;
        refuse_other_mathematics(metadata, own)?;
        let dim = DIM.need(metadata)?;
        let n_heads = N_HEADS.need(metadata)?;
        let n_kv_heads = match own.contains(&N_KV_HEADS.gguf) && metadata.dialect == Dialect::Gguf {
            true => N_KV_HEADS.of_layers(metadata)?.iter().copied().max(),
            false => N_KV_HEADS.get(metadata)?,
        };
        let n_kv_heads = n_kv_heads.unwrap_or(n_heads);
        if n_heads.checked_rem(n_kv_heads) != Some(0) {
            let key = N_KV_HEADS.name(metadata);
            return Err(malformed(key, format!("{n_heads} heads cannot share {n_kv_heads} key heads evenly")));
        }
        let head_dim = match HEAD_DIM.get(metadata)? {
            Some(head_dim) => head_dim,
            None => dim.checked_div(n_heads).unwrap_or(0),
        };
        if head_dim < 2 || head_dim % 2 != 0 {
            let key = HEAD_DIM.name(metadata);
            return Err(malformed(key, format!("heads of {head_dim} elements cannot be rotated in pairs")));
        }
        let other = VALUE_DIM.get(metadata)?.filter(|value_dim| *value_dim != head_dim);
        if let Some(value_dim) = other.filter(|_| !own.contains(&VALUE_DIM.gguf)) {
            let key = VALUE_DIM.name(metadata);
            return Err(unsupported(key, format!("values of {value_dim} elements beside keys of {head_dim}")));
        }
        let n_layers = N_LAYERS.need(metadata)?;
        let long_rope = LongRope::read(metadata, head_dim, pairs)?;
        let rope = match &long_rope {
            Some(long_rope) => long_rope.short.clone(),
            None => rotary::encoding(metadata, head_dim, pairs)?,
        };
        let mut hyper = Hyper {
            dim,
            n_layers,
            n_heads,
            n_kv_heads,
            head_dim,
            ffn_dim: FFN_DIM.need(metadata)?,
            vocab: vocab(checkpoint)?,
            norm_eps: norm_eps(metadata)?,
            ropes: vec![rope],
            long_rope,
            layers: vec![Layer { rope: Some(RopeId(0)), ..Layer::default() }; n_layers],
            attention_scale: 1.0 / (head_dim as f32).sqrt(),
            attention_softcap: None,
            attention_sinks: false,
            logit_softcap: None,
            embedding_scale: None,
            conv_taps: 0,
            latent: None,
            delta: None,
            experts: None,
            activation: Activation::Silu,
            norm_offset: 0.0,
            biases: checkpoint.tensors.iter().filter_map(|t| names::bias(&t.name, metadata.dialect, &[])).collect(),
            context: CONTEXT.need(metadata)?,
            tied: match metadata.dialect {
                Dialect::Gguf => checkpoint.tensor("output.weight").is_none(),
                // Families mean different things when they say nothing, so that the tensors tell.
                Dialect::Hub => {
                    let head = checkpoint.tensor("lm_head.weight");
                    metadata.boolean("tie_word_embeddings")?.unwrap_or(head.is_none())
                }
            },
            ends: match pooling::only_embeds(metadata)? || is_headless(checkpoint) {
                true => Output::Hidden,
                false => Output::Logits,
            },
            pooling: Pooling::Last,
            end_token: None,
            encoder: Encoder::default(),
        };
        for (key, parts) in PROMISED_BIASES {
            if metadata.dialect == Dialect::Hub && metadata.boolean(key)? == Some(true) {
                hyper.require_biases(parts);
            }
        }
        Ok(hyper)
    }

    /// Chooses the encoding of a context where there are several for different ones.
    pub(super) fn choose_rope(&mut self, context: usize) {
        if let (Some(chosen), Some(long_rope)) = (self.ropes.first_mut(), &self.long_rope) {
            *chosen = long_rope.of(context).clone();
        }
    }

    /// The types of the layers, where the configuration names them, one for each.
    pub(super) fn layer_types<'a>(&self, metadata: &'a Metadata) -> Result<Option<&'a [String]>> {
        match metadata.texts(LAYER_TYPES)? {
            Some(types) if types.len() != self.n_layers => {
                Err(malformed(LAYER_TYPES, format!("{} types for {} layers", types.len(), self.n_layers)))
            }
            types => Ok(types),
        }
    }

    /// Gives layers their window: those that the configuration names so, otherwise of `pattern` layers all but the last.
    pub(super) fn read_windows(&mut self, metadata: &Metadata, window: &Count, pattern: usize) -> Result<()> {
        let types = self.layer_types(metadata)?;
        for (index, layer) in self.layers.iter_mut().enumerate() {
            let sees_all = match types.and_then(|types| types.get(index)).map(String::as_str) {
                None => index.saturating_add(1).checked_rem(pattern) == Some(0),
                Some("full_attention") => true,
                Some("sliding_attention") => false,
                Some(other) => return Err(unsupported(LAYER_TYPES, format!("{other} is not supported"))),
            };
            if !sees_all {
                layer.window = Some(window.need(metadata)?);
            }
        }
        Ok(())
    }

    /// Says that these projections of every layer have biases, which are then missed where they are not.
    pub(super) fn require_biases(&mut self, parts: &[&str]) {
        for layer in 0..self.n_layers {
            self.biases.extend(parts.iter().map(|part| format!("blk.{layer}.{part}.bias")));
        }
    }
}

/// What is added to the mean square in norms.
fn norm_eps(metadata: &Metadata) -> Result<f32> {
    for key in NORM_EPS {
        if let Some(eps) = key.get(metadata)? {
            return Ok(eps as f32);
        }
    }
    Err(malformed(NORM_EPS.first().map_or(String::new(), |key| key.name(metadata)), "the key is missing"))
}

/// Whether a folder holds a decoder as its authors publish one that is not for continuing texts: without a head, and so
/// without the name of the whole before the names of its tensors.
fn is_headless(checkpoint: &Checkpoint) -> bool {
    let named = |name: &str| checkpoint.tensors.iter().any(|tensor| tensor.name.starts_with(name));
    checkpoint.metadata.dialect == Dialect::Hub && named("embed_tokens.") && !named("lm_head.")
}

/// Rows of the embedding table: GGUF tells them by the tensor's shape alone, the hub by a key.
fn vocab(checkpoint: &Checkpoint) -> Result<usize> {
    let metadata = &checkpoint.metadata;
    if metadata.dialect == Dialect::Hub {
        return VOCAB.need(metadata);
    }
    let name = "token_embd.weight";
    let table = checkpoint.tensor(name).ok_or_else(|| malformed(name, "the tensor is missing"))?;
    match table.shape.first() {
        Some(rows) if (VOCAB.min..=VOCAB.max).contains(&(*rows as u64)) => Ok(*rows),
        _ => Err(malformed(name, format!("shape {:?}, where up to {} rows are supported", table.shape, VOCAB.max))),
    }
}

/// One word a layer.
pub(super) const LAYER_TYPES: &str = "layer_types";

/// Keys of `config.json` that promise biases, and on which projections.
const PROMISED_BIASES: &[(&str, &[&str])] = &[
    ("attention_bias", &["attn_q", "attn_k", "attn_v", "attn_output"]),
    ("mlp_bias", &["ffn_gate", "ffn_up", "ffn_down"]),
];

/// What a setting must be if it is there.
enum Only {
    False(&'static str),
    Text(&'static str, &'static str),
    Integer(&'static str, u64),
    Number(&'static str, f64),
    EachText(&'static str, &'static str),
}

/// Settings of `config.json` that change the mathematics, with the one value that is computed.
const HUB_ONLY: &[Only] = &[
    Only::False("use_sliding_window"),
    Only::False("use_bidirectional_attention"),
    Only::False("conv_bias"),
    Only::Text("rope_parameters.sliding_attention.rope_type", "default"),
    Only::Text("hidden_act", "silu"),
    Only::Text("quantization_config.quant_method", "none"),
    Only::EachText(LAYER_TYPES, "full_attention"),
];

/// The same for GGUF; keys follow the architecture.
const GGUF_ONLY: &[Only] = &[
    Only::Integer("expert_count", 0),
    Only::Integer("attention.sliding_window", 0),
    Only::Number("rope.scaling.attn_factor", 1.0),
    Only::Number("rope.scaling.yarn_log_multiplier", 0.0),
    Only::Number("rope.scaling.yarn_ext_factor", 1.0),
    Only::Number("rope.scaling.yarn_attn_factor", 1.0),
];

/// A model whose files ask for something that would be left out is refused, never computed wrongly.
fn refuse_other_mathematics(metadata: &Metadata, own: &[&str]) -> Result<()> {
    let (table, prefix) = match metadata.dialect {
        Dialect::Hub => (HUB_ONLY, String::new()),
        Dialect::Gguf => (GGUF_ONLY, format!("{}.", metadata.architecture)),
    };
    for only in table {
        let key = match only {
            Only::False(key) | Only::Text(key, _) | Only::Integer(key, _) | Only::Number(key, _) => key,
            Only::EachText(key, _) => key,
        };
        if own.contains(key) {
            continue;
        }
        let key = format!("{prefix}{key}");
        let other = match only {
            Only::False(_) => metadata.boolean(&key)?.filter(|found| *found).map(|found| found.to_string()),
            Only::Text(_, only) => metadata.text(&key)?.filter(|found| found != only).map(str::to_owned),
            Only::Integer(_, only) => metadata.integer(&key)?.filter(|found| found != only).map(|n| n.to_string()),
            Only::Number(_, only) => metadata.number(&key)?.filter(|found| found != only).map(|n| n.to_string()),
            Only::EachText(_, only) => metadata.texts(&key)?.and_then(|all| all.iter().find(|t| t != only)).cloned(),
        };
        if let Some(other) = other {
            return Err(unsupported(key, format!("{other} is not supported")));
        }
    }
    Ok(())
}
