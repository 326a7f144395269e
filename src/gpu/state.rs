//! The words of a step as kernels read them (`shaders/README.md`, "State"). Pure data, no device.

use super::program::Size;
use crate::error::{Error, ErrorKind, Result};
use crate::graph::{Batch, Decode, Graph, MAX_BATCH, Row, StateSlots, Step};
use crate::kernel::word;

/// Words of a state's header.
const HEADER: usize = 8;

/// Words of one sequence in the table of sequences.
const SEQUENCE: usize = 5;

/// How the state of one program lies.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    /// Most rows of a step.
    pub max_rows: usize,
    /// Whether there is a table of sequences, which only models with state of their own need.
    pub recurrent: bool,
    /// Whether the segments of rows are told.
    pub segments: bool,
}

/// What is written for a step, and where.
pub(super) struct Words {
    pub words: Vec<u32>,
    pub offset_bytes: u64,
    pub size: Size,
}

impl Layout {
    /// The layout for a graph.
    pub(super) fn new(max_rows: usize, graph: &Graph) -> Self {
        Self { max_rows, recurrent: graph.n_states() > 0, segments: graph.reads_segments() }
    }

    /// Where the words of rows and outputs end: positions, page tables, outputs and, where they are told, segments.
    fn rows_end(self) -> usize {
        self.max_rows + HEADER + if self.segments { 4 } else { 3 } * self.max_rows
    }

    /// Words of the table of sequences.
    fn sequences(self) -> usize {
        if self.recurrent { self.max_rows * (SEQUENCE + 1) } else { 0 }
    }

    /// Where the page tables start.
    fn page_tables(self) -> usize {
        self.rows_end() + self.sequences()
    }

    /// Bytes of the state for sequences of `n_pages` pages in all. Tables of pages have their sequence's length before
    /// them, and there are no more sequences than rows.
    pub(super) fn size_bytes(self, n_pages: usize) -> u64 {
        (self.page_tables() + n_pages + 2 * self.max_rows) as u64 * 4
    }

    /// A step, for a program whose state has `size_bytes`.
    pub(super) fn step(self, step: &Step<'_>, size_bytes: u64) -> Result<Words> {
        let (most, rows) = (self.max_rows, step.rows);
        let mut words = Vec::with_capacity(rows.len() + self.page_tables() - most);
        words.extend(rows.iter().rev().map(|row| row.token));
        words.extend([word(rows.len()), word(step.outputs.len()), 0, 0, 0, 0, 0, 0]);
        let mut starts = Vec::with_capacity(step.pages.len());
        let mut next = self.page_tables();
        for table in step.pages {
            starts.push(word(next + 1));
            next += 1 + table.len();
        }
        if (next as u64) * 4 > size_bytes {
            return Err(Error::new(ErrorKind::LimitExceeded, "the page tables of a step are too long"));
        }
        let padded = |values: &mut dyn Iterator<Item = u32>, words: &mut Vec<u32>| {
            let from = words.len();
            words.extend(values);
            words.resize(from + most, 0);
        };
        padded(&mut rows.iter().map(|row| row.position), &mut words);
        padded(&mut rows.iter().filter_map(|row| starts.get(row.sequence as usize).copied()), &mut words);
        padded(&mut step.outputs.iter().copied(), &mut words);
        if self.segments {
            padded(&mut rows.iter().map(|row| row.segment), &mut words);
        }
        let sequences = if self.recurrent { self.push_sequences(step, &mut words) } else { step.pages.len() };
        // Positions ascend within a sequence.
        let mut lengths = vec![0; step.pages.len()];
        for row in rows {
            if let Some(length) = lengths.get_mut(row.sequence as usize) {
                *length = row.position + 1;
            }
        }
        for (table, length) in step.pages.iter().zip(lengths) {
            words.push(length);
            words.extend(table);
        }
        let size = Size { rows: word(rows.len()), outputs: word(step.outputs.len()), sequences: word(sequences) };
        Ok(Words { words, offset_bytes: (most - rows.len()) as u64 * 4, size })
    }

    /// The sequences that have rows in the step, and the indices of those rows. Gives how many they are.
    fn push_sequences(self, step: &Step<'_>, words: &mut Vec<u32>) -> usize {
        let table = self.rows_end();
        let first_list = table + self.max_rows * SEQUENCE;
        let (mut entries, mut lists) = (vec![], vec![]);
        for (sequence, StateSlots { from, to }) in step.states.iter().enumerate() {
            let of_sequence = |(_, row): &(u32, &Row)| row.sequence as usize == sequence;
            let mut rows = (0..).zip(step.rows).filter(of_sequence).peekable();
            let Some(first) = rows.peek().map(|(_, row)| row.position) else { continue };
            let list = lists.len();
            lists.extend(rows.map(|(index, _)| index));
            entries.extend([*from, *to, first, word(lists.len() - list), word(first_list + list)]);
        }
        let sequences = entries.len() / SEQUENCE;
        entries.resize(self.max_rows * SEQUENCE, 0);
        lists.resize(self.max_rows, 0);
        words.extend(entries);
        words.extend(lists);
        sequences
    }

    /// The layout for batches of a graph without state. What a step has for outputs and segments, a batch, whose rows all are
    /// outputs, has for the index of each row's next id and the slot that it goes to.
    pub(super) fn of_batch() -> Self {
        Self { max_rows: MAX_BATCH, recurrent: false, segments: true }
    }

    /// Where a batch starts; if it goes on, the last chosen tokens stay.
    pub(super) fn batch(self, batch: &Batch<'_>) -> Words {
        let Batch { rows, count, goes_on } = *batch;
        let most = self.max_rows;
        let n = word(rows.len());
        let mut words = Vec::new();
        if !goes_on {
            words.extend(rows.iter().rev().map(|row| row.token));
        }
        words.extend([n, n, 0, 0, 0, 0, 0, 0]);
        let mut next = self.page_tables();
        let mut tables = Vec::with_capacity(rows.len());
        for row in rows {
            tables.push(word(next + 1));
            next += 1 + row.pages.len();
        }
        let slots: Vec<u32> = (0..n).map(|row| row * count).collect();
        let positions: Vec<u32> = rows.iter().map(|row| row.position).collect();
        let indices: Vec<u32> = rows.iter().map(|row| row.index).collect();
        for values in [positions, tables, indices, slots] {
            let from = words.len();
            words.extend(values);
            words.resize(from + most, 0);
        }
        for row in rows {
            // The length is not looked at: a decoded row sees what is before it.
            words.push(row.position + 1);
            words.extend(row.pages);
        }
        let skipped = if goes_on { most } else { most - rows.len() };
        Words { words, offset_bytes: skipped as u64 * 4, size: Size { rows: n, outputs: n, sequences: n } }
    }

    /// Where a chain starts, for the program of one row; without a token the last chosen one stays.
    pub(super) fn chain(self, chain: &Decode<'_>) -> Words {
        let Decode { token, position, index, pages, states: StateSlots { from, to }, .. } = *chain;
        let mut words = Vec::with_capacity(self.page_tables() + pages.len());
        words.extend(token);
        words.extend([1, 1, index, 0, 0, 0, 0, 0]);
        words.extend([position, word(self.page_tables()), 0]);
        if self.recurrent {
            let list = 1 + HEADER + 3 + SEQUENCE;
            words.extend([from, to, position, 1, word(list), 0]);
        }
        // The length that stands before a table is not looked at: a decoded row sees what is before it.
        words.extend(pages);
        let offset_bytes = if token.is_some() { 0 } else { 4 };
        Words { words, offset_bytes, size: Size { rows: 1, outputs: 1, sequences: 1 } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::BatchRow;

    #[test]
    fn sequences_are_told_with_their_rows() {
        let layout = Layout { max_rows: 4, recurrent: true, segments: false };
        let row = |position, sequence| Row { token: 10 + position, position, sequence, segment: 0 };
        let rows = [row(7, 2), row(0, 0), row(8, 2)];
        let pages = [vec![5], vec![6], vec![3, 4]];
        let states = [(1, 2), (9, 9), (0, 3)].map(|(from, to)| StateSlots { from, to });
        let step = Step { rows: &rows, pages: &pages, states: &states, outputs: &[2] };
        let Words { words, offset_bytes, size } = layout.step(&step, layout.size_bytes(4)).expect("it fits");
        assert_eq!((offset_bytes, size.sequences), (4, 2));
        // As a kernel sees it, the first word being one of a row that is not there.
        let state: Vec<u32> = std::iter::once(u32::MAX).chain(words).collect();
        let table = &state[4 + 8 + 12..];
        assert_eq!(table[..10], [1, 2, 0, 1, 44, 0, 3, 7, 2, 45]);
        assert_eq!(state[44..47], [1, 0, 2]);
        let tables_of = |row: usize| state[state[4 + 8 + 4 + row] as usize];
        assert_eq!([0, 1, 2].map(tables_of), [3, 5, 3]);
        assert!((state.len() as u64) * 4 <= layout.size_bytes(4));

        let chain = Decode { token: Some(1), position: 9, count: 3, pages: &[8, 2], states: states[2], index: 5 };
        let Words { words, .. } = Layout { max_rows: 1, ..layout }.chain(&chain);
        assert_eq!(words[9..12], [9, 18, 0]);
        assert_eq!(words[12..18], [0, 3, 9, 1, 17, 0]);
        assert_eq!(words[18..], [8, 2]);
    }

    #[test]
    fn a_batch_tells_each_row_its_place() {
        let row = |token, pages| BatchRow { token, position: token + 30, pages, index: token + 2, place: 0 };
        let rows = [row(5, &[4, 6][..]), row(9, &[7, 8][..])];
        let layout = Layout::of_batch();
        let batch = Batch { rows: &rows, count: 3, goes_on: false };
        let Words { words, offset_bytes, size } = layout.batch(&batch);
        assert_eq!((offset_bytes, size.rows, &words[..4]), (4 * 6, 2, [9, 5, 2, 2].as_slice()));
        // As a kernel sees it.
        let state: Vec<u32> = std::iter::repeat_n(u32::MAX, 6).chain(words.iter().copied()).collect();
        assert_eq!((state[7], state[6], state[8]), (5, 9, 2));
        let of_row = |table: usize, row: usize| state[8 + 8 + table * 8 + row];
        assert_eq!([0, 1].map(|row| (of_row(0, row), of_row(2, row), of_row(3, row))), [(35, 7, 0), (39, 11, 3)]);
        assert_eq!([0, 1].map(|row| state[of_row(1, row) as usize]), [4, 7]);
        assert!((state.len() as u64) * 4 <= layout.size_bytes(4));
        let on = layout.batch(&Batch { goes_on: true, ..batch });
        assert_eq!((on.offset_bytes, &on.words), (4 * 8, &words[2..].to_vec()));
    }

    #[test]
    fn without_state_there_is_no_table_of_sequences() {
        let layout = Layout { max_rows: 2, recurrent: false, segments: false };
        let rows = [Row { token: 1, position: 0, sequence: 0, segment: 0 }];
        let step = Step { rows: &rows, pages: &[vec![7]], states: &[], outputs: &[] };
        let Words { words, .. } = layout.step(&step, layout.size_bytes(1)).expect("it fits");
        assert_eq!(words[..2], [1, 1]);
        assert_eq!(words[1 + 8 + 6..], [1, 7], "length and page");
    }
}
