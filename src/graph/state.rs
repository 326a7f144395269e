//! Slots for what models with recurrence remember: one array of numbers a sequence, not one a position.
//!
//! A step reads the state of a sequence in one slot and leaves it in another or in the same one. So a state can be kept
//! to come back to without a copy: the step after it just writes elsewhere.

use super::{Row, Step};
use crate::error::{Error, ErrorKind, Result};

/// Slots of a backend: one state to come back to, and one for each of the chains that may be under way or just ended.
pub const STATE_SLOTS: usize = 4;

/// Where a sequence's state is before a step and after it. At position 0 there is none before: it starts from zeros.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StateSlots {
    /// Read by the first row.
    pub from: u32,
    /// Written after the last row.
    pub to: u32,
}

/// Which position each slot of a backend stands at, so that a state that does not belong to a step is refused.
#[derive(Clone, Debug)]
pub struct SlotBook(Vec<u32>);

impl SlotBook {
    /// Of `slots` slots that nothing was written to.
    pub fn new(slots: usize) -> Self {
        Self(vec![0; slots])
    }

    /// Notes what a step does to its slots. Fails with `InvalidArgument` unless every sequence has its own slots, its
    /// rows stand at positions one after another, and the state before the first of them is there.
    pub fn step(&mut self, step: &Step<'_>) -> Result<()> {
        if self.0.is_empty() {
            return Ok(());
        }
        if step.states.len() != step.pages.len() {
            return Err(invalid(format!("slots for {} of {} sequences", step.states.len(), step.pages.len())));
        }
        let mut moves = vec![];
        for (sequence, slots) in step.states.iter().enumerate() {
            let mut rows = step.rows.iter().filter(|row| row.sequence as usize == sequence);
            let Some(Row { position: first, .. }) = rows.next().copied() else { continue };
            let mut end = first.saturating_add(1);
            for Row { position, .. } in rows {
                if *position != end {
                    return Err(invalid(format!("position {position} of sequence {sequence} where {end} is next")));
                }
                end = end.saturating_add(1);
            }
            moves.push((*slots, first, end));
        }
        for (index, (slots, ..)) in moves.iter().enumerate() {
            let others = || moves.iter().enumerate().filter(|(other, _)| *other != index);
            if others().any(|(_, (other, ..))| other.to == slots.to || other.from == slots.to) {
                return Err(invalid(format!("the slot {} belongs to two sequences", slots.to)));
            }
        }
        moves.into_iter().try_for_each(|(slots, first, end)| self.advance(slots, first, end))
    }

    /// Notes that the positions `first .. end` of a sequence go through `slots`. Fails with `InvalidArgument` unless the
    /// slots exist and the state before `first` is there.
    pub fn advance(&mut self, slots: StateSlots, first: u32, end: u32) -> Result<()> {
        if self.0.is_empty() {
            return Ok(());
        }
        let total = self.0.len();
        let (Some(from), true) = (self.0.get(slots.from as usize), (slots.to as usize) < total) else {
            return Err(invalid(format!("the slots {} and {} of {total}", slots.from, slots.to)));
        };
        if first != 0 && *from != first {
            return Err(invalid(format!("position {first} follows, slot {} stands at {from}", slots.from)));
        }
        if let Some(to) = self.0.get_mut(slots.to as usize) {
            *to = end;
        }
        Ok(())
    }
}

fn invalid(problem: String) -> Error {
    Error::new(ErrorKind::InvalidArgument, problem).at("state")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots(from: u32, to: u32) -> StateSlots {
        StateSlots { from, to }
    }

    #[test]
    fn a_state_is_found_where_it_was_left() {
        let mut book = SlotBook::new(3);
        book.advance(slots(2, 0), 0, 5).expect("a start from zeros");
        book.advance(slots(0, 1), 5, 9).expect("a copy goes on");
        book.advance(slots(0, 2), 5, 6).expect("the first is still there");
        book.advance(slots(1, 1), 9, 10).expect("in place");
        for (wrong, first, words) in [
            (slots(0, 1), 6, "position 6 follows, slot 0 stands at 5"),
            (slots(1, 1), 9, "slot 1 stands at 10"),
            (slots(3, 0), 0, "the slots 3 and 0 of 3"),
            (slots(0, 3), 5, "the slots 0 and 3 of 3"),
        ] {
            let error = book.advance(wrong, first, first + 1).expect_err("no such state");
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
            assert!(error.to_string().contains(words), "{error}");
        }
    }

    #[test]
    fn sequences_of_one_step_do_not_meet() {
        let row = |position, sequence| Row { token: 0, position, sequence, segment: 0 };
        let rows = [row(0, 1), row(0, 0), row(1, 1), row(1, 0)];
        let pages = [vec![0], vec![1]];
        let note = |book: &mut SlotBook, rows: &[Row], states: &[StateSlots]| {
            book.step(&Step { rows, pages: &pages, states, outputs: &[] })
        };
        let mut book = SlotBook::new(3);
        note(&mut book, &rows, &[slots(0, 0), slots(1, 1)]).expect("two sequences");
        note(&mut book, &[row(2, 0)], &[slots(0, 2), slots(9, 9)]).expect("one of two; the other is not looked at");
        for (states, words) in [
            (vec![slots(0, 1), slots(1, 1)], "belongs to two"),
            (vec![slots(0, 1), slots(1, 2)], "belongs to two"),
            (vec![slots(0, 0)], "slots for 1 of 2"),
        ] {
            let error = note(&mut book, &rows, &states).expect_err("sequences that meet");
            assert!(error.to_string().contains(words), "{error}");
        }
        let error = note(&mut book, &[row(2, 1), row(4, 1)], &[slots(0, 0), slots(1, 1)]).expect_err("a gap");
        assert!(error.to_string().contains("position 4 of sequence 1 where 3 is next"), "{error}");
        note(&mut SlotBook::new(0), &rows, &[]).expect("a graph without state");
    }
}
