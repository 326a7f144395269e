//! Added tokens: found in the text before anything else sees it, but only where the text is trusted.
//!
//! Matching follows the crate (leftmost, then longest; `single_word`, `lstrip`, `rstrip`; first in the text as it is,
//! then, for tokens marked `normalized`, in the normalized text between those). Being trusted is ours: a token that
//! could steer the model counts only where every byte of it lies in one trusted range.

use std::collections::HashMap;
use std::ops::Range;

use aho_corasick::{AhoCorasick, MatchKind};
use tokenizers::normalizer::Range as In;
use tokenizers::{NormalizedString, Token};

use super::pipeline::Fault;
use crate::error::ErrorKind;

/// One added token.
#[derive(Clone, Debug)]
pub(super) struct Added {
    pub(super) id: u32,
    pub(super) content: String,
    /// What it looks like in normalized text; equal to `content` unless `normalized`.
    pub(super) normal: String,
    pub(super) single_word: bool,
    pub(super) lstrip: bool,
    pub(super) rstrip: bool,
    pub(super) normalized: bool,
    pub(super) special: bool,
}

impl Added {
    /// Runs of white space are in some vocabularies added tokens; they cannot steer anything, and text with them
    /// should get the ids that the model was trained on.
    fn is_harmless(&self) -> bool {
        !self.special && self.content.chars().all(|c| c.is_whitespace() || c == '▁')
    }
}

/// Which parts of a text may hold added tokens.
pub(super) enum Trust<'a> {
    /// Everything.
    All,
    /// Everything, but special tokens are text.
    NotSpecial,
    /// These byte ranges of the original text; elsewhere only harmless tokens.
    Ranges(&'a [Range<usize>]),
}

type Piece = (NormalizedString, Option<Vec<Token>>);
/// An index into the table of added tokens, or text; and the byte range.
type Found = (Option<usize>, Range<usize>);

/// The table of added tokens and their matchers.
pub(super) struct AddedTokens {
    tokens: Vec<Added>,
    by_id: HashMap<u32, usize>,
    by_content: HashMap<String, usize>,
    raw: Matchers,
    normal: Matchers,
}

impl AddedTokens {
    /// Builds the matchers. Contents and ids must be unique, contents not empty.
    pub(super) fn new(tokens: Vec<Added>) -> Result<AddedTokens, Fault> {
        let mut by_id = HashMap::with_capacity(tokens.len());
        let mut by_content = HashMap::with_capacity(tokens.len());
        for (index, token) in tokens.iter().enumerate() {
            if token.content.is_empty() || token.normal.is_empty() {
                return Err(Fault::new(ErrorKind::MalformedTokenizer, format!("added token {} is empty", token.id)));
            }
            if by_id.insert(token.id, index).is_some() || by_content.insert(token.content.clone(), index).is_some() {
                let message = format!("two added tokens have the id {} or the text {:?}", token.id, token.content);
                return Err(Fault::new(ErrorKind::MalformedTokenizer, message));
            }
        }
        let raw = Matchers::new(&tokens, |token| !token.normalized)?;
        let normal = Matchers::new(&tokens, |token| token.normalized)?;
        Ok(AddedTokens { tokens, by_id, by_content, raw, normal })
    }

    /// The added token of an id.
    pub(super) fn by_id(&self, id: u32) -> Option<&Added> {
        self.by_id.get(&id).and_then(|&index| self.tokens.get(index))
    }

    /// The added token with that text.
    pub(super) fn by_content(&self, content: &str) -> Option<&Added> {
        self.by_content.get(content).and_then(|&index| self.tokens.get(index))
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Added> {
        self.tokens.iter()
    }

    /// Texts of the tokens that need trust, and whether they are special.
    pub(super) fn guarded(&self) -> impl Iterator<Item = (&str, bool)> {
        self.tokens.iter().filter(|token| !token.is_harmless()).map(|token| (token.content.as_str(), token.special))
    }

    /// Whether `text`, tokenized as plain text to `id`, spells out a token that needs trust.
    pub(super) fn is_forged(&self, id: u32, text: &str) -> bool {
        self.by_id(id)
            .is_some_and(|token| token.content == text && !token.is_harmless() && text.chars().nth(1).is_some())
    }

    /// Cuts the text as it is at the tokens found in it.
    pub(super) fn split_raw(&self, text: NormalizedString, trust: &Trust) -> Vec<Piece> {
        self.split(text, &self.raw, trust, |token| token.content.len())
    }

    /// Cuts normalized text at the tokens marked `normalized`.
    pub(super) fn split_normalized(&self, text: NormalizedString, trust: &Trust) -> Vec<Piece> {
        self.split(text, &self.normal, trust, |token| token.normal.len())
    }

    fn split(
        &self,
        text: NormalizedString,
        matchers: &Matchers,
        trust: &Trust,
        len: impl Fn(&Added) -> usize,
    ) -> Vec<Piece> {
        if matchers.is_empty() {
            return vec![(text, None)];
        }
        let whole = 0..text.len();
        let found = match trust {
            Trust::All => self.find_between(text.get(), &matchers.all, whole, &len),
            Trust::NotSpecial => self.find_between(text.get(), &matchers.not_special, whole, &len),
            Trust::Ranges(trusted) => {
                let runs = trusted_runs(&text, trusted);
                let guarded = self.find(text.get(), &matchers.guarded, &runs, &len);
                if matchers.harmless.is_none() {
                    guarded
                } else {
                    guarded
                        .into_iter()
                        .flat_map(|(token, range)| match token {
                            Some(_) => vec![(token, range)],
                            None => self.find_between(text.get(), &matchers.harmless, range, &len),
                        })
                        .collect()
                }
            }
        };
        found
            .into_iter()
            .filter_map(|(token, range)| {
                let slice = text.slice(In::Normalized(range))?;
                let tokens = token.and_then(|index| self.tokens.get(index)).map(|added| {
                    let text = slice.get().to_owned();
                    let len = text.len();
                    vec![Token::new(added.id, text, (0, len))]
                });
                Some((slice, tokens))
            })
            .collect()
    }

    /// Matches inside `runs`, and the text between, covering `text`.
    fn find(&self, text: &str, matcher: &Matcher, runs: &[Range<usize>], len: &impl Fn(&Added) -> usize) -> Vec<Found> {
        let mut found = Vec::new();
        let mut done = 0;
        for run in runs {
            self.find_in(text, matcher, run.clone(), len, &mut done, &mut found);
        }
        if done < text.len() {
            found.push((None, done..text.len()));
        }
        found
    }

    /// The same for a part of the text only.
    fn find_between(
        &self,
        text: &str,
        matcher: &Matcher,
        part: Range<usize>,
        len: &impl Fn(&Added) -> usize,
    ) -> Vec<Found> {
        let mut found = Vec::new();
        let mut done = part.start;
        self.find_in(text, matcher, part.clone(), len, &mut done, &mut found);
        found.retain(|(_, range)| range.end <= part.end);
        if done < part.end {
            found.push((None, done..part.end));
        }
        found
    }

    fn find_in(
        &self,
        text: &str,
        matcher: &Matcher,
        run: Range<usize>,
        len: &impl Fn(&Added) -> usize,
        done: &mut usize,
        found: &mut Vec<Found>,
    ) {
        let Some((automaton, indices)) = matcher else { return };
        let Some(haystack) = text.get(run.clone()) else { return };
        for hit in automaton.find_iter(haystack) {
            let Some(&index) = indices.get(hit.pattern().as_usize()) else { continue };
            let Some(token) = self.tokens.get(index) else { continue };
            let mut start = run.start.saturating_add(hit.start());
            let mut end = start.saturating_add(len(token));
            let (Some(before), Some(after)) = (text.get(..start), text.get(end..)) else { continue };
            if token.single_word && (ends_with_word(before) || starts_with_word(after)) {
                continue;
            }
            if token.lstrip {
                start = before.trim_end().len();
            }
            if token.rstrip {
                end = end.saturating_add(after.len().saturating_sub(after.trim_start().len()));
            }
            start = start.max(*done);
            if start >= end {
                continue;
            }
            if *done < start {
                found.push((None, *done..start));
            }
            found.push((Some(index), start..end));
            *done = end;
        }
    }
}

/// An automaton over some of the tokens, and their indices in the table; `None` when there are none.
type Matcher = Option<(AhoCorasick, Vec<usize>)>;

/// The automata over one half of the table (as the text is, or normalized).
struct Matchers {
    all: Matcher,
    not_special: Matcher,
    guarded: Matcher,
    harmless: Matcher,
}

impl Matchers {
    fn new(tokens: &[Added], belongs: impl Fn(&Added) -> bool) -> Result<Matchers, Fault> {
        let matcher = |wanted: &dyn Fn(&Added) -> bool| -> Result<Matcher, Fault> {
            let (indices, texts): (Vec<usize>, Vec<&str>) = tokens
                .iter()
                .enumerate()
                .filter(|(_, token)| belongs(token) && wanted(token))
                .map(|(index, token)| (index, token.normal.as_str()))
                .unzip();
            if texts.is_empty() {
                return Ok(None);
            }
            let automaton =
                AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(&texts).map_err(|error| {
                    Fault::new(ErrorKind::LimitExceeded, format!("{} added tokens are too many: {error}", texts.len()))
                })?;
            Ok(Some((automaton, indices)))
        };
        Ok(Matchers {
            all: matcher(&|_| true)?,
            not_special: matcher(&|token| !token.special)?,
            guarded: matcher(&|token| !token.is_harmless())?,
            harmless: matcher(&|token| token.is_harmless())?,
        })
    }

    fn is_empty(&self) -> bool {
        self.all.is_none()
    }
}

/// The trusted ranges of the original text as ranges of its (perhaps normalized) form. Characters that a normalizer
/// put in come from no byte of the original and are as good as their neighbours.
fn trusted_runs(text: &NormalizedString, trusted: &[Range<usize>]) -> Vec<Range<usize>> {
    let shift = text.offsets_original().0;
    let mut runs: Vec<Range<usize>> = Vec::new();
    let mut next = 0;
    let mut last_owner = None;
    for (at, c) in text.get().char_indices() {
        let end = at.saturating_add(c.len_utf8());
        let origin = text.convert_offsets(In::Normalized(at..end)).unwrap_or_default();
        let from = shift.saturating_add(origin.start);
        let to = shift.saturating_add(origin.end);
        while trusted.get(next).is_some_and(|range| range.end <= from) {
            next = next.saturating_add(1);
        }
        let owner = if from >= to {
            last_owner
        } else {
            trusted.get(next).filter(|range| range.start <= from && to <= range.end).map(|_| next)
        };
        if owner.is_some() {
            match runs.last_mut() {
                Some(run) if run.end == at && owner == last_owner => run.end = end,
                _ => runs.push(at..end),
            }
        }
        last_owner = owner;
    }
    runs
}

fn starts_with_word(text: &str) -> bool {
    text.chars().next().is_some_and(is_word)
}

fn ends_with_word(text: &str) -> bool {
    text.chars().next_back().is_some_and(is_word)
}

/// `\w` of the regex engine: letters, marks, decimal digits, connectors, joiners.
fn is_word(c: char) -> bool {
    regex_syntax::is_word_character(c)
}
