//! What a model costs and has done: bytes a step reads, exact counts of the device, sums over replies.

use std::cell::Cell;

use serde::Serialize;

use super::result::Usage;
use super::speculation::Speculation;
use crate::graph::{Counters, KvFormat, Op, PAGE_TOKENS, WeightId};
use crate::model::Plan;

/// Bytes that a step reads: what a decoded token costs at best.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Traffic {
    /// All weights of one token: every matrix that is multiplied, one row of the embedding table, the norms.
    pub(super) weight_bytes: u64,
    /// Keys and values of one position.
    pub(super) position_bytes: u64,
    /// The state of one sequence, which every step reads and writes.
    pub(super) state_bytes: u64,
    /// How many of them there is room for.
    states: u64,
}

impl Traffic {
    pub(super) fn of(plan: &Plan, kv: KvFormat) -> Self {
        let bytes = |WeightId(index): WeightId, rows: Option<usize>| {
            let (Some(weight), Some(format)) = (plan.graph.weights.get(index), plan.formats.get(index)) else {
                return 0;
            };
            let row_bytes = format.row_bytes(weight.cols).unwrap_or(0);
            row_bytes as u64 * rows.unwrap_or(weight.rows) as u64
        };
        let read = |op: &Op| match op {
            Op::Embed { table, .. } => bytes(*table, Some(1)),
            Op::MatMul { weight, .. } | Op::LayerNorm { weight, .. } | Op::RmsNorm { weight: Some(weight), .. } => {
                bytes(*weight, None)
            }
            Op::ShortConv { spec, .. } => bytes(spec.weight, None),
            _ => 0,
        };
        let position_bytes: usize = plan.graph.kv_widths.iter().map(|layer| layer.position_bytes(kv)).sum();
        Self {
            weight_bytes: plan.graph.nodes.iter().map(|node| read(&node.op)).sum(),
            position_bytes: position_bytes as u64,
            state_bytes: (plan.graph.state_widths.iter().sum::<usize>() * size_of::<f32>()) as u64,
            states: plan.graph.n_states() as u64,
        }
    }

    /// Keys and values of `pages` pages, and all states.
    pub(super) fn kv_bytes(&self, pages: usize) -> u64 {
        self.position_bytes * (pages * PAGE_TOKENS) as u64 + self.state_bytes * self.states
    }
}

/// What an engine has done since it was loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Stats {
    /// Replies that came to their end.
    pub replies: u64,
    /// Ids of their prompts.
    pub prompt_tokens: u64,
    /// How many of them were in the cache already.
    pub cached_tokens: u64,
    /// Ids of the replies.
    pub completion_tokens: u64,
    /// What came of drafts of them.
    pub speculation: Speculation,
    /// Bytes of weights.
    pub weight_bytes: u64,
    /// Bytes of keys and values, and of the states of models with recurrence.
    pub kv_bytes: u64,
    /// The backend's counts.
    pub counters: Counters,
}

/// Sums over replies.
#[derive(Debug, Default)]
pub(super) struct Totals(Cell<Stats>);

impl Totals {
    pub(super) fn add(&self, usage: &Usage, drafts: &Speculation) {
        let sums = self.0.get();
        let mut speculation = sums.speculation;
        speculation.add(drafts);
        self.0.set(Stats {
            replies: sums.replies + 1,
            prompt_tokens: sums.prompt_tokens + usage.prompt_tokens as u64,
            cached_tokens: sums.cached_tokens + usage.cached_tokens as u64,
            completion_tokens: sums.completion_tokens + usage.completion_tokens as u64,
            speculation,
            ..sums
        });
    }

    pub(super) fn stats(&self) -> Stats {
        self.0.get()
    }
}
