//! Rows of a piece of a weight: as they stand in a file, or put together of the columns of a tensor that lies the other way
//! round.

use std::borrow::Cow;

use super::locate::{Location, Piece, Stride};
use super::weights::PIECE_BYTES;
use crate::error::{Error, ErrorKind, Result};
use crate::source::Source;

/// The largest number that f16 has, to which blocks are decoded.
const LARGEST: f32 = 65_504.0;

/// The rows `first .. first + rows` of a piece.
pub(super) async fn read(
    source: &dyn Source,
    location: &Location,
    piece: &Piece,
    first: usize,
    rows: usize,
) -> Result<Vec<u8>> {
    let (row_bytes, from) = (location.row_bytes, piece.from);
    let begin = from.first.saturating_add(first.saturating_mul(from.step));
    if let Some(columns) = piece.transposed {
        return transposed(source, location, piece.offset, (rows, columns), Stride { first: begin, ..from }).await;
    }
    // From the first wanted row to the last, and what is between them.
    let span = rows.saturating_sub(1).saturating_mul(from.step).saturating_add(1);
    let start = (begin as u64).saturating_mul(row_bytes as u64);
    let bytes = source.read(piece.offset.saturating_add(start), span.saturating_mul(row_bytes)).await?;
    match from.step {
        1 => Ok(bytes),
        step => Ok(bytes.chunks_exact(row_bytes.max(1)).step_by(step).flatten().copied().collect()),
    }
}

/// `rows` columns of a matrix `(cols, columns)`, as rows of numbers. Blocks run along the wrong dimension, so they are decoded.
async fn transposed(
    source: &dyn Source,
    location: &Location,
    offset: u64,
    (rows, columns): (usize, usize),
    from: Stride,
) -> Result<Vec<u8>> {
    let number = location.format.format().block_bytes.max(1);
    let line = location.stored.row_bytes(columns).unwrap_or(0).max(1);
    let cols = location.row_bytes.checked_div(number).unwrap_or(0);
    let lines = PIECE_BYTES.checked_div(line).unwrap_or(1).max(1);
    let mut out = vec![0u8; rows.saturating_mul(location.row_bytes)];
    for first in (0..cols).step_by(lines) {
        let count = lines.min(cols.saturating_sub(first));
        let start = (first as u64).saturating_mul(line as u64);
        let bytes = source.read(offset.saturating_add(start), count.saturating_mul(line)).await?;
        for (col, line) in (first..).zip(bytes.chunks_exact(line)) {
            let line = as_numbers(location, columns, line)?;
            let at = col.saturating_mul(number);
            let wanted = line.chunks_exact(number).skip(from.first).step_by(from.step.max(1));
            for (row, from) in out.chunks_exact_mut(location.row_bytes.max(1)).zip(wanted) {
                if let Some(to) = row.get_mut(at..at.saturating_add(number)) {
                    to.copy_from_slice(from);
                }
            }
        }
    }
    Ok(out)
}

/// A line of a tensor as numbers of the weight's format.
fn as_numbers<'a>(location: &Location, columns: usize, line: &'a [u8]) -> Result<Cow<'a, [u8]>> {
    if location.stored == location.format {
        return Ok(line.into());
    }
    let mut numbers = vec![0f32; columns];
    (location.stored.format().decode)(line, &mut numbers);
    let encoded = location.format.encode_floats(&numbers);
    let encoded = encoded.ok_or_else(|| Error::new(ErrorKind::Internal, "blocks are decoded to floats"))?;
    if let Some(number) = numbers.iter().find(|number| number.is_nan() || number.abs() > LARGEST) {
        let problem = format!("{number} cannot be kept as {}", location.format.format().name);
        return Err(Error::new(ErrorKind::UnsupportedFormat, problem));
    }
    Ok(encoded.into())
}
