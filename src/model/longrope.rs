//! LongRoPE (arXiv 2402.13753): one list of factors for the frequencies of the rotary encoding within the context that
//! a model was first made for, and another beyond it.
//!
//! Keys that were written with one list cannot be read with the other, so a loaded model has one: that of the context
//! it was loaded for, as in llama.cpp and vLLM. transformers chooses by the length of each sequence and computes all of
//! it anew where it grows past the border; both agree wherever sequence and context lie on the same side of it.

use super::hyper::{Key, malformed};
use super::rotary;
use crate::error::Result;
use crate::format::{Dialect, Metadata};
use crate::graph::{Rope, RopePairs};

const ORIGINAL: Key<u64> =
    Key::new("rope.scaling.original_context_length", "original_max_position_embeddings", 2, 1 << 24);
/// Where `config.json` keeps it among the other settings of the scaling.
const ORIGINAL_INSIDE: Key<u64> = Key::new("", "rope_scaling.original_max_position_embeddings", 2, 1 << 24);
const CONTEXT: Key<u64> = Key::new("context_length", "max_position_embeddings", 1, 1 << 24);
const FACTOR: Key<f64> = Key::new("", "rope_scaling.factor", 1e-3, 1e6);
const ATTENTION_FACTOR: Key<f64> = Key::new("rope.scaling.attn_factor", "rope_scaling.attention_factor", 1e-3, 1e3);

/// Names of the lists: a tensor in GGUF, a key of `config.json`.
const SHORT: [&str; 2] = ["rope_factors_short.weight", "rope_scaling.short_factor"];
const LONG: [&str; 2] = ["rope_factors_long.weight", "rope_scaling.long_factor"];

/// The two encodings of one model.
#[derive(Clone, Debug, PartialEq)]
pub struct LongRope {
    /// Positions up to which the short one holds.
    pub original: usize,
    /// Within the original context.
    pub short: Rope,
    /// Beyond it.
    pub long: Rope,
}

impl LongRope {
    /// The encodings, where the files ask for this kind of scaling.
    pub(super) fn read(metadata: &Metadata, head_dim: usize, pairs: RopePairs) -> Result<Option<Self>> {
        let asked = match metadata.dialect {
            Dialect::Gguf => [SHORT, LONG].iter().any(|[tensor, _]| metadata.small_tensors.contains_key(*tensor)),
            // The first Phi-3 files say "su".
            Dialect::Hub => matches!(metadata.text(rotary::HUB_SCALING)?, Some("longrope" | "su")),
        };
        if !asked {
            return Ok(None);
        }
        let context = CONTEXT.need(metadata)?;
        let original = match ORIGINAL.get(metadata)? {
            Some(original) => Some(original),
            None => ORIGINAL_INSIDE.get(metadata)?,
        };
        let scale = match (ATTENTION_FACTOR.get(metadata)?, metadata.dialect) {
            (Some(scale), _) => scale,
            (None, Dialect::Gguf) => 1.0,
            (None, Dialect::Hub) => {
                let factor = match original {
                    Some(original) => context as f64 / original as f64,
                    None => FACTOR.need(metadata)?,
                };
                let original = original.unwrap_or(context) as f64;
                if factor <= 1.0 { 1.0 } else { (1.0 + factor.ln() / original.ln()).sqrt() }
            }
        };
        let (base, dims) = (rotary::base(metadata)?, rotary::dims(metadata, head_dim)?);
        let encoding = |names: [&str; 2]| -> Result<Rope> {
            let powers = rotary::powers(base, dims);
            let inv_freq =
                powers.zip(factors(metadata, names, dims / 2)?).map(|(power, factor)| 1.0 / (factor * power));
            Ok(Rope { inv_freq: inv_freq.collect(), pairs, scale: scale as f32 })
        };
        Ok(Some(Self { original: original.unwrap_or(context), short: encoding(SHORT)?, long: encoding(LONG)? }))
    }

    /// The encoding for a context of so many positions.
    pub(super) fn of(&self, context: usize) -> &Rope {
        if context > self.original { &self.long } else { &self.short }
    }
}

/// One list, with a factor for each of `pairs` pairs.
fn factors(metadata: &Metadata, [tensor, key]: [&str; 2], pairs: usize) -> Result<Vec<f32>> {
    let (name, factors) = match metadata.dialect {
        Dialect::Gguf => (tensor, metadata.small_tensors.get(tensor).cloned()),
        Dialect::Hub => (key, metadata.numbers(key)?.map(|factors| factors.into_owned())),
    };
    let factors = factors.ok_or_else(|| malformed(name, "the factors are missing"))?;
    if factors.len() != pairs {
        return Err(malformed(name, format!("{} factors for {pairs} pairs", factors.len())));
    }
    match factors.iter().find(|factor| !(factor.is_finite() && **factor > 0.0)) {
        Some(factor) => Err(malformed(name, format!("{factor} is no factor to divide by"))),
        None => Ok(factors),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::error::ErrorKind;
    use crate::format::Value;

    fn metadata() -> Metadata {
        let values = [
            ("rope_theta", Value::Number(256.0)),
            ("max_position_embeddings", Value::Integer(128)),
            ("original_max_position_embeddings", Value::Integer(32)),
            ("partial_rotary_factor", Value::Number(0.5)),
            ("rope_scaling.rope_type", Value::Text("longrope".into())),
            // All of them integers, as some files write them.
            ("rope_scaling.short_factor", Value::Integers(vec![1, 2])),
            ("rope_scaling.long_factor", Value::Numbers(vec![4.0, 0.5])),
        ];
        Metadata {
            dialect: Dialect::Hub,
            architecture: "phi3".into(),
            values: values.into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
            companions: BTreeMap::new(),
            small_tensors: BTreeMap::new(),
        }
    }

    #[test]
    fn the_context_chooses_the_factors() {
        let found = LongRope::read(&metadata(), 8, RopePairs::Halves).unwrap().unwrap();
        assert_eq!(found.of(32).inv_freq, [1.0, 1.0 / 32.0]);
        assert_eq!(found.of(33).inv_freq, [0.25, 0.125]);
        // sqrt(1 + ln 4 / ln 32) = sqrt(1.4), for both.
        assert!((found.short.scale - 1.4f32.sqrt()).abs() < 1e-6 && found.short.scale == found.long.scale);
    }

    #[test]
    fn lists_that_do_not_fit_are_named() {
        let cases = [
            ("rope_scaling.long_factor", None, "missing"),
            ("rope_scaling.long_factor", Some(Value::Numbers(vec![1.0])), "1 factors for 2 pairs"),
            ("rope_scaling.short_factor", Some(Value::Numbers(vec![1.0, 0.0])), "0 is no factor"),
        ];
        for (key, value, words) in cases {
            let mut metadata = metadata();
            metadata.values.remove(key);
            metadata.values.extend(value.map(|value| (key.to_owned(), value)));
            let error = LongRope::read(&metadata, 8, RopePairs::Halves).unwrap_err();
            assert_eq!((error.kind(), error.place().as_str()), (ErrorKind::MalformedModel, key));
            assert!(error.message().contains(words), "{error}");
        }
    }
}
