//! Reads `tokenizer.json`.

use std::collections::HashSet;

use serde::Deserialize;
use serde_json::Value;
use tokenizers::models::bpe::{BPE, Merges, Vocab};
use tokenizers::{
    DecoderWrapper, Model, ModelWrapper, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper,
    SplitDelimiterBehavior,
};

use super::added::Added;
use super::pipeline::{Pipeline, Step, around, around_pair, from_crate, with_normal_forms};
use super::split::{Splitter, is_linear};
use super::{charsmap, check_depth, malformed, patterns};
use crate::error::{At, Error, ErrorKind, Result};
use crate::format::Metadata;

/// The file's name.
const NAME: &str = "tokenizer.json";
/// Largest file that is read.
const MAX_BYTES: usize = 64 << 20;
/// Deepest nesting.
const MAX_DEPTH: usize = 64;
/// Most normalizers, and most pre-tokenizers, in a row.
const MAX_STEPS: usize = 64;
/// Longest text that a normalizer may put in the place of a match.
const MAX_REPLACEMENT: usize = 32;

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    added_tokens: Vec<AddedEntry>,
    normalizer: Option<Value>,
    pre_tokenizer: Option<Value>,
    post_processor: Option<PostProcessorWrapper>,
    decoder: Option<Value>,
    model: Value,
}

#[derive(Deserialize)]
struct AddedEntry {
    id: u32,
    content: String,
    #[serde(default)]
    single_word: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
    normalized: Option<bool>,
    #[serde(default)]
    special: bool,
}

/// The tokenizer of a hub folder.
pub(super) fn read(metadata: &Metadata) -> Result<Pipeline> {
    let text = metadata
        .companions
        .get(NAME)
        .ok_or_else(|| Error::new(ErrorKind::NotFound, format!("the model has no {NAME}")))?;
    parse(text).at(|| NAME.to_owned())
}

fn parse(text: &str) -> Result<Pipeline> {
    if text.len() > MAX_BYTES {
        let message = format!("{} bytes, at most {MAX_BYTES} are read", text.len());
        return Err(Error::new(ErrorKind::LimitExceeded, message));
    }
    check_depth(text, MAX_DEPTH)?;
    let file: File = serde_json::from_str(text).map_err(|error| malformed(error.to_string()))?;
    let normalizers = flatten(file.normalizer, "normalizers")
        .and_then(|list| list.into_iter().map(normalizer).collect::<Result<Vec<_>>>())
        .at(|| "normalizer".to_owned())?;
    let mut steps = Vec::new();
    for value in flatten(file.pre_tokenizer, "pretokenizers").at(|| "pre_tokenizer".to_owned())? {
        pre_tokenizer(value, &mut steps).at(|| "pre_tokenizer".to_owned())?;
    }
    let model = model(file.model).at(|| "model".to_owned())?;
    let decoder = file.decoder.map(decoder).transpose().at(|| "decoder".to_owned())?;
    let ((prefix, suffix), pair) = match &file.post_processor {
        Some(processor) => {
            let place = || "post_processor".to_owned();
            (around(processor).at(place)?, Some(around_pair(processor).at(place)?))
        }
        None => Default::default(),
    };
    let added = with_normal_forms(added_tokens(file.added_tokens, &model)?, &normalizers)?;
    Ok(Pipeline { added, normalizers, steps, model: model.into(), decoder, prefix, suffix, pair })
}

/// Added tokens with the ids that the crate would give them; a file that says otherwise contradicts itself.
fn added_tokens(entries: Vec<AddedEntry>, model: &ModelWrapper) -> Result<Vec<Added>> {
    let mut seen = HashSet::new();
    let mut tokens = Vec::with_capacity(entries.len());
    for entry in entries {
        if entry.content.is_empty() || !seen.insert(entry.content.clone()) {
            continue;
        }
        let known = model.token_to_id(&entry.content);
        if known.is_some_and(|id| id != entry.id) || (known.is_none() && model.id_to_token(entry.id).is_some()) {
            let message =
                format!("added token {:?} has the id {}, which contradicts the vocabulary", entry.content, entry.id);
            return Err(malformed(message).at("added_tokens"));
        }
        tokens.push(Added {
            id: entry.id,
            normal: entry.content.clone(),
            content: entry.content,
            single_word: entry.single_word,
            lstrip: entry.lstrip,
            rstrip: entry.rstrip,
            normalized: entry.normalized.unwrap_or(!entry.special),
            special: entry.special,
        });
    }
    Ok(tokens)
}

/// A list of steps; sequences in sequences become one list.
fn flatten(value: Option<Value>, members: &str) -> Result<Vec<Value>> {
    let mut list = Vec::new();
    let mut waiting: Vec<Value> = value.into_iter().filter(|value| !value.is_null()).collect();
    while let Some(mut value) = waiting.pop() {
        let kind = kind(&value)?;
        if kind == "Sequence" {
            match value.get_mut(members).map(Value::take) {
                Some(Value::Array(items)) => waiting.extend(items.into_iter().rev()),
                _ => return Err(malformed(format!("a Sequence has no {members}"))),
            }
        } else {
            list.push(value);
        }
        if list.len().saturating_add(waiting.len()) > MAX_STEPS {
            return Err(Error::new(ErrorKind::LimitExceeded, format!("more than {MAX_STEPS} {members}")));
        }
    }
    Ok(list)
}

fn kind(value: &Value) -> Result<String> {
    value.get("type").and_then(Value::as_str).map(str::to_owned).ok_or_else(|| malformed("a part has no type"))
}

/// Reads a part with the crate's own reader.
fn part<T: serde::de::DeserializeOwned>(value: Value) -> Result<T> {
    serde_json::from_value(value).map_err(|error| malformed(error.to_string()))
}

fn normalizer(value: Value) -> Result<NormalizerWrapper> {
    let inserted = ["content", "prepend"].iter().filter_map(|key| value.get(key)).filter_map(Value::as_str);
    for text in inserted {
        if text.len() > MAX_REPLACEMENT {
            let message =
                format!("a normalizer inserts {} bytes at a time, at most {MAX_REPLACEMENT} are allowed", text.len());
            return Err(Error::new(ErrorKind::LimitExceeded, message));
        }
    }
    refuse_backtracking(&value)?;
    if let Some(map) = value.get("precompiled_charsmap").and_then(Value::as_str) {
        charsmap::check_base64(map)?;
    }
    part(value)
}

/// The crate's `Replace` takes a backtrack limit for the end of the matches, so only patterns that cannot meet it pass.
fn refuse_backtracking(value: &Value) -> Result<()> {
    match value.pointer("/pattern/Regex").and_then(Value::as_str) {
        Some(pattern) if !is_linear(pattern) => Err(Error::new(
            ErrorKind::UnsupportedFormat,
            format!("the pattern `{pattern}` of a {} needs backtracking", kind(value)?),
        )),
        _ => Ok(()),
    }
}

fn pre_tokenizer(value: Value, steps: &mut Vec<Step>) -> Result<()> {
    let flag = |name: &str, default: bool| value.get(name).and_then(Value::as_bool).unwrap_or(default);
    match (kind(&value)?.as_str(), value.pointer("/pattern/Regex").and_then(Value::as_str)) {
        ("Split", Some(pattern)) => {
            let splitter = Splitter::new(pattern)?;
            let behavior: SplitDelimiterBehavior = part(value.get("behavior").cloned().unwrap_or_default())?;
            steps.push(Step::Split { splitter, behavior, invert: flag("invert", false) });
        }
        ("ByteLevel", _) => {
            if flag("add_prefix_space", true) {
                steps.push(Step::Prefix);
            }
            if flag("use_regex", true) {
                steps.push(Step::isolate(patterns::BYTE_LEVEL)?);
            }
            steps.push(Step::bytes());
        }
        _ => steps.push(Step::Other(Box::new(part::<PreTokenizerWrapper>(value)?))),
    }
    Ok(())
}

fn decoder(value: Value) -> Result<DecoderWrapper> {
    for value in flatten(Some(value.clone()), "decoders")? {
        refuse_backtracking(&value)?;
        // The crate's Strip panics on tokens shorter than `stop`.
        if value.get("stop").and_then(Value::as_u64).is_some_and(|stop| stop > 0) {
            return Err(Error::new(ErrorKind::UnsupportedFormat, "a decoder that strips the ends of tokens"));
        }
    }
    part(value)
}

#[derive(Deserialize)]
struct BpeFile {
    vocab: Vocab,
    merges: Vec<Merge>,
    unk_token: Option<String>,
    continuing_subword_prefix: Option<String>,
    end_of_word_suffix: Option<String>,
    #[serde(default)]
    fuse_unk: bool,
    #[serde(default)]
    byte_fallback: bool,
    #[serde(default)]
    ignore_merges: bool,
}

/// Both spellings are in use: `"a b"` and `["a", "b"]`.
#[derive(Deserialize)]
#[serde(untagged)]
enum Merge {
    Text(String),
    Pair(String, String),
}

fn model(value: Value) -> Result<ModelWrapper> {
    let is_bpe = match value.get("type").and_then(Value::as_str) {
        Some(kind) => kind == "BPE",
        None => value.get("merges").is_some(),
    };
    if !is_bpe {
        return part(value);
    }
    let file: BpeFile = part(value)?;
    let merges = file
        .merges
        .into_iter()
        .enumerate()
        .map(|(rank, merge)| match merge {
            Merge::Pair(left, right) => Ok((left, right)),
            Merge::Text(text) => {
                split_merge(&text).ok_or_else(|| malformed(format!("merge {rank} is not two tokens: {text:?}")))
            }
        })
        .collect::<Result<Merges>>()?;
    let prefix = file.continuing_subword_prefix.as_deref().unwrap_or_default();
    check_merges(&file.vocab, &merges, prefix)?;
    let mut builder = BPE::builder()
        .vocab_and_merges(file.vocab, merges)
        .fuse_unk(file.fuse_unk)
        .byte_fallback(file.byte_fallback)
        .ignore_merges(file.ignore_merges);
    if let Some(token) = file.unk_token {
        builder = builder.unk_token(token);
    }
    if let Some(prefix) = file.continuing_subword_prefix {
        builder = builder.continuing_subword_prefix(prefix);
    }
    if let Some(suffix) = file.end_of_word_suffix {
        builder = builder.end_of_word_suffix(suffix);
    }
    Ok(builder.build().map_err(from_crate)?.into())
}

/// `"a b"` as two tokens.
pub(super) fn split_merge(text: &str) -> Option<(String, String)> {
    // A token may itself begin with a space only in broken files; the separator is the first space after a character.
    let (left, right) = text.split_once(' ')?;
    (!left.is_empty() && !right.is_empty() && !right.contains(' ')).then(|| (left.to_owned(), right.to_owned()))
}

/// Every merge must name tokens and make one. The crate checks that too late: it joins them in a buffer of the longest
/// token's length first.
pub(super) fn check_merges(vocab: &Vocab, merges: &Merges, prefix: &str) -> Result<()> {
    let mut joined = String::new();
    for (rank, (left, right)) in merges.iter().enumerate() {
        joined.clear();
        joined.push_str(left);
        let continued = right.strip_prefix(prefix);
        joined.push_str(continued.unwrap_or_default());
        let known = vocab.contains_key(left) && vocab.contains_key(right) && vocab.contains_key(&joined);
        if !known || continued.is_none() {
            return Err(malformed(format!("merge {rank} ({left:?} and {right:?}) names or makes an unknown token")));
        }
    }
    Ok(())
}
