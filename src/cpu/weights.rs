//! Weights as stored, filled in as rows come, decoded a row at a time. What blocks share is kept once.

use std::ops::Range;

use headwater_cpu_kernels::{Blocks, blocks};

use crate::error::{At, Error, ErrorKind, Result};
use crate::graph::{Graph, WeightId};
use crate::quant::{Format, FormatId, Shared, runs};

/// Bytes of the largest block whose bytes are partly shared.
const SHARING_BLOCK: usize = 42;

/// One weight `(rows, cols)`.
struct Stored {
    name: String,
    format: FormatId,
    rows: usize,
    cols: usize,
    /// As they come.
    row_bytes: usize,
    /// Whole rows, or of each block what it does not share.
    bytes: Vec<u8>,
    /// What blocks share, once for each entry.
    shared: Vec<u8>,
    /// How many rows have come.
    loaded: usize,
    /// How its codes are multiplied with rounded activations, where they are.
    codes: Option<&'static Blocks>,
}

/// Bytes of a weight in memory: of its rows, and of what their blocks share. `None` where its rows are no whole blocks.
fn sizes(format: &Format, id: FormatId, rows: usize, cols: usize) -> Option<[usize; 2]> {
    let row_bytes = id.row_bytes(cols).filter(|row_bytes| *row_bytes > 0)?;
    if format.planes.shared == Shared::NOTHING {
        return Some([row_bytes.checked_mul(rows)?, 0]);
    }
    let blocks = cols / format.block_weights;
    let own = own_bytes(format).checked_mul(blocks)?.checked_mul(rows)?;
    let shared = match format.planes.shared.runs {
        true => runs::entries_bytes(rows, blocks),
        false => format.entries(rows, blocks).checked_mul(format.plane_bytes()[1])?,
    };
    Some([own, shared])
}

/// Bytes of a block that it does not share.
fn own_bytes(format: &Format) -> usize {
    let head = if format.planes.shared.runs { runs::HEAD } else { format.plane_bytes()[1] };
    format.block_bytes - head
}

/// Bytes of a weight in memory.
pub(super) fn size_bytes(format: FormatId, rows: usize, cols: usize) -> usize {
    sizes(format.format(), format, rows, cols).map_or(0, |[own, shared]| own.saturating_add(shared))
}

/// All weights of a graph, by `WeightId`.
pub(super) struct Weights(Vec<Stored>);

impl Weights {
    /// Room for every weight of the graph; `rounds` where activations may be rounded.
    pub(super) fn new(graph: &Graph, formats: &[FormatId], rounds: bool) -> Result<Self> {
        let stored = graph.weights.iter().zip(formats).map(|(weight, format)| {
            let zeros = |size: usize| {
                let mut bytes = Vec::new();
                bytes.try_reserve_exact(size).ok()?;
                bytes.resize(size, 0);
                Some(bytes)
            };
            let made = || {
                let [own, shared] = sizes(format.format(), *format, weight.rows, weight.cols)?;
                Some((format.row_bytes(weight.cols)?, zeros(own)?, zeros(shared)?))
            };
            let (row_bytes, bytes, shared) = made().ok_or_else(|| {
                Error::new(ErrorKind::LimitExceeded, "the memory does not suffice").at(weight.name.as_str())
            })?;
            let (name, rows, cols) = (weight.name.clone(), weight.rows, weight.cols);
            let codes = blocks(format.format().name).filter(|_| rounds && shared.is_empty());
            Ok(Stored { name, format: *format, rows, cols, row_bytes, bytes, shared, loaded: 0, codes })
        });
        stored.collect::<Result<_>>().map(Self)
    }

    /// Takes whole rows.
    pub(super) fn store(&mut self, weight: WeightId, first_row: usize, bytes: &[u8]) -> Result<()> {
        let stored = self.0.get_mut(weight.0).ok_or_else(|| Error::new(ErrorKind::Internal, "no such weight"))?;
        let rows = bytes.len() / stored.row_bytes;
        let fits = bytes.len().is_multiple_of(stored.row_bytes) && first_row.saturating_add(rows) <= stored.rows;
        if !fits {
            let problem = format!("{} bytes from row {first_row} on are no rows of it", bytes.len());
            return Err(Error::new(ErrorKind::Internal, problem).at(stored.name.as_str()));
        }
        stored.loaded += rows;
        let format = stored.format.format();
        if stored.shared.is_empty() {
            stored.bytes[first_row * stored.row_bytes..][..bytes.len()].copy_from_slice(bytes);
            return Ok(());
        }
        format.check_shared((first_row, 1), stored.row_bytes, bytes).at(|| stored.name.clone())?;
        let (own, blocks) = (own_bytes(format), stored.cols / format.block_weights);
        let (shared, in_runs) = (format.block_bytes - own, format.planes.shared.runs);
        for (index, block) in bytes.chunks_exact(format.block_bytes).enumerate() {
            let (row, block_of_row) = (first_row + index / blocks, index % blocks);
            let (head, numbers) = block.split_at(shared);
            stored.bytes[(row * blocks + block_of_row) * own..][..own].copy_from_slice(numbers);
            if !in_runs {
                stored.shared[format.entry(row, block_of_row, blocks) * shared..][..shared].copy_from_slice(head);
            }
        }
        if in_runs {
            runs::keep(format, first_row, stored.row_bytes, bytes, &mut stored.shared);
        }
        Ok(())
    }

    /// Fails unless every weight is there.
    pub(super) fn check_loaded(&self) -> Result<()> {
        match self.0.iter().find(|stored| stored.loaded != stored.rows) {
            Some(missing) => {
                Err(Error::new(ErrorKind::Internal, "the weight was not loaded").at(missing.name.as_str()))
            }
            None => Ok(()),
        }
    }

    /// The number of rows.
    pub(super) fn n_rows(&self, weight: WeightId) -> usize {
        self.0[weight.0].rows
    }

    /// Some rows as blocks of integers, where activations are rounded for them.
    pub(super) fn blocks(&self, weight: WeightId, rows: Range<usize>) -> Option<(&'static Blocks, &[u8])> {
        let stored = &self.0[weight.0];
        stored.codes.map(|codes| (codes, &stored.bytes[rows.start * stored.row_bytes..rows.end * stored.row_bytes]))
    }

    /// All elements of a vector or a small table.
    pub(super) fn vector(&self, weight: WeightId) -> Vec<f32> {
        let stored = &self.0[weight.0];
        let mut out = vec![0.0; stored.cols * stored.rows];
        (stored.format.format().decode)(&stored.bytes, &mut out);
        out
    }

    /// Decodes one row into `out (cols)`.
    pub(super) fn row(&self, weight: WeightId, row: usize, out: &mut [f32]) {
        let stored = &self.0[weight.0];
        debug_assert_eq!(out.len(), stored.cols);
        let format = stored.format.format();
        if stored.shared.is_empty() {
            return (format.decode)(&stored.bytes[row * stored.row_bytes..][..stored.row_bytes], out);
        }
        let (own, blocks) = (own_bytes(format), stored.cols / format.block_weights);
        let shared = format.block_bytes - own;
        let mut block = [0u8; SHARING_BLOCK];
        let numbers = stored.bytes[row * blocks * own..].chunks_exact(own);
        for ((index, numbers), out) in numbers.enumerate().zip(out.chunks_exact_mut(format.block_weights)) {
            if format.planes.shared.runs {
                block[..shared].copy_from_slice(&runs::head(&stored.shared, row, index, blocks));
            } else {
                let head = &stored.shared[format.entry(row, index, blocks) * shared..][..shared];
                block[..shared].copy_from_slice(head);
            }
            block[shared..][..own].copy_from_slice(numbers);
            (format.decode)(&block[..format.block_bytes], out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quant::FORMATS;

    #[test]
    fn weights_are_no_larger_than_the_files_tensors_and_two_percent() {
        for (id, format) in FORMATS.iter().filter(|(_, format)| format.planes.shared != Shared::NOTHING) {
            // What is there once a tile of 128 x 128, or once a row.
            let (rows, cols) = (512, 1024);
            let once = if format.planes.shared.rows { rows * cols / 128 / 128 } else { rows };
            let own = own_bytes(format);
            let file = rows * cols / format.block_weights * own + once * (format.block_bytes - own);
            let found = size_bytes(*id, rows, cols);
            assert!(found as f64 <= 1.02 * file as f64, "{}: {found} bytes, {file} in the file", format.name);
            assert!(format.planes.first.end == format.block_bytes && format.block_bytes <= SHARING_BLOCK);
        }
    }

    /// Every tensor of bitsandbytes has a code for 64 weights and a scale for 256 codes.
    #[test]
    fn nested_magnitudes_take_two_percent_at_most_at_every_width() {
        for cols in (64_usize..=8192).step_by(64) {
            let rows = 128;
            let file = rows * cols / 2 + rows * cols / 64 + (rows * cols).div_ceil(16384) * 4;
            let found = size_bytes(FormatId::Nf4Nested, rows, cols);
            assert!(found as f64 <= 1.02 * file as f64, "{cols}: {found} bytes, {file} in the file");
        }
    }
}
