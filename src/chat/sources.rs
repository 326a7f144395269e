//! Where a model keeps its chat template, and the special tokens that templates name.

use serde_json::{Map, Value};

use super::limit_error;
use crate::error::{Error, ErrorKind, Result};
use crate::format::{Dialect, Metadata};
use crate::tokenizer::Tokenizer;
use crate::tokenizer::stop::{companion, token_text};

/// The name of a template that stands alone, and of the one used when there are no tools.
const DEFAULT: &str = "default";
/// The name of the template for conversations with tools.
pub(super) const TOOL_USE: &str = "tool_use";
/// The key of a GGUF file; named templates have the name behind a dot.
const GGUF_KEY: &str = "tokenizer.chat_template";
/// Most templates that one model may have.
const MAX_TEMPLATES: usize = 16;

/// The templates of a model.
pub(super) struct Found {
    /// Where they are, for people.
    pub(super) source: String,
    /// By name, the default first.
    pub(super) templates: Vec<(String, String)>,
}

/// Looks in every place, the most specific first.
pub(super) fn find(metadata: &Metadata) -> Result<Option<Found>> {
    let mut found = match metadata.dialect {
        Dialect::Gguf => gguf(metadata)?,
        Dialect::Hub => hub(metadata)?,
    };
    if let Some(found) = &mut found {
        if found.templates.len() > MAX_TEMPLATES {
            return Err(limit_error(format!("more than {MAX_TEMPLATES} templates")).at(found.source.as_str()));
        }
        found.templates.sort_by_key(|(name, _)| name != DEFAULT);
    }
    Ok(found)
}

fn gguf(metadata: &Metadata) -> Result<Option<Found>> {
    let Some(text) = metadata.text(GGUF_KEY)? else { return Ok(None) };
    let mut templates = vec![(DEFAULT.to_owned(), text.to_owned())];
    if let Some(text) = metadata.text(&format!("{GGUF_KEY}.{TOOL_USE}"))? {
        templates.push((TOOL_USE.to_owned(), text.to_owned()));
    }
    Ok(Some(Found { source: GGUF_KEY.to_owned(), templates }))
}

fn hub(metadata: &Metadata) -> Result<Option<Found>> {
    if let Some(text) = metadata.companions.get("chat_template.jinja") {
        let templates = vec![(DEFAULT.to_owned(), text.clone())];
        return Ok(Some(Found { source: "chat_template.jinja".to_owned(), templates }));
    }
    for file in ["tokenizer_config.json", "chat_template.json"] {
        let value = companion(metadata, file)?.and_then(|mut config| config.get_mut("chat_template").map(Value::take));
        let templates = match value {
            None | Some(Value::Null) => continue,
            Some(Value::String(text)) => vec![(DEFAULT.to_owned(), text)],
            Some(Value::Array(items)) => items
                .iter()
                .map(|item| {
                    let part = |key| item.get(key).and_then(Value::as_str).map(str::to_owned);
                    Some((part("name")?, part("template")?))
                })
                .collect::<Option<Vec<_>>>()
                .ok_or_else(|| not_a_template(file))?,
            Some(_) => return Err(not_a_template(file)),
        };
        if !templates.is_empty() {
            return Ok(Some(Found { source: file.to_owned(), templates }));
        }
    }
    Ok(None)
}

fn not_a_template(file: &str) -> Error {
    let message = "chat_template is neither a text nor a list of {name, template}";
    Error::new(ErrorKind::TemplateError, message).at(file)
}

/// The variables `bos_token`, `eos_token`, ... of a template.
pub(super) fn special_tokens(metadata: &Metadata, tokenizer: &Tokenizer) -> Result<Map<String, Value>> {
    const NAMES: [(&str, &str); 7] = [
        ("bos_token", "tokenizer.ggml.bos_token_id"),
        ("eos_token", "tokenizer.ggml.eos_token_id"),
        ("unk_token", "tokenizer.ggml.unknown_token_id"),
        ("pad_token", "tokenizer.ggml.padding_token_id"),
        // The format spells it so.
        ("sep_token", "tokenizer.ggml.seperator_token_id"),
        ("cls_token", "tokenizer.ggml.cls_token_id"),
        ("mask_token", "tokenizer.ggml.mask_token_id"),
    ];
    let config = companion(metadata, "tokenizer_config.json")?.unwrap_or(Value::Null);
    let mut tokens = Map::new();
    for (name, key) in NAMES {
        let token = match metadata.dialect {
            Dialect::Hub => token_text(&config, name).map(str::to_owned),
            Dialect::Gguf => {
                metadata.integer(key)?.and_then(|id| u32::try_from(id).ok()).and_then(|id| tokenizer.token(id))
            }
        };
        if let Some(token) = token {
            tokens.insert(name.to_owned(), Value::String(token));
        }
    }
    Ok(tokens)
}
