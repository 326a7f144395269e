//! What a caller asks of a reply: the prompt and the options, as JSON writes them, and the checks that turn them into
//! settings nobody has to check again.

use serde::de::{Deserialize, DeserializeOwned, Deserializer, Error as _};
use serde_json::{Map, Value};

use super::json::{self, invalid, not_yet};
use crate::chat::Message;
use crate::error::{Error, Result};
use crate::graph::SamplerSettings;

/// Stop strings of one request, at most.
pub const MAX_STOPS: usize = 64;
/// Bytes of one stop string, at most.
pub const MAX_STOP_BYTES: usize = 1024;

/// What is to be continued. In JSON a text, an array of messages, or an array of ids.
#[derive(Clone, Debug)]
pub enum Prompt {
    /// Continued as it stands, without the template. Special tokens written in it are text.
    Text(String),
    /// A conversation, written out by the model's chat template; the reply is the assistant's next message.
    Messages(Vec<Message>),
    /// Exactly these ids.
    Ids(Vec<u32>),
}

impl Prompt {
    /// Reads a prompt from JSON.
    pub fn from_json(text: &str) -> Result<Self> {
        json::options(text, &[]).map_err(|error| error.at("prompt"))
    }
}

impl<'de> Deserialize<'de> for Prompt {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let items = match Value::deserialize(deserializer)? {
            Value::String(text) => return Ok(Self::Text(text)),
            Value::Array(items) => items,
            _ => return Err(D::Error::custom("a text, an array of messages or an array of ids is needed")),
        };
        if items.first().is_none_or(Value::is_number) {
            each(items).map(Self::Ids).map_err(D::Error::custom)
        } else {
            each(items).map(Self::Messages).map_err(D::Error::custom)
        }
    }
}

/// Reads every item, naming the first that cannot be read.
fn each<T: DeserializeOwned>(items: Vec<Value>) -> std::result::Result<Vec<T>, String> {
    let read = |(index, item)| serde_json::from_value(item).map_err(|error| format!("item {index}: {error}"));
    items.into_iter().enumerate().map(read).collect()
}

/// One stop string or several.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(untagged, expecting = "a text or an array of texts is needed")]
pub enum Stops {
    /// One.
    One(String),
    /// Several; the first to come ends the reply.
    Many(Vec<String>),
}

/// A request for a reply. Numbers are as JavaScript has them; ranges are checked when the reply starts.
///
/// Where `temperature`, `topK`, `topP`, `minP` or `repetitionPenalty` is absent, the model's own
/// `generation_config.json` decides; where there is none, the likeliest id is taken (temperature 0).
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GenerateRequest {
    /// What is to be continued.
    pub prompt: Prompt,
    /// With a text prompt: special tokens written in it are special tokens.
    #[serde(default)]
    pub parse_special: bool,
    /// Most ids of the reply; the rest of the context when absent.
    pub max_tokens: Option<f64>,
    /// Divides the logits; 0 takes the likeliest id.
    pub temperature: Option<f64>,
    /// Only the k likeliest ids; 0 = off.
    pub top_k: Option<f64>,
    /// Only the likeliest ids whose probabilities add up to p; 1 = off.
    pub top_p: Option<f64>,
    /// Only ids at least this many times as likely as the likeliest; 0 = off.
    pub min_p: Option<f64>,
    /// Makes ids of the prompt and the reply less likely; 1 = off.
    pub repetition_penalty: Option<f64>,
    /// Subtracted from a logit once for each time its id is in the reply; 0 = off.
    pub frequency_penalty: Option<f64>,
    /// Subtracted from a logit once if its id is in the reply; 0 = off.
    pub presence_penalty: Option<f64>,
    /// Where the randomness starts; drawn and reported when absent.
    pub seed: Option<f64>,
    /// Texts that end the reply; they are not part of it.
    pub stop: Option<Stops>,
    /// Goes on after the ids that end a reply.
    #[serde(default)]
    pub ignore_eos: bool,
    /// With messages: variables of the template, such as `enable_thinking`.
    #[serde(default)]
    pub template_variables: Map<String, Value>,
    /// With messages: descriptions of tools, for the template.
    pub tools: Option<Value>,
    /// What happens to a prompt that the context cannot hold: `"error"`, also when absent.
    pub on_overflow: Option<String>,
}

/// Options that the package's interface names and that come with later issues.
const PLANNED: &[&str] = &[
    "typicalP", "topNSigma", "xtc", "dry", "mirostat", "penaltyWindow", "logitBias", "n", "logprobs", "topLogprobs",
    "json", "regex", "grammar", "toolChoice", "reasoning", "adapter", "prefill",
];

impl GenerateRequest {
    /// A request with every option absent.
    pub fn new(prompt: Prompt) -> Self {
        Self {
            prompt,
            parse_special: false,
            max_tokens: None,
            temperature: None,
            top_k: None,
            top_p: None,
            min_p: None,
            repetition_penalty: None,
            frequency_penalty: None,
            presence_penalty: None,
            seed: None,
            stop: None,
            ignore_eos: false,
            template_variables: Map::new(),
            tools: None,
            on_overflow: None,
        }
    }

    /// Reads a request of the package's interface. `InvalidArgument` names what is unknown, not there yet or wrong.
    pub fn from_json(text: &str) -> Result<Self> {
        json::options(text, PLANNED)
    }

    /// Checks every option. `seed` draws one where the request has none.
    pub(super) fn settings(&self, defaults: &SamplerSettings, seed: impl FnOnce() -> u32) -> Result<Settings> {
        match self.on_overflow.as_deref() {
            None | Some("error") => {}
            Some("truncate-middle" | "sliding") => return Err(not_yet("onOverflow")),
            Some(other) => {
                return Err(invalid(format!("{other:?} is none of error, truncate-middle, sliding")).at("onOverflow"));
            }
        }
        if !matches!(self.prompt, Prompt::Messages(_)) {
            let misplaced = [("tools", self.tools.is_some()), ("templateVariables", !self.template_variables.is_empty())];
            if let Some((name, _)) = misplaced.iter().find(|(_, given)| *given) {
                return Err(invalid("this option needs a prompt of messages").at(*name));
            }
        }
        if self.parse_special && !matches!(self.prompt, Prompt::Text(_)) {
            return Err(invalid("this option needs a prompt of text").at("parseSpecial"));
        }
        Ok(Settings {
            sampler: SamplerSettings {
                repetition_penalty: REPETITION_PENALTY.float(self.repetition_penalty)?.unwrap_or(defaults.repetition_penalty),
                frequency_penalty: FREQUENCY_PENALTY.float(self.frequency_penalty)?.unwrap_or(defaults.frequency_penalty),
                presence_penalty: PRESENCE_PENALTY.float(self.presence_penalty)?.unwrap_or(defaults.presence_penalty),
                temperature: TEMPERATURE.float(self.temperature)?.unwrap_or(defaults.temperature),
                top_k: TOP_K.integer(self.top_k)?.unwrap_or(defaults.top_k),
                top_p: TOP_P.float(self.top_p)?.unwrap_or(defaults.top_p),
                min_p: MIN_P.float(self.min_p)?.unwrap_or(defaults.min_p),
                seed: SEED.integer(self.seed)?.unwrap_or_else(seed),
            },
            max_tokens: MAX_TOKENS.integer(self.max_tokens)?.map_or(usize::MAX, |count| count as usize),
            stops: self.stops()?,
            ignore_eos: self.ignore_eos,
        })
    }

    fn stops(&self) -> Result<Vec<String>> {
        let stops = match &self.stop {
            None => Vec::new(),
            Some(Stops::One(stop)) => vec![stop.clone()],
            Some(Stops::Many(stops)) => stops.clone(),
        };
        if stops.len() > MAX_STOPS {
            return Err(invalid(format!("{} stop strings, at most {MAX_STOPS} are allowed", stops.len())).at("stop"));
        }
        match stops.iter().find(|stop| stop.is_empty() || stop.len() > MAX_STOP_BYTES) {
            Some(stop) => {
                Err(invalid(format!("a stop string of {} bytes is outside 1 ..= {MAX_STOP_BYTES}", stop.len())).at("stop"))
            }
            None => Ok(stops),
        }
    }
}

/// A request's options, checked.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) sampler: SamplerSettings,
    pub(super) max_tokens: usize,
    pub(super) stops: Vec<String>,
    pub(super) ignore_eos: bool,
}

/// The values that a numeric option may have: `least ..= most`, and 0 where that switches it off.
pub(super) struct Range {
    name: &'static str,
    least: f64,
    most: f64,
    zero: bool,
}

const MAX_TOKENS: Range = Range::new("maxTokens", 1.0, u32::MAX as f64);
// Below 1e-6 a division of logits could overflow; such a wish is greedy choice, whose name is 0.
pub(super) const TEMPERATURE: Range = Range::new("temperature", 1e-6, 100.0).or_zero();
pub(super) const TOP_K: Range = Range::new("topK", 0.0, u32::MAX as f64);
pub(super) const TOP_P: Range = Range::new("topP", 0.0, 1.0);
pub(super) const MIN_P: Range = Range::new("minP", 0.0, 1.0);
pub(super) const REPETITION_PENALTY: Range = Range::new("repetitionPenalty", 0.01, 100.0);
const FREQUENCY_PENALTY: Range = Range::new("frequencyPenalty", -100.0, 100.0);
const PRESENCE_PENALTY: Range = Range::new("presencePenalty", -100.0, 100.0);
const SEED: Range = Range::new("seed", 0.0, u32::MAX as f64);

impl Range {
    const fn new(name: &'static str, least: f64, most: f64) -> Self {
        Self { name, least, most, zero: false }
    }

    const fn or_zero(self) -> Self {
        Self { zero: true, ..self }
    }

    fn outside(&self, value: f64, what: &str) -> Error {
        let zero = if self.zero { "0 or " } else { "" };
        invalid(format!("{value} is {what}{zero}{} ..= {}", self.least, self.most)).at(self.name)
    }

    /// The value as the sampler wants it.
    pub(super) fn float(&self, value: Option<f64>) -> Result<Option<f32>> {
        let Some(value) = value else { return Ok(None) };
        let inside = (self.least..=self.most).contains(&value) || (self.zero && value == 0.0);
        if inside { Ok(Some(value as f32)) } else { Err(self.outside(value, "outside ")) }
    }

    /// The value as a whole number.
    pub(super) fn integer(&self, value: Option<f64>) -> Result<Option<u32>> {
        let Some(value) = value else { return Ok(None) };
        let inside = (self.least..=self.most).contains(&value) && value.fract() == 0.0;
        if inside { Ok(Some(value as u32)) } else { Err(self.outside(value, "no whole number in ")) }
    }
}
