//! Adapters of experts: the pairs of all of them one above another, whether a file has them apart or in one tensor.

use super::read::read_tensor;
use super::{AdapterPlan, Part};
use crate::error::{Error, ErrorKind, Result};
use crate::format::Checkpoint;
use crate::graph::Delta;

/// `A (experts * rank, cols)` and `B (experts * rows, rank)` of a weight. What a file has for fewer ranks, or for fewer
/// experts, is filled up with zeros.
pub(super) async fn read(
    adapter: &Checkpoint,
    plan: &AdapterPlan,
    part: &Part,
    delta: &Delta,
) -> Result<(Vec<f32>, Vec<f32>)> {
    let internal = || Error::new(ErrorKind::Internal, "an adapter without its modules");
    let zeros = |rows: usize, cols: usize| {
        let size = delta.stacked.checked_mul(rows).and_then(|rows| rows.checked_mul(cols));
        size.map(|size| vec![0.0f32; size]).ok_or_else(internal)
    };
    let (mut a, mut b) = (zeros(delta.rank, part.cols)?, zeros(part.rows, delta.rank)?);
    for source in &part.sources {
        let module = plan.modules.get(source.module).ok_or_else(internal)?;
        let (file_a, file_b) = (read_tensor(adapter, &module.a).await?, read_tensor(adapter, &module.b).await?);
        let (rank, experts) = (module.rank, module.experts);
        let width = rank.saturating_mul(experts);
        let first = source.expert.unwrap_or(0);
        let own_a = file_a.chunks_exact(rank.saturating_mul(part.cols).max(1));
        for (own, to) in own_a.zip(a.chunks_exact_mut(delta.rank.saturating_mul(part.cols).max(1)).skip(first)) {
            to.iter_mut().zip(own).for_each(|(to, number)| *to = *number);
        }
        let own_b = b.chunks_exact_mut(part.rows.saturating_mul(delta.rank).max(1)).skip(first);
        for (expert, to) in own_b.take(experts).enumerate() {
            let rows = file_b.chunks_exact(width.max(1)).skip(source.from.first).step_by(source.from.step.max(1));
            for (row, to) in rows.zip(to.chunks_exact_mut(delta.rank)) {
                // The first columns of all experts, then the second ones.
                let own = row.iter().skip(expert).step_by(experts.max(1));
                to.iter_mut().zip(own).for_each(|(to, number)| *to = source.factor * number);
            }
        }
    }
    Ok((a, b))
}
