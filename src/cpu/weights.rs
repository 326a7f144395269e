//! Weights as stored, filled in as rows come, decoded a row at a time.

use crate::error::{Error, ErrorKind, Result};
use crate::graph::{Graph, WeightId};
use crate::quant::FormatId;

/// One weight `(rows, cols)`.
struct Stored {
    name: String,
    format: FormatId,
    cols: usize,
    row_bytes: usize,
    bytes: Vec<u8>,
    /// How many of the bytes have come.
    loaded: usize,
}

/// All weights of a graph, by `WeightId`.
pub(super) struct Weights(Vec<Stored>);

impl Weights {
    /// Room for every weight of the graph.
    pub(super) fn new(graph: &Graph, formats: &[FormatId]) -> Result<Self> {
        let stored = graph.weights.iter().zip(formats).map(|(weight, format)| {
            let row_bytes = format.row_bytes(weight.cols).filter(|row_bytes| *row_bytes > 0);
            let size_bytes = row_bytes.and_then(|row_bytes| row_bytes.checked_mul(weight.rows));
            let mut bytes = Vec::new();
            let (row_bytes, size_bytes) = row_bytes
                .zip(size_bytes)
                .filter(|(_, size_bytes)| bytes.try_reserve_exact(*size_bytes).is_ok())
                .ok_or_else(|| {
                    Error::new(ErrorKind::LimitExceeded, "the memory does not suffice").at(weight.name.as_str())
                })?;
            let (name, cols) = (weight.name.clone(), weight.cols);
            bytes.resize(size_bytes, 0);
            Ok(Stored { name, format: *format, cols, row_bytes, bytes, loaded: 0 })
        });
        stored.collect::<Result<_>>().map(Self)
    }

    /// Takes whole rows.
    pub(super) fn store(&mut self, weight: WeightId, first_row: usize, bytes: &[u8]) -> Result<()> {
        let stored = self.0.get_mut(weight.0).ok_or_else(|| Error::new(ErrorKind::Internal, "no such weight"))?;
        let start = first_row.saturating_mul(stored.row_bytes);
        let place = stored.bytes.get_mut(start..start.saturating_add(bytes.len()));
        let Some(place) = place.filter(|_| bytes.len().is_multiple_of(stored.row_bytes)) else {
            let problem = format!("{} bytes from row {first_row} on are no rows of it", bytes.len());
            return Err(Error::new(ErrorKind::Internal, problem).at(stored.name.as_str()));
        };
        place.copy_from_slice(bytes);
        stored.loaded += bytes.len();
        Ok(())
    }

    /// Fails unless every weight is there.
    pub(super) fn check_loaded(&self) -> Result<()> {
        match self.0.iter().find(|stored| stored.loaded != stored.bytes.len()) {
            Some(missing) => {
                Err(Error::new(ErrorKind::Internal, "the weight was not loaded").at(missing.name.as_str()))
            }
            None => Ok(()),
        }
    }

    /// The number of rows.
    pub(super) fn n_rows(&self, weight: WeightId) -> usize {
        self.0[weight.0].bytes.len() / self.0[weight.0].row_bytes
    }

    /// All elements of a vector or a small table.
    pub(super) fn vector(&self, weight: WeightId) -> Vec<f32> {
        let stored = &self.0[weight.0];
        let mut out = vec![0.0; stored.cols * self.n_rows(weight)];
        (stored.format.format().decode)(&stored.bytes, &mut out);
        out
    }

    /// Decodes one row into `out (cols)`.
    pub(super) fn row(&self, weight: WeightId, row: usize, out: &mut [f32]) {
        let stored = &self.0[weight.0];
        debug_assert_eq!(out.len(), stored.cols);
        let bytes = &stored.bytes[row * stored.row_bytes..][..stored.row_bytes];
        (stored.format.format().decode)(bytes, out);
    }
}
