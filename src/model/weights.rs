//! Reading weights: in the order of the files, in pieces of whole rows, into whatever takes them.

use std::rc::Rc;

use super::locate::{Location, Piece};
use super::quantize::Quantizing;
use super::rows::read;
use super::{Plan, quantize};
use crate::error::{At, Error, ErrorKind, Result};
use crate::format::Checkpoint;
use crate::graph::WeightId;
use crate::source::Source;

/// Largest piece that is read: large enough for throughput, small beside any memory limit.
pub(super) const PIECE_BYTES: usize = 8 << 20;

/// Largest piece that is put together of a tensor that lies the other way round: the tensor is read once for each.
const TRANSPOSED_BYTES: usize = 32 << 20;

/// Takes weights as they are read.
pub trait WeightSink {
    /// Whole rows of `weight` from `first_row` on, in the plan's format of that weight. Rows arrive in the order of the
    /// files, which is theirs unless a weight comes from several tensors; each arrives once. A vector arrives whole.
    fn rows(&mut self, weight: WeightId, first_row: usize, bytes: &[u8]) -> Result<()>;
}

/// Rows of a weight as one step of the reading: a piece of a matrix, or all of a vector.
struct Part<'a> {
    weight: WeightId,
    location: &'a Location,
    pieces: &'a [Piece],
}

/// Reads every weight of the plan once and hands it to `sink` in pieces of at most 8 MiB (32 where a matrix is stored the
/// other way round, or one row). `progress` is told the bytes handed on so far and their total, before the first piece
/// and after each; an error of its own ends the reading.
pub async fn read_weights(
    checkpoint: &Checkpoint,
    plan: &Plan,
    sink: &mut dyn WeightSink,
    progress: &mut dyn FnMut(u64, u64) -> Result<()>,
) -> Result<()> {
    read_located(checkpoint, &plan.locations, &mut Quantizing { plan, sink }, progress).await
}

async fn read_located(
    checkpoint: &Checkpoint,
    locations: &[Location],
    sink: &mut dyn WeightSink,
    progress: &mut dyn FnMut(u64, u64) -> Result<()>,
) -> Result<()> {
    let mut order = vec![];
    for (index, location) in locations.iter().enumerate() {
        let part = |pieces| Part { weight: WeightId(index), location, pieces };
        match location.vector_offset {
            Some(_) => order.push(part(location.pieces.as_slice())),
            None => order.extend(location.pieces.chunks(1).map(part)),
        }
    }
    order.sort_by_key(|part| part.pieces.first().map(|piece| (piece.file, piece.offset)));

    let (mut done, total) = (0u64, size_bytes(locations));
    progress(done, total)?;
    for part in order {
        let weight = part.weight;
        read_part(&checkpoint.files, &part, &mut |first_row, bytes, len| {
            sink.rows(weight, first_row, bytes)?;
            done = done.saturating_add(len as u64);
            progress(done, total)
        })
        .await?;
    }
    Ok(())
}

/// Reads one weight of the plan from its files and hands it to `take` in pieces of whole rows, first row and bytes, in
/// the plan's format of that weight.
pub async fn read_weight(
    files: &[Rc<dyn Source>],
    plan: &Plan,
    weight: WeightId,
    take: &mut dyn FnMut(usize, &[u8]) -> Result<()>,
) -> Result<()> {
    let location = plan.locations.get(weight.0);
    let location = location.ok_or_else(|| Error::new(ErrorKind::Internal, "the plan has no such weight"))?;
    let part = Part { weight, location, pieces: &location.pieces };
    read_part(files, &part, &mut |first_row, bytes, _| take(first_row, &quantize::convert(plan, weight, bytes)?)).await
}

/// Pieces of a weight: first row, bytes as they are handed on, how many of the weight's own.
type Take<'a> = dyn FnMut(usize, &[u8], usize) -> Result<()> + 'a;

async fn read_part(files: &[Rc<dyn Source>], part: &Part<'_>, take: &mut Take<'_>) -> Result<()> {
    let location = part.location;
    let mut vector = vec![];
    for piece in part.pieces {
        let source = files
            .get(piece.file)
            .ok_or_else(|| Error::new(ErrorKind::Internal, "the plan is of another checkpoint"))?;
        let mut next = 0usize;
        while next < piece.rows {
            let rows = piece_rows(location, piece).min(piece.rows.saturating_sub(next));
            let bytes = read(source.as_ref(), location, piece, next, rows).await.at(|| piece.name.clone())?;
            match location.vector_offset {
                Some(_) => vector.extend(bytes),
                None => take(piece.first_row.saturating_add(next), &bytes, bytes.len())?,
            }
            next = next.saturating_add(rows);
        }
    }
    match location.vector_offset {
        Some(offset) => take(0, &as_f32(location, offset, &vector), vector.len()),
        None => Ok(()),
    }
}

/// Bytes of all weights.
pub(super) fn size_bytes(locations: &[Location]) -> u64 {
    locations.iter().map(Location::size_bytes).fold(0, u64::saturating_add)
}

/// Rows that are handed on at once.
fn piece_rows(location: &Location, piece: &Piece) -> usize {
    let (most, each) = match piece.transposed {
        None => (PIECE_BYTES, location.row_bytes.saturating_mul(piece.from.step)),
        Some(_) => (TRANSPOSED_BYTES, location.row_bytes),
    };
    most.checked_div(each).unwrap_or(1).max(1)
}

/// The elements of a vector as the bytes of f32.
fn as_f32(location: &Location, offset: f32, bytes: &[u8]) -> Vec<u8> {
    let format = location.format.format();
    let blocks = bytes.len().checked_div(format.block_bytes).unwrap_or(0);
    let mut decoded = vec![0f32; blocks.saturating_mul(format.block_weights)];
    (format.decode)(bytes, &mut decoded);
    decoded.iter().flat_map(|weight| (weight + offset).to_le_bytes()).collect()
}

#[cfg(test)]
#[path = "weights_tests.rs"]
mod tests;
