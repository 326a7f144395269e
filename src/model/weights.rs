//! Reading weights: in the order of the files, in pieces of whole rows, into whatever takes them.

use super::Plan;
use crate::error::{At, Error, ErrorKind, Result};
use crate::format::{Checkpoint, TensorInfo};
use crate::graph::{Weight, WeightId, WeightKind};
use crate::quant::FormatId;

/// Largest piece: large enough for throughput, small beside any memory limit.
const PIECE_BYTES: usize = 8 << 20;

/// Takes weights as they are read.
pub trait WeightSink {
    /// Whole rows of `weight` from `first_row` on, in the plan's format of that weight. The rows of a weight arrive
    /// in order.
    fn rows(&mut self, weight: WeightId, first_row: usize, bytes: &[u8]) -> Result<()>;
}

/// Where a weight lies.
#[derive(Clone, Debug)]
pub(super) struct Location {
    name: String,
    file: usize,
    offset: u64,
    rows: usize,
    row_bytes: usize,
    /// For a vector: how it is stored and its length, since it is handed on as f32.
    vector: Option<(FormatId, usize)>,
}

impl Location {
    /// The location of a tensor that was found to have the shape of `weight`.
    pub(super) fn of(tensor: &TensorInfo, weight: &Weight) -> Result<Self> {
        let malformed = |problem: String| Error::new(ErrorKind::MalformedModel, problem).at(tensor.name.as_str());
        let format = tensor.format.format().name;
        let row_bytes = tensor
            .format
            .row_bytes(weight.cols)
            .ok_or_else(|| malformed(format!("rows of {} weights are no whole blocks of {format}", weight.cols)))?;
        let location = Location {
            name: tensor.name.clone(),
            file: tensor.file,
            offset: tensor.offset,
            rows: weight.rows,
            row_bytes,
            vector: (weight.kind == WeightKind::Vector).then_some((tensor.format, weight.cols)),
        };
        if location.size_bytes() != tensor.size_bytes {
            return Err(malformed(format!("{} bytes where {} are needed", tensor.size_bytes, location.size_bytes())));
        }
        Ok(location)
    }

    /// Bytes of the whole tensor.
    pub(super) fn size_bytes(&self) -> u64 {
        (self.rows as u64).saturating_mul(self.row_bytes as u64)
    }

    /// Rows of one piece.
    fn piece_rows(&self) -> usize {
        PIECE_BYTES.checked_div(self.row_bytes).unwrap_or(1).max(1)
    }
}

/// Reads every weight of the plan once, in the order of the files, and hands it to `sink` in pieces of at most 8 MiB
/// (or one row). `progress` is told the bytes read so far and their total, before the first piece and after each;
/// an error of its own ends the reading.
pub async fn read_weights(
    checkpoint: &Checkpoint,
    plan: &Plan,
    sink: &mut dyn WeightSink,
    progress: &mut dyn FnMut(u64, u64) -> Result<()>,
) -> Result<()> {
    let mut order: Vec<(WeightId, &Location)> =
        plan.locations.iter().enumerate().map(|(index, location)| (WeightId(index), location)).collect();
    order.sort_by_key(|(_, location)| (location.file, location.offset));

    let (mut done, total) = (0u64, plan.weight_bytes());
    progress(done, total)?;
    for (weight, location) in order {
        let source = checkpoint
            .files
            .get(location.file)
            .ok_or_else(|| Error::new(ErrorKind::Internal, "the plan is of another checkpoint"))?;
        let mut first_row = 0usize;
        while first_row < location.rows {
            let rows = location.piece_rows().min(location.rows.saturating_sub(first_row));
            let start = (first_row as u64).saturating_mul(location.row_bytes as u64);
            let len = rows.saturating_mul(location.row_bytes);
            let bytes = source.read(location.offset.saturating_add(start), len).await.at(|| location.name.clone())?;
            let bytes = match location.vector {
                Some((format, len)) if format != FormatId::F32 => as_f32(format, len, &bytes),
                _ => bytes,
            };
            sink.rows(weight, first_row, &bytes)?;
            first_row = first_row.saturating_add(rows);
            done = done.saturating_add(len as u64);
            progress(done, total)?;
        }
    }
    Ok(())
}

/// The `len` weights of one row as the bytes of f32.
fn as_f32(format: FormatId, len: usize, bytes: &[u8]) -> Vec<u8> {
    let mut decoded = vec![0f32; len];
    (format.format().decode)(bytes, &mut decoded);
    decoded.iter().flat_map(|weight| weight.to_le_bytes()).collect()
}
