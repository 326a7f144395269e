//! Reading an adapter's numbers, one matrix after another; for DoRA also the rows of the model that it measures.

use std::rc::Rc;

use super::{AdapterPlan, Module, Part, experts, malformed, unsupported};
use crate::error::{At, Error, ErrorKind, Result};
use crate::format::{Checkpoint, TensorInfo};
use crate::graph::DeltaValues;
use crate::model::{Plan, read_weight};
use crate::source::Source;

/// Reads every delta of the adapter and hands it to `take` with its index. `model` are the files of the plan: an adapter
/// with magnitudes (DoRA) needs the lengths of the rows that it changes, so those are read once.
///
/// DoRA (arXiv 2402.09353) computes `m (W + s B A) x / |W + s B A|`, rows apart; with `g = m / |W + s B A|` that is
/// `W x + g s B A x + (g - 1) W x`, so its delta has `g s B` for B and `g - 1` for its gain.
pub async fn read_adapter(
    model: &[Rc<dyn Source>],
    plan: &Plan,
    adapter: &Checkpoint,
    adapter_plan: &AdapterPlan,
    take: &mut dyn FnMut(usize, &DeltaValues<'_>) -> Result<()>,
) -> Result<()> {
    for (index, part) in adapter_plan.parts.iter().enumerate() {
        let without = || Error::new(ErrorKind::Internal, "an adapter without its modules");
        let delta = adapter_plan.deltas.get(index).ok_or_else(without)?;
        if delta.stacked > 1 {
            let (a, b) = experts::read(adapter, adapter_plan, part, delta).await?;
            let a = in_columns(model, plan, part, a).await?;
            take(index, &DeltaValues { a: &a, b: &b, gain: None })?;
            continue;
        }
        let module = part.sources.first().and_then(|source| adapter_plan.modules.get(source.module));
        let module = module.ok_or_else(without)?;
        let a = read_tensor(adapter, &module.a).await?;
        let a = in_columns(model, plan, part, a).await?;
        let b = in_order(part, module.rank, &read_tensor(adapter, &module.b).await?);
        let Some(magnitude) = &module.magnitude else {
            take(index, &DeltaValues { a: &a, b: &b, gain: None })?;
            continue;
        };
        let magnitudes = in_order(part, 1, &read_tensor(adapter, magnitude).await?);
        let lengths = lengths(model, plan, part, module, &a, &b).await?;
        let factors = magnitudes.iter().zip(&lengths).map(|(magnitude, length)| f64::from(*magnitude) / length);
        let factors: Vec<f64> = factors.collect();
        if factors.iter().any(|factor| !factor.is_finite()) {
            return Err(malformed("a row of zeros has no direction").at(magnitude.name.as_str()));
        }
        let scaled = b.chunks_exact(module.rank.max(1)).zip(&factors);
        let scaling = f64::from(module.scaling);
        let scaled =
            scaled.flat_map(|(row, factor)| row.iter().map(move |b| (f64::from(*b) * scaling * factor) as f32));
        let scaled: Vec<f32> = scaled.collect();
        let gain: Vec<f32> = factors.iter().map(|factor| (factor - 1.0) as f32).collect();
        take(index, &DeltaValues { a: &a, b: &scaled, gain: Some(&gain) })?;
    }
    Ok(())
}

/// All numbers of a tensor whose shape was checked.
pub(super) async fn read_tensor(adapter: &Checkpoint, tensor: &TensorInfo) -> Result<Vec<f32>> {
    let file = adapter.files.get(tensor.file);
    let file = file.ok_or_else(|| Error::new(ErrorKind::Internal, "the plan is of another adapter"))?;
    let too_large = |_| unsupported("the tensor is too large").at(tensor.name.as_str());
    let bytes = file.read(tensor.offset, usize::try_from(tensor.size_bytes).map_err(too_large)?).await;
    let bytes = bytes.at(|| tensor.name.clone())?;
    let mut numbers = vec![0.0; tensor.shape.iter().fold(1, |product: usize, len| product.saturating_mul(*len))];
    (tensor.format.format().decode)(&bytes, &mut numbers);
    Ok(numbers)
}

/// The rows of `numbers (module's rows, width)` that are the part's, in the order of its weight.
fn in_order(part: &Part, width: usize, numbers: &[f32]) -> Vec<f32> {
    let first = part.sources.first().map_or(0, |source| source.from.first);
    let row = |row: usize| {
        let start = first.saturating_add(part.order.source(row)).saturating_mul(width);
        numbers.get(start..start.saturating_add(width)).unwrap_or_default()
    };
    (0..part.rows).flat_map(row).copied().collect()
}

/// The columns of `a (rank, cols)` in the order that those of its weight have.
async fn in_columns(model: &[Rc<dyn Source>], plan: &Plan, part: &Part, a: Vec<f32>) -> Result<Vec<f32>> {
    let Some(order) = plan.orders.get(&part.weight) else { return Ok(a) };
    let mut columns = Vec::new();
    read_weight(model, plan, *order, &mut |_, bytes| {
        columns.extend(bytes.as_chunks::<4>().0.iter().map(|column| f32::from_le_bytes(*column) as usize));
        Ok(())
    })
    .await?;
    if columns.len() != part.cols {
        return Err(unsupported("an adapter of matrices that each have an order of columns"));
    }
    let row = |row: &[f32]| columns.iter().map(|column| row.get(*column).copied().unwrap_or(0.0)).collect::<Vec<f32>>();
    Ok(a.chunks_exact(part.cols.max(1)).flat_map(row).collect())
}

/// `|W + s B A|` of every row.
async fn lengths(
    model: &[Rc<dyn Source>],
    plan: &Plan,
    part: &Part,
    module: &Module,
    a: &[f32],
    b: &[f32],
) -> Result<Vec<f64>> {
    let format = plan.formats.get(part.weight.0).map(|format| format.format());
    let format = format.ok_or_else(|| Error::new(ErrorKind::Internal, "an adapter of a weight that is not there"))?;
    let mut lengths = Vec::with_capacity(part.rows);
    let (mut row, mut sums) = (vec![0f32; part.cols], vec![0f32; part.cols]);
    let mut factors = b.chunks_exact(module.rank.max(1));
    let mut measure = |bytes: &[u8]| {
        (format.decode)(bytes, &mut row);
        sums.fill(0.0);
        for (factor, a) in factors.next().unwrap_or_default().iter().zip(a.chunks_exact(part.cols.max(1))) {
            sums.iter_mut().zip(a).for_each(|(sum, a)| *sum += factor * a);
        }
        let square = |(weight, sum): (&f32, &f32)| f64::from(weight + module.scaling * sum).powi(2);
        lengths.push(row.iter().zip(&sums).map(square).sum::<f64>().sqrt());
    };
    let row_bytes = plan.formats.get(part.weight.0).and_then(|format| format.row_bytes(part.cols)).unwrap_or(1);
    read_weight(model, plan, part.weight, &mut |_, bytes| {
        bytes.chunks_exact(row_bytes).for_each(&mut measure);
        Ok(())
    })
    .await?;
    Ok(lengths)
}
