//! Holds what kernels make on this device against the interpreter, before a model is trusted to them: drivers compute wrong
//! numbers at times, and no token at all is better than a wrong one. A little graph (an attention like the model's, a norm, a
//! product by each of its formats, experts and recurrences where it has them) goes through both, by the pipelines that the
//! model needs anyway.

mod sample;

use std::collections::BTreeSet;

use super::device::Device;
use super::run::Gpu;
use crate::cpu::Cpu;
use crate::error::{Error, ErrorKind, Result};
use crate::graph::{Attention, Backend, Graph, KvFormat, Op, Row, ShortConv, StateSlots, Step, WeightId};
use crate::kernel::Teams;
use crate::model::WeightSink;
use crate::quant::{FormatId, Shared};
use sample::{Delta, Mixture, Sample};

/// Tokens of the little graph: all but the last go through the program that prefills.
const TOKENS: usize = 10;

/// Largest squared error, relative to the squared size, of numbers that count as right. The order of additions costs 1e-12,
/// keys that are rounded the other way 1e-6; one part of a sum that is missing costs more than 1e-3.
const RIGHT: f64 = 1e-4;

/// What of a model decides which kernels it needs.
#[derive(Clone, Debug, PartialEq)]
struct Needs {
    /// Of the matrices.
    formats: BTreeSet<FormatId>,
    /// Of its first attention, if it has one.
    attention: Option<Attention>,
    rms_norms: bool,
    kv: KvFormat,
    /// Of its first choice of experts, if it has one.
    mixture: Option<Mixture>,
    /// Of its first convolution, if it has one.
    conv: Option<(ShortConv, bool)>,
    /// Of its first recurrence by the delta rule, if it has one.
    delta: Option<Delta>,
}

/// Kernels that were found to be right for some needs: with subgroups, with rounding.
#[derive(Default)]
pub(super) struct Checked(Vec<([bool; 2], Teams, Needs)>);

impl Needs {
    fn of(graph: &Graph, formats: &[FormatId], kv: KvFormat) -> Self {
        let mut needs = Self {
            formats: BTreeSet::new(),
            attention: None,
            rms_norms: false,
            kv,
            mixture: None,
            conv: None,
            delta: None,
        };
        for node in &graph.nodes {
            match &node.op {
                Op::MatMul { weight, .. } => needs.formats.extend(formats.get(weight.0)),
                Op::RmsNorm { .. } => needs.rms_norms = true,
                Op::Attention { spec, .. } if needs.attention.is_none() => {
                    // How many heads there are is the sample's own; needs that differ in nothing else are the same.
                    let heads = spec.heads / spec.kv_heads.max(1);
                    needs.attention =
                        Some(Attention { layer: 0, heads, kv_heads: 1, sinks: None, latent: false, ..spec.clone() });
                }
                Op::ShortConv { spec, gates, .. } if needs.conv.is_none() => {
                    let like = ShortConv { state: 0, weight: WeightId(0), ..spec.clone() };
                    needs.conv = Some((like, gates.is_some()));
                }
                Op::GatedDelta { spec, .. } if needs.delta.is_none() => needs.delta = Some(Delta::of(spec)),
                _ => {}
            }
        }
        needs.mixture = Mixture::of(graph, formats);
        needs
    }
}

/// Fails with `GpuUnavailable` where what kernels of `teams` make on this device for a model is wrong, or they cannot be made.
pub(super) async fn check(
    device: &Device,
    (graph, formats): (&Graph, &[FormatId]),
    kv: KvFormat,
    teams: Teams,
) -> Result<()> {
    let needs = Needs::of(graph, formats, kv);
    let found = ([device.dialect().subgroups, device.rounds()], teams, needs);
    if device.checked().0.contains(&found) {
        return Ok(());
    }
    let error = worst_error(&device.counted_anew().with_teams(teams), &found.2).await?;
    log::debug!("kernels of {teams:?}: an error of {error:e}");
    if error.is_nan() || error > RIGHT {
        return Err(Error::new(ErrorKind::GpuUnavailable, "this device computes wrong numbers").at("GPU"));
    }
    device.checked().0.push(found);
    Ok(())
}

/// The largest of the errors of all products, NaN where there is no number.
async fn worst_error(device: &Device, needs: &Needs) -> Result<f64> {
    let Sample { graph, formats, parts } = needs.sample()?;
    let mut cpu = Cpu::exact(&graph, &formats, needs.kv, 1)?;
    let mut gpu = Box::pin(Gpu::of(device, (&graph, &formats), needs.kv, 1)).await?;
    for (index, (weight, format)) in graph.weights.iter().zip(&formats).enumerate() {
        let bytes = rows(*format, weight.rows, weight.cols, index);
        cpu.rows(WeightId(index), 0, &bytes)?;
        gpu.rows(WeightId(index), 0, &bytes)?;
    }
    let row = |position: u32| Row { token: position, position, sequence: 0, segment: 0 };
    let rows: Vec<Row> = (0..).map(row).take(TOKENS).collect();
    let outputs: Vec<u32> = (0..).take(TOKENS - 1).collect();
    let pages = [vec![0]];
    let width = graph.output_width();
    let mut worst = 0.0f64;
    let steps = match graph.bidirectional() {
        true => vec![(&rows[..TOKENS - 1], &outputs[..])],
        false => vec![(&rows[..TOKENS - 1], &outputs[..]), (&rows[TOKENS - 1..], &outputs[..1])],
    };
    for (index, (rows, outputs)) in (0u32..).zip(steps) {
        // A state goes on in another slot, where there is such.
        let states = match graph.n_states() {
            0 => [StateSlots::default()],
            _ => [StateSlots { from: index, to: index + 1 }],
        };
        let step = Step { rows, pages: &pages, states: &states, outputs };
        let expected = cpu.forward(&step).await?;
        let found = match gpu.forward(&step).await {
            Err(error) if error.kind() == ErrorKind::BadLogits => return Ok(f64::NAN),
            found => found?,
        };
        // Formats differ in how large their weights are, so each part has an error of its own.
        let mut first = 0;
        for part in &parts {
            let (mut error, mut size) = (0.0, 0.0);
            for (found, expected) in found.chunks_exact(width).zip(expected.chunks_exact(width)) {
                for (found, expected) in found[first..first + part].iter().zip(&expected[first..first + part]) {
                    error += f64::from(found - expected).powi(2);
                    size += f64::from(*expected).powi(2);
                }
            }
            first += part;
            let relative = error / size;
            worst = if relative > worst || relative.is_nan() { relative } else { worst };
            if worst.is_nan() {
                return Ok(worst);
            }
        }
    }
    Ok(worst)
}

/// Numbers that follow each other without an order (SplitMix64).
fn noise(seed: usize) -> impl FnMut() -> u32 {
    let mut state = (seed as u64 + 1) << 32;
    move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        ((mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb) >> 33) as u32
    }
}

/// Rows of a matrix in a format: of floats between -1 and 1 where floats can be encoded to it; otherwise of bytes that are
/// finite in every format, at random where they are codes alone.
fn rows(format: FormatId, rows: usize, cols: usize, seed: usize) -> Vec<u8> {
    let mut next = noise(seed);
    let mut unit = || (next() % 2048) as f32 / 1024.0 - 1.0;
    let of_floats = |encode: &mut dyn FnMut(&[f32], &mut Vec<u8>), unit: &mut dyn FnMut() -> f32| {
        let numbers: Vec<f32> = (0..rows * cols).map(|_| unit()).collect();
        let mut bytes = vec![];
        encode(&numbers, &mut bytes);
        bytes
    };
    if let Some(encode) = format.encoder() {
        return of_floats(&mut |numbers, out| encode(numbers, out), &mut unit);
    }
    match format {
        FormatId::F32 => (0..rows * cols).flat_map(|_| unit().to_le_bytes()).collect(),
        FormatId::F16 => (0..rows * cols).flat_map(|_| half::f16::from_f32(unit()).to_le_bytes()).collect(),
        FormatId::Bf16 => (0..rows * cols).flat_map(|_| half::bf16::from_f32(unit()).to_le_bytes()).collect(),
        _ => {
            let description = format.format();
            let shared = description.planes.shared;
            let codes = if shared == Shared::NOTHING && description.planes.first.len() < description.block_bytes {
                description.planes.first.clone()
            } else {
                0..0
            };
            let blocks = rows * (cols / description.block_weights);
            let mut bytes = Vec::with_capacity(blocks * description.block_bytes);
            for block in 0..blocks {
                for at in 0..description.block_bytes {
                    bytes.push(match at {
                        _ if codes.contains(&at) => next() as u8,
                        // Where runs of blocks share something, the last byte of what they do tells the place in the run.
                        8 if shared.runs => block as u8,
                        _ if shared != Shared::NOTHING && at < description.planes.first.start => 0x38,
                        _ => 0x30 + (next() % 12) as u8,
                    });
                }
            }
            bytes
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail so")]
pub(crate) mod tests;
