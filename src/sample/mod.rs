//! How the next id is chosen: optional settings, checked by name and range, become [`SamplerSettings`], by which backends
//! choose beside the logits, and [`Extra`], for which a [`Chooser`] does on this side.

mod choose;
mod constraint;
mod dry;
mod extra;
#[cfg(not(target_arch = "wasm32"))]
mod grammar;
mod history;
mod range;
mod top;

pub use choose::{Chooser, Count, uniform};
pub use constraint::{Constraint, Form, Grammars, Mask};
pub use dry::Dry;
pub use extra::{DryOptions, Extra, ExtraOptions, Mirostat, MirostatOptions, Xtc, XtcOptions};
#[cfg(not(target_arch = "wasm32"))]
pub use grammar::NativeGrammars;
pub use history::History;

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::graph::SamplerSettings;
use range::{Range, number, whole};

/// Sampling options as they come from callers and from `generation_config.json`; what is absent has no effect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SampleOptions {
    /// See [`SamplerSettings::repetition_penalty`].
    pub repetition_penalty: Option<f64>,
    /// See [`SamplerSettings::frequency_penalty`].
    pub frequency_penalty: Option<f64>,
    /// See [`SamplerSettings::presence_penalty`].
    pub presence_penalty: Option<f64>,
    /// See [`SamplerSettings::temperature`].
    pub temperature: Option<f64>,
    /// See [`SamplerSettings::top_k`].
    pub top_k: Option<f64>,
    /// See [`SamplerSettings::top_p`].
    pub top_p: Option<f64>,
    /// See [`SamplerSettings::min_p`].
    pub min_p: Option<f64>,
    /// See [`SamplerSettings::seed`].
    pub seed: Option<f64>,
}

const REPETITION_PENALTY: Range = number("repetitionPenalty", 0.01, 100.0);
const FREQUENCY_PENALTY: Range = number("frequencyPenalty", -100.0, 100.0);
const PRESENCE_PENALTY: Range = number("presencePenalty", -100.0, 100.0);
/// Logits divided by less than 1e-6 may overflow, and nothing is left of their order.
const TEMPERATURE: Range = Range { zero: true, ..number("temperature", 1e-6, 100.0) };
const TOP_K: Range = whole("topK", 0.0, u32::MAX as f64);
const TOP_P: Range = number("topP", 0.0, 1.0);
const MIN_P: Range = number("minP", 0.0, 1.0);
const SEED: Range = whole("seed", 0.0, u32::MAX as f64);

impl SampleOptions {
    /// These options, with `defaults` where they say nothing.
    #[must_use]
    pub fn or(self, defaults: &SampleOptions) -> Self {
        Self {
            repetition_penalty: self.repetition_penalty.or(defaults.repetition_penalty),
            frequency_penalty: self.frequency_penalty.or(defaults.frequency_penalty),
            presence_penalty: self.presence_penalty.or(defaults.presence_penalty),
            temperature: self.temperature.or(defaults.temperature),
            top_k: self.top_k.or(defaults.top_k),
            top_p: self.top_p.or(defaults.top_p),
            min_p: self.min_p.or(defaults.min_p),
            seed: self.seed.or(defaults.seed),
        }
    }

    /// The settings; `seed` is where the randomness starts when the options don't say.
    ///
    /// Fails with `InvalidArgument` naming the option and its range.
    pub fn settings(&self, seed: u32) -> Result<SamplerSettings> {
        let off = SamplerSettings::default();
        Ok(SamplerSettings {
            repetition_penalty: REPETITION_PENALTY.real(self.repetition_penalty, off.repetition_penalty)?,
            frequency_penalty: FREQUENCY_PENALTY.real(self.frequency_penalty, off.frequency_penalty)?,
            presence_penalty: PRESENCE_PENALTY.real(self.presence_penalty, off.presence_penalty)?,
            temperature: TEMPERATURE.real(self.temperature, off.temperature)?,
            top_k: TOP_K.count(self.top_k, off.top_k)?,
            top_p: TOP_P.real(self.top_p, off.top_p)?,
            min_p: MIN_P.real(self.min_p, off.min_p)?,
            seed: SEED.count(self.seed, seed)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn parse(json: &str) -> Result<SamplerSettings> {
        let options: SampleOptions = serde_json::from_str(json).unwrap();
        options.settings(7)
    }

    #[test]
    fn what_is_absent_has_no_effect() {
        assert_eq!(parse("{}").unwrap(), SamplerSettings { seed: 7, ..SamplerSettings::default() });
    }

    #[test]
    fn every_option_arrives() {
        let all = r#"{"repetitionPenalty":1.1,"frequencyPenalty":0.25,"presencePenalty":-0.5,"temperature":0.6,
            "topK":20,"topP":0.95,"minP":0.05,"seed":4294967295}"#;
        let expected = SamplerSettings {
            repetition_penalty: 1.1,
            frequency_penalty: 0.25,
            presence_penalty: -0.5,
            temperature: 0.6,
            top_k: 20,
            top_p: 0.95,
            min_p: 0.05,
            seed: u32::MAX,
        };
        assert_eq!(parse(all).unwrap(), expected);
    }

    #[test]
    fn errors_name_the_option_and_its_range() {
        let cases = [
            (r#"{"temperature":-0.1}"#, "temperature", "100"),
            (r#"{"temperature":1e-7}"#, "temperature", "0 or a number from 0.000001"),
            (r#"{"topK":1.5}"#, "topK", "a whole number"),
            (r#"{"topK":-1}"#, "topK", "4294967295"),
            (r#"{"topP":1.01}"#, "topP", "from 0 to 1"),
            (r#"{"minP":2}"#, "minP", "from 0 to 1"),
            (r#"{"seed":4294967296}"#, "seed", "4294967295"),
            (r#"{"repetitionPenalty":0}"#, "repetitionPenalty", "0.01"),
            (r#"{"frequencyPenalty":101}"#, "frequencyPenalty", "-100"),
            (r#"{"presencePenalty":-101}"#, "presencePenalty", "-100"),
        ];
        for (json, option, range) in cases {
            let error = parse(json).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{json}");
            assert_eq!(error.place(), option, "{json}");
            assert!(error.message().contains(range), "{json}: {error}");
        }
        let nan = SampleOptions { temperature: Some(f64::NAN), ..SampleOptions::default() };
        assert_eq!(nan.settings(0).unwrap_err().place(), "temperature");
    }

    #[test]
    fn unknown_options_are_refused() {
        assert!(serde_json::from_str::<SampleOptions>(r#"{"top_k":3}"#).is_err());
    }

    #[test]
    fn options_win_over_defaults() {
        let defaults = SampleOptions { temperature: Some(0.6), top_k: Some(20.0), ..SampleOptions::default() };
        let options = SampleOptions { temperature: Some(0.0), ..SampleOptions::default() };
        let both = options.or(&defaults);
        assert_eq!((both.temperature, both.top_k), (Some(0.0), Some(20.0)));
    }
}
