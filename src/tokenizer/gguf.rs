//! Builds a tokenizer from the vocabulary in a GGUF file.
//!
//! Follows the file: no Unicode normalization, even where the same model's `tokenizer.json` has one, because that is
//! how the models in this format are run everywhere else.

use tokenizers::models::bpe::{BPE, Merges, Vocab};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;

use super::added::{Added, AddedTokens};
use super::file::{check_merges, split_merge};
use super::patterns;
use super::pipeline::{Pipeline, Step, from_crate};
use crate::error::{At, Error, ErrorKind, Result};
use crate::format::Metadata;

const MODEL: &str = "tokenizer.ggml.model";
const PRE: &str = "tokenizer.ggml.pre";
const TOKENS: &str = "tokenizer.ggml.tokens";
const TYPES: &str = "tokenizer.ggml.token_type";
const MERGES: &str = "tokenizer.ggml.merges";

/// Values of `tokenizer.ggml.token_type`.
const UNKNOWN: i64 = 2;
const CONTROL: i64 = 3;
const USER_DEFINED: i64 = 4;

/// The tokenizer of a GGUF file.
pub(super) fn read(metadata: &Metadata) -> Result<Pipeline> {
    match metadata.text(MODEL)? {
        Some("gpt2") => byte_level(metadata),
        Some("llama") => Err(unsupported(
            "the vocabulary is SentencePiece (\"llama\"), which is not supported in GGUF files yet; \
             the same model as a safetensors folder works",
        )),
        Some(other) => Err(unsupported(format!("the vocabulary is of the kind {other:?}; supported: \"gpt2\""))),
        None => Err(Error::new(ErrorKind::NotFound, "the model has no tokenizer").at(MODEL)),
    }
}

fn unsupported(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::UnsupportedFormat, message).at(MODEL)
}

fn broken(key: &str, message: impl Into<String>) -> Error {
    Error::new(ErrorKind::MalformedGguf, message).at(key)
}

fn byte_level(metadata: &Metadata) -> Result<Pipeline> {
    let pre = metadata.text(PRE)?.unwrap_or("default");
    let row = patterns::by_name(pre).ok_or_else(|| {
        let message = format!("the pre-tokenizer {pre:?} is not supported; supported: {}", patterns::names());
        Error::new(ErrorKind::UnsupportedFormat, message).at(PRE)
    })?;
    let mut steps =
        row.patterns.iter().map(|pattern| Step::isolate(pattern)).collect::<std::result::Result<Vec<_>, _>>()?;
    steps.push(Step::bytes());

    let tokens = metadata.texts(TOKENS)?.ok_or_else(|| broken(TOKENS, "is missing"))?;
    let types = metadata.integers(TYPES)?;
    if types.is_some_and(|types| types.len() != tokens.len()) {
        return Err(broken(TYPES, format!("does not have {} entries, as {TOKENS} has", tokens.len())));
    }
    let mut vocab = Vocab::with_capacity(tokens.len());
    let mut added = Vec::new();
    for (index, token) in tokens.iter().enumerate() {
        let id = u32::try_from(index).map_err(|_| broken(TOKENS, "has too many entries"))?;
        let kind = types.and_then(|types| types.get(index)).copied();
        if matches!(kind, Some(UNKNOWN | CONTROL | USER_DEFINED)) && !token.is_empty() {
            added.push(Added {
                id,
                content: token.clone(),
                normal: token.clone(),
                single_word: false,
                lstrip: false,
                rstrip: false,
                normalized: false,
                special: kind != Some(USER_DEFINED),
            });
        }
        // Readers of the format give an empty token a name nobody writes.
        let text = if token.is_empty() { format!("[EMPTY_{index}]") } else { token.clone() };
        if let Some(first) = vocab.insert(text, id) {
            return Err(broken(TOKENS, format!("{token:?} is there twice, as {first} and {id}")));
        }
    }
    let merges = metadata
        .texts(MERGES)?
        .ok_or_else(|| broken(MERGES, "is missing"))?
        .iter()
        .enumerate()
        .map(|(rank, merge)| {
            split_merge(merge).ok_or_else(|| broken(MERGES, format!("entry {rank} is not two tokens: {merge:?}")))
        })
        .collect::<Result<Merges>>()?;
    check_merges(&vocab, &merges, "").at(|| MERGES.to_owned())?;
    let model =
        BPE::builder().vocab_and_merges(vocab, merges).ignore_merges(row.ignore_merges).build().map_err(from_crate)?;

    let around = |flag: &str, key: &str, default: bool| -> Result<Vec<u32>> {
        if !metadata.boolean(flag)?.unwrap_or(default) {
            return Ok(Vec::new());
        }
        match metadata.integer(key)?.map(u32::try_from) {
            Some(Ok(id)) => Ok(vec![id]),
            Some(Err(_)) => Err(broken(key, "is not a token's id")),
            None => Err(broken(key, format!("is missing, but {flag} asks for it"))),
        }
    };
    Ok(Pipeline {
        added: AddedTokens::new(added)?,
        normalizers: Vec::new(),
        steps,
        model: model.into(),
        decoder: Some(ByteLevel::new(false, true, true).into()),
        prefix: around("tokenizer.ggml.add_bos_token", "tokenizer.ggml.bos_token_id", row.add_bos)?,
        suffix: around("tokenizer.ggml.add_eos_token", "tokenizer.ggml.eos_token_id", false)?,
    })
}
