//! Blocks in runs that go through a tensor's rows: what a run has is kept once, wherever in a row it begins.
//!
//! A block starts with its head: the `offset` of its tensor, the `scale` of its run (both f32), its `place` in the run; then
//! come a byte and its numbers. The rows of a matrix are taken by windows of 64. In a window the even rows have an entry and
//! the odd ones another, since rows of two weights may alternate: the offset, the place of the first block (with the rows of
//! the tensor from one row of the entry to the next), and a scale for each run that the rows may touch. From the number of
//! blocks before it a block finds its run. Behind the entries of a window lie the bytes of its blocks, row by row.

use super::Format;
use crate::error::Result;

/// Bytes of a block's head.
pub const HEAD: usize = 9;
/// Blocks of a run.
pub const RUN: usize = 256;
/// Rows of a window.
pub(super) const WINDOW: usize = 64;
/// Bytes of an entry before its scales.
const FIXED: usize = 8;

/// Scales of an entry, for rows of so many blocks.
fn scales(blocks: usize) -> usize {
    (WINDOW.saturating_mul(blocks) / RUN).saturating_add(2)
}

/// Bytes of an entry.
fn entry_bytes(blocks: usize) -> usize {
    scales(blocks).saturating_mul(4).saturating_add(FIXED)
}

/// Bytes of all entries, for so many rows of so many blocks.
pub fn entries_bytes(rows: usize, blocks: usize) -> usize {
    rows.div_ceil(WINDOW).saturating_mul(2).saturating_mul(entry_bytes(blocks))
}

/// Bytes of all windows: the entries, and a byte of each block.
pub(super) fn windows_bytes(rows: usize, blocks: usize) -> usize {
    entries_bytes(rows, blocks).saturating_add(rows.saturating_mul(blocks))
}

/// A block's head, and where it belongs.
struct Head {
    /// Of the entry, its first byte among all entries.
    entry: usize,
    offset: [u8; 4],
    /// The place of the entry's first block, and the step of its rows.
    first: [u8; 4],
    /// Of the scale, its first byte in the entry.
    at: usize,
    scale: [u8; 4],
}

/// Blocks of the entry's rows before a block, and the entry. Rows of the tensor from one row of the entry to the next are 2
/// where rows of a weight follow one another, 1 where they alternate with a sibling's.
fn before(row: usize, block: usize, blocks: usize, step: usize) -> (usize, usize) {
    let earlier = (row % WINDOW / 2).saturating_mul(step).saturating_mul(blocks).saturating_add(block);
    let entry = (row / WINDOW).saturating_mul(2).saturating_add(row % 2).saturating_mul(entry_bytes(blocks));
    (earlier, entry)
}

fn scale_at(place: usize) -> usize {
    (place / RUN).saturating_mul(4).saturating_add(FIXED)
}

impl Head {
    /// Of a block of a row, `row_step` rows of the matrix being one of the weight's.
    fn of(block: &[u8], (row, index): (usize, usize), blocks: usize, row_step: usize) -> Option<Self> {
        let ([o0, o1, o2, o3, s0, s1, s2, s3, place], _) = block.split_first_chunk::<HEAD>()?;
        let step = 2usize.checked_div(row_step)?;
        let (earlier, entry) = before(row, index, blocks, step);
        let first = usize::from(*place).wrapping_sub(earlier) % RUN;
        Some(Self {
            entry,
            offset: [*o0, *o1, *o2, *o3],
            first: [u8::try_from(first).ok()?, u8::try_from(step).ok()?, 0, 0],
            at: scale_at(first.saturating_add(earlier)),
            scale: [*s0, *s1, *s2, *s3],
        })
    }
}

/// Heads of whole rows, as they come.
fn heads<'a>(
    format: &'a Format,
    (first, step): (usize, usize),
    row_bytes: usize,
    bytes: &'a [u8],
) -> impl Iterator<Item = (usize, Option<Head>)> + 'a {
    let blocks = row_bytes.checked_div(format.block_bytes).unwrap_or(0);
    bytes.chunks_exact(row_bytes.max(1)).enumerate().flat_map(move |(row, bytes)| {
        let row = first.saturating_add(row.saturating_mul(step));
        let all = bytes.chunks_exact(format.block_bytes.max(1)).enumerate();
        all.map(move |(index, block)| (row, Head::of(block, (row, index), blocks, step)))
    })
}

/// Puts the heads of whole rows into the entries of a weight whose rows follow one another.
pub fn keep(format: &Format, first_row: usize, row_bytes: usize, bytes: &[u8], entries: &mut [u8]) {
    for head in heads(format, (first_row, 1), row_bytes, bytes).filter_map(|(_, head)| head) {
        let mut put = |at: usize, bytes: [u8; 4]| {
            if let Some(slot) = entries.get_mut(head.entry.saturating_add(at)..).and_then(<[u8]>::first_chunk_mut) {
                *slot = bytes;
            }
        };
        put(0, head.offset);
        put(4, head.first);
        put(head.at, head.scale);
    }
}

/// The head of a block, from the entries of such a weight.
pub fn head(entries: &[u8], row: usize, block: usize, blocks: usize) -> [u8; HEAD] {
    let (earlier, entry) = before(row, block, blocks, 2);
    let word = |at: usize| entries.get(entry.saturating_add(at)..).and_then(<[u8]>::first_chunk::<4>).copied();
    let first = word(4).unwrap_or_default()[0];
    let [[o0, o1, o2, o3], [s0, s1, s2, s3]] =
        [0, scale_at(earlier.saturating_add(usize::from(first)))].map(|at| word(at).unwrap_or_default());
    [o0, o1, o2, o3, s0, s1, s2, s3, 0]
}

impl Format {
    /// As [`Format::check_shared`], where blocks come in runs.
    pub(super) fn check_runs(&self, place: (usize, usize), row_bytes: usize, bytes: &[u8]) -> Result<()> {
        // Of the even rows and of the odd ones: what the block before had.
        let mut before: [Option<Head>; 2] = [None, None];
        for (row, head) in heads(self, place, row_bytes, bytes) {
            let Some(head) = head else { return Err(self.changes(row)) };
            let [even, odd] = &mut before;
            let last = if row % 2 == 0 { even } else { odd };
            let differs = |last: &Head| {
                let scales = last.at == head.at && last.scale != head.scale;
                last.entry == head.entry && (last.offset != head.offset || last.first != head.first || scales)
            };
            if last.as_ref().is_some_and(differs) {
                return Err(self.changes(row));
            }
            *last = Some(head);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::quant::FormatId;

    /// Rows whose scales are the numbers of their runs.
    fn rows(rows: usize, blocks: usize, start: usize) -> Vec<u8> {
        let block = |number: usize| {
            let (run, place) = ((start + number) / RUN, (start + number) % RUN);
            let head = [7.0f32, run as f32].map(f32::to_le_bytes).concat();
            [head, vec![place as u8], vec![0; 33]].concat()
        };
        (0..rows * blocks).flat_map(block).collect()
    }

    #[test]
    fn every_block_finds_its_scale_again() {
        let format = FormatId::Nf4Nested.format();
        for (count, blocks, start) in [(130, 1, 250), (70, 3, 255), (100, 14, 0), (65, 43, 77), (3, 300, 5)] {
            let (bytes, row_bytes) = (rows(count, blocks, start), blocks * format.block_bytes);
            let mut entries = vec![0; entries_bytes(count, blocks)];
            // In two pieces, the second of which begins inside a window.
            let (first, second) = bytes.split_at(count / 2 * row_bytes);
            keep(format, 0, row_bytes, first, &mut entries);
            keep(format, count / 2, row_bytes, second, &mut entries);
            for number in 0..count * blocks {
                let found = head(&entries, number / blocks, number % blocks, blocks);
                let expected = [7.0f32, ((start + number) / RUN) as f32].map(f32::to_le_bytes).concat();
                assert_eq!(found[..8], expected, "{count} rows of {blocks} from {start}: block {number}");
            }
            for place in [(0, 1), (1, 2)] {
                assert!(format.check_shared(place, row_bytes, &bytes).is_ok(), "{place:?}");
            }
        }
    }

    #[test]
    fn runs_that_break_off_within_a_window_are_refused() {
        let format = FormatId::Nf4Nested.format();
        let row_bytes = 4 * format.block_bytes;
        let check = |bytes: &[u8]| format.check_shared((0, 1), row_bytes, bytes).map_err(|error| error.kind());
        let two = [rows(32, 4, 0), rows(32, 4, 60)].concat();
        assert_eq!(check(&two), Err(ErrorKind::UnsupportedFormat));
        assert_eq!(check(&[rows(64, 4, 0), rows(32, 4, 60)].concat()), Ok(()));
        let mut other = rows(8, 4, 0);
        other[5 * row_bytes] ^= 1;
        assert_eq!(check(&other), Err(ErrorKind::UnsupportedFormat));
    }
}
