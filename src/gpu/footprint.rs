//! What a model takes on a device, reckoned from what would be made: the same matrices, the same lowering, no device.

use std::collections::BTreeMap;

use super::device::buffer_size;
use super::lower::{lower, matrices};
use super::planes::{first_plane_row_bytes, plane_bytes, staging_bytes};
use super::program::PARAMS_STRIDE;
use super::readback::{BUFFERS, MAX_IDS};
use super::sizes::{
    check_sizes, copy_bytes, history_bytes, kv_sizes, n_programs, norm_layout, rope_layout, slot_sizes, step_sizes,
};
use super::stage::{Class, Domain};
use super::state::Layout;
use crate::error::Result;
use crate::graph::{Footprint, KvFormat, PAGE_TOKENS};
use crate::model::Plan;

/// Rows of the smallest piece that a matrix is split into.
const SPLIT_ROWS: u64 = 8;

/// Bytes of a model with room for `n_pages` pages. Fails where the model cannot run on any device.
pub fn footprint(plan: &Plan, kv: KvFormat, n_pages: usize) -> Result<Footprint> {
    let graph = &plan.graph;
    check_sizes(graph)?;
    let (max_rows, max_outputs) = step_sizes(graph, n_pages);
    let (list, of_node) = matrices(graph, &plan.formats, &[]);
    let (_, norm_elements) = norm_layout(graph);
    let (_, rope_pairs) = rope_layout(graph, n_pages * PAGE_TOKENS);

    let mut weight_bytes = buffer_size(norm_elements as u64 * 4);
    let (mut widest_row, mut largest_rows) = (0, 0);
    for matrix in &list {
        let format = matrix.format.format();
        weight_bytes += plane_bytes(format, matrix.rows, matrix.cols).map(buffer_size).iter().sum::<u64>();
        widest_row = widest_row.max(matrix.format.row_bytes(matrix.cols).unwrap_or(0));
        largest_rows = largest_rows.max(first_plane_row_bytes(format, matrix.cols) as u64 * SPLIT_ROWS);
    }
    let pages: Vec<u64> = kv_sizes(graph, kv, n_pages, u64::MAX)?;
    let slots = slot_sizes(graph, u64::MAX)?;
    let kv_bytes = pages.iter().chain(&slots).map(|size| buffer_size(*size)).sum();

    let (mut activations, mut params_bytes) = (vec![], 0);
    let classes = [(Class::Prefill, max_rows, max_outputs), (Class::Decode, 1, 1)];
    for (class, rows, outputs) in classes.into_iter().take(n_programs(graph)) {
        let lowered = lower(graph, &plan.formats, &of_node, (&BTreeMap::new(), &[]), class, &[])?;
        params_bytes += PARAMS_STRIDE * (lowered.stages.len() as u64 + 1);
        let size = |(width, domain): &(usize, Domain)| width * if *domain == Domain::Rows { rows } else { outputs };
        activations.extend(lowered.buffers.iter().map(|buffer| buffer_size(size(buffer) as u64 * 4)));
    }
    let state_bytes = |max_rows| Layout::new(max_rows, graph).size_bytes(n_pages);
    let books = [
        rope_pairs as u64 * 8,
        history_bytes(graph.vocab()),
        u64::from(MAX_IDS) * 4 * (1 + BUFFERS as u64),
        state_bytes(1) + state_bytes(max_rows),
        params_bytes,
        staging_bytes(widest_row),
        buffer_size(copy_bytes(graph, kv)),
    ];
    let largest = pages.iter().chain(&slots).chain(&activations).copied().max().unwrap_or(0);
    Ok(Footprint {
        weight_bytes,
        kv_bytes,
        activation_bytes: activations.iter().sum(),
        other_bytes: books.iter().sum(),
        largest_bytes: largest.max(largest_rows).max(rope_pairs as u64 * 8),
    })
}
