//! Matrices whose columns the files have in an order of their own: which, and where that order lies.

use std::collections::BTreeMap;

use super::locate::{Location, Piece, Stride};
use crate::error::{Error, ErrorKind, Result};
use crate::format::{Checkpoint, TensorInfo};
use crate::graph::{Graph, Op, Orders, Weight, WeightId};
use crate::quant::FormatId;

/// After a matrix's name, the name of its order.
const ORDER: &str = ".order";

/// The orders of a graph's matrices, and the tensors that tell them.
#[derive(Default)]
pub(super) struct Ordered {
    pub of_matrix: Orders,
    /// By the names of the orders; one tensor, or one for each of the stacked.
    tensors: BTreeMap<String, Vec<String>>,
}

impl Ordered {
    /// What of a graph's weights, which lie at `locations`, is in an order of its own.
    ///
    /// Fails with `UnsupportedFormat`, naming the tensor, where a table is, or one of several tensors of a matrix but not
    /// all.
    pub(super) fn new(checkpoint: &Checkpoint, graph: &Graph, locations: &[Location]) -> Result<Self> {
        let mut ordered = Self::default();
        let mut known: BTreeMap<Vec<String>, String> = BTreeMap::new();
        for (weight, location) in graph.weights.iter().zip(locations) {
            let of = |name: &str| checkpoint.orders.get(name).cloned();
            let mut orders: Vec<Option<String>> = location.tensors().map(of).collect();
            let Some(first) = orders.iter().flatten().next() else { continue };
            if orders.iter().all(|order| order.as_ref() == Some(first)) {
                orders.truncate(1);
            }
            let Some(tensors) = orders.into_iter().collect::<Option<Vec<String>>>() else {
                return Err(unsupported(&weight.name, "some of its tensors have an order of columns, others none"));
            };
            if tensors.len() != 1 && tensors.len() != weight.stacked {
                return Err(unsupported(&weight.name, "its tensors have several orders of columns"));
            }
            let name = known.entry(tensors).or_insert_with(|| format!("{}{ORDER}", weight.name)).clone();
            ordered.of_matrix.insert(weight.name.clone(), (name, 0));
        }
        for (tensors, name) in known {
            let count = tensors.len();
            ordered.of_matrix.values_mut().filter(|(order, _)| *order == name).for_each(|(_, n)| *n = count);
            ordered.tensors.insert(name, tensors);
        }
        for node in &graph.nodes {
            if let Op::Embed { table, .. } = node.op
                && let Some(weight) = graph.weights.get(table.0)
                && ordered.of_matrix.contains_key(&weight.name)
            {
                return Err(unsupported(&weight.name, "a table whose columns have an order of their own"));
            }
        }
        Ok(ordered)
    }

    /// The orders of a graph that was made with them.
    pub(super) fn of_weight(&self, graph: &Graph) -> BTreeMap<WeightId, WeightId> {
        let find = |name: &str| graph.weights.iter().position(|weight| weight.name == name).map(WeightId);
        let pair = |(matrix, (order, _)): (&String, &(String, usize))| Some((find(matrix)?, find(order)?));
        self.of_matrix.iter().filter_map(pair).collect()
    }

    /// Where an order lies, if the weight is one.
    pub(super) fn locate(&self, checkpoint: &Checkpoint, weight: &Weight) -> Result<Option<Location>> {
        let Some(tensors) = self.tensors.get(&weight.name) else { return Ok(None) };
        let row_bytes = weight.cols.saturating_mul(4);
        let piece = |(row, name): (usize, &String)| {
            let fits = |tensor: &&TensorInfo| tensor.size_bytes == row_bytes as u64;
            let tensor = checkpoint.tensor(name).filter(fits).ok_or_else(|| {
                Error::new(ErrorKind::MalformedModel, format!("no order of {} columns", weight.cols)).at(name.as_str())
            })?;
            Ok(Piece {
                name: name.clone(),
                file: tensor.file,
                offset: tensor.offset,
                first_row: row,
                rows: 1,
                from: Stride { first: 0, step: 1 },
                transposed: None,
            })
        };
        let pieces = tensors.iter().enumerate().map(piece).collect::<Result<Vec<Piece>>>()?;
        Ok(Some(Location { format: FormatId::F32, stored: FormatId::F32, row_bytes, pieces, vector_offset: Some(0.0) }))
    }
}

fn unsupported(name: &str, problem: &str) -> Error {
    Error::new(ErrorKind::UnsupportedFormat, problem).at(name)
}
