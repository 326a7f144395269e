//! Text that remembers which of its bytes the chat template wrote.

use std::ops::Range;

/// A rendered prompt and its origin marks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MarkedText {
    text: String,
    trusted: Vec<Range<usize>>,
}

impl MarkedText {
    /// A text with the byte ranges that are trusted. Ranges are sorted and joined; what lies outside the text is cut.
    pub fn new(text: String, mut trusted: Vec<Range<usize>>) -> MarkedText {
        trusted.sort_by_key(|range| range.start);
        let mut joined: Vec<Range<usize>> = Vec::with_capacity(trusted.len());
        for range in trusted {
            let range = range.start..range.end.min(text.len());
            if range.start >= range.end {
                continue;
            }
            match joined.last_mut() {
                Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
                _ => joined.push(range),
            }
        }
        MarkedText { text, trusted: joined }
    }

    /// A text whose ranges break at `breaks`: neighbouring ranges stay apart, so that nothing is recognised across.
    pub(crate) fn with_breaks(text: String, trusted: Vec<Range<usize>>) -> MarkedText {
        MarkedText { text, trusted }
    }

    /// A text that nobody vouches for.
    pub fn untrusted(text: impl Into<String>) -> MarkedText {
        MarkedText { text: text.into(), trusted: Vec::new() }
    }

    /// The same with a text after it that no template wrote.
    pub fn and_untrusted(mut self, text: &str) -> MarkedText {
        self.text.push_str(text);
        self
    }

    /// The text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Byte ranges written by the template, ascending, not overlapping. An added token is recognised only inside one.
    pub fn trusted(&self) -> &[Range<usize>] {
        &self.trusted
    }
}
