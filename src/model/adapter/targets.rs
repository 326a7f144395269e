//! The matrices of a model that an adapter can change, by the names that adapters call them.

use std::collections::{BTreeMap, BTreeSet};

use super::super::locate::{Stride, Whole, weights_by_name};
use super::super::{Architecture, Plan, names};
use crate::format::Dialect;
use crate::graph::{Op, Weight, WeightId};

const WEIGHT: &str = ".weight";
const EMBEDDING: &str = "token_embd.weight";
const HEAD: &str = "output.weight";

/// What transformers 5 calls the experts' matrices of a layer, which it keeps in two parameters.
pub(super) const GATE_UP: &str = "gate_up_proj";
pub(super) const DOWN: &str = "down_proj";
/// The weights of the first one, after `blk.{i}.`.
const GATE_UP_PARTS: [&str; 2] = ["ffn_gate_exps.weight", "ffn_up_exps.weight"];
/// Modules that transformers 5 calls otherwise than the hub's files do.
const RENAMED: (&str, &str) = (".block_sparse_moe.", ".mlp.");

const ALL: Stride = Stride { first: 0, step: 1 };

/// A matrix of a checkpoint, and the weights whose rows are in it.
#[derive(Clone, Debug, Default)]
pub(super) struct Target {
    pub rows: usize,
    pub cols: usize,
    /// Each with its rows.
    pub weights: Vec<(WeightId, Stride)>,
    /// Which of the stacked it is, where it is one.
    pub expert: Option<usize>,
}

/// Every matrix that a product uses, under its name in the files of `dialect` (the hub's without `.weight`). A part of a
/// fused tensor can be named alone, and so can the whole.
pub(super) fn targets(plan: &Plan, architecture: &Architecture, dialect: Dialect) -> BTreeMap<String, Target> {
    let graph = &plan.graph;
    let used: BTreeSet<WeightId> = graph
        .nodes
        .iter()
        .filter_map(|node| match node.op {
            Op::MatMul { weight, .. } | Op::ExpertMatMul { weight, route: Some(_), .. } => Some(weight),
            _ => None,
        })
        .collect();
    let weights = weights_by_name(graph);
    let named = |ours: &str| {
        let name = names::in_file(ours, dialect, architecture.names)?;
        match dialect {
            Dialect::Gguf => Some(name),
            Dialect::Hub => Some(name.strip_suffix(WEIGHT).map(str::to_owned).unwrap_or(name)),
        }
    };
    let (mut parts, mut wholes) = (BTreeMap::new(), BTreeMap::new());
    for weight in used {
        let Some(declared) = graph.weights.get(weight.0) else { continue };
        // Where the table is the output matrix too, an adapter of the latter changes only what it multiplies.
        let ours = if declared.name == EMBEDDING { HEAD } else { declared.name.as_str() };
        let slice = Whole::of(declared, &weights, architecture.fused, dialect, |_| false);
        let name = named(&slice.name);
        if declared.stacked > 1 {
            if let Some(name) = name.filter(|_| dialect == Dialect::Hub) {
                experts((weight, declared), name, slice.from, &mut parts, &mut wholes);
            }
            continue;
        }
        if let Some(name) = named(ours) {
            let (rows, cols) = (declared.rows, declared.cols);
            parts.insert(name, Target { rows, cols, weights: vec![(weight, ALL)], expert: None });
        }
        // Rows that lie head by head among others are no slice of what an adapter changes.
        if slice.rows != declared.rows
            && let Some(name) = name
        {
            let whole: &mut Target = wholes.entry(name).or_default();
            (whole.rows, whole.cols) = (slice.rows, declared.cols);
            whole.weights.push((weight, Stride { step: 1, ..slice.from }));
        }
    }
    // A fused tensor may have the name of one of its parts.
    parts.extend(wholes);
    parts
}

/// The matrices of a layer's experts: each by itself, where files have it so, and all of them as parameters.
fn experts(
    (weight, declared): (WeightId, &Weight),
    name: String,
    from: Stride,
    parts: &mut BTreeMap<String, Target>,
    wholes: &mut BTreeMap<String, Target>,
) {
    let rows = declared.rows.checked_div(declared.stacked).unwrap_or(0);
    let Some((module, _)) = name.split_once(&format!(".{}", names::EXPERT)) else {
        // The files have parameters themselves.
        let whole = wholes.entry(name).or_default();
        whole.weights.push((weight, from));
        (whole.rows, whole.cols) = (whole.weights.len().saturating_mul(rows), declared.cols);
        return;
    };
    for expert in 0..declared.stacked {
        let target = Target { rows, cols: declared.cols, weights: vec![(weight, ALL)], expert: Some(expert) };
        parts.insert(name.replace(names::EXPERT, &expert.to_string()), target);
    }
    let place = GATE_UP_PARTS.iter().position(|part| declared.name.ends_with(part));
    let (parameter, before, count) = place.map_or((DOWN, 0, 1), |place| (GATE_UP, place, GATE_UP_PARTS.len()));
    let module = module.replace(RENAMED.0, RENAMED.1);
    let whole = wholes.entry(format!("{module}.{parameter}")).or_default();
    (whole.rows, whole.cols) = (rows.saturating_mul(count), declared.cols);
    whole.weights.push((weight, Stride { first: before.saturating_mul(rows), step: 1 }));
}
