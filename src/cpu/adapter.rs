//! Adapters beside the weights: their matrices as given, and what they add to a product.

use std::collections::BTreeMap;

use super::experts::{self, Experts, Rows};
use super::product::matmul;
use super::weights::Weights;
use crate::error::{At, Error, ErrorKind, Result};
use crate::graph::{Delta, DeltaValues, Graph, Weight, WeightId, WeightKind};
use crate::quant::FormatId;

/// One adapter.
pub(super) struct Adapter {
    deltas: Vec<Delta>,
    /// A and B of delta `i` are the weights `2 i` and `2 i + 1`.
    matrices: Weights,
    gains: Vec<Vec<f32>>,
    /// The delta of a weight of the model.
    of_weight: BTreeMap<WeightId, usize>,
}

impl Adapter {
    /// Room for an adapter of the model `graph`. Fails with `LimitExceeded` where the memory does not suffice.
    pub(super) fn new(graph: &Graph, deltas: &[Delta]) -> Result<Self> {
        let mut weights = vec![];
        for Delta { weight, rank, stacked, .. } in deltas {
            let base =
                graph.weights.get(weight.0).ok_or_else(|| internal("an adapter of a weight that is not there"))?;
            let matrix = |name: &str, rows, cols| {
                let name = format!("{}.{name}", base.name);
                Weight { name, rows, cols, kind: WeightKind::Matrix, stacked: *stacked }
            };
            weights.extend([matrix("lora_a", stacked * rank, base.cols), matrix("lora_b", base.rows, *rank)]);
        }
        let formats: Vec<FormatId> = deltas.iter().flat_map(|delta| delta.formats).collect();
        Ok(Self {
            matrices: Weights::new(&Graph { weights, ..Graph::default() }, &formats, false)?,
            gains: vec![Vec::new(); deltas.len()],
            of_weight: deltas.iter().enumerate().map(|(index, delta)| (delta.weight, index)).collect(),
            deltas: deltas.to_vec(),
        })
    }

    /// Takes the numbers of a delta.
    pub(super) fn fill(&mut self, index: usize, values: &DeltaValues<'_>) -> Result<()> {
        let delta = self.deltas.get(index).ok_or_else(|| internal("an adapter has no such delta"))?;
        if delta.gain != values.gain.is_some() {
            return Err(internal("a gain where none was announced, or none where one was"));
        }
        for (matrix, (format, numbers)) in (2 * index..).zip(delta.formats.into_iter().zip([values.a, values.b])) {
            let bytes = format.encode_floats(numbers).ok_or_else(|| internal("an adapter is kept as floats"))?;
            self.matrices.store(WeightId(matrix), 0, &bytes).at(|| format!("delta {index}"))?;
        }
        self.gains[index] = values.gain.unwrap_or_default().to_vec();
        Ok(())
    }

    /// Fails unless all numbers came.
    pub(super) fn check_loaded(&self) -> Result<()> {
        self.matrices.check_loaded()
    }

    /// Adds to `y (tokens, rows)`, the product of `weight` with `x (tokens, cols)`, what this adapter does to it.
    pub(super) fn apply(&self, weight: WeightId, x: &[f32], cols: usize, scale: f32, y: &mut [f32]) {
        let Some(&index) = self.of_weight.get(&weight) else { return };
        let delta = &self.deltas[index];
        let inner = matmul(&self.matrices, WeightId(2 * index), x, cols);
        let outer = matmul(&self.matrices, WeightId(2 * index + 1), &inner, delta.rank);
        let gains = &self.gains[index];
        let rows = self.matrices.n_rows(WeightId(2 * index + 1));
        for (y, outer) in y.chunks_exact_mut(rows).zip(outer.chunks_exact(rows)) {
            for (row, (y, outer)) in y.iter_mut().zip(outer).enumerate() {
                let gain = gains.get(row).map_or(0.0, |gain| gain * *y);
                *y += scale * (delta.factor * outer + gain);
            }
        }
    }

    /// The same for the products of experts by the matrices that `route` names, as [`experts::expert_matmul`] makes them.
    pub(super) fn apply_experts(
        &self,
        product: &Experts<'_>,
        x: Rows<'_>,
        route: Option<Rows<'_>>,
        scale: f32,
        y: &mut [f32],
    ) {
        let Some(&index) = self.of_weight.get(&product.weight) else { return };
        let delta = &self.deltas[index];
        let (a, b) = (WeightId(2 * index), WeightId(2 * index + 1));
        let pair = |weight, cols, weighted| Experts { weight, cols, bias: None, weighted, ..*product };
        let inner = experts::expert_matmul(&self.matrices, &pair(a, product.cols, false), x, route);
        let slots = route.map_or(product.stacked, |(_, width)| width / 2);
        let outer = pair(b, delta.rank, product.weighted);
        let outer = experts::expert_matmul(&self.matrices, &outer, (&inner, slots * delta.rank), route);
        y.iter_mut().zip(outer).for_each(|(y, outer)| *y += scale * delta.factor * outer);
    }
}

fn internal(words: &str) -> Error {
    Error::new(ErrorKind::Internal, words)
}
