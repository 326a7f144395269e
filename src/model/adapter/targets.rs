//! The matrices of a model that an adapter can change, by the names that adapters call them.

use std::collections::{BTreeMap, BTreeSet};

use super::super::locate::{Whole, weights_by_name};
use super::super::{Architecture, Plan, names};
use crate::format::Dialect;
use crate::graph::{Op, WeightId};

const WEIGHT: &str = ".weight";
const EMBEDDING: &str = "token_embd.weight";
const HEAD: &str = "output.weight";

/// A matrix of a checkpoint, and the weights whose rows are in it.
#[derive(Clone, Debug, Default)]
pub(super) struct Target {
    pub rows: usize,
    pub cols: usize,
    /// Each with its first row.
    pub weights: Vec<(WeightId, usize)>,
}

/// Every matrix that a product uses, under its name in the files of `dialect` (the hub's without `.weight`). A part of a
/// fused tensor can be named alone, and so can the whole.
pub(super) fn targets(plan: &Plan, architecture: &Architecture, dialect: Dialect) -> BTreeMap<String, Target> {
    let graph = &plan.graph;
    let used: BTreeSet<WeightId> = graph
        .nodes
        .iter()
        .filter_map(|node| match node.op {
            Op::MatMul { weight, .. } => Some(weight),
            _ => None,
        })
        .collect();
    let weights = weights_by_name(graph);
    let named = |ours: &str| {
        let name = names::in_file(ours, dialect, architecture.names)?;
        match dialect {
            Dialect::Gguf => Some(name),
            Dialect::Hub => name.strip_suffix(WEIGHT).map(str::to_owned),
        }
    };
    let (mut parts, mut wholes) = (BTreeMap::new(), BTreeMap::new());
    for weight in used {
        // Rows that lie head by head among others are no slice of what an adapter changes.
        let Some(declared) = graph.weights.get(weight.0).filter(|declared| declared.stacked == 1) else { continue };
        // Where the table is the output matrix too, an adapter of the latter changes only what it multiplies.
        let ours = if declared.name == EMBEDDING { HEAD } else { declared.name.as_str() };
        let alone = Target { rows: declared.rows, cols: declared.cols, weights: vec![(weight, 0)] };
        if let Some(name) = named(ours) {
            parts.insert(name, alone);
        }
        let slice = Whole::of(declared, &weights, architecture.fused, dialect, |_| false);
        if slice.rows != declared.rows
            && let Some(name) = named(&slice.name)
        {
            let whole: &mut Target = wholes.entry(name).or_default();
            (whole.rows, whole.cols) = (slice.rows, declared.cols);
            whole.weights.push((weight, slice.from.first));
        }
    }
    // A fused tensor may have the name of one of its parts.
    parts.extend(wholes);
    parts
}
