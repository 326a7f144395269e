//! Metadata of a model: one set of typed getters over the key-value pairs of GGUF and over the JSON files of the hub.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::error::{Error, ErrorKind, Result};

/// Where the metadata comes from, and so whose names its keys and tensors have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Keys such as `llama.block_count`, tensors such as `blk.0.attn_q.weight`.
    Gguf,
    /// Keys of `config.json` such as `num_hidden_layers`, tensors such as `model.layers.0.self_attn.q_proj.weight`.
    Hub,
}

/// One value. Arrays of numbers are kept flat, so that a vocabulary does not cost an object an item.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Any integer that fits.
    Integer(i128),
    /// Any float.
    Number(f64),
    /// true or false.
    Bool(bool),
    /// UTF-8 text.
    Text(String),
    /// Array of integers.
    Integers(Vec<i64>),
    /// Array of floats.
    Numbers(Vec<f32>),
    /// Array of booleans.
    Bools(Vec<bool>),
    /// Array of texts.
    Texts(Vec<String>),
}

impl Value {
    /// JSON does not say what an empty array is an array of, so it counts as one of any type.
    fn is_empty_array(&self) -> bool {
        match self {
            Value::Integers(items) => items.is_empty(),
            Value::Numbers(items) => items.is_empty(),
            Value::Bools(items) => items.is_empty(),
            Value::Texts(items) => items.is_empty(),
            Value::Integer(_) | Value::Number(_) | Value::Bool(_) | Value::Text(_) => false,
        }
    }
}

/// Key-value pairs and the companion files of a hub folder.
#[derive(Clone, Debug)]
pub struct Metadata {
    /// Whose names are used.
    pub dialect: Dialect,
    /// `general.architecture`, or `model_type` of `config.json`.
    pub architecture: String,
    /// All values. A nested key of `config.json` is joined with dots: `rope_scaling.factor`; nulls are left out.
    pub values: BTreeMap<String, Value>,
    /// Contents of `tokenizer.json`, `tokenizer_config.json`, `generation_config.json`, `chat_template.jinja`, ... by
    /// file name (hub folders only).
    pub companions: BTreeMap<String, String>,
    /// Small float tensors that parametrise the computation (`rope_freqs.weight`), read with the header.
    pub small_tensors: BTreeMap<String, Vec<f32>>,
}

impl Metadata {
    fn wrong(&self, key: &str, expected: &str, found: &Value) -> Error {
        let found = match found {
            Value::Integer(_) => "an integer",
            Value::Number(_) => "a float",
            Value::Bool(_) => "a boolean",
            Value::Text(_) => "a text",
            Value::Integers(_) | Value::Numbers(_) | Value::Bools(_) | Value::Texts(_) => "an array",
        };
        let kind = match self.dialect {
            Dialect::Gguf => ErrorKind::MalformedGguf,
            Dialect::Hub => ErrorKind::MalformedModel,
        };
        Error::new(kind, format!("{expected} is needed, {found} is there")).at(key)
    }

    /// A non-negative integer.
    pub fn integer(&self, key: &str) -> Result<Option<u64>> {
        match self.values.get(key) {
            None => Ok(None),
            Some(value @ Value::Integer(integer)) => {
                u64::try_from(*integer).map(Some).map_err(|_| self.wrong(key, "a non-negative integer", value))
            }
            Some(other) => Err(self.wrong(key, "a non-negative integer", other)),
        }
    }

    /// A float; integers count.
    pub fn number(&self, key: &str) -> Result<Option<f64>> {
        match self.values.get(key) {
            None => Ok(None),
            Some(Value::Number(number)) => Ok(Some(*number)),
            Some(Value::Integer(integer)) => Ok(Some(*integer as f64)),
            Some(other) => Err(self.wrong(key, "a number", other)),
        }
    }

    /// A boolean.
    pub fn boolean(&self, key: &str) -> Result<Option<bool>> {
        match self.values.get(key) {
            None => Ok(None),
            Some(Value::Bool(boolean)) => Ok(Some(*boolean)),
            Some(other) => Err(self.wrong(key, "a boolean", other)),
        }
    }

    /// A text.
    pub fn text(&self, key: &str) -> Result<Option<&str>> {
        match self.values.get(key) {
            None => Ok(None),
            Some(Value::Text(text)) => Ok(Some(text)),
            Some(other) => Err(self.wrong(key, "a text", other)),
        }
    }

    /// An array of texts.
    pub fn texts(&self, key: &str) -> Result<Option<&[String]>> {
        match self.values.get(key) {
            None => Ok(None),
            Some(Value::Texts(texts)) => Ok(Some(texts)),
            Some(other) if other.is_empty_array() => Ok(Some(&[])),
            Some(other) => Err(self.wrong(key, "an array of texts", other)),
        }
    }

    /// An array of integers.
    pub fn integers(&self, key: &str) -> Result<Option<&[i64]>> {
        match self.values.get(key) {
            None => Ok(None),
            Some(Value::Integers(integers)) => Ok(Some(integers)),
            Some(other) if other.is_empty_array() => Ok(Some(&[])),
            Some(other) => Err(self.wrong(key, "an array of integers", other)),
        }
    }

    /// An array of floats. Integers count where the file's form, JSON, does not tell them apart.
    pub fn numbers(&self, key: &str) -> Result<Option<Cow<'_, [f32]>>> {
        match self.values.get(key) {
            None => Ok(None),
            Some(Value::Numbers(numbers)) => Ok(Some(numbers.into())),
            Some(Value::Integers(integers)) if self.dialect == Dialect::Hub => {
                Ok(Some(integers.iter().map(|integer| *integer as f32).collect()))
            }
            Some(other) if other.is_empty_array() => Ok(Some(Cow::default())),
            Some(other) => Err(self.wrong(key, "an array of floats", other)),
        }
    }
}
