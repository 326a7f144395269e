//! Bytes to names, shapes and metadata: GGUF files and safetensors folders become one [`Checkpoint`].
//!
//! After this stage nobody checks a length again: every tensor lies inside its file, every shape fits its bytes.

mod metadata;

pub use metadata::{Dialect, Metadata, Value};

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
    /// Outermost dimension first; a matrix is `[rows, cols]`.
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
    /// The files that hold tensors.
    pub files: Vec<Rc<dyn Source>>,
}

impl Checkpoint {
    /// The tensor of that name.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.iter().find(|tensor| tensor.name == name)
    }
}
