//! A grammar as a tree, and sets of letters.

/// Letters as ranges, ascending and apart.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Letters(Vec<(u32, u32)>);

/// What a text cannot have: halves of pairs of UTF-16.
const HALVES: (u32, u32) = (0xD800, 0xDFFF);

impl Letters {
    pub(super) fn of(mut ranges: Vec<(u32, u32)>) -> Self {
        ranges.sort_unstable();
        let mut joined: Vec<(u32, u32)> = Vec::new();
        for (first, last) in ranges {
            match joined.last_mut() {
                Some(before) if first <= before.1.saturating_add(1) => before.1 = before.1.max(last),
                _ => joined.push((first, last)),
            }
        }
        Self(joined)
    }

    pub(super) fn one(letter: char) -> Self {
        Self(vec![(letter.into(), letter.into())])
    }

    /// All others.
    pub(super) fn others(&self) -> Self {
        let mut next = 0;
        let mut others = Vec::new();
        for (first, last) in Self::of([self.0.as_slice(), &[HALVES]].concat()).0 {
            if first > next {
                others.push((next, first.saturating_sub(1)));
            }
            next = last.saturating_add(1);
        }
        if next <= u32::from(char::MAX) {
            others.push((next, char::MAX.into()));
        }
        Self(others)
    }

    pub(super) fn ranges(&self) -> &[(u32, u32)] {
        &self.0
    }

    pub(super) fn with(&self, other: &Self) -> Self {
        Self::of([self.0.as_slice(), &other.0].concat())
    }

    pub(super) fn meets(&self, other: &Self) -> bool {
        let (mut mine, mut theirs) = (self.0.iter().peekable(), other.0.iter().peekable());
        while let (Some(a), Some(b)) = (mine.peek(), theirs.peek()) {
            if a.0 <= b.1 && b.0 <= a.1 {
                return true;
            }
            if a.1 < b.1 {
                mine.next()
            } else {
                theirs.next()
            };
        }
        false
    }
}

/// A part of a grammar.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Node {
    /// One of these letters.
    One(Letters),
    /// One after another; nothing where it is empty.
    All(Vec<Node>),
    /// One of them.
    Any(Vec<Node>),
    /// So many times, or more without an end.
    Times(Box<Node>, u32, Option<u32>),
    /// A rule, by its place.
    Rule(usize),
}

/// Rules, the first of which a text is.
#[derive(Debug)]
pub(super) struct Grammar {
    pub(super) rules: Vec<Node>,
    pub(super) root: usize,
}
