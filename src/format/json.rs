//! JSON of hub folders: text with a bounded size, nesting checked before any parser sees it.

use serde_json::{Map, Value};

use super::limits::{self, JSON_DEPTH};
use crate::error::{Error, ErrorKind, Result};

/// Fails where objects and arrays lie deeper than [`JSON_DEPTH`] inside one another. Needs no stack itself.
pub(crate) fn check_depth(text: &[u8]) -> Result<()> {
    let mut depth = 0_usize;
    let mut in_text = false;
    let mut escaped = false;
    for byte in text {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            _ if in_text => {}
            b'{' | b'[' => depth = depth.saturating_add(1),
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > JSON_DEPTH {
            return Err(limits::passed("JSON nesting", JSON_DEPTH));
        }
    }
    Ok(())
}

/// What a parser found wrong; it quotes the file, so the words are cut where they get long.
pub(super) fn words(error: &serde_json::Error) -> String {
    const HEAD_CHARS: usize = 200;
    const TAIL_CHARS: usize = 60;
    let words = error.to_string();
    let head = words.char_indices().nth(HEAD_CHARS).map(|(place, _)| place);
    let tail = words.char_indices().rev().nth(TAIL_CHARS).map(|(place, _)| place);
    match (head.and_then(|head| words.get(..head)), tail.and_then(|tail| words.get(tail..))) {
        (Some(start), Some(end)) if start.len().saturating_add(end.len()) < words.len() => format!("{start}...{end}"),
        _ => words,
    }
}

/// Parses an object; `kind` is the error's when the text is no JSON or no object.
pub(crate) fn parse_object(text: &str, kind: ErrorKind) -> Result<Map<String, Value>> {
    check_depth(text.as_bytes())?;
    match serde_json::from_str(text) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(Error::new(kind, "a JSON object is needed")),
        Err(error) => Err(Error::new(kind, format!("not JSON: {}", words(&error)))),
    }
}

#[cfg(test)]
mod tests {
    use super::{JSON_DEPTH, check_depth, words};

    #[test]
    fn depth_is_counted_outside_of_texts_only() {
        let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(check_depth(deep(JSON_DEPTH).as_bytes()).is_ok());
        assert!(check_depth(deep(JSON_DEPTH + 1).as_bytes()).is_err());
        assert!(check_depth(format!("[{:?}]", "\\\"".to_owned() + &"[".repeat(200)).as_bytes()).is_ok());
        assert!(check_depth("[".repeat(100_000).as_bytes()).is_err());
    }

    #[test]
    fn long_quotes_are_cut_in_their_middle() {
        let long = format!("\"{}\"", "ß".repeat(1000));
        let words = words(&serde_json::from_str::<bool>(&long).unwrap_err());
        assert!(words.contains("expected a boolean at line 1") && words.len() < 600, "{words}");
    }
}
