//! What a caller asks of a reply: the prompt and the options, as JSON writes them, and the checks that turn them into
//! settings nobody has to check again.

use std::collections::BTreeMap;

use serde::de::{Deserialize, DeserializeOwned, Deserializer, Error as _};
use serde_json::{Map, Value};

use super::adapters::AdapterChoice;
use super::json::{self, invalid};
use super::output::ReasoningOptions;
use super::overflow::Overflow;
use super::speculation::Speculate;
use crate::chat::Message;
use crate::error::Result;
use crate::graph::SamplerSettings;
use crate::sample::{DryOptions, MirostatOptions, SampleOptions, XtcOptions};

/// Stop strings of one request, at most.
pub const MAX_STOPS: usize = 64;
/// Largest `maxTokens`.
const MAX_TOKENS: f64 = u32::MAX as f64;
/// Largest `n`.
const MAX_N: f64 = 128.0;
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

impl Default for Prompt {
    fn default() -> Self {
        Self::Text(String::new())
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
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
#[serde(untagged, expecting = "a text or an array of texts is needed")]
pub enum Stops {
    /// One.
    One(String),
    /// Several; the first to come ends the reply.
    Many(Vec<String>),
}

/// A grammar, and the notation that it is written in.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
#[serde(untagged, expecting = "a text in Lark's notation or an object { gbnf } is needed", deny_unknown_fields)]
pub enum Grammar {
    /// llguidance's dialect of Lark.
    Lark(String),
    /// llama.cpp's GBNF.
    Gbnf {
        /// The text.
        gbnf: String,
    },
}

/// A request for a reply. Numbers are as JavaScript has them; ranges are checked when the reply starts.
///
/// Where `temperature`, `topK`, `topP`, `minP` or `repetitionPenalty` is absent, the model's own
/// `generation_config.json` decides; where there is none, the likeliest id is taken (temperature 0).
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GenerateRequest {
    /// What is to be continued.
    #[serde(skip_serializing)]
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
    /// See [`Extra::typical_p`](crate::sample::Extra::typical_p).
    pub typical_p: Option<f64>,
    /// See [`Extra::top_n_sigma`](crate::sample::Extra::top_n_sigma).
    pub top_n_sigma: Option<f64>,
    /// See [`Xtc`](crate::sample::Xtc).
    pub xtc: Option<XtcOptions>,
    /// See [`Dry`](crate::sample::Dry).
    pub dry: Option<DryOptions>,
    /// See [`Mirostat`](crate::sample::Mirostat).
    pub mirostat: Option<MirostatOptions>,
    /// See [`Extra::penalty_window`](crate::sample::Extra::penalty_window).
    pub penalty_window: Option<f64>,
    /// Added to the logits of these ids, -100 to 100.
    pub logit_bias: Option<BTreeMap<String, f64>>,
    /// Tells how likely the model found each id.
    #[serde(default)]
    pub logprobs: bool,
    /// With `logprobs`: so many of the likeliest ids at each place too.
    pub top_logprobs: Option<f64>,
    /// How many replies to make; 1 when absent. They share the prompt, and each has a seed of its own.
    pub n: Option<f64>,
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
    /// With messages: definitions of tools, for the template ([`ToolDefinitions`](crate::chat::ToolDefinitions)).
    pub tools: Option<Value>,
    /// Whether tools are used: `"auto"`, also when absent, or `"none"`.
    pub tool_choice: Option<Value>,
    /// How the model writes calls, where its template does not tell or tells it wrong.
    pub tool_format: Option<String>,
    /// With messages: whether the model shall think before it answers.
    pub reasoning: Option<ReasoningOptions>,
    /// The beginning of the assistant's message, which the reply goes on from.
    pub prefill: Option<String>,
    /// The reply is JSON that is valid under this JSON Schema.
    pub json: Option<Value>,
    /// The reply is a match of this regular expression, from its first letter to its last.
    pub regex: Option<String>,
    /// The reply is a sentence of this grammar.
    pub grammar: Option<Grammar>,
    /// The adapter that the reply is made with; the model alone when absent.
    pub adapter: Option<AdapterChoice>,
    /// What happens where the context is full: `"error"`, also when absent; `"truncate-middle"`, with messages: the oldest
    /// turns behind those of the system leave the prompt; `"sliding"`: so they do, and the reply goes on past the end of
    /// the context, from the latest part of it.
    pub on_overflow: Option<String>,
    /// `"lookup"`: ids that followed the same ids before, in the prompt or the reply, are expected to follow again, and
    /// computed several in a step. The reply is the same, sooner where it copies much. `"off"`, also when absent. It steps
    /// aside for models with recurrent state, adapters, penalties, and wherever ids are not chosen by the backend alone.
    pub speculation: Option<String>,
}

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
            typical_p: None,
            top_n_sigma: None,
            xtc: None,
            dry: None,
            mirostat: None,
            penalty_window: None,
            logit_bias: None,
            logprobs: false,
            top_logprobs: None,
            n: None,
            seed: None,
            stop: None,
            ignore_eos: false,
            template_variables: Map::new(),
            tools: None,
            tool_choice: None,
            tool_format: None,
            reasoning: None,
            prefill: None,
            json: None,
            regex: None,
            grammar: None,
            adapter: None,
            on_overflow: None,
            speculation: None,
        }
    }

    /// Reads a request of the package's interface. `InvalidArgument` names what is unknown or wrong.
    pub fn from_json(text: &str) -> Result<Self> {
        json::options(text, &[])
    }

    /// Checks every option. `seed` draws one where the request has none.
    pub(super) fn settings(&self, defaults: &SampleOptions, seed: impl FnOnce() -> u32) -> Result<Settings> {
        if !matches!(self.prompt, Prompt::Messages(_)) {
            let misplaced = [
                ("tools", self.tools.is_some()),
                ("toolChoice", self.tool_choice.is_some()),
                ("reasoning", self.reasoning.is_some()),
                ("prefill", self.prefill.is_some()),
                ("templateVariables", !self.template_variables.is_empty()),
            ];
            if let Some((name, _)) = misplaced.iter().find(|(_, given)| *given) {
                return Err(invalid("this option needs a prompt of messages").at(*name));
            }
        }
        if self.parse_special && !matches!(self.prompt, Prompt::Text(_)) {
            return Err(invalid("this option needs a prompt of text").at("parseSpecial"));
        }
        let sampling = SampleOptions {
            repetition_penalty: self.repetition_penalty,
            frequency_penalty: self.frequency_penalty,
            presence_penalty: self.presence_penalty,
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            seed: self.seed,
        };
        Ok(Settings {
            sampler: sampling.or(defaults).settings(if self.seed.is_some() { 0 } else { seed() })?,
            max_tokens: self.max_tokens()?,
            n: self.n()?,
            stops: self.stops()?,
            ignore_eos: self.ignore_eos,
            overflow: Overflow::named(self.on_overflow.as_deref())?,
            speculate: Speculate::named(self.speculation.as_deref())?,
        })
    }

    fn n(&self) -> Result<u32> {
        match self.n {
            None => Ok(1),
            Some(count) if (1.0..=MAX_N).contains(&count) && count.fract() == 0.0 => Ok(count as u32),
            Some(count) => Err(invalid(format!("{count} is not a whole number from 1 to {MAX_N}")).at("n")),
        }
    }

    fn max_tokens(&self) -> Result<usize> {
        match self.max_tokens {
            None => Ok(usize::MAX),
            Some(count) if (1.0..=MAX_TOKENS).contains(&count) && count.fract() == 0.0 => Ok(count as usize),
            Some(count) => {
                Err(invalid(format!("{count} is not a whole number from 1 to {MAX_TOKENS}")).at("maxTokens"))
            }
        }
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
                Err(invalid(format!("a stop string of {} bytes is outside 1 ..= {MAX_STOP_BYTES}", stop.len()))
                    .at("stop"))
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
    /// Replies to make.
    pub(super) n: u32,
    pub(super) stops: Vec<String>,
    pub(super) ignore_eos: bool,
    pub(super) overflow: Overflow,
    pub(super) speculate: Speculate,
}

#[cfg(test)]
mod tests {
    use super::{GenerateRequest, Prompt};
    use crate::error::ErrorKind;
    use crate::sample::SampleOptions;

    #[test]
    fn a_prompt_is_text_messages_or_ids() {
        let read = |prompt: &str| GenerateRequest::from_json(&format!(r#"{{"prompt": {prompt}}}"#)).map(|r| r.prompt);
        assert!(matches!(read(r#""Once""#), Ok(Prompt::Text(text)) if text == "Once"));
        assert!(matches!(read("[1, 2]"), Ok(Prompt::Ids(ids)) if ids == [1, 2]));
        assert!(matches!(read("[]"), Ok(Prompt::Ids(ids)) if ids.is_empty()));
        let messages = read(r#"[{"role": "user", "content": "Hi"}]"#);
        assert!(matches!(messages, Ok(Prompt::Messages(messages)) if messages.len() == 1));
        for (prompt, named) in [
            ("7", "prompt: a text"),
            ("[1, -2]", "item 1"),
            (r#"[1, "a"]"#, "item 1"),
            (r#"[{"role": "user", "content": "Hi"}, {"content": "x"}]"#, "item 1"),
        ] {
            let error = read(prompt).expect_err(prompt);
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
            assert!(error.to_string().contains(named), "{prompt}: {error}");
        }
    }

    #[test]
    fn what_cannot_be_honoured_is_named() {
        for (json, named) in [
            (r#"{"prompt": "x", "colour": 1}"#, "colour"),
            (r#"{"prompt": "x", "temperature": "hot"}"#, "temperature"),
            (r#"{"prompt": "x", "stop": 3}"#, "stop"),
            (r#"{"temperature": 1}"#, "prompt"),
        ] {
            let error = GenerateRequest::from_json(json).expect_err(json);
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
            assert!(error.to_string().contains(named), "{json}: {error}");
        }
    }

    #[test]
    fn values_out_of_range_name_option_value_and_range() {
        let long = "x".repeat(2000);
        for (option, value, words) in [
            ("maxTokens", "0", "0 is not a whole number from 1"),
            ("maxTokens", "1.5", "1.5 is not a whole number"),
            ("temperature", "-1", "-1 is not 0 or a number from 0.000001 to 100"),
            ("topP", "1.5", "1.5 is not a number from 0 to 1"),
            ("n", "0", "0 is not a whole number from 1"),
            ("seed", "-1", "-1 is not a whole number from 0"),
            ("stop", r#""""#, "0 bytes is outside 1 ..="),
            ("stop", &format!("[{long:?}]"), "2000 bytes is outside 1 ..="),
            ("stop", &format!("[{}\"a\"]", "\"a\",".repeat(64)), "65 stop strings"),
            ("onOverflow", r#""explode""#, "explode"),
            ("speculation", r#""always""#, "neither"),
            ("tools", "[]", "needs a prompt of messages"),
            ("toolChoice", r#""none""#, "needs a prompt of messages"),
            ("reasoning", "{}", "needs a prompt of messages"),
            ("templateVariables", r#"{"a": 1}"#, "needs a prompt of messages"),
        ] {
            let request = GenerateRequest::from_json(&format!(r#"{{"prompt": "x", "{option}": {value}}}"#));
            let request = request.expect("of the right type");
            let error = request.settings(&SampleOptions::default(), || 0).expect_err(option);
            assert_eq!((error.kind(), error.place().as_str()), (ErrorKind::InvalidArgument, option));
            assert!(error.message().contains(words), "{option}: {error}");
        }
    }

    #[test]
    fn the_request_wins_over_the_model_and_a_seed_is_drawn_only_where_none_is_given() {
        let own = SampleOptions { temperature: Some(0.6), top_k: Some(20.0), ..SampleOptions::default() };
        let request = GenerateRequest::from_json(r#"{"prompt": "x", "temperature": 0, "seed": 5}"#).expect("valid");
        let settings = request.settings(&own, || panic!("a seed is given")).expect("valid");
        assert_eq!((settings.sampler.temperature, settings.sampler.top_k, settings.sampler.seed), (0.0, 20, 5));
        let request = GenerateRequest::new(Prompt::Text("x".into()));
        assert_eq!(request.settings(&own, || 9).expect("valid").sampler.seed, 9);
    }
}
