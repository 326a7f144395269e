//! Angular frequencies of the rotary position encoding (RoFormer, arXiv 2104.09864), and their stretching to longer
//! contexts: none, linear (arXiv 2306.15595), Llama 3's by wavelength (arXiv 2407.21783).
//!
//! Powers are taken in f64; what follows is rounded to f32 at the places where transformers rounds, because an angle
//! at position 100,000 shows the last bit of a frequency.

use std::f32::consts::TAU;

use super::hyper::{Key, malformed, unsupported};
use crate::error::Result;
use crate::format::{Dialect, Metadata};

const BASE: Key<f64> = Key::new("rope.freq_base", &["rope_theta", "rope_parameters.rope_theta"], 1.0, 1e12);
const ROTARY_DIMS: Key<u64> = Key::new("rope.dimension_count", &[], 2, 1024);
const FACTOR: Key<f64> = Key::new("rope.scaling.factor", &["rope_scaling.factor", "rope_parameters.factor"], 1.0, 1e6);
const LOW: Key<f64> = Key::new("", &["rope_scaling.low_freq_factor", "rope_parameters.low_freq_factor"], 1e-3, 1e6);
const HIGH: Key<f64> = Key::new("", &["rope_scaling.high_freq_factor", "rope_parameters.high_freq_factor"], 1e-3, 1e6);
const ORIGINAL_CONTEXT: Key<f64> = Key::new(
    "",
    &["rope_scaling.original_max_position_embeddings", "rope_parameters.original_max_position_embeddings"],
    1.0,
    1e8,
);

/// Where the kind of scaling is told; older files of the hub say `type`.
const GGUF_SCALING: &str = "rope.scaling.type";
const HUB_SCALING: &[&str] = &["rope_scaling.rope_type", "rope_scaling.type", "rope_parameters.rope_type"];

/// Factors by which llama.cpp's converter has Llama 3's frequencies divided.
const GGUF_FACTORS: &str = "rope_freqs.weight";

/// One angular frequency for each pair of a head, in radians per position.
pub(super) fn inv_freq(metadata: &Metadata, head_dim: usize) -> Result<Vec<f32>> {
    let rotary_dims = ROTARY_DIMS.get(metadata)?.unwrap_or(head_dim);
    if rotary_dims % 2 != 0 || rotary_dims > head_dim {
        let key = ROTARY_DIMS.names(metadata).concat();
        return Err(malformed(key, format!("{rotary_dims} rotary dimensions in heads of {head_dim}")));
    }
    // 10000 is what both dialects mean when they say nothing.
    let base = BASE.get(metadata)?.unwrap_or(10_000.0);
    let plain = (0..rotary_dims).step_by(2).map(|i| {
        let exponent = f64::from(i as f32 / rotary_dims as f32);
        1.0 / (base.powf(exponent) as f32)
    });
    let (key, scaling) = scaling(metadata)?;
    match (scaling, metadata.small_tensors.get(GGUF_FACTORS)) {
        ("" | "none" | "default", None) => Ok(plain.collect()),
        ("" | "none" | "default", Some(factors)) => by_factors(plain, factors),
        ("linear", None) => {
            let factor = FACTOR.need(metadata)? as f32;
            Ok(plain.map(|frequency| frequency / factor).collect())
        }
        ("llama3", None) if metadata.dialect == Dialect::Hub => {
            let llama3 = Llama3::read(metadata)?;
            Ok(plain.map(|frequency| llama3.stretch(frequency)).collect())
        }
        (other, _) => Err(unsupported(key, format!("rope scaling of the type \"{other}\" is not supported"))),
    }
}

/// The kind of scaling and the key that tells it; empty when none does.
fn scaling(metadata: &Metadata) -> Result<(String, &str)> {
    let keys: Vec<String> = match metadata.dialect {
        Dialect::Gguf => vec![format!("{}.{GGUF_SCALING}", metadata.architecture)],
        Dialect::Hub => HUB_SCALING.iter().map(|key| (*key).to_owned()).collect(),
    };
    for key in keys {
        if let Some(scaling) = metadata.text(&key)? {
            return Ok((key, scaling));
        }
    }
    Ok((GGUF_FACTORS.to_owned(), ""))
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
            let key = HIGH.names(metadata).first().cloned().unwrap_or_default();
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
