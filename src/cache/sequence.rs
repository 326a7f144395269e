//! One sequence: the tokens whose keys and values are there, and the pages they lie in.

use super::Pages;
use super::pages::NodeId;
use crate::error::Result;
use crate::graph::{AdapterUse, PAGE_TOKENS};

/// Tokens from position 0 on, and at least the pages that hold them. The first pages may be shared with other sequences
/// and with later ones: they are full and only read. Those after them are its own.
///
/// The pages may reach further than the tokens: they are reserved before the steps that fill them are submitted.
#[derive(Debug, Default)]
pub struct Sequence {
    adapter: Option<AdapterUse>,
    tokens: Vec<u32>,
    pages: Vec<u32>,
    /// The nodes of the first pages.
    shared: Vec<NodeId>,
}

/// A page whose keys and values another page gets before the next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageCopy {
    /// The page that has them.
    pub from: u32,
    /// The page that gets them.
    pub to: u32,
}

impl Sequence {
    /// A sequence that begins with what is kept of `ids`: the full pages are shared, a page that begins with the rest is
    /// taken over where nobody else needs it, else copied, for which there must be a free one.
    pub fn open(pages: &mut Pages, adapter: Option<AdapterUse>, ids: &[u32]) -> Result<(Self, Option<PageCopy>)> {
        let found = pages.find(adapter, ids);
        pages.pin(&found.full)?;
        let mut sequence = Self { adapter, shared: found.full, ..Self::default() };
        for node in &sequence.shared {
            sequence.pages.push(pages.page(*node)?);
        }
        let mut held = sequence.shared.len().saturating_mul(PAGE_TOKENS);
        let mut copy = None;
        if let Some((node, common)) = found.tail {
            if pages.is_idle(node)? && pages.tokens(node)? == common {
                sequence.pages.push(pages.remove(node)?);
                held = held.saturating_add(common);
            } else {
                let from = pages.page(node)?;
                // It is not to make room for its own copy.
                pages.pin(&[node])?;
                let taken = pages.take(1, &mut sequence.pages);
                pages.unpin(&[node])?;
                if taken.is_ok() {
                    copy = sequence.pages.last().map(|to| PageCopy { from, to: *to });
                    held = held.saturating_add(common);
                } else if pages.is_idle(node)? {
                    sequence.pages.push(pages.remove(node)?);
                    held = held.saturating_add(common);
                }
            }
        }
        sequence.tokens = ids.get(..held).unwrap_or(ids).to_vec();
        Ok((sequence, copy))
    }

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

    /// Takes pages until `positions` of them have room. All or nothing.
    pub fn reserve(&mut self, pages: &mut Pages, positions: usize) -> Result<()> {
        let wanted = positions.div_ceil(PAGE_TOKENS);
        pages.take(wanted.saturating_sub(self.pages.len()), &mut self.pages)
    }

    /// Notes tokens whose keys and values have been written after the present ones; their pages were reserved.
    pub fn append(&mut self, tokens: &[u32]) {
        self.tokens.extend_from_slice(tokens);
        debug_assert!(self.tokens.len() <= self.pages.len().saturating_mul(PAGE_TOKENS), "tokens without a page");
    }

    /// Lets others share the full pages from now on. With `tail` they are also to find the tokens after those: then the
    /// page that holds them must be copied, if one is given.
    pub fn publish(&mut self, pages: &mut Pages, tail: bool) -> Result<Option<PageCopy>> {
        let mut parent = match self.shared.last() {
            Some(last) => *last,
            None => pages.root(self.adapter),
        };
        loop {
            let first = self.shared.len().saturating_mul(PAGE_TOKENS);
            let rest = self.tokens.get(first..).unwrap_or_default();
            let chunk = rest.get(..PAGE_TOKENS).unwrap_or(rest);
            let Some(page) = self.pages.get(self.shared.len()).copied() else { return Ok(None) };
            // Another sequence may have computed the same; each keeps to its own then.
            if chunk.is_empty() || pages.has(parent, chunk) {
                return Ok(None);
            }
            if chunk.len() < PAGE_TOKENS {
                let mut to = Vec::new();
                if !tail || pages.take(1, &mut to).is_err() {
                    return Ok(None);
                }
                let Some(to) = to.first().copied() else { return Ok(None) };
                pages.insert(parent, chunk, to)?;
                return Ok(Some(PageCopy { from: page, to }));
            }
            parent = pages.insert(parent, chunk, page)?;
            pages.pin(&[parent])?;
            self.shared.push(parent);
        }
    }

    /// Ends the sequence. Its first `len` tokens (all where there are fewer) stay for others to begin with; shared pages
    /// with tokens behind them are forgotten, unless others read them.
    pub fn close(&mut self, pages: &mut Pages, len: usize) -> Result<()> {
        let Self { adapter, mut tokens, pages: own, shared } = std::mem::take(self);
        tokens.truncate(len);
        let mut parent = match shared.last() {
            Some(last) => *last,
            None => pages.root(adapter),
        };
        pages.unpin(&shared)?;
        for node in shared.iter().skip(tokens.len() / PAGE_TOKENS).rev() {
            if pages.is_idle(*node)? {
                let page = pages.remove(*node)?;
                pages.give_back([page])?;
            }
        }
        let mut rest = tokens.chunks(PAGE_TOKENS).skip(shared.len());
        for page in own.into_iter().skip(shared.len()) {
            match rest.next() {
                Some(chunk) => parent = pages.insert(parent, chunk, page)?,
                None => pages.give_back([page])?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{PageCopy, Pages, Sequence};
    use crate::error::ErrorKind;
    use crate::graph::{AdapterId, AdapterUse, PAGE_TOKENS};

    fn ids(from: u32, len: usize) -> Vec<u32> {
        (from..).take(len).collect()
    }

    /// Opens, computes what is missing and gives how much was there.
    fn grow(pages: &mut Pages, ids: &[u32]) -> (Sequence, usize, Option<PageCopy>) {
        let (mut sequence, copy) = Sequence::open(pages, None, ids).expect("opened");
        let held = sequence.tokens().len();
        sequence.reserve(pages, ids.len()).expect("room");
        sequence.append(&ids[held..]);
        (sequence, held, copy)
    }

    #[test]
    fn what_was_closed_is_found_and_extended_in_place() {
        let mut pages = Pages::new(4).expect("pages");
        let first = ids(0, PAGE_TOKENS + 5);
        let (mut sequence, held, _) = grow(&mut pages, &first);
        assert_eq!((held, sequence.pages(), pages.free_pages()), (0, [0, 1].as_slice(), 2));
        sequence.close(&mut pages, usize::MAX).expect("closed");
        assert_eq!(pages.free_pages(), 4, "what nobody reads can be had");

        let turn = [first.clone(), vec![900, 901]].concat();
        assert_eq!(pages.held(None, &turn), first.len());
        let (mut sequence, held, copy) = grow(&mut pages, &turn);
        assert_eq!((held, copy, sequence.pages()), (first.len(), None, [0, 1].as_slice()));
        assert_eq!(pages.free_pages(), 2);
        sequence.close(&mut pages, PAGE_TOKENS + 2).expect("closed");
        assert_eq!(pages.held(None, &turn), PAGE_TOKENS + 2, "the rest was cut off");
    }

    #[test]
    fn a_branch_gets_a_copy_and_the_trunk_stays() {
        let mut pages = Pages::new(8).expect("pages");
        let trunk = ids(0, PAGE_TOKENS + 6);
        grow(&mut pages, &trunk).0.close(&mut pages, usize::MAX).expect("closed");
        let branch = [&trunk[..PAGE_TOKENS + 3], &[700, 701]].concat();
        let (mut sequence, held, copy) = grow(&mut pages, &branch);
        assert_eq!((held, copy), (PAGE_TOKENS + 3, Some(PageCopy { from: 1, to: 2 })));
        assert_eq!(sequence.pages(), [0, 2]);
        sequence.close(&mut pages, usize::MAX).expect("closed");
        assert_eq!((pages.held(None, &trunk), pages.held(None, &branch)), (trunk.len(), branch.len()));
    }

    #[test]
    fn live_sequences_share_what_is_published() {
        let mut pages = Pages::new(8).expect("pages");
        let prompt = ids(0, 2 * PAGE_TOKENS + 4);
        let (mut first, ..) = grow(&mut pages, &prompt);
        assert_eq!(pages.held(None, &prompt), 0, "what is under way is nobody else's");
        let copy = first.publish(&mut pages, true).expect("published");
        assert_eq!(copy, Some(PageCopy { from: 2, to: 3 }));
        let (mut second, held, copy) = grow(&mut pages, &prompt[..prompt.len() - 1]);
        assert_eq!((held, second.pages()[..2].to_vec()), (prompt.len() - 1, vec![0, 1]));
        assert_eq!(copy.map(|copy| copy.from), Some(3));
        first.close(&mut pages, usize::MAX).expect("closed");
        assert_eq!(pages.free_pages(), 8 - 3, "two shared pages and a copy are read");
        second.close(&mut pages, usize::MAX).expect("closed");
        assert_eq!(pages.free_pages(), 8);
    }

    #[test]
    fn the_end_not_used_for_the_longest_time_makes_room() {
        let mut pages = Pages::new(4).expect("pages");
        let (old, new) = (ids(0, 2 * PAGE_TOKENS), ids(5000, 2 * PAGE_TOKENS));
        grow(&mut pages, &old).0.close(&mut pages, usize::MAX).expect("closed");
        grow(&mut pages, &new).0.close(&mut pages, usize::MAX).expect("closed");
        let mut taken = Vec::new();
        pages.take(1, &mut taken).expect("one of four");
        assert_eq!((pages.held(None, &old), pages.held(None, &new)), (PAGE_TOKENS, 2 * PAGE_TOKENS));
        let (mut again, held, _) = grow(&mut pages, &new);
        let error = pages.take(2, &mut taken).expect_err("two of one");
        assert_eq!((held, error.kind()), (2 * PAGE_TOKENS, ErrorKind::ContextFull));
        assert_eq!(pages.held(None, &old), PAGE_TOKENS, "a refusal changes nothing");
        again.close(&mut pages, 0).expect("closed");
        pages.give_back(taken).expect("taken");
        pages.clear().expect("cleared");
        assert_eq!((pages.held(None, &new), pages.free_pages()), (0, 4));
    }

    #[test]
    fn a_full_pool_gives_up_the_old_end_for_the_new_one() {
        let mut pages = Pages::new(2).expect("pages");
        let whole = ids(0, 2 * PAGE_TOKENS);
        grow(&mut pages, &whole).0.close(&mut pages, usize::MAX).expect("closed");
        let (mut again, held, copy) = grow(&mut pages, &whole[..whole.len() - 1]);
        assert_eq!((held, copy, again.pages()), (whole.len() - 1, None, [0, 1].as_slice()));
        again.close(&mut pages, usize::MAX).expect("closed");
        assert_eq!(pages.free_pages(), 2);
    }

    #[test]
    fn adapters_have_prefixes_of_their_own() {
        let mut pages = Pages::new(4).expect("pages");
        let ids = ids(0, 10);
        grow(&mut pages, &ids).0.close(&mut pages, usize::MAX).expect("closed");
        let with = |scale| Some(AdapterUse { id: AdapterId(1), scale });
        assert_eq!((pages.held(None, &ids), pages.held(with(1.0), &ids)), (10, 0));
        let (mut own, _) = Sequence::open(&mut pages, with(1.0), &ids).expect("opened");
        own.reserve(&mut pages, 10).expect("room");
        own.append(&ids);
        own.close(&mut pages, 7).expect("closed");
        assert_eq!((pages.held(with(1.0), &ids), pages.held(with(0.5), &ids)), (7, 0));
    }

    #[test]
    fn a_failed_reservation_changes_nothing() {
        let mut pages = Pages::new(1).expect("one page");
        let mut sequence = Sequence::default();
        let error = sequence.reserve(&mut pages, PAGE_TOKENS + 1).expect_err("two pages of one");
        assert_eq!(error.kind(), ErrorKind::ContextFull);
        assert_eq!((sequence.pages().len(), pages.free_pages()), (0, 1));
    }
}
