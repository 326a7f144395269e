//! Blocks that have the same bytes beside their numbers (a scale of a row or of a tile), so that those are kept once.

use super::{Format, runs};
use crate::error::{Error, ErrorKind, Result};

/// Blocks of a matrix that have the same bytes outside of plane 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shared {
    /// Of any 16 rows, counted from a multiple of 16, the even ones among themselves and the odd ones: rows of two
    /// weights may alternate. Without it, no two rows.
    pub rows: bool,
    /// So many blocks of a row; 0 for all of them.
    pub blocks: usize,
    /// Neither of these, but runs of blocks that go on from row to row (`runs.rs`).
    pub runs: bool,
}

impl Shared {
    /// None.
    pub const NOTHING: Self = Self { rows: false, blocks: 1, runs: false };

    /// All of a row.
    pub const ROW: Self = Self { rows: false, blocks: 0, runs: false };

    /// Runs of blocks, through all rows.
    pub const RUNS: Self = Self { rows: true, blocks: 0, runs: true };

    /// Rows of which [`Shared::rows`] speaks.
    const WINDOW: usize = 16;

    /// Rows of a part of a matrix are a multiple of this in every format.
    pub const LARGEST_WINDOW: usize = runs::WINDOW;

    /// Rows that share something; matrices whose rows do so begin at a multiple of them.
    pub fn window(self) -> usize {
        match self {
            Self { runs: true, .. } => runs::WINDOW,
            Self { rows: true, .. } => Self::WINDOW,
            _ => 1,
        }
    }

    /// Entries that plane 1 has for so many rows.
    pub fn row_slots(self, rows: usize) -> usize {
        if self.rows { rows.div_ceil(Self::WINDOW).saturating_mul(2) } else { rows }
    }

    /// Entries that it has for a row of so many blocks.
    pub fn block_slots(self, blocks: usize) -> usize {
        match self.blocks {
            0 => 1,
            each => blocks.div_ceil(each),
        }
    }
}

impl Format {
    /// Bytes that the second plane has for so many rows of so many blocks.
    pub fn second_plane_bytes(&self, rows: usize, blocks: usize) -> usize {
        let [_, each] = self.plane_bytes();
        match self.planes.shared.runs {
            true => runs::windows_bytes(rows, blocks),
            false => self.entries(rows, blocks).saturating_mul(each),
        }
    }

    /// Entries of the bytes that blocks share, for so many rows of so many blocks.
    pub fn entries(&self, rows: usize, blocks: usize) -> usize {
        let shared = self.planes.shared;
        shared.row_slots(rows).saturating_mul(shared.block_slots(blocks))
    }

    /// The entry of a block.
    pub fn entry(&self, row: usize, block: usize, blocks: usize) -> usize {
        let Shared { rows, blocks: each, .. } = self.planes.shared;
        let slot = if rows { (row / Shared::WINDOW).saturating_mul(2).saturating_add(row % 2) } else { row };
        let within = block.checked_div(each).unwrap_or(0);
        slot.saturating_mul(self.planes.shared.block_slots(blocks)).saturating_add(within)
    }

    /// Fails where blocks that are to share an entry have different ones: rows do so where they do not begin where the tiles
    /// of their file do. `bytes` are whole rows, the first of them row `first` of a matrix, each `step` after the last.
    pub fn check_shared(&self, (first, step): (usize, usize), row_bytes: usize, bytes: &[u8]) -> Result<()> {
        let shared = self.planes.shared;
        if shared == Shared::NOTHING {
            return Ok(());
        }
        if shared.runs {
            return self.check_runs((first, step), row_bytes, bytes);
        }
        let each = if shared.blocks == 0 { usize::MAX } else { shared.blocks };
        let mut before: Option<Vec<&[u8]>> = None;
        for (row, bytes) in bytes.chunks_exact(row_bytes.max(1)).enumerate() {
            let blocks = bytes.chunks_exact(self.block_bytes.max(1));
            let heads: Vec<&[u8]> =
                blocks.map(|block| block.get(..self.planes.first.start).unwrap_or_default()).collect();
            let place = first.saturating_add(row.saturating_mul(step));
            if heads.chunks(each).any(|same| same.iter().any(|head| Some(head) != same.first())) {
                return Err(self.changes(place));
            }
            let goes_on = shared.rows && place % Shared::WINDOW >= step;
            if goes_on && before.is_some_and(|before| before != heads) {
                return Err(self.changes(place));
            }
            before = Some(heads);
        }
        Ok(())
    }

    /// The error of what blocks share and yet have otherwise.
    pub(super) fn changes(&self, row: usize) -> Error {
        let within = match self.planes.shared.window() {
            1 => "a row".to_owned(),
            rows => format!("{rows} rows"),
        };
        let words = format!("the scales of {} change within {within}, at row {row}", self.name);
        Error::new(ErrorKind::UnsupportedFormat, words)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quant::FormatId;

    #[test]
    fn scales_that_differ_within_a_window_are_refused() {
        let format = FormatId::F8E4m3Tile.format();
        let row = |scale: f32| [scale.to_le_bytes().to_vec(), vec![0; 32]].concat();
        let rows = |change: usize| (0..24).flat_map(|r| row(if r < change { 1.0 } else { 2.0 })).collect::<Vec<u8>>();
        let check = |place, change| format.check_shared(place, 36, &rows(change)).map_err(|error| error.kind());
        assert_eq!(check((0, 1), 16), Ok(()));
        assert_eq!(check((4, 1), 12), Ok(()));
        assert_eq!(check((0, 1), 8), Err(ErrorKind::UnsupportedFormat));
        assert_eq!(check((1, 2), 8), Ok(()));
        assert_eq!(check((1, 2), 4), Err(ErrorKind::UnsupportedFormat));
    }
}
