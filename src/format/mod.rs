//! Bytes to names, shapes and metadata: GGUF files and safetensors folders become one [`Checkpoint`].
//!
//! After this stage nobody checks a length again: every tensor lies inside its file, every shape fits its bytes.

#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::panic
    )
)]

mod adapter;
mod config;
mod gguf;
mod hub;
pub(crate) mod json;
pub mod limits;
mod metadata;
mod open;
mod packed;
mod safetensors;
mod sniff;

pub use adapter::ADAPTER_CONFIG;
pub(crate) use hub::module_configs;
pub use metadata::{Dialect, Metadata, Value};

use std::collections::BTreeMap;
use std::rc::Rc;

use crate::quant::FormatId;
use crate::source::Source;

/// A tensor as it lies in a file.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorInfo {
    /// The name in the file.
    pub name: String,
    /// How its numbers are stored.
    pub format: FormatId,
    /// Outermost dimension first; a matrix is `[rows, cols]`. GGUF cannot tell a matrix of one row from a vector: both
    /// are `[cols]`.
    pub shape: Vec<usize>,
    /// Index into [`Checkpoint::files`].
    pub file: usize,
    /// Where its bytes start in that file.
    pub offset: u64,
    /// How many there are.
    pub size_bytes: u64,
}

/// A model's files, opened and checked, no weight read.
pub struct Checkpoint {
    /// Hyperparameters, tokenizer and template, as the files have them.
    pub metadata: Metadata,
    /// All tensors, in the order of their bytes (file, offset).
    pub tensors: Vec<TensorInfo>,
    /// For each matrix whose columns stand in an order of their own the tensor of that order: `(cols)` float32, of each
    /// column which number of the input it multiplies.
    pub orders: BTreeMap<String, String>,
    /// The files that hold tensors.
    pub files: Vec<Rc<dyn Source>>,
}

impl Checkpoint {
    /// The tensor of that name.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.iter().find(|tensor| tensor.name == name)
    }
}

/// What the start of a file shows it to be, where that is nothing that a model is read from: a web page, a pickle, ...
pub(crate) fn foreign(start: &[u8]) -> Option<&'static str> {
    match sniff::sniff(start) {
        sniff::Kind::Foreign(what) => Some(what),
        _ => None,
    }
}

/// The last part of a path.
fn base_name(name: &str) -> &str {
    name.rsplit(['/', '\\']).next().unwrap_or(name)
}

/// Words for bytes at `data + offset` that the file does not have.
fn past_the_end(size_bytes: u64, data: u64, offset: u64, file_size: u64) -> String {
    format!(
        "{size_bytes} bytes at {data} + {offset} reach past the end of the file ({file_size} bytes): \
         it is cut short, or its header is wrong"
    )
}

/// A name from a file, made fit for a message: escaped, and cut where it is long.
fn shown(name: &str) -> String {
    const MOST_CHARS: usize = 80;
    let plain = name.len() <= MOST_CHARS && !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic());
    if plain {
        return name.to_owned();
    }
    let mut shown: String = name.chars().take(MOST_CHARS).flat_map(char::escape_debug).collect();
    if name.chars().count() > MOST_CHARS {
        shown.push_str("...");
    }
    format!("\"{shown}\"")
}
