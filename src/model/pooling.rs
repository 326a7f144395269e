//! What the files of a model say about embeddings: how the states of a text become one vector.
//!
//! Folders tell it as sentence-transformers does, in `modules.json` and in the configurations that it names; GGUF files in
//! one key; where neither speaks, the family's way is taken.

use serde_json::{Map, Value};

use super::Hyper;
use super::hyper::{Key, malformed, unsupported};
use crate::error::{At, ErrorKind, Result};
use crate::format::{Dialect, Metadata, json};

/// How the states of a text's rows become one vector.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pooling {
    /// Their mean.
    Mean,
    /// The first one, which stands for the whole text.
    Cls,
    /// The last one: in a decoder only this has seen the whole text.
    #[default]
    Last,
}

impl Pooling {
    /// Every way, by its name.
    pub const ALL: &'static [(&'static str, Pooling)] =
        &[("mean", Pooling::Mean), ("cls", Pooling::Cls), ("last", Pooling::Last)];

    /// The name.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, pooling)| *pooling == self).map_or("", |(name, _)| name)
    }

    /// The way of that name.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, pooling)| *pooling)
    }
}

/// What becomes of a text's states where the caller says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Embedding {
    /// Which states count.
    pub pooling: Pooling,
    /// Whether the vector is divided by its length.
    pub normalize: bool,
    /// Tokens of a text that the model's authors let in, where that is less than it has positions for.
    pub max_tokens: Option<usize>,
    /// Whether the scores of a judge are its logits, as the authors of some want it, and not their sigmoids.
    pub raw_scores: bool,
}

/// Lists the modules that a text goes through.
const MODULES: &str = "modules.json";
/// What sentence-transformers keeps of the first module.
const TRANSFORMER: &str = "sentence_bert_config.json";
const POOLING_TYPE: Key<u64> = Key::new("pooling_type", "", 0, 4);

/// Whether the files say that the model is for embeddings, and nothing else.
pub(super) fn only_embeds(metadata: &Metadata) -> Result<bool> {
    Ok(match metadata.dialect {
        Dialect::Hub => metadata.companions.contains_key(MODULES),
        Dialect::Gguf => POOLING_TYPE.get(metadata)?.is_some_and(|kind| kind > 0),
    })
}

impl Embedding {
    /// What the files say, else `hyper`'s family.
    ///
    /// Fails with `UnsupportedFormat` for a way of pooling or a module that is not computed, with `MalformedModel` for files
    /// that break their format.
    pub(super) fn read(metadata: &Metadata, hyper: &Hyper) -> Result<Self> {
        let raw_scores = raw_scores(metadata)?;
        let silent = Self { pooling: hyper.pooling, normalize: true, max_tokens: None, raw_scores };
        if metadata.dialect == Dialect::Gguf {
            let pooling = match POOLING_TYPE.get(metadata)? {
                None | Some(0 | 4) => hyper.pooling,
                Some(1) => Pooling::Mean,
                Some(2) => Pooling::Cls,
                _ => Pooling::Last,
            };
            return Ok(Self { pooling, ..silent });
        }
        let max_tokens = object(metadata, TRANSFORMER)?.and_then(|config| count(config.get("max_seq_length")?));
        match metadata.companions.get(MODULES) {
            None => Ok(Self { max_tokens, ..silent }),
            Some(text) => {
                let wrong = |error: serde_json::Error| malformed(MODULES, error.to_string());
                let modules: Vec<Map<String, Value>> = serde_json::from_str(text).map_err(wrong)?;
                let (pooling, normalize) = modules_of(metadata, &modules)?;
                Ok(Self { pooling: pooling.unwrap_or(hyper.pooling), normalize, max_tokens, raw_scores })
            }
        }
    }
}

/// What sentence-transformers puts behind the head of a judge, in the names of two of its versions.
fn raw_scores(metadata: &Metadata) -> Result<bool> {
    for key in ["sentence_transformers.activation_fn", "sbert_ce_default_activation_function"] {
        if let Some(name) = metadata.text(key)? {
            return match name.rsplit('.').next() {
                Some("Identity") => Ok(true),
                Some("Sigmoid") => Ok(false),
                _ => Err(unsupported(key, format!("{name} is not supported"))),
            };
        }
    }
    Ok(false)
}

fn count(value: &Value) -> Option<usize> {
    usize::try_from(value.as_u64()?).ok()
}

fn object(metadata: &Metadata, name: &str) -> Result<Option<Map<String, Value>>> {
    let parse = |text: &String| json::parse_object(text, ErrorKind::MalformedModel).at(|| name.to_owned());
    metadata.companions.get(name).map(parse).transpose()
}

/// What the listed modules make of the states: the pooling, where one is listed, and whether the end is normalised.
fn modules_of(metadata: &Metadata, modules: &[Map<String, Value>]) -> Result<(Option<Pooling>, bool)> {
    let (mut found, mut normalize) = (None, false);
    for module in modules {
        let text = |key: &str| module.get(key).and_then(Value::as_str).unwrap_or_default();
        match text("type").rsplit('.').next().unwrap_or_default() {
            "Transformer" => {}
            "Normalize" => normalize = true,
            "Pooling" => {
                let name = format!("{}/config.json", text("path"));
                let config = object(metadata, &name)?.ok_or_else(|| malformed(name.as_str(), "the file is missing"))?;
                found = Some(pooling_of(&config).at(|| name)?);
            }
            other => return Err(unsupported(MODULES, format!("the module {other:?} is not supported"))),
        }
    }
    Ok((found, normalize))
}

/// The one way of pooling that a configuration switches on.
fn pooling_of(config: &Map<String, Value>) -> Result<Pooling> {
    const WAYS: &[(&str, &str, Pooling)] = &[
        ("pooling_mode_cls_token", "cls", Pooling::Cls),
        ("pooling_mode_mean_tokens", "mean", Pooling::Mean),
        ("pooling_mode_lasttoken", "lasttoken", Pooling::Last),
    ];
    if let Some(mode) = config.get("pooling_mode").and_then(Value::as_str) {
        let known = WAYS.iter().find(|(_, name, _)| *name == mode).map(|(_, _, pooling)| *pooling);
        return known.ok_or_else(|| unsupported("pooling_mode", format!("{mode} is not supported")));
    }
    let mut on = config.iter().filter(|(key, value)| key.starts_with("pooling_mode_") && **value == Value::Bool(true));
    match (on.next(), on.next()) {
        (Some((key, _)), None) => {
            let known = WAYS.iter().find(|(known, ..)| known == key).map(|(_, _, pooling)| *pooling);
            known.ok_or_else(|| unsupported(key.as_str(), "this way of pooling is not supported"))
        }
        (Some((first, _)), Some((second, _))) => {
            Err(unsupported(first.as_str(), format!("together with {second} it is not supported")))
        }
        (None, _) => Err(malformed("pooling_mode", "no way of pooling is switched on")),
    }
}
