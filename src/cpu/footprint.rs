//! What a model takes in memory when it is interpreted.

use super::MAX_ROWS;
use super::run::Schedule;
use super::weights::size_bytes;
use crate::graph::{Footprint, Graph, KvFormat, PAGE_TOKENS};
use crate::model::Plan;

/// Bytes of a model with room for `n_pages` pages: weights as stored, keys and values, and the most that the values of a
/// full step take at a time.
pub fn footprint(plan: &Plan, kv: KvFormat, n_pages: usize) -> Footprint {
    let graph = &plan.graph;
    let stored = graph.weights.iter().zip(&plan.formats);
    let stored = stored.map(|(weight, format)| size_bytes(*format, weight.rows, weight.cols));
    let position: usize = graph.kv_widths.iter().map(|layer| layer.position_bytes(kv)).sum();
    let states: usize = graph.state_widths.iter().map(|width| width * graph.n_states() * 4).sum();
    let rows = if graph.bidirectional() { n_pages * PAGE_TOKENS } else { MAX_ROWS };
    Footprint {
        weight_bytes: stored.sum::<usize>() as u64,
        kv_bytes: (position * n_pages * PAGE_TOKENS + states) as u64,
        activation_bytes: (peak_width(graph) * rows * 4) as u64,
        ..Footprint::default()
    }
}

/// The most elements of a row that are alive at a time, with the widest once more: a product has its rows in an order of its
/// own.
fn peak_width(graph: &Graph) -> usize {
    let schedule = Schedule::new(graph);
    let (mut alive, mut peak) = (0, 0);
    for (node, done) in graph.nodes.iter().zip(schedule.done()) {
        alive += node.width;
        peak = peak.max(alive);
        alive -= done.iter().map(|value| graph.width(*value)).sum::<usize>();
    }
    peak + graph.nodes.iter().map(|node| node.width).max().unwrap_or(0)
}
