//! Split regexes whose result cannot be cut short.
//!
//! The crate's wasm regex engine backtracks, and the crate takes its "backtrack limit" error for the end of the
//! matches: a megabyte of spaces then becomes one wrong piece. Nearly every published pattern needs backtracking for
//! one idiom only, a tail `\s+(?!\S)|\s+` (white space, but leave the last one to the next word). That idiom is a
//! linear match with one step back, so such patterns run on a linear engine. The rest runs on the backtracking engine,
//! and its limit is an error.

use regex_automata::Input;
use regex_automata::meta::Regex as Linear;
use tokenizers::pattern::Pattern;
use tokenizers::{Offsets, Result};

use super::pipeline::Fault;
use crate::error::ErrorKind;

/// Longest regex that is compiled, in bytes.
const MAX_PATTERN: usize = 4096;
/// Most memory a compiled regex may take.
const MAX_COMPILED_BYTES: usize = 16 << 20;
/// Steps back that one match may take on the backtracking engine.
const MAX_BACKTRACKS: usize = 200_000;

/// Tails that mean: white space up to the end of the text, or all of it but the last character, or one character.
const TAILS: [&str; 2] = [r"|\s+(?!\S)|\s+", r"|\s+(?!\S)|\s"];
/// The pattern that stands for such a tail in the linear engine.
const WHITE_SPACE: &str = r"\s+";

/// A compiled split pattern.
#[derive(Debug)]
pub(super) enum Splitter {
    /// Pattern 0 is what came before the tail, pattern 1 is [`WHITE_SPACE`] with one step back.
    Linear(Linear),
    /// Anything else; linear inside as long as it needs no look-around.
    Backtracking(Box<fancy_regex::Regex>),
}

impl Splitter {
    /// Compiles a pattern.
    pub(super) fn new(pattern: &str) -> std::result::Result<Splitter, Fault> {
        if pattern.len() > MAX_PATTERN {
            let message = format!("a split pattern has {} bytes, at most {MAX_PATTERN} are allowed", pattern.len());
            return Err(Fault::new(ErrorKind::LimitExceeded, message));
        }
        let head = TAILS.iter().find_map(|tail| pattern.strip_suffix(tail));
        // In verbose mode a `#` could hide the tail; nobody writes that, and the other engine reads it right.
        if let Some(head) = head.filter(|head| !head.contains("(?x"))
            && let Ok(regex) = linear(&[head, WHITE_SPACE])
        {
            return Ok(Splitter::Linear(regex));
        }
        fancy_regex::RegexBuilder::new(pattern)
            .backtrack_limit(MAX_BACKTRACKS)
            .delegate_size_limit(MAX_COMPILED_BYTES)
            .build()
            .map(|regex| Splitter::Backtracking(Box::new(regex)))
            .map_err(|error| {
                Fault::new(ErrorKind::MalformedTokenizer, format!("the split pattern `{pattern}` is wrong: {error}"))
            })
    }
}

fn linear(patterns: &[&str]) -> std::result::Result<Linear, Box<regex_automata::meta::BuildError>> {
    let config = Linear::config().nfa_size_limit(Some(MAX_COMPILED_BYTES));
    Linear::builder().configure(config).build_many(patterns).map_err(Box::new)
}

/// Whether a pattern compiles for the linear engine as it is.
pub(super) fn is_linear(pattern: &str) -> bool {
    pattern.len() <= MAX_PATTERN && linear(&[pattern]).is_ok()
}

impl Pattern for &Splitter {
    fn find_matches(&self, text: &str) -> Result<Vec<(Offsets, bool)>> {
        match self {
            Splitter::Linear(regex) => Ok(find_linear(regex, text)),
            Splitter::Backtracking(regex) => (&**regex).find_matches(text).map_err(|error| {
                Fault::new(
                    ErrorKind::LimitExceeded,
                    format!("the tokenizer's split pattern `{}` gave up on this text: {error}", regex.as_str()),
                )
                .into()
            }),
        }
    }
}

/// Matches and gaps that cover the text.
fn find_linear(regex: &Linear, text: &str) -> Vec<(Offsets, bool)> {
    let mut splits = Vec::new();
    // End of what has been reported, and where the next search begins (one character further after an empty match).
    let mut done = 0;
    let mut from = 0;
    while from < text.len() {
        let Some(found) = regex.search(&Input::new(text).range(from..)) else { break };
        let start = found.start();
        let mut end = found.end();
        if found.pattern().as_usize() == 1
            && end < text.len()
            && let Some(last) = text.get(start..end).and_then(|run| run.char_indices().next_back())
            && last.0 > 0
        {
            end = start.saturating_add(last.0);
        }
        if done < start {
            splits.push(((done, start), false));
        }
        if start < end {
            splits.push(((start, end), true));
        }
        done = end;
        from = if start < end {
            end
        } else {
            let width = text.get(end..).and_then(|rest| rest.chars().next()).map_or(1, char::len_utf8);
            end.saturating_add(width)
        };
    }
    if done < text.len() {
        splits.push(((done, text.len()), false));
    }
    splits
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::patterns::PRE_TOKENIZERS;

    /// Strings that meet every branch: letters with and without case, marks, digits, white space of all kinds.
    fn texts() -> Vec<String> {
        let alphabet: Vec<char> =
            "aB'sßıſéخक्१١9½Ⅷ一ガ゙한🙂\u{200d}👍\u{fe0f} \t\n\r\u{a0}\u{3000}\u{85}.,!?<|>_/-\u{0}".chars().collect();
        let mut state: u32 = 7;
        let mut texts = vec![String::new()];
        for len in 0..400usize {
            let mut text = String::new();
            for _ in 0..len % 23 {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                text.push(alphabet[(state >> 8) as usize % alphabet.len()]);
            }
            texts.push(text);
        }
        texts
    }

    #[test]
    fn the_linear_engine_finds_what_the_backtracking_engine_finds() {
        let mut wrong = Vec::new();
        let mut n_linear = 0;
        let patterns = PRE_TOKENIZERS.iter().flat_map(|row| row.patterns.iter().copied());
        for pattern in patterns {
            let splitter = Splitter::new(pattern).unwrap();
            if !matches!(splitter, Splitter::Linear(_)) {
                continue;
            }
            n_linear += 1;
            let reference = fancy_regex::Regex::new(pattern).unwrap();
            for text in texts() {
                let mut expected = (&reference).find_matches(&text).unwrap();
                expected.retain(|((start, end), _)| start < end);
                let found = (&splitter).find_matches(&text).unwrap();
                if found != expected {
                    wrong.push(format!("{pattern} on {text:?}: {found:?} instead of {expected:?}"));
                }
            }
        }
        assert!(n_linear > 10, "only {n_linear} patterns ran on the linear engine");
        assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    }

    #[test]
    fn a_limit_is_an_error_and_never_a_short_result() {
        let splitter = Splitter::new(r"(?:(?:a|a)+)+(?!a)b").unwrap();
        let error = (&splitter).find_matches(&"a".repeat(5000)).unwrap_err();
        assert_eq!(error.downcast_ref::<Fault>().unwrap().kind, ErrorKind::LimitExceeded);
        assert_eq!(Splitter::new(&"a".repeat(5000)).unwrap_err().kind, ErrorKind::LimitExceeded);
        assert_eq!(Splitter::new("(").unwrap_err().kind, ErrorKind::MalformedTokenizer);
        assert_eq!(Splitter::new(r"(?:\pL{1,1000}){1,1000000}").unwrap_err().kind, ErrorKind::MalformedTokenizer);
    }
}
