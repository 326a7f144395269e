//! Sampling beyond what the GPU's kernel does. A reply that asks for any of it is chosen on this side of the device, from
//! logits that are read back.
//!
//! Where each comes in the order of [`SamplerSettings`](crate::graph::SamplerSettings): the bias, penalties, DRY; then
//! temperature, top-k and top-n-sigma, typical, top-p and min-p, XTC, and mirostat with the draw.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::dry::Dry;
use super::range::{Range, number, whole};
use crate::error::{Error, ErrorKind, Result};

/// XTC, "exclude top choices" (p-e-w, text-generation-webui #6335).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Xtc {
    /// How often it is applied.
    pub probability: f32,
    /// Of ids at least this probable only the least probable stays.
    pub threshold: f32,
}

/// Mirostat, version 2 (Basu et al., arXiv 2007.14966): keeps the surprise of ids near a target.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mirostat {
    /// The target, in bits.
    pub tau: f32,
    /// How fast the bound follows.
    pub eta: f32,
}

/// Checked settings.
#[derive(Clone, Debug, PartialEq)]
pub struct Extra {
    /// Added to the logits of ids before all else.
    pub logit_bias: Vec<(u32, f32)>,
    /// Penalties look at so many of the last ids of prompt and reply; at all when absent.
    pub penalty_window: Option<usize>,
    /// See [`Dry`].
    pub dry: Option<Dry>,
    /// Only logits within so many standard deviations of the largest (top-n-sigma, arXiv 2411.07641); 0 = off.
    pub top_n_sigma: f32,
    /// Only the ids whose surprise is nearest to the expected one, so many that their probabilities reach it (locally
    /// typical sampling, arXiv 2202.00666); 1 = off.
    pub typical_p: f32,
    /// See [`Xtc`].
    pub xtc: Option<Xtc>,
    /// See [`Mirostat`].
    pub mirostat: Option<Mirostat>,
}

impl Default for Extra {
    fn default() -> Self {
        Self {
            logit_bias: Vec::new(),
            penalty_window: None,
            dry: None,
            top_n_sigma: 0.0,
            typical_p: 1.0,
            xtc: None,
            mirostat: None,
        }
    }
}

/// As callers write [`Xtc`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct XtcOptions {
    /// See [`Xtc::probability`].
    pub probability: f64,
    /// See [`Xtc::threshold`]; 0.1 when absent.
    pub threshold: Option<f64>,
}

/// As callers write [`Mirostat`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MirostatOptions {
    /// See [`Mirostat::tau`]; 5 when absent.
    pub tau: Option<f64>,
    /// See [`Mirostat::eta`]; 0.1 when absent.
    pub eta: Option<f64>,
}

/// As callers write [`Dry`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DryOptions {
    /// See [`Dry::multiplier`].
    pub multiplier: f64,
    /// See [`Dry::base`]; 1.75 when absent.
    pub base: Option<f64>,
    /// See [`Dry::allowed`]; 2 when absent.
    pub allowed_length: Option<f64>,
    /// See [`Dry::window`]; all ids when absent.
    pub window: Option<f64>,
    /// Texts that no repetition goes across; a line break, a colon, a quotation mark and a star when absent.
    pub sequence_breakers: Option<Vec<String>>,
}

impl DryOptions {
    /// The texts that no repetition goes across.
    pub fn breakers(&self) -> Vec<String> {
        self.sequence_breakers.clone().unwrap_or_else(|| BREAKERS.map(str::to_owned).into())
    }
}

const BREAKERS: [&str; 4] = ["\n", ":", "\"", "*"];

/// Options as they come from callers; what is absent has no effect.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ExtraOptions {
    /// See [`Extra::logit_bias`], ids as JSON writes keys.
    pub logit_bias: Option<BTreeMap<String, f64>>,
    /// See [`Extra::penalty_window`].
    pub penalty_window: Option<f64>,
    /// See [`Dry`].
    pub dry: Option<DryOptions>,
    /// See [`Extra::top_n_sigma`].
    pub top_n_sigma: Option<f64>,
    /// See [`Extra::typical_p`].
    pub typical_p: Option<f64>,
    /// See [`Xtc`].
    pub xtc: Option<XtcOptions>,
    /// See [`Mirostat`].
    pub mirostat: Option<MirostatOptions>,
}

const TYPICAL_P: Range = number("typicalP", 0.0, 1.0);
const TOP_N_SIGMA: Range = number("topNSigma", 0.0, 100.0);
const PENALTY_WINDOW: Range = whole("penaltyWindow", 0.0, u32::MAX as f64);
const LOGIT_BIAS: Range = number("logitBias", -100.0, 100.0);
const XTC_PROBABILITY: Range = number("xtc: probability", 0.0, 1.0);
const XTC_THRESHOLD: Range = number("xtc: threshold", 0.0, 1.0);
const TAU: Range = number("mirostat: tau", 0.0, 100.0);
const ETA: Range = number("mirostat: eta", 0.0, 1.0);
const DRY_MULTIPLIER: Range = number("dry: multiplier", 0.0, 100.0);
const DRY_BASE: Range = number("dry: base", 1.0, 10.0);
const DRY_ALLOWED: Range = whole("dry: allowedLength", 1.0, 1000.0);
const DRY_WINDOW: Range = whole("dry: window", 0.0, u32::MAX as f64);

impl ExtraOptions {
    /// The settings. `containing` gives the ids of the prompt whose text has one of these texts in it.
    ///
    /// Fails with `InvalidArgument` naming the option and its range.
    pub fn settings(&self, containing: impl FnOnce(&[String]) -> Result<BTreeSet<u32>>) -> Result<Extra> {
        let off = Extra::default();
        let bias = |(id, bias): (&String, &f64)| -> Result<(u32, f32)> {
            let wrong = || Error::new(ErrorKind::InvalidArgument, format!("{id:?} is not a token id")).at("logitBias");
            Ok((id.parse::<u32>().map_err(|_| wrong())?, LOGIT_BIAS.check(*bias)? as f32))
        };
        let xtc = |xtc: &XtcOptions| -> Result<Xtc> {
            Ok(Xtc {
                probability: XTC_PROBABILITY.check(xtc.probability)? as f32,
                threshold: XTC_THRESHOLD.real(xtc.threshold, 0.1)?,
            })
        };
        let mirostat = |mirostat: &MirostatOptions| -> Result<Mirostat> {
            Ok(Mirostat { tau: TAU.real(mirostat.tau, 5.0)?, eta: ETA.real(mirostat.eta, 0.1)? })
        };
        let dry = |dry: &DryOptions| -> Result<Dry> {
            Ok(Dry {
                multiplier: DRY_MULTIPLIER.check(dry.multiplier)? as f32,
                base: DRY_BASE.real(dry.base, 1.75)?,
                allowed: DRY_ALLOWED.count(dry.allowed_length, 2)? as usize,
                window: DRY_WINDOW.count(dry.window, u32::MAX)? as usize,
                breakers: containing(&dry.breakers())?,
            })
        };
        let window = self.penalty_window.map(|window| PENALTY_WINDOW.count(Some(window), 0)).transpose()?;
        Ok(Extra {
            logit_bias: self.logit_bias.iter().flatten().map(bias).collect::<Result<_>>()?,
            penalty_window: window.map(|window| window as usize),
            top_n_sigma: TOP_N_SIGMA.real(self.top_n_sigma, off.top_n_sigma)?,
            typical_p: TYPICAL_P.real(self.typical_p, off.typical_p)?,
            xtc: self.xtc.as_ref().map(xtc).transpose()?,
            mirostat: self.mirostat.as_ref().map(mirostat).transpose()?,
            dry: self.dry.as_ref().map(dry).transpose()?,
        })
    }
}
