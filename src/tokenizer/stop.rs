//! The ids after which a reply is over, from every place where a model may name them.

use serde_json::Value as Json;

use super::check_depth;
use super::pipeline::Pipeline;
use crate::error::{Error, ErrorKind, Result};
use crate::format::{Dialect, Metadata, Value};

/// Special tokens that end a turn in the formats in which models chat; files often name only one of them as the end.
const TURN_ENDS: &[&str] = &[
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end_of_text|>",
    "<|endoftext|>",
    "<end_of_turn>",
    "<turn|>",
    "<|eot|>",
    "<|END_OF_TURN_TOKEN|>",
    "<|end_of_turn|>",
    "<｜end▁of▁sentence｜>",
    "<|return|>",
    "<|call|>",
    "<EOT>",
];
/// Ends a turn in most formats, but only a part of one where `<|return|>` exists.
const END_OF_PART: (&str, &str) = ("<|end|>", "<|return|>");
/// Keys of a GGUF file.
const GGUF_KEYS: &[&str] =
    &["tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"];
/// JSON files this small can hold nothing deep that is meant well.
const MAX_DEPTH: usize = 64;

/// All of them, ascending.
pub(super) fn stop_ids(metadata: &Metadata, pipeline: &Pipeline) -> Result<Vec<u32>> {
    let mut ids = Vec::new();
    let mut named = |id: i128| ids.extend(u32::try_from(id).ok().filter(|&id| pipeline.token(id).is_some()));
    for key in ["eos_token_id", "text_config.eos_token_id"] {
        match metadata.values.get(key) {
            Some(Value::Integer(id)) => named(*id),
            Some(Value::Integers(list)) => list.iter().for_each(|&id| named(id.into())),
            _ => {}
        }
    }
    if let Some(config) = companion(metadata, "generation_config.json")? {
        let value = config.get("eos_token_id");
        let list = value
            .and_then(Json::as_array)
            .map_or_else(|| value.into_iter().collect(), |list| list.iter().collect::<Vec<_>>());
        list.into_iter().filter_map(Json::as_i64).for_each(|id| named(id.into()));
    }
    for key in GGUF_KEYS {
        if let Some(id) = metadata.integer(key)? {
            if metadata.dialect == Dialect::Gguf && u32::try_from(id).ok().and_then(|id| pipeline.token(id)).is_none() {
                return Err(Error::new(ErrorKind::MalformedGguf, format!("{id} is no token's id")).at(*key));
            }
            named(id.into());
        }
    }
    if let Some(config) = companion(metadata, "tokenizer_config.json")? {
        ids.extend(token_text(&config, "eos_token").and_then(|token| pipeline.id(token)));
    }
    let special = |text: &str| pipeline.added.by_content(text).filter(|added| added.special).map(|added| added.id);
    ids.extend(TURN_ENDS.iter().filter_map(|text| special(text)));
    if special(END_OF_PART.1).is_none() {
        ids.extend(special(END_OF_PART.0));
    }
    ids.sort_unstable();
    ids.dedup();
    Ok(ids)
}

/// A JSON companion file, where there is one.
pub(crate) fn companion(metadata: &Metadata, name: &str) -> Result<Option<Json>> {
    let Some(text) = metadata.companions.get(name) else { return Ok(None) };
    check_depth(text, MAX_DEPTH).map_err(|error| error.at(name))?;
    serde_json::from_str(text)
        .map(Some)
        .map_err(|error| Error::new(ErrorKind::MalformedTokenizer, error.to_string()).at(name))
}

/// A token that `tokenizer_config.json` names, as a text or as an object with `content`.
pub(crate) fn token_text<'a>(config: &'a Json, key: &str) -> Option<&'a str> {
    let value = config.get(key)?;
    value.as_str().or_else(|| value.get("content")?.as_str())
}
