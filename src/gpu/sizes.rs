//! What a model needs of a device: rows of a step, bytes of its buffers, and where in them things lie. Pure arithmetic, so
//! that what would be made can be reckoned without a device.

use std::collections::BTreeMap;

use super::rope;
use crate::error::{Error, ErrorKind, Result};
use crate::graph::{Graph, KvFormat, KvWidths, Output, PAGE_TOKENS, WeightId, WeightKind};
use crate::kernel::{MAX_EXPERTS, MAX_HEAD_DIM, MAX_KEY_DIM};

/// Rows of one prefill chunk: four tiles of the matrix product.
const PREFILL_ROWS: usize = 128;

/// Bytes that the logits of one chunk may take.
const LOGITS_BYTES: usize = 16 << 20;

/// Programs of a model: one that prefills and, where there is something to decode, one that does so.
pub(super) fn n_programs(graph: &Graph) -> usize {
    if graph.bidirectional() || graph.output != Output::Logits { 1 } else { 2 }
}

/// Most rows and most outputs of a step.
pub(super) fn step_sizes(graph: &Graph, n_pages: usize) -> (usize, usize) {
    match graph.bidirectional() {
        true => (n_pages * PAGE_TOKENS, n_pages * PAGE_TOKENS),
        false => (PREFILL_ROWS, (LOGITS_BYTES / (graph.output_width().max(1) * 4)).clamp(1, PREFILL_ROWS)),
    }
}

/// The kernels stage a head, and the scores of all experts, in workgroup memory.
pub(super) fn check_sizes(graph: &Graph) -> Result<()> {
    for node in &graph.nodes {
        if let crate::graph::Op::Route { spec, .. } = &node.op
            && spec.experts > MAX_EXPERTS
        {
            let words = format!("{} experts; up to {MAX_EXPERTS}", spec.experts);
            return Err(Error::new(ErrorKind::UnsupportedFormat, words).at(node.name.as_str()));
        }
        if let crate::graph::Op::Attention { spec, .. } = &node.op
            && let Some(elements) =
                [spec.head_dim, spec.value_dim].into_iter().find(|n| *n > MAX_HEAD_DIM || !n.is_multiple_of(4))
        {
            let words = format!("heads of {elements} elements; up to {MAX_HEAD_DIM}, in steps of 4");
            return Err(Error::new(ErrorKind::UnsupportedFormat, words).at(node.name.as_str()));
        }
        if let crate::graph::Op::GatedDelta { spec, .. } = &node.op
            && spec.key_dim > MAX_KEY_DIM
        {
            let words = format!("keys of {} elements; up to {MAX_KEY_DIM}", spec.key_dim);
            return Err(Error::new(ErrorKind::UnsupportedFormat, words).at(node.name.as_str()));
        }
    }
    Ok(())
}

/// Where each vector starts in their common buffer, in elements, and how many there are.
pub(super) fn norm_layout(graph: &Graph) -> (BTreeMap<WeightId, usize>, usize) {
    let mut offsets = BTreeMap::new();
    let mut next = 0usize;
    for (index, weight) in graph.weights.iter().enumerate() {
        if weight.kind == WeightKind::Vector {
            offsets.insert(WeightId(index), next);
            next += (weight.rows * weight.cols).next_multiple_of(4);
        }
    }
    (offsets, next)
}

/// Where each rotary table starts, in pairs, and how many there are.
pub(super) fn rope_layout(graph: &Graph, context: usize) -> (Vec<usize>, usize) {
    graph.ropes.iter().fold((vec![], 0), |(mut offsets, next), encoding| {
        offsets.push(next);
        (offsets, next + rope::table_pairs(encoding, context))
    })
}

/// Bytes of one page of a layer.
pub(super) fn page_bytes(layer: KvWidths, kv: KvFormat) -> u64 {
    (PAGE_TOKENS * layer.position_bytes(kv)) as u64
}

/// Bytes of what a page goes through when it is copied, since a buffer is not copied to itself. Where rows see later ones no
/// sequence goes on from another's page.
pub(super) fn copy_bytes(graph: &Graph, kv: KvFormat) -> u64 {
    let pages = graph.kv_widths.iter().map(|layer| page_bytes(*layer, kv));
    if graph.bidirectional() { 0 } else { pages.max().unwrap_or(0) }
}

/// Bytes of each layer's pages. Fails when one layer's are more than the device binds.
pub(super) fn kv_sizes(graph: &Graph, kv: KvFormat, n_pages: usize, limit: u64) -> Result<Vec<u64>> {
    let sizes: Vec<u64> = graph.kv_widths.iter().map(|layer| n_pages as u64 * page_bytes(*layer, kv)).collect();
    match sizes.iter().copied().max() {
        Some(largest) if largest > limit => {
            let words = format!(
                "keys and values of one layer take {largest} bytes for {} positions, and this device binds {limit}",
                n_pages * PAGE_TOKENS
            );
            Err(Error::new(ErrorKind::GpuFeatureMissing, words))
        }
        _ => Ok(sizes),
    }
}

/// Bytes of the slots of each operation with state. Fails when they are more than the device binds.
pub(super) fn slot_sizes(graph: &Graph, limit: u64) -> Result<Vec<u64>> {
    let sizes: Vec<u64> = graph.state_widths.iter().map(|&width| (width * graph.n_states() * 4) as u64).collect();
    match sizes.iter().find(|size| **size > limit) {
        Some(size) => {
            let words = format!("the states of one layer take {size} bytes, and this device binds {limit}");
            Err(Error::new(ErrorKind::GpuFeatureMissing, words))
        }
        None => Ok(sizes),
    }
}

/// Bytes of what one reply has for each id of the vocabulary: a word of its history, and a bit of its mask behind them.
pub(super) fn history_bytes(vocab: usize) -> u64 {
    let vocab = vocab.max(1) as u64;
    (vocab + vocab.div_ceil(32)) * 4
}
