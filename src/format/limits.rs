//! The limits of what is read from model files. Past one of them comes `LimitExceeded`, which names it.
//!
//! They bound the memory and the time that a file can cost before it is known to be honest.

use crate::error::{Error, ErrorKind};

/// GGUF: bytes of metadata, from the start of the file to the first tensor's entry.
pub const GGUF_METADATA_BYTES: u64 = 64 << 20;
/// GGUF: bytes of the header: the metadata and the table of tensors.
pub const GGUF_HEADER_BYTES: u64 = 72 << 20;
/// GGUF: key-value pairs.
pub const GGUF_KEYS: u64 = 65_536;
/// GGUF: tensors in one file.
pub const GGUF_TENSORS: u64 = 65_536;
/// GGUF: bytes of one text.
pub const GGUF_STRING_BYTES: u64 = 10_000_000;
/// GGUF: bytes of a key.
pub const GGUF_KEY_BYTES: u64 = 65_535;
/// GGUF: bytes of a tensor's name.
pub const GGUF_TENSOR_NAME_BYTES: u64 = 64;
/// GGUF: items of one array. Some lists of merges are twice as long as their vocabulary.
pub const GGUF_ARRAY_ITEMS: u64 = 2_000_000;
/// GGUF: items of all arrays of a file.
pub const GGUF_TOTAL_ARRAY_ITEMS: u64 = 4_000_000;
/// GGUF: arrays inside arrays.
pub const GGUF_ARRAY_NESTING: u32 = 4;
/// GGUF: dimensions of a tensor.
pub const GGUF_DIMENSIONS: u32 = 4;
/// GGUF: size of one dimension.
pub const GGUF_DIMENSION: u64 = 1 << 32;
/// GGUF: alignment of the tensors' bytes, a power of two.
pub const GGUF_ALIGNMENT: u64 = 1 << 20;
/// GGUF: files that one model may be split into.
pub const GGUF_SHARDS: u64 = 1_000;
/// Numbers in one of the small tensors that are read with the header (`rope_freqs.weight`).
pub const SMALL_TENSOR_NUMBERS: usize = 64 << 10;
/// safetensors: bytes of the JSON header (the limit of the reference).
pub const SAFETENSORS_HEADER_BYTES: u64 = 100_000_000;
/// safetensors: entries of the header.
pub const SAFETENSORS_TENSORS: usize = 200_000;
/// safetensors: bytes of a tensor's name.
pub const SAFETENSORS_NAME_BYTES: usize = 4_096;
/// safetensors: dimensions of a tensor.
pub const SAFETENSORS_DIMENSIONS: usize = 16;
/// Hub folders: bytes of `tokenizer.json`.
pub const TOKENIZER_BYTES: u64 = 64 << 20;
/// Hub folders: the same, where a model is only looked at.
pub const LOOKED_AT_TOKENIZER_BYTES: u64 = 256 << 10;
/// Hub folders: bytes of `model.safetensors.index.json`.
pub const INDEX_BYTES: u64 = 32 << 20;
/// Hub folders: bytes of every other file that is read whole (`config.json`, ...).
pub const CONFIG_BYTES: u64 = 4 << 20;
/// Hub folders: objects and arrays inside one another, in any JSON file.
pub const JSON_DEPTH: usize = 64;
/// Hub folders: values of `config.json` once nested keys are joined.
pub const CONFIG_VALUES: usize = 65_536;

/// The error for a limit that was passed, by how much nobody counted.
pub(super) fn passed(what: &str, limit: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::LimitExceeded, format!("{what}: more than {limit}, which is the limit"))
}

/// The error for a limit that was passed.
pub(super) fn exceeded(what: &str, found: impl std::fmt::Display, limit: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::LimitExceeded, format!("{what}: {found}, the limit is {limit}"))
}
