//! SentencePiece's byte-pair encoding as GGUF files hold it: a vocabulary with scores and no list of merges.
//!
//! Two neighbours are merged whenever their text is a token, the best score first and the leftmost among equals; what
//! is no token in the end is spelled in bytes (llama.cpp, `llm_tokenizer_spm`; Kudo & Richardson, arXiv 1808.06226).
//! The `tokenizers` crate wants merges by rank; there are several times as many of them as tokens, and equal scores
//! would not be merged from the left.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use tokenizers::Token;
use tokenizers::models::bpe::Vocab;

use super::pipeline::Fault;
use crate::error::ErrorKind;

/// A vocabulary with a score for every token.
pub(super) struct Spm {
    ids: Vocab,
    tokens: Vec<String>,
    scores: Vec<f32>,
    /// The tokens of single bytes (`<0x0A>`).
    bytes: Vec<Option<u32>>,
    /// What stands for a character whose bytes have no tokens.
    unknown: Option<u32>,
}

/// Consecutive bytes of the text that are one token or one character so far. Those merged into another are empty.
#[derive(Clone, Copy)]
struct Symbol {
    start: usize,
    len: usize,
    previous: Option<usize>,
    next: Option<usize>,
}

/// A merge that is possible, as long as both symbols still have their length.
struct Candidate {
    score: f32,
    left: usize,
    right: usize,
    len: usize,
}

impl Ord for Candidate {
    /// The best is the greatest: the highest score, then the leftmost.
    fn cmp(&self, other: &Self) -> Ordering {
        self.score.total_cmp(&other.score).then(other.left.cmp(&self.left))
    }
}

impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Candidate {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Candidate {}

impl Spm {
    /// The ids are `0 ..` without a gap; `scores` by id, all of them numbers.
    pub(super) fn new(ids: Vocab, scores: &[f32], unknown: Option<u32>) -> Self {
        let mut by_id: Vec<(u32, String)> = ids.iter().map(|(token, id)| (*id, token.clone())).collect();
        by_id.sort_unstable();
        let tokens = by_id.into_iter().map(|(_, token)| token).collect();
        let bytes = (0..=u8::MAX).map(|byte| ids.get(&format!("<0x{byte:02X}>")).copied()).collect();
        // Zero and its negative are one score.
        let scores = scores.iter().map(|score| score + 0.0).collect();
        Self { ids, tokens, scores, bytes, unknown }
    }

    /// The id of a token.
    pub(super) fn token_to_id(&self, token: &str) -> Option<u32> {
        self.ids.get(token).copied()
    }

    /// The token of an id.
    pub(super) fn id_to_token(&self, id: u32) -> Option<String> {
        self.tokens.get(usize::try_from(id).ok()?).cloned()
    }

    /// How many tokens there are; their ids are all below.
    pub(super) fn len(&self) -> usize {
        self.tokens.len()
    }

    /// The tokens of a text; their offsets are in bytes.
    pub(super) fn tokenize(&self, text: &str) -> Result<Vec<Token>, Fault> {
        let mut symbols: Vec<Symbol> = text
            .char_indices()
            .enumerate()
            .map(|(index, (start, letter))| Symbol {
                start,
                len: letter.len_utf8(),
                previous: index.checked_sub(1),
                next: Some(index.saturating_add(1)),
            })
            .collect();
        if let Some(last) = symbols.last_mut() {
            last.next = None;
        }
        let mut candidates = BinaryHeap::new();
        for right in 1..symbols.len() {
            candidates.extend(self.candidate(text, &symbols, right.checked_sub(1), Some(right)));
        }
        while let Some(Candidate { left, right, len, .. }) = candidates.pop() {
            let (Some(&a), Some(&b)) = (symbols.get(left), symbols.get(right)) else { continue };
            if a.len == 0 || b.len == 0 || a.len.saturating_add(b.len) != len {
                continue;
            }
            if let Some(a) = symbols.get_mut(left) {
                (a.len, a.next) = (len, b.next);
            }
            if let Some(b) = symbols.get_mut(right) {
                b.len = 0;
            }
            if let Some(after) = b.next.and_then(|next| symbols.get_mut(next)) {
                after.previous = Some(left);
            }
            candidates.extend(self.candidate(text, &symbols, a.previous, Some(left)));
            candidates.extend(self.candidate(text, &symbols, Some(left), b.next));
        }
        let mut tokens = Vec::new();
        for symbol in symbols.iter().filter(|symbol| symbol.len > 0) {
            self.spell(text, symbol, &mut tokens)?;
        }
        Ok(tokens)
    }

    /// The merge of two neighbours, where their text is a token.
    fn candidate(
        &self,
        text: &str,
        symbols: &[Symbol],
        left: Option<usize>,
        right: Option<usize>,
    ) -> Option<Candidate> {
        let (left, right) = (left?, right?);
        let (a, b) = (symbols.get(left)?, symbols.get(right)?);
        let len = a.len.checked_add(b.len)?;
        let id = self.ids.get(text.get(a.start..a.start.checked_add(len)?)?)?;
        let score = *self.scores.get(usize::try_from(*id).ok()?)?;
        Some(Candidate { score, left, right, len })
    }

    /// The token of a symbol, or those of its bytes.
    fn spell(&self, text: &str, symbol: &Symbol, tokens: &mut Vec<Token>) -> Result<(), Fault> {
        let offsets = (symbol.start, symbol.start.saturating_add(symbol.len));
        let spelled = text.get(offsets.0..offsets.1).unwrap_or_default();
        if let Some(id) = self.ids.get(spelled) {
            tokens.push(Token::new(*id, spelled.to_owned(), offsets));
            return Ok(());
        }
        let bytes: Option<Vec<u32>> =
            spelled.bytes().map(|byte| self.bytes.get(usize::from(byte)).copied().flatten()).collect();
        let ids = match (bytes, self.unknown) {
            (Some(bytes), _) => bytes,
            (None, Some(unknown)) => vec![unknown],
            (None, None) => {
                let message = format!("the vocabulary has no tokens for all of {spelled:?}");
                return Err(Fault::new(ErrorKind::MalformedTokenizer, message));
            }
        };
        tokens.extend(ids.into_iter().map(|id| Token::new(id, spelled.to_owned(), offsets)));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(spm: &Spm, text: &str) -> Vec<u32> {
        spm.tokenize(text).unwrap().iter().map(|token| token.id).collect()
    }

    #[test]
    fn the_best_score_merges_first_and_the_leftmost_among_equals() {
        let tokens: Vocab = ["a", "b", "c", "ab", "bc", "aa"].map(str::to_owned).into_iter().zip(0..).collect();
        let spm = Spm::new(tokens.clone(), &[0.0, 0.0, 0.0, -2.0, -1.0, -0.0], Some(0));
        assert_eq!(ids(&spm, "abc"), [0, 4]);
        assert_eq!(ids(&spm, "ab"), [3]);
        assert_eq!(ids(&spm, "aaa"), [5, 0]);
        assert_eq!(ids(&spm, ""), [0; 0]);
        let spm = Spm::new(tokens, &[0.0, 0.0, 0.0, -1.0, -1.0, -1.0], None);
        assert_eq!(ids(&spm, "abc"), [3, 2]);
    }

    #[test]
    fn what_is_no_token_is_spelled_in_bytes_or_unknown_or_refused() {
        let tokens = ["é?", "<0xC3>", "<0xA9>", "?", "<0x5A>"].map(str::to_owned);
        let tokens: Vocab = tokens.into_iter().zip(0..).collect();
        let spm = Spm::new(tokens.clone(), &[0.0; 5], Some(3));
        assert_eq!(ids(&spm, "éZ"), [1, 2, 4]);
        // Characters that are no tokens merge into one that is.
        assert_eq!(ids(&spm, "é?"), [0]);
        assert_eq!(ids(&spm, "x"), [3]);
        let refused = Spm::new(tokens, &[0.0; 5], None).tokenize("x").err().map(|fault| fault.kind);
        assert_eq!(refused, Some(ErrorKind::MalformedTokenizer));
    }
}
