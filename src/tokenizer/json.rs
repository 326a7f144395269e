//! A look at JSON text before any recursive parser sees it.

use crate::error::{Error, ErrorKind, Result};

/// Fails when brackets nest deeper than `limit`: a parser that recurses would run out of stack, which on the web ends
/// the engine. Strings are skipped; anything else that is wrong is left to the parser.
pub fn check_depth(text: &str, limit: usize) -> Result<()> {
    let mut depth: usize = 0;
    let mut in_string = false;
    let mut escaped = false;
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => depth = depth.saturating_add(1),
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > limit {
            return Err(Error::new(ErrorKind::LimitExceeded, format!("JSON nests deeper than {limit}")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brackets_count_outside_strings_only() {
        assert!(check_depth(r#"{"a": ["[[[[\"[[[["]}"#, 2).is_ok());
        assert_eq!(check_depth("[[[", 2).unwrap_err().kind(), ErrorKind::LimitExceeded);
        assert!(check_depth(&"[]".repeat(1000), 1).is_ok());
    }
}
