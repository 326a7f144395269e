//! Which states of a sequence are kept, for models with recurrence: such a model goes on from a state, not from any
//! position that its pages hold.
//!
//! A slot holds the state after so many tokens. One slot is *marked* and stays until another is (the prompt but its
//! last token, whose logits every reply needs); the others are written in turns, a fresh one for each chain of ids, so
//! that a reply which ends inside the newest chain finds the state before it. Nothing is ever copied: a step reads one
//! slot and writes another.

use crate::graph::StateSlots;

/// The slots of one sequence. Without slots (a model without state) every question has the answer of a model that can
/// go on from anywhere.
#[derive(Debug, Default)]
pub struct States {
    /// For each slot the number of tokens that its state has seen; `None` where it holds nothing of use.
    seen: Vec<Option<usize>>,
    /// The slot that is not written over.
    marked: Option<usize>,
    /// The slot that the next step goes on from; `None` at the start of a sequence.
    live: Option<usize>,
    /// Whether no step has gone on from there yet, so that the next one leaves it as it is.
    resumed: bool,
}

impl States {
    /// So many empty slots.
    pub fn new(slots: usize) -> Self {
        Self { seen: vec![None; slots], ..Self::default() }
    }

    /// Whether the model keeps state at all.
    pub fn any(&self) -> bool {
        !self.seen.is_empty()
    }

    /// Goes back to the latest state that has seen no more than `len` tokens. Gives how many it has seen: `len` itself
    /// for a model without state, 0 where nothing is kept.
    pub fn resume(&mut self, len: usize) -> usize {
        if !self.any() {
            return len;
        }
        self.truncate(len);
        self.resumed = true;
        let latest = (0..).zip(&self.seen).filter_map(|(slot, seen)| Some((seen.as_ref().copied()?, slot))).max();
        self.live = latest.map(|(_, slot)| slot);
        latest.map_or(0, |(seen, _)| seen)
    }

    /// Forgets the states that have seen more than `len` tokens.
    pub fn truncate(&mut self, len: usize) {
        for seen in &mut self.seen {
            *seen = seen.filter(|seen| *seen <= len);
        }
        let holds = |slot: &usize| self.seen.get(*slot).is_some_and(Option::is_some);
        self.marked = self.marked.filter(holds);
        self.live = self.live.filter(holds);
    }

    /// The slots of a step after which `end` tokens are seen. It leaves the state before it as it is where that is
    /// asked for, was marked or was gone back to; otherwise it works in place.
    pub fn advance(&mut self, end: usize, keep: bool) -> StateSlots {
        if !self.any() {
            return StateSlots::default();
        }
        let keep = std::mem::take(&mut self.resumed) || keep || self.live == self.marked;
        let to = self.live.filter(|_| !keep).unwrap_or_else(|| self.oldest());
        let from = self.live.unwrap_or(to);
        if let Some(seen) = self.seen.get_mut(to) {
            *seen = Some(end);
        }
        self.live = Some(to);
        StateSlots { from: slot_number(from), to: slot_number(to) }
    }

    /// Keeps the present state until another one is marked.
    pub fn mark(&mut self) {
        self.marked = self.live;
    }

    /// The slot that is missed least: an empty one, or that of the shortest beginning.
    fn oldest(&self) -> usize {
        let free = (0..self.seen.len()).filter(|slot| Some(*slot) != self.live && Some(*slot) != self.marked);
        free.min_by_key(|slot| self.seen.get(*slot).copied().flatten()).or(self.live).unwrap_or(0)
    }
}

/// There are a handful of slots.
fn slot_number(slot: usize) -> u32 {
    u32::try_from(slot).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::States;
    use crate::graph::{STATE_SLOTS, StateSlots};

    #[test]
    fn a_reply_that_ends_inside_a_chain_finds_the_state_before_it() {
        let mut states = States::new(STATE_SLOTS);
        assert_eq!(states.resume(0), 0);
        states.advance(9, true);
        states.mark();
        states.advance(10, true);
        let mut ends = vec![9, 10];
        for end in [14, 18, 22, 26] {
            states.advance(end, true);
            ends.push(end);
            // The newest chain and the one before it may be cut; the end of the third newest is there.
            let [.., before, cut_at, _] = ends.as_slice() else { panic!("three ends") };
            let mut cut = States { seen: states.seen.clone(), ..States::default() };
            assert_eq!(cut.resume(cut_at - 1), *before, "after {end}");
            let mut regenerated = States { seen: states.seen.clone(), ..States::default() };
            assert_eq!(regenerated.resume(9), 9, "the marked one stays");
        }
    }

    #[test]
    fn chunks_of_a_prompt_leave_the_state_that_they_start_from() {
        let mut states = States::new(STATE_SLOTS);
        states.advance(5, true);
        states.mark();
        states.advance(8, true);
        assert_eq!(states.resume(8), 8);
        let first = states.advance(20, true);
        let second = states.advance(30, false);
        assert_ne!(first.from, first.to);
        assert_eq!((second.from, second.to), (first.to, first.to));
        assert_eq!((states.resume(29), states.resume(7), states.resume(4)), (8, 5, 0));
        let anew = states.advance(3, true);
        assert_eq!(anew.from, anew.to, "from zeros");
    }

    #[test]
    fn a_marked_state_is_not_written_in_place() {
        let mut states = States::new(2);
        states.advance(4, true);
        states.mark();
        let on = states.advance(5, false);
        assert_ne!(on.from, on.to);
        assert_eq!(states.resume(4), 4);
    }

    #[test]
    fn a_model_without_state_goes_on_from_anywhere() {
        let mut states = States::new(0);
        states.mark();
        states.truncate(1);
        assert_eq!((states.resume(7), states.advance(8, true)), (7, StateSlots::default()));
    }
}
