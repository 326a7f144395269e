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

/// Parses an object; `kind` is the error's when the text is no JSON or no object.
pub(crate) fn parse_object(text: &str, kind: ErrorKind) -> Result<Map<String, Value>> {
    check_depth(text.as_bytes())?;
    match serde_json::from_str(text) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(Error::new(kind, "a JSON object is needed")),
        Err(error) => Err(Error::new(kind, format!("not JSON: {error}")).caused_by(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::{JSON_DEPTH, check_depth};

    #[test]
    fn depth_is_counted_outside_of_texts_only() {
        let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(check_depth(deep(JSON_DEPTH).as_bytes()).is_ok());
        assert!(check_depth(deep(JSON_DEPTH + 1).as_bytes()).is_err());
        assert!(check_depth(format!("[{:?}]", "\\\"".to_owned() + &"[".repeat(200)).as_bytes()).is_ok());
        assert!(check_depth("[".repeat(100_000).as_bytes()).is_err());
    }
}
