//! Stop strings in a stream of text: what could become one is held back, across the borders of tokens.

/// Lets text through up to the first stop string.
pub(super) struct StopText {
    stops: Vec<String>,
    held: String,
    found: bool,
}

impl StopText {
    /// Watches for `stops`, none of which is empty.
    pub(super) fn new(stops: Vec<String>) -> Self {
        Self { stops, held: String::new(), found: false }
    }

    /// Whether a stop string has come.
    pub(super) fn found(&self) -> bool {
        self.found
    }

    /// Takes the next text and gives what may be shown: all that no stop string can begin in. The stop string itself
    /// and what follows it is never shown.
    pub(super) fn push(&mut self, text: &str) -> String {
        if self.found {
            return String::new();
        }
        self.held.push_str(text);
        let first = self.stops.iter().filter_map(|stop| self.held.find(stop.as_str())).min();
        if let Some(at) = first {
            self.found = true;
            self.held.truncate(at);
            return std::mem::take(&mut self.held);
        }
        let longest = self.stops.iter().map(String::len).max().unwrap_or(0);
        let may_begin = |at: &usize| {
            let tail = self.held.get(*at..).unwrap_or_default();
            tail.len() < longest && self.stops.iter().any(|stop| stop.starts_with(tail))
        };
        let cut = self.held.char_indices().map(|(at, _)| at).find(may_begin).unwrap_or(self.held.len());
        let rest = self.held.split_off(cut);
        std::mem::replace(&mut self.held, rest)
    }

    /// What was held back, when the text ends without a stop string.
    pub(super) fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

#[cfg(test)]
mod tests {
    use super::StopText;

    struct Case {
        stops: &'static [&'static str],
        pieces: &'static [&'static str],
        shown: &'static [&'static str],
        rest: &'static str,
        found: bool,
    }

    #[test]
    fn text_is_held_back_only_while_it_may_become_a_stop() {
        let cases = [
            Case { stops: &[], pieces: &["a", "b"], shown: &["a", "b"], rest: "", found: false },
            Case { stops: &["END"], pieces: &["one E", "N", "D two"], shown: &["one ", "", ""], rest: "", found: true },
            Case { stops: &["END"], pieces: &["one E", "N", "x"], shown: &["one ", "", "ENx"], rest: "", found: false },
            Case { stops: &["END"], pieces: &["EN"], shown: &[""], rest: "EN", found: false },
            Case { stops: &["aab"], pieces: &["a", "a", "a", "b"], shown: &["", "", "a", ""], rest: "", found: true },
            Case { stops: &["xyz", "y"], pieces: &["ax", "y"], shown: &["a", "x"], rest: "", found: true },
            Case { stops: &["é!"], pieces: &["né", "é", "!"], shown: &["n", "é", ""], rest: "", found: true },
            Case { stops: &["b"], pieces: &["abc", "d"], shown: &["a", ""], rest: "", found: true },
        ];
        for case in cases {
            let mut stop = StopText::new(case.stops.iter().map(ToString::to_string).collect());
            let shown: Vec<String> = case.pieces.iter().map(|piece| stop.push(piece)).collect();
            assert_eq!(shown, case.shown, "{:?} in {:?}", case.stops, case.pieces);
            assert_eq!((stop.finish().as_str(), stop.found()), (case.rest, case.found), "{:?}", case.pieces);
        }
    }
}
