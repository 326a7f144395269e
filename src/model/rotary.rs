//! Angular frequencies of the rotary position encoding (RoFormer, arXiv 2104.09864), and their stretching to longer
//! contexts: none, linear (arXiv 2306.15595), Llama 3's by wavelength (arXiv 2407.21783), YaRN (arXiv 2309.00071).
//!
//! Powers are taken in f64; what follows is rounded to f32 at the places where transformers rounds, because an angle
//! at position 100,000 shows the last bit of a frequency.

use std::f32::consts::TAU;
use std::f64::consts::TAU as TAU64;

use super::hyper::{Key, malformed, unsupported};
use crate::error::Result;
use crate::format::{Dialect, Metadata};
use crate::graph::{Rope, RopePairs};

const BASE: Key<f64> = Key::new("rope.freq_base", "rope_theta", 1.0, 1e12);
const ROTARY_DIMS: Key<u64> = Key::new("rope.dimension_count", "", 2, 1024);
/// The hub tells which part of a head is rotated.
const ROTARY_PART: Key<f64> = Key::new("", "partial_rotary_factor", 0.0, 1.0);
const FACTOR: Key<f64> = Key::new("rope.scaling.factor", "rope_scaling.factor", 1.0, 1e6);
const LOW: Key<f64> = Key::new("", "rope_scaling.low_freq_factor", 1e-3, 1e6);
const HIGH: Key<f64> = Key::new("", "rope_scaling.high_freq_factor", 1e-3, 1e6);
const ORIGINAL_CONTEXT: Key<f64> =
    Key::new("rope.scaling.original_context_length", "rope_scaling.original_max_position_embeddings", 1.0, 1e8);
const BETA_FAST: Key<f64> = Key::new("rope.scaling.yarn_beta_fast", "rope_scaling.beta_fast", 1e-3, 1e6);
const BETA_SLOW: Key<f64> = Key::new("rope.scaling.yarn_beta_slow", "rope_scaling.beta_slow", 1e-3, 1e6);
const ATTENTION_FACTOR: Key<f64> = Key::new("", "rope_scaling.attention_factor", 1e-3, 1e3);
const MSCALE: Key<f64> = Key::new("", "rope_scaling.mscale", 0.0, 1e3);
const MSCALE_ALL_DIM: Key<f64> = Key::new("", "rope_scaling.mscale_all_dim", 0.0, 1e3);
/// A tenth of the hub's `mscale_all_dim`; files with it have a scale of 1 on cosines and sines.
const LOG_MULTIPLIER: Key<f64> = Key::new("rope.scaling.yarn_log_multiplier", "", 0.0, 1e3);

/// Where the kind of scaling is told.
const GGUF_SCALING: &str = "rope.scaling.type";
pub(super) const HUB_SCALING: &str = "rope_scaling.rope_type";

/// Factors by which llama.cpp's converter has Llama 3's frequencies divided.
const GGUF_FACTORS: &str = "rope_freqs.weight";

/// `base ^ (2i / dims)` for each pair `i`.
pub(super) fn powers(base: f64, rotary_dims: usize) -> impl ExactSizeIterator<Item = f32> {
    (0..rotary_dims / 2).map(move |pair| {
        let exponent = f64::from(pair.saturating_mul(2) as f32 / rotary_dims as f32);
        base.powf(exponent) as f32
    })
}

/// `base ^ (-2i / dims)` for each pair `i`.
pub(super) fn plain(base: f64, rotary_dims: usize) -> impl ExactSizeIterator<Item = f32> {
    powers(base, rotary_dims).map(|power| 1.0 / power)
}

/// The base of the powers; 10000 is what both dialects mean when they say nothing.
pub(super) fn base(metadata: &Metadata) -> Result<f64> {
    Ok(BASE.get(metadata)?.unwrap_or(10_000.0))
}

/// How many elements of a head of `head_dim` are rotated.
pub(super) fn dims(metadata: &Metadata, head_dim: usize) -> Result<usize> {
    let (key, dims) = match ROTARY_PART.get(metadata)? {
        // Rounded down, as transformers does it.
        Some(part) => (ROTARY_PART.name(metadata), (head_dim as f64 * part) as usize),
        None => (ROTARY_DIMS.name(metadata), ROTARY_DIMS.get(metadata)?.unwrap_or(head_dim)),
    };
    if dims < 2 || dims % 2 != 0 || dims > head_dim {
        return Err(malformed(key, format!("{dims} rotary dimensions in heads of {head_dim}")));
    }
    Ok(dims)
}

/// What DeepSeek's use of YaRN multiplies queries and keys by, so that its square is a factor on scores: 1 without it.
pub(super) fn score_factor(metadata: &Metadata) -> Result<f64> {
    let multiplier = match metadata.dialect {
        Dialect::Gguf => LOG_MULTIPLIER.get(metadata)?.unwrap_or(0.0),
        Dialect::Hub => 0.1 * MSCALE_ALL_DIM.get(metadata)?.unwrap_or(0.0),
    };
    Ok(FACTOR.get(metadata)?.map_or(1.0, |factor| multiplier * factor.ln() + 1.0))
}

/// The encoding that the model's keys describe.
pub(super) fn encoding(metadata: &Metadata, head_dim: usize, pairs: RopePairs) -> Result<Rope> {
    let one = |inv_freq| Rope { inv_freq, pairs, scale: 1.0 };
    let (base, rotary_dims) = (base(metadata)?, dims(metadata, head_dim)?);
    let plain = plain(base, rotary_dims);
    let key = match metadata.dialect {
        Dialect::Gguf => format!("{}.{GGUF_SCALING}", metadata.architecture),
        Dialect::Hub => HUB_SCALING.to_owned(),
    };
    let scaling = metadata.text(&key)?.unwrap_or("none");
    match (metadata.dialect, scaling, metadata.small_tensors.get(GGUF_FACTORS)) {
        (_, "none" | "default", None) => Ok(one(plain.collect())),
        (_, "none" | "default", Some(factors)) => by_factors(plain, factors).map(one),
        (_, "linear", None) => {
            let factor = FACTOR.need(metadata)? as f32;
            Ok(one(plain.map(|frequency| frequency / factor).collect()))
        }
        (_, "yarn", None) => {
            let yarn = Yarn::read(metadata, base, rotary_dims)?;
            let inv_freq = plain.enumerate().map(|(pair, frequency)| yarn.stretch(pair, frequency)).collect();
            Ok(Rope { inv_freq, pairs, scale: yarn.scale })
        }
        (Dialect::Hub, "llama3", None) => {
            let llama3 = Llama3::read(metadata)?;
            Ok(one(plain.map(|frequency| llama3.stretch(frequency)).collect()))
        }
        (_, other, _) => Err(unsupported(key, format!("rope scaling of the type \"{other}\" is not supported"))),
    }
}

fn by_factors(plain: impl ExactSizeIterator<Item = f32>, factors: &[f32]) -> Result<Vec<f32>> {
    if factors.len() != plain.len() {
        let problem = format!("{} factors for {} pairs", factors.len(), plain.len());
        return Err(malformed(GGUF_FACTORS, problem));
    }
    if let Some(factor) = factors.iter().find(|factor| !(factor.is_finite() && **factor > 0.0)) {
        return Err(malformed(GGUF_FACTORS, format!("{factor} is no factor to divide by")));
    }
    Ok(plain.zip(factors).map(|(frequency, factor)| frequency / factor).collect())
}

/// Llama 3.1's rule: waves longer than the original context are stretched, short ones kept, those between blended.
struct Llama3 {
    factor: f32,
    low: f32,
    high: f32,
    original_context: f32,
}

impl Llama3 {
    fn read(metadata: &Metadata) -> Result<Self> {
        let (low, high) = (LOW.need(metadata)? as f32, HIGH.need(metadata)? as f32);
        if low >= high {
            let key = HIGH.name(metadata);
            return Err(malformed(key, format!("{high} is not more than the low factor {low}")));
        }
        Ok(Self {
            factor: FACTOR.need(metadata)? as f32,
            low,
            high,
            original_context: ORIGINAL_CONTEXT.need(metadata)? as f32,
        })
    }

    fn stretch(&self, frequency: f32) -> f32 {
        let wavelength = TAU / frequency;
        if wavelength > self.original_context / self.low {
            frequency / self.factor
        } else if wavelength < self.original_context / self.high {
            frequency
        } else {
            let smooth = (self.original_context / wavelength - self.low) / (self.high - self.low);
            (1.0 - smooth) * frequency / self.factor + smooth * frequency
        }
    }
}

/// YaRN: pairs that turn often within the original context are kept, those that turn seldom are stretched, those
/// between are blended by a ramp over their indices.
struct Yarn {
    factor: f32,
    /// Pairs where the ramp begins and ends.
    low: f32,
    high: f32,
    /// Factor on cosines and sines.
    scale: f32,
}

impl Yarn {
    fn read(metadata: &Metadata, base: f64, rotary_dims: usize) -> Result<Self> {
        let (factor, context) = (FACTOR.need(metadata)?, ORIGINAL_CONTEXT.need(metadata)?);
        if base <= 1.0 {
            return Err(malformed(BASE.name(metadata), format!("a base of {base} has no ramp of frequencies")));
        }
        // The pair that turns so often within the original context.
        let pair = |turns: f64| rotary_dims as f64 * (context / (turns * TAU64)).ln() / (2.0 * base.ln());
        let low = pair(BETA_FAST.get(metadata)?.unwrap_or(32.0));
        let high = pair(BETA_SLOW.get(metadata)?.unwrap_or(1.0));
        // llama.cpp always rounds; transformers has a switch.
        let round = metadata.dialect == Dialect::Gguf || metadata.boolean("rope_scaling.truncate")?.unwrap_or(true);
        let (low, high) = if round { (low.floor(), high.ceil()) } else { (low, high) };
        let (low, high) = (low.max(0.0), high.min(rotary_dims as f64 - 1.0));
        let high = if low == high { high + 0.001 } else { high };
        let mscale = |weight: f64| 0.1 * weight * factor.ln() + 1.0;
        let multiplied = LOG_MULTIPLIER.get(metadata)?.is_some_and(|multiplier| multiplier > 0.0);
        let scale = match (ATTENTION_FACTOR.get(metadata)?, MSCALE.get(metadata)?, MSCALE_ALL_DIM.get(metadata)?) {
            _ if multiplied => 1.0,
            (Some(scale), _, _) => scale,
            (None, Some(one), Some(all)) if one > 0.0 && all > 0.0 => mscale(one) / mscale(all),
            _ => mscale(1.0),
        };
        Ok(Self { factor: factor as f32, low: low as f32, high: high as f32, scale: scale as f32 })
    }

    fn stretch(&self, pair: usize, frequency: f32) -> f32 {
        let kept = 1.0 - ((pair as f32 - self.low) / (self.high - self.low)).clamp(0.0, 1.0);
        frequency / self.factor * (1.0 - kept) + frequency * kept
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::format::Value;

    fn metadata(dialect: Dialect, values: &[(&str, Value)]) -> Metadata {
        Metadata {
            dialect,
            architecture: "llama".into(),
            values: values.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect(),
            companions: BTreeMap::new(),
            small_tensors: BTreeMap::new(),
        }
    }

    fn inv_freq(metadata: &Metadata, head_dim: usize) -> Result<Vec<f32>> {
        encoding(metadata, head_dim, RopePairs::Halves).map(|rope| rope.inv_freq)
    }

    fn number(number: f64) -> Value {
        Value::Number(number)
    }

    #[test]
    fn frequencies_fall_geometrically() {
        let metadata = metadata(Dialect::Hub, &[("rope_theta", number(256.0))]);
        assert_eq!(inv_freq(&metadata, 8).unwrap(), [1.0, 0.25, 0.0625, 0.015_625]);
    }

    #[test]
    fn fewer_rotary_dimensions_than_the_head_has() {
        let values = [("llama.rope.freq_base", number(256.0)), ("llama.rope.dimension_count", Value::Integer(4))];
        assert_eq!(inv_freq(&metadata(Dialect::Gguf, &values), 8).unwrap(), [1.0, 0.0625]);
    }

    #[test]
    fn linear_scaling_divides() {
        let hub = [
            ("rope_theta", number(256.0)),
            ("rope_scaling.rope_type", Value::Text("linear".into())),
            ("rope_scaling.factor", number(4.0)),
        ];
        let gguf = [
            ("llama.rope.freq_base", number(256.0)),
            ("llama.rope.scaling.type", Value::Text("linear".into())),
            ("llama.rope.scaling.factor", number(4.0)),
        ];
        for (dialect, values) in [(Dialect::Hub, &hub), (Dialect::Gguf, &gguf)] {
            let metadata = metadata(dialect, values);
            assert_eq!(inv_freq(&metadata, 8).unwrap(), [0.25, 0.0625, 0.015_625, 0.003_906_25]);
        }
        let error = inv_freq(&metadata(Dialect::Hub, &hub[..2]), 8).unwrap_err();
        assert_eq!(error.place(), "rope_scaling.factor");
    }

    #[test]
    fn yarn_keeps_what_turns_often_and_stretches_what_turns_seldom() {
        let values = [
            ("rope_theta", number(256.0)),
            ("rope_scaling.rope_type", Value::Text("yarn".into())),
            ("rope_scaling.factor", number(4.0)),
            ("rope_scaling.original_max_position_embeddings", number(64.0)),
            ("rope_scaling.beta_fast", number(4.0)),
        ];
        // The pairs that turn 4 times and once in 64 positions are 0.67 and 1.67: the ramp goes from 0 to 2.
        let rope = encoding(&metadata(Dialect::Hub, &values), 8, RopePairs::Halves).unwrap();
        assert_eq!(rope.inv_freq, [1.0, 0.25 * 0.625, 0.0625 / 4.0, 0.015_625 / 4.0]);
        assert!((rope.scale - (0.1 * 4f32.ln() + 1.0)).abs() < 1e-6);
    }

    #[test]
    fn llama3_scaling_keeps_short_waves_stretches_long_ones_and_blends_between() {
        let values = [
            ("rope_theta", number(256.0)),
            ("rope_scaling.rope_type", Value::Text("llama3".into())),
            ("rope_scaling.factor", number(8.0)),
            ("rope_scaling.low_freq_factor", number(1.0)),
            ("rope_scaling.high_freq_factor", number(4.0)),
            ("rope_scaling.original_max_position_embeddings", number(64.0)),
        ];
        // Wavelengths 6.3, 25.1, 100.5, 402.1: below 16 they are kept, above 64 divided by 8.
        let found = inv_freq(&metadata(Dialect::Hub, &values), 8).unwrap();
        let smooth = (64.0 / (f64::from(TAU) / 0.25) - 1.0) / 3.0;
        let blended = ((1.0 - smooth) / 8.0 + smooth) * 0.25;
        for (found, expected) in found.iter().zip([1.0, blended, 0.0625 / 8.0, 0.015_625 / 8.0]) {
            assert!((f64::from(*found) / expected - 1.0).abs() < 1e-6, "{found} {expected}");
        }
    }
}
