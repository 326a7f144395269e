//! Drafts of a reply's next ids, looked up in the prompt and the reply themselves (prompt lookup, Saxena 2023): where the
//! last ids stood before, what followed them there is expected to follow again.
//!
//! Whether a draft is worth a step is learned for nothing, since what would have been drafted is held against the ids that
//! come anyhow. No clock is looked at, so that a reply has the same drafts and the same counts every time.

use super::speculation::Speculation;

/// Ids that have to stand at both places, and ids that are compared at most: of several places the one that more ids speak
/// for is taken, the latest of these.
const MATCH: [usize; 2] = [2, 4];

/// Ids of a draft: of the first ones, and after one that was right to its end. With the id before them they fill the
/// batches that backends have programs for.
const DRAFT: [usize; 2] = [3, 7];

/// Drafts that are looked back on, at most and at least, before they are given up.
const LOOKS_BACK: [usize; 2] = [8, 2];

/// Of so many drafted ids one has to be right on the whole; else there are no drafts for a while.
const ONE_IN: usize = 4;

/// Ids without a draft after they were given up: at first, and at most.
const REST: [usize; 2] = [64, 1024];

/// What is expected of a reply.
pub(super) struct Lookup {
    /// Of prompt and reply.
    ids: Vec<u32>,
    /// Where the expected next id stands among them.
    at: Option<usize>,
    /// How many ids came as was expected since that place was looked up.
    right: usize,
    /// The last draft, made or not, was worth a step.
    trusted: bool,
    /// The last draft that was made was right to its end.
    whole: bool,
    /// Ids of the latest drafts that were made, and how many of them were right.
    made: [(usize, usize); LOOKS_BACK[0]],
    /// How many of these are known.
    known: usize,
    /// Ids to come without a draft, and the next time that drafts are given up.
    rest: [usize; 2],
    counts: Speculation,
}

impl Lookup {
    /// For a reply to `prompt`.
    pub(super) fn new(prompt: &[u32]) -> Self {
        Self {
            ids: prompt.to_vec(),
            at: find(prompt),
            right: 0,
            trusted: false,
            whole: false,
            made: Default::default(),
            known: 0,
            rest: [0, REST[0]],
            counts: Speculation::default(),
        }
    }

    /// What has come of drafts so far.
    pub(super) fn counts(&self) -> Speculation {
        self.counts
    }

    /// The ids that are expected, `most` at most; none where a step for them would not be worth it.
    pub(super) fn draft(&self, most: usize) -> Vec<u32> {
        let Some(at) = self.at.filter(|_| self.trusted && self.rest[0] == 0) else { return Vec::new() };
        // A repetition that reaches the end goes on with itself.
        let again = self.ids.get(at..).unwrap_or_default().iter().copied().cycle();
        again.take(DRAFT[usize::from(self.whole)].min(most)).collect()
    }

    /// Ids have come that were not drafted.
    pub(super) fn came(&mut self, ids: &[u32]) {
        for id in ids {
            let expected = self.at.and_then(|at| self.ids.get(at)).copied();
            self.ids.push(*id);
            self.rest[0] = self.rest[0].saturating_sub(1);
            let Some(at) = self.at.filter(|_| expected == Some(*id) && self.right + 1 < DRAFT[0]) else {
                if expected.is_some() {
                    self.right += usize::from(expected == Some(*id));
                    self.trusted = self.right == DRAFT[0] || self.trusted && self.right * 2 >= DRAFT[0];
                }
                self.look();
                continue;
            };
            (self.at, self.right) = (Some(at + 1), self.right + 1);
        }
    }

    /// The ids of a step with a draft of `drafted` ids have come: those that were right, and one more.
    pub(super) fn verified(&mut self, ids: &[u32], drafted: usize) {
        let right = ids.len().saturating_sub(1).min(drafted);
        self.counts.add(&Speculation { drafted: drafted as u64, accepted: right as u64, steps: 1 });
        self.ids.extend_from_slice(ids);
        self.trusted = right * 2 >= drafted;
        self.whole = right == drafted;
        self.made.rotate_right(1);
        self.made[0] = (drafted, right);
        self.known = (self.known + 1).min(LOOKS_BACK[0]);
        let (all, all_right) =
            self.made.iter().take(self.known).fold((0, 0), |(all, of), (made, right)| (all + made, of + right));
        if self.known >= LOOKS_BACK[1] && all_right * ONE_IN < all {
            (self.trusted, self.whole, self.known) = (false, false, 0);
            self.rest = [self.rest[1], (self.rest[1] * 2).min(REST[1])];
        } else if self.known == LOOKS_BACK[0] && all_right * 2 >= all {
            self.rest[1] = REST[0];
        }
        self.look();
    }

    fn look(&mut self) {
        (self.at, self.right) = (find(&self.ids), 0);
    }
}

/// Where the id stands that followed the latest of the longest matches of the last ids.
fn find(ids: &[u32]) -> Option<usize> {
    let [least, most] = MATCH;
    let (last, before) = ids.split_last()?;
    let mut found = None;
    let mut longest = least.saturating_sub(1);
    // An id that is the last one ends every match, so that most places need one look.
    for (end, _) in before.iter().enumerate().rev().filter(|(_, id)| *id == last) {
        let matched =
            ids.iter().rev().zip(ids.get(..=end)?.iter().rev()).take(most).take_while(|(a, b)| a == b).count();
        if matched > longest {
            (found, longest) = (Some(end + 1), matched);
            if matched == most {
                break;
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_of_the_longest_matches_is_found() {
        assert_eq!(find(&[]), None);
        assert_eq!(find(&[1, 1]), None, "one id says nothing");
        assert_eq!(find(&[1, 2, 3, 1, 2]), Some(2));
        assert_eq!(find(&[1, 2, 3, 1, 2, 4, 1, 2]), Some(5), "the latest");
        assert_eq!(find(&[9, 1, 2, 3, 1, 2, 4, 9, 1, 2]), Some(3), "the longest");
        assert_eq!(find(&[0, 5, 6, 7, 8, 1, 4, 5, 6, 7, 8, 2, 0, 5, 6, 7, 8]), Some(11), "four are enough");
        assert_eq!(find(&[7, 7, 7]), Some(2));
    }

    /// A reply that is made by chains of `chain` ids and by drafts: what came of them, and the steps.
    fn play(prompt: &[u32], reply: &[u32], chain: usize) -> (Speculation, usize) {
        let mut lookup = Lookup::new(prompt);
        let (mut rest, mut steps) = (reply, 0);
        while !rest.is_empty() {
            let draft = lookup.draft(rest.len() - 1);
            let count = if draft.is_empty() {
                chain.min(rest.len())
            } else {
                1 + draft.iter().zip(rest).take_while(|(a, b)| a == b).count()
            };
            let (now, later) = rest.split_at(count);
            if draft.is_empty() {
                lookup.came(now)
            } else {
                lookup.verified(now, draft.len())
            }
            steps += if draft.is_empty() { count } else { 1 };
            rest = later;
        }
        (lookup.counts(), steps)
    }

    #[test]
    fn a_copy_is_drafted_once_it_shows() {
        let text: Vec<u32> = (0..100).collect();
        // Two ids for a match and three that come as expected; then one of four ids, and eight with each step.
        let (counts, steps) = play(&text, &text, 1);
        assert_eq!(counts, Speculation { drafted: 3 + 7 * 11 + 2, accepted: 3 + 7 * 11 + 2, steps: 13 });
        assert_eq!(steps, 5 + 13);
        let same = vec![4; 40];
        assert_eq!(play(&[4], &same, 8).0, Speculation { drafted: 3 + 3 * 7 + 3, accepted: 27, steps: 5 });
    }

    #[test]
    fn drafts_that_go_wrong_are_given_up_for_longer_and_longer() {
        // Five ids are as before, so that a draft seems worth it; the next one never is.
        let text: Vec<u32> = (0..5).collect();
        let reply: Vec<u32> = (0..500).flat_map(|turn| text.iter().copied().chain([1000 + turn])).collect();
        let (counts, _) = play(&text, &reply, 1);
        assert_eq!(counts.accepted, 0, "{counts:?}");
        // Two drafts each, after 64, 128, ... 1024 ids without.
        assert_eq!(counts.steps, 2 * 6, "{counts:?}");
        assert_eq!(play(&text, &reply, 1).0, counts);
    }

    #[test]
    fn ids_that_do_not_come_again_are_never_drafted() {
        let reply: Vec<u32> = (0..1000).collect();
        assert_eq!(play(&[1, 2, 3], &reply, 8), (Speculation::default(), 1000));
        // Pairs come again, but what follows them does not.
        let pairs: Vec<u32> = (0..300).flat_map(|turn| [5, 6, 100 + turn]).collect();
        assert_eq!(play(&[], &pairs, 8).0, Speculation::default());
    }
}
