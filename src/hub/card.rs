//! The header of a model card: what of it bears on whether a model may be used.
//!
//! A card is Markdown with YAML between two lines of `---` (<https://huggingface.co/docs/hub/model-cards>). Of YAML, plain
//! and quoted texts and lists of them are read, for the few keys that matter; anything cleverer counts as not told,
//! which a policy treats as unknown.

use serde_json::{Map, Value};

/// Longest header that is read, in lines.
const MAX_LINES: usize = 2_000;
/// Longest value that is kept.
const MAX_VALUE_BYTES: usize = 2_000;
/// Most items of a list that are kept.
const MAX_ITEMS: usize = 64;

/// Whether terms have to be accepted on the hub before files are given out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Gate {
    /// Anyone may fetch.
    #[default]
    Open,
    /// Only those who accepted the terms.
    Closed,
}

/// What a card's header says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Card {
    /// Identifiers of its licences, as written; most cards have one.
    pub licenses: Vec<String>,
    /// The name of a licence that has no identifier.
    pub license_name: Option<String>,
    /// Where the licence's text is.
    pub license_link: Option<String>,
    /// What the model was made from.
    pub base_models: Vec<String>,
    /// How it was made from them: `finetune`, `quantized`, `adapter`, `merge`.
    pub base_relation: Option<String>,
    /// Whether the card asks for something before files are given out (`extra_gated_...`).
    pub asks: bool,
}

impl Card {
    /// From the header as JSON, which is how the hub's API gives it.
    pub fn from_json(header: &Map<String, Value>) -> Card {
        let texts = |key: &str| match header.get(key) {
            Some(Value::String(text)) => vec![text.clone()],
            Some(Value::Array(items)) => items.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            _ => Vec::new(),
        };
        Card::of(&texts, header.keys().any(|key| key.starts_with("extra_gated_")))
    }

    /// From a card's own text.
    pub fn from_markdown(text: &str) -> Card {
        let header = header(text);
        let texts =
            |key: &str| header.iter().find(|(name, _)| name == key).map_or(Vec::new(), |(_, texts)| texts.clone());
        Card::of(&texts, header.iter().any(|(key, _)| key.starts_with("extra_gated_")))
    }

    fn of(texts: &dyn Fn(&str) -> Vec<String>, asks: bool) -> Card {
        let kept = |key: &str| -> Vec<String> {
            let texts = texts(key).into_iter().map(|text| text.trim().to_owned());
            texts.filter(|text| !text.is_empty() && text.len() <= MAX_VALUE_BYTES).take(MAX_ITEMS).collect()
        };
        Card {
            licenses: kept("license"),
            license_name: kept("license_name").into_iter().next(),
            license_link: kept("license_link").into_iter().next(),
            base_models: kept("base_model"),
            base_relation: kept("base_model_relation").into_iter().next(),
            asks,
        }
    }
}

/// The keys at the margin of the header, with the texts under them; empty where they are something else.
fn header(text: &str) -> Vec<(String, Vec<String>)> {
    let mut lines = text.trim_start_matches('\u{feff}').lines().take(MAX_LINES);
    if lines.next().map(str::trim_end) != Some("---") {
        return Vec::new();
    }
    let mut found: Vec<(String, Vec<String>)> = Vec::new();
    let mut block = false;
    let mut ended = false;
    for line in lines {
        if line.trim_end() == "---" {
            ended = true;
            break;
        }
        let indented = line.starts_with([' ', '\t']);
        let item = line.trim_start().strip_prefix("- ");
        if line.trim().is_empty() || line.trim_start().starts_with('#') {
            continue;
        }
        match (indented, item) {
            // Lists may stand at the margin.
            (_, Some(item)) if !block => {
                if let Some((_, texts)) = found.last_mut() {
                    texts.extend(scalar(item));
                }
            }
            (false, None) => {
                let Some((key, value)) = line.split_once(':') else { continue };
                let value = value.trim();
                block = value.starts_with(['|', '>']);
                let texts = if block { Vec::new() } else { values(value) };
                found.push((key.trim().trim_matches(['"', '\'']).to_owned(), texts));
            }
            _ => {}
        }
    }
    // Without its end it is a rule of the text, not a header.
    if ended { found } else { Vec::new() }
}

/// A value on its key's line: a text, or a list in brackets.
fn values(value: &str) -> Vec<String> {
    match value.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(items) => items.split(',').filter_map(scalar).collect(),
        None => scalar(value).into_iter().collect(),
    }
}

/// A plain or quoted text; nothing for what is none (anchors, tags, maps) and for nulls.
fn scalar(text: &str) -> Option<String> {
    let text = text.trim();
    for quote in ['"', '\''] {
        if let Some(rest) = text.strip_prefix(quote) {
            let (inner, _) = rest.split_once(quote)?;
            return (!inner.contains('\\')).then(|| inner.to_owned());
        }
    }
    let text = text.split(" #").next().unwrap_or_default().trim_end();
    let special = text.starts_with(['&', '*', '!', '{', '[', '%', '@', '`', '|', '>']);
    let null = matches!(text, "" | "~" | "null");
    // `key: value` inside a list is a map.
    (!special && !null && !text.contains(": ")).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::Card;

    #[test]
    fn headers_are_read_as_they_are_written() {
        let card = Card::from_markdown(
            "---\n# made by hand\nlanguage:\n- en\n- de\nlicense: other\nlicense_name: 'qwen-research' # see below\n\
             license_link: \"https://example.org/LICENSE\"\nbase_model:\n  - Qwen/Qwen2.5-3B\n  - a/b\nbase_model_relation: quantized\n\
             extra_gated_prompt: >-\n  license: mit\n  - not an item\ntags: [chat, \"a b\"]\n---\n# Title\nlicense: none\n",
        );
        assert_eq!(card.licenses, ["other"]);
        assert_eq!(card.license_name.as_deref(), Some("qwen-research"));
        assert_eq!(card.license_link.as_deref(), Some("https://example.org/LICENSE"));
        assert_eq!(card.base_models, ["Qwen/Qwen2.5-3B", "a/b"]);
        assert_eq!((card.base_relation.as_deref(), card.asks), (Some("quantized"), true));
        let list = Card::from_markdown("\u{feff}---\r\nlicense: [mit, apache-2.0]\r\nbase_model: o/n\r\n---\r\n");
        assert_eq!((list.licenses.len(), list.base_models[0].as_str(), list.asks), (2, "o/n", false));
    }

    #[test]
    fn what_is_no_header_or_no_text_tells_nothing() {
        for text in [
            "",
            "# Title\nlicense: mit",
            "---\nlicense: mit\n",
            "---\nlicense: &a mit\n---\n",
            "---\nlicense:\n  a: b\n---\n",
        ] {
            assert_eq!(Card::from_markdown(text), Card::default(), "{text:?}");
        }
        let json = serde_json::json!({"license": ["mit", 3], "base_model": null, "license_name": {"a": 1}});
        let card = Card::from_json(json.as_object().unwrap());
        assert_eq!(
            (card.licenses.as_slice(), card.base_models.len(), card.license_name),
            (&["mit".to_owned()][..], 0, None)
        );
    }
}
