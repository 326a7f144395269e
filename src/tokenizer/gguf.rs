//! Builds a tokenizer from the vocabulary in a GGUF file: byte-level pairs here, the other kinds in files of their own.
//!
//! Follows the file: no Unicode normalization, even where the same model's `tokenizer.json` has one, because that is
//! how the models in this format are run everywhere else.

use tokenizers::decoders::byte_fallback::ByteFallback;
use tokenizers::decoders::fuse::Fuse;
use tokenizers::decoders::sequence::Sequence;
use tokenizers::decoders::strip::Strip;
use tokenizers::models::bpe::{BPE, Merges, Vocab};
use tokenizers::normalizers::{Prepend, Replace};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{DecoderWrapper, NormalizerWrapper};

use super::added::{Added, AddedTokens};
use super::file::{check_merges, split_merge};
use super::patterns;
use super::pipeline::{Pipeline, Step, TokenModel, from_crate};
use super::spm::Spm;
use super::{unigram, wordpiece};
use crate::error::{At, Error, ErrorKind, Result};
use crate::format::Metadata;

const MODEL: &str = "tokenizer.ggml.model";
const PRE: &str = "tokenizer.ggml.pre";
pub(super) const TOKENS: &str = "tokenizer.ggml.tokens";
const TYPES: &str = "tokenizer.ggml.token_type";
const MERGES: &str = "tokenizer.ggml.merges";
pub(super) const SCORES: &str = "tokenizer.ggml.scores";
const UNKNOWN_ID: &str = "tokenizer.ggml.unknown_token_id";
const SPACE_PREFIX: &str = "tokenizer.ggml.add_space_prefix";

/// What SentencePiece writes for a space.
const SPACE: &str = "▁";
/// Parts of the names of models whose added tokens strip the space behind them, and those of them that do not.
const PHI3_NAMES: &[&str] = &["phi-3", "phi3"];
const PHI3_PLAIN: &[&str] = &["<unk>", "<s>", "<|endoftext|>"];

/// Values of `tokenizer.ggml.token_type`.
const UNKNOWN: i64 = 2;
const CONTROL: i64 = 3;
const USER_DEFINED: i64 = 4;

/// The tokenizer of a GGUF file.
pub(super) fn read(metadata: &Metadata) -> Result<Pipeline> {
    match metadata.text(MODEL)? {
        Some("gpt2") => byte_level(metadata),
        Some("llama") => sentence_piece(metadata),
        Some("bert") => wordpiece::read(metadata),
        Some("t5") => unigram::read(metadata),
        Some(other) => Err(unsupported(format!(
            "the vocabulary is of the kind {other:?}; supported: \"gpt2\", \"llama\", \"bert\", \"t5\""
        ))),
        None => Err(Error::new(ErrorKind::NotFound, "the model has no tokenizer").at(MODEL)),
    }
}

fn unsupported(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::UnsupportedFormat, message).at(MODEL)
}

pub(super) fn broken(key: &str, message: impl Into<String>) -> Error {
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

    let Tokens { vocab, added } = tokens(metadata, str::to_owned)?;
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

    Ok(Pipeline {
        added: AddedTokens::new(added)?,
        normalizers: Vec::new(),
        steps,
        model: model.into(),
        decoder: Some(ByteLevel::new(false, true, true).into()),
        prefix: around(metadata, BEGIN, row.add_bos, None)?,
        suffix: around(metadata, END, false, None)?,
        pair: None,
    })
}

/// SentencePiece with scores (Llama 2, Mistral, Phi-3, Gemma): spaces are written as a letter, and a text begins with
/// one unless the file says otherwise, whatever its first character is.
fn sentence_piece(metadata: &Metadata) -> Result<Pipeline> {
    let Tokens { vocab, mut added } = tokens(metadata, str::to_owned)?;
    let scores = metadata.numbers(SCORES)?.ok_or_else(|| broken(SCORES, "is missing"))?;
    if scores.len() != vocab.len() {
        return Err(broken(SCORES, format!("{} entries, where {TOKENS} has {}", scores.len(), vocab.len())));
    }
    if let Some(at) = scores.iter().position(|score| score.is_nan()) {
        return Err(broken(SCORES, format!("entry {at} is no number")));
    }
    let unknown = metadata.integer(UNKNOWN_ID)?.and_then(|id| u32::try_from(id).ok());
    // The file does not tell that Phi-3's chat tokens take the white space behind them; llama.cpp goes by its name.
    let name = metadata.text("general.name")?.unwrap_or_default().to_lowercase();
    if PHI3_NAMES.iter().any(|part| name.contains(part)) {
        for token in added.iter_mut().filter(|token| !PHI3_PLAIN.contains(&token.content.as_str())) {
            token.rstrip = true;
        }
    }
    let prefixed = metadata.boolean(SPACE_PREFIX)?.unwrap_or(true);
    let mut normalizers: Vec<NormalizerWrapper> = vec![];
    let mut decoders: Vec<DecoderWrapper> =
        vec![Replace::new(SPACE, " ").map_err(from_crate)?.into(), ByteFallback::new().into(), Fuse::new().into()];
    if prefixed {
        normalizers.push(Prepend::new(SPACE.to_owned()).into());
        decoders.push(Strip::new(' ', 1, 0).into());
    }
    normalizers.push(Replace::new(" ", SPACE).map_err(from_crate)?.into());
    Ok(Pipeline {
        added: AddedTokens::new(added)?,
        normalizers,
        steps: Vec::new(),
        model: TokenModel::Scores(Spm::new(vocab, &scores, unknown)),
        decoder: Some(Sequence::new(decoders).into()),
        prefix: around(metadata, BEGIN, true, Some(1))?,
        suffix: around(metadata, END, false, Some(2))?,
        pair: None,
    })
}

/// The vocabulary, ids from 0 on without a gap, and those tokens that are found in a text before anything else.
pub(super) struct Tokens {
    pub(super) vocab: Vocab,
    pub(super) added: Vec<Added>,
}

/// Reads them. `known` makes of a token that is a part of texts, as the file writes it, what the model is to know.
pub(super) fn tokens(metadata: &Metadata, known: impl Fn(&str) -> String) -> Result<Tokens> {
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
        let is_added = matches!(kind, Some(UNKNOWN | CONTROL | USER_DEFINED));
        if is_added && !token.is_empty() {
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
        let text = match (token.is_empty(), is_added) {
            (true, _) => format!("[EMPTY_{index}]"),
            (_, true) => token.clone(),
            _ => known(token),
        };
        if let Some(first) = vocab.insert(text, id) {
            return Err(broken(TOKENS, format!("{token:?} is there twice, as {first} and {id}")));
        }
    }
    Ok(Tokens { vocab, added })
}

/// The keys of an id that may be put around a text: whether it is, and which.
pub(super) type Around = (&'static str, &'static str);
pub(super) const BEGIN: Around = ("tokenizer.ggml.add_bos_token", "tokenizer.ggml.bos_token_id");
pub(super) const END: Around = ("tokenizer.ggml.add_eos_token", "tokenizer.ggml.eos_token_id");

/// The id that goes around a text, if one does: whether, where the file does not say, is `add`; which is `id`.
pub(super) fn around(metadata: &Metadata, (flag, key): Around, add: bool, id: Option<u32>) -> Result<Vec<u32>> {
    if !metadata.boolean(flag)?.unwrap_or(add) {
        return Ok(Vec::new());
    }
    match (metadata.integer(key)?.map(u32::try_from), id) {
        (Some(Ok(id)), _) | (None, Some(id)) => Ok(vec![id]),
        (Some(Err(_)), _) => Err(broken(key, "is not a token's id")),
        (None, None) => Err(broken(key, format!("is missing, but {flag} asks for it"))),
    }
}

/// The id that the first key which is there names; where none is there, that of the token of that text.
pub(super) fn id_of(metadata: &Metadata, vocab: &Vocab, (keys, text): (&[&str], &str)) -> Result<u32> {
    for key in keys {
        match metadata.integer(key)?.map(u32::try_from) {
            Some(Ok(id)) => return Ok(id),
            Some(Err(_)) => return Err(broken(key, "is not a token's id")),
            None => {}
        }
    }
    let missing = || broken(keys.first().copied().unwrap_or(TOKENS), format!("is missing, and no token is {text}"));
    vocab.get(text).copied().ok_or_else(missing)
}
