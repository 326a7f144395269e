//! One sequence: the tokens whose keys and values are kept, and the pages they lie in.

use super::Pool;
use crate::error::Result;
use crate::graph::PAGE_TOKENS;

/// Tokens from position 0 on, and at least the pages that hold them.
///
/// The pages may reach further than the tokens: they are reserved before the steps that fill them are submitted.
#[derive(Debug, Default)]
pub struct Sequence {
    tokens: Vec<u32>,
    pages: Vec<u32>,
}

impl Sequence {
    /// The tokens whose keys and values are known to be there.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// The pages, in the order of the positions.
    pub fn pages(&self) -> &[u32] {
        &self.pages
    }

    /// The same as the page table of a step with this one sequence.
    pub fn page_table(&self) -> &[Vec<u32>] {
        std::slice::from_ref(&self.pages)
    }

    /// How many of the first tokens of `ids` this sequence holds already.
    pub fn common_prefix(&self, ids: &[u32]) -> usize {
        self.tokens.iter().zip(ids).take_while(|(ours, theirs)| ours == theirs).count()
    }

    /// Takes pages from the pool until `positions` of them have room. All or nothing.
    pub fn reserve(&mut self, pool: &mut Pool, positions: usize) -> Result<()> {
        let wanted = positions.div_ceil(PAGE_TOKENS);
        pool.take(wanted.saturating_sub(self.pages.len()), &mut self.pages)
    }

    /// Notes tokens whose keys and values have been written after the present ones; their pages were reserved.
    pub fn append(&mut self, tokens: &[u32]) {
        self.tokens.extend_from_slice(tokens);
        debug_assert!(self.tokens.len() <= self.pages.len().saturating_mul(PAGE_TOKENS), "tokens without a page");
    }

    /// Keeps the first `len` tokens (all where there are fewer) and gives the pages beyond them back.
    pub fn truncate(&mut self, pool: &mut Pool, len: usize) -> Result<()> {
        self.tokens.truncate(len);
        let kept = self.tokens.len().div_ceil(PAGE_TOKENS).min(self.pages.len());
        pool.give_back(self.pages.drain(kept..))
    }
}

#[cfg(test)]
mod tests {
    use super::{Pool, Sequence};
    use crate::error::ErrorKind;
    use crate::graph::PAGE_TOKENS;

    #[test]
    fn tokens_are_appended_compared_and_cut() {
        let mut pool = Pool::new(4).expect("four pages");
        let mut sequence = Sequence::default();
        let ids: Vec<u32> = (0..PAGE_TOKENS as u32 + 1).collect();
        sequence.reserve(&mut pool, ids.len()).expect("two of four pages");
        sequence.append(&ids);
        assert_eq!((sequence.pages().len(), pool.free_pages()), (2, 2));

        let mut other = ids.clone();
        other[7] = 1000;
        assert_eq!(sequence.common_prefix(&ids), ids.len());
        assert_eq!(sequence.common_prefix(&other), 7);
        assert_eq!(sequence.common_prefix(&[]), 0);

        sequence.truncate(&mut pool, PAGE_TOKENS).expect("pages of this pool");
        assert_eq!((sequence.tokens().len(), sequence.pages().len(), pool.free_pages()), (PAGE_TOKENS, 1, 3));
        sequence.truncate(&mut pool, 1000).expect("nothing to do");
        assert_eq!(sequence.tokens().len(), PAGE_TOKENS);
        sequence.truncate(&mut pool, 0).expect("pages of this pool");
        assert_eq!(pool.free_pages(), 4);
    }

    #[test]
    fn a_failed_reservation_changes_nothing() {
        let mut pool = Pool::new(1).expect("one page");
        let mut sequence = Sequence::default();
        let error = sequence.reserve(&mut pool, PAGE_TOKENS + 1).expect_err("two pages of one");
        assert_eq!(error.kind(), ErrorKind::ContextFull);
        assert_eq!((sequence.pages().len(), pool.free_pages()), (0, 1));
    }

    #[test]
    fn truncating_gives_back_what_was_reserved_ahead() {
        let mut pool = Pool::new(3).expect("three pages");
        let mut sequence = Sequence::default();
        sequence.reserve(&mut pool, 3 * PAGE_TOKENS).expect("all pages");
        sequence.append(&[1, 2]);
        sequence.truncate(&mut pool, 2).expect("pages of this pool");
        assert_eq!((sequence.pages().len(), pool.free_pages()), (1, 2));
    }
}
