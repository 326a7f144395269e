//! Holds what kernels make on this device against the interpreter, before a model is trusted to them: drivers compute wrong
//! numbers at times, and no token at all is better than a wrong one. A little graph (an attention like the model's, a norm, a
//! product by each of its formats) goes through both, by the pipelines that the model needs anyway.

use std::collections::BTreeSet;

use super::device::Device;
use super::run::Gpu;
use crate::cpu::Cpu;
use crate::error::{Error, ErrorKind, Result};
use crate::graph::{Attention, Backend, Builder, Graph, KvFormat, Op, Row, StateSlots, Step, WeightId};
use crate::kernel::Teams;
use crate::model::WeightSink;
use crate::quant::{FormatId, Shared};

/// Tokens of the little graph: all but the last go through the program that prefills.
const TOKENS: usize = 10;

/// Rows of each matrix: a whole tile of no kernel.
const ROWS: usize = 40;

/// Columns of each matrix at least: the largest workgroups go through them in several rounds, the last of which is not whole.
const COLS: usize = 1100;

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
}

/// Kernels that were found to be right for some needs.
#[derive(Default)]
pub(super) struct Checked(Vec<(Teams, bool, Needs)>);

impl Needs {
    fn of(graph: &Graph, formats: &[FormatId], kv: KvFormat) -> Self {
        let mut needs = Self { formats: BTreeSet::new(), attention: None, rms_norms: false, kv };
        for node in &graph.nodes {
            match &node.op {
                Op::MatMul { weight, .. } => needs.formats.extend(formats.get(weight.0)),
                Op::RmsNorm { .. } => needs.rms_norms = true,
                Op::Attention { spec, .. } if needs.attention.is_none() => {
                    // How many heads there are is the sample's own; needs that differ in nothing else are the same.
                    let like =
                        Attention { layer: 0, heads: 1, kv_heads: 1, sinks: None, latent: false, ..spec.clone() };
                    needs.attention = Some(like);
                }
                _ => {}
            }
        }
        needs
    }

    /// The little graph, its formats and the weight of each product in the order of the results.
    fn sample(&self) -> Result<(Graph, Vec<FormatId>)> {
        let mut spec = self.attention.clone().unwrap_or(Attention::new(0, (1, 1), 64, 0.125));
        let whole = |cols: usize| self.formats.iter().all(|format| cols.is_multiple_of(format.format().block_weights));
        // Tables give whole groups of eight columns, so keys and values have as many heads as that takes.
        spec.kv_heads =
            [1, 2, 4].into_iter().find(|n| (n * spec.head_dim) % 8 + (n * spec.value_dim) % 8 == 0).unwrap_or(8);
        let step = spec.kv_heads;
        let wide = |heads: &usize| heads * spec.value_dim >= COLS && whole(heads * spec.value_dim);
        spec.heads = (step..=COLS * step).step_by(step).find(wide).unwrap_or(COLS * step);
        let (heads, key, value) = (spec.heads, step * spec.head_dim, step * spec.value_dim);
        let cols = heads * spec.value_dim;
        let mut builder = Builder::new();
        let [q, k, v] = [("q", heads * spec.head_dim), ("k", key), ("v", value)].map(|(name, width)| {
            let table = builder.matrix(name, TOKENS, width);
            builder.embed(name, table)
        });
        let mut x = builder.attention("attention", q, k, v, spec);
        if self.rms_norms {
            let factors = builder.vector("factors", cols);
            x = builder.rms_norm("norm", x, factors, 1e-5, 1);
        }
        let products: Vec<_> = self
            .formats
            .iter()
            .map(|format| {
                let weight = builder.matrix(format.format().name, ROWS, cols);
                builder.matmul("product", x, weight)
            })
            .collect();
        let y = match products.as_slice() {
            [] => x,
            [one] => *one,
            several => builder.concat("products", several, 1),
        };
        builder.output_rows("output", y);
        let graph = builder.finish()?;
        let floats = graph.weights.len() - self.formats.len();
        let formats = std::iter::repeat_n(FormatId::F32, floats).chain(self.formats.iter().copied()).collect();
        Ok((graph, formats))
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
    let found = (teams, device.dialect().subgroups, needs);
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
    let (graph, formats) = needs.sample()?;
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
    let (pages, states) = ([vec![0]], [StateSlots::default()]);
    let width = graph.output_width();
    let mut worst = 0.0f64;
    let steps = match graph.bidirectional() {
        true => vec![(&rows[..TOKENS - 1], &outputs[..])],
        false => vec![(&rows[..TOKENS - 1], &outputs[..]), (&rows[TOKENS - 1..], &outputs[..1])],
    };
    for (rows, outputs) in steps {
        let step = Step { rows, pages: &pages, states: &states, outputs };
        let expected = cpu.forward(&step).await?;
        let found = match gpu.forward(&step).await {
            Err(error) if error.kind() == ErrorKind::BadLogits => return Ok(f64::NAN),
            found => found?,
        };
        // Formats differ in how large their weights are, so each product has an error of its own.
        let part = if needs.formats.is_empty() { width } else { ROWS };
        for first in (0..width).step_by(part.max(1)) {
            let (mut error, mut size) = (0.0, 0.0);
            for (found, expected) in found.chunks_exact(width).zip(expected.chunks_exact(width)) {
                for (found, expected) in found[first..first + part].iter().zip(&expected[first..first + part]) {
                    error += f64::from(found - expected).powi(2);
                    size += f64::from(*expected).powi(2);
                }
            }
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
pub(crate) mod tests {
    use std::cell::Cell;

    use pollster::block_on;

    use super::*;
    use crate::gpu::DeviceOptions;
    use crate::quant::FORMATS;

    /// Changes the source of the kernel of that name.
    pub(crate) type Spoil = fn(&str, String) -> String;

    thread_local!(static SPOIL: Cell<Option<Spoil>> = const { Cell::new(None) });

    /// From now on this thread's drivers are wrong.
    pub(crate) fn spoil(spoil: Spoil) {
        SPOIL.set(Some(spoil));
    }

    /// What a driver that is wrong makes of a source.
    pub(in super::super) fn spoiled(kernel: &str, source: String) -> String {
        match SPOIL.get() {
            Some(spoil) => spoil(kernel, source),
            None => source,
        }
    }

    fn device(subgroups: bool) -> Device {
        block_on(Device::open(DeviceOptions { subgroups, ..DeviceOptions::default() }))
            .expect("software Vulkan will do")
    }

    fn needs(formats: &[FormatId], attention: Option<Attention>, kv: KvFormat) -> Needs {
        Needs { formats: formats.iter().copied().collect(), attention, rms_norms: true, kv }
    }

    #[test]
    fn all_formats_are_right_by_all_kernels() {
        for subgroups in [true, false] {
            let device = device(subgroups);
            for teams in [Teams::Workgroup, Teams::Invocation] {
                // Those without a shader of their own differ in numbers only.
                let mut formats: Vec<_> = FORMATS.iter().map(|(id, format)| (*id, format.shader)).collect();
                formats.dedup_by_key(|(_, shader)| *shader);
                for some in formats.chunks(12) {
                    let some: Vec<FormatId> = some.iter().map(|(id, _)| *id).collect();
                    let error =
                        block_on(worst_error(&device.clone().with_teams(teams), &needs(&some, None, KvFormat::F32)));
                    let error = error.unwrap_or_else(|error| panic!("{teams:?} {some:?}: {error}"));
                    assert!(error < 1e-10, "{teams:?} {some:?}: {error}");
                }
            }
        }
    }

    #[test]
    fn products_by_integers_are_right_but_for_the_rounding() {
        for (subgroups, teams) in
            [(true, Teams::Workgroup), (false, Teams::Workgroup), (true, Teams::Invocation), (false, Teams::Invocation)]
        {
            let device = device(subgroups).with_teams(teams).with_rounding(true);
            for format in [FormatId::Q8_0, FormatId::Q4_0, FormatId::Q4K, FormatId::Q6K] {
                for rms_norms in [true, false] {
                    let needs = Needs { rms_norms, ..needs(&[format], None, KvFormat::F32) };
                    let error = block_on(worst_error(&device, &needs)).unwrap();
                    // Noise of a 127th of the largest of 32, evenly spread: half of its square, by 3.
                    assert!(error > 1e-7 && error < 1e-4, "{teams:?} {format:?}: {error}");
                }
            }
        }
    }

    #[test]
    fn all_kinds_of_attention_are_right() {
        let device = device(true);
        let plain = Attention::new(0, (1, 1), 64, 0.125);
        let kinds = [
            plain.clone(),
            Attention { window: Some(4), softcap: Some(3.0), ..plain.clone() },
            Attention { causal: false, ..plain.clone() },
            Attention { head_dim: 192, value_dim: 128, ..plain.clone() },
            Attention { head_dim: 80, value_dim: 80, chunk: Some(4), ..plain },
        ];
        for kv in KvFormat::ALL {
            for kind in &kinds {
                let error = block_on(worst_error(&device, &needs(&[FormatId::Q8_0], Some(kind.clone()), kv))).unwrap();
                assert!(error < RIGHT / 10.0, "{kv:?} {kind:?}: {error}");
            }
        }
        // Heads that are no whole groups of eight, which only floats keep.
        for (size, causal) in [(12, true), (12, false), (20, true), (20, false)] {
            let kind = Attention { causal, ..Attention::new(0, (1, 1), size, 0.125) };
            let error = block_on(worst_error(&device, &needs(&[FormatId::Q8_0], Some(kind), KvFormat::F32))).unwrap();
            assert!(error < 1e-10, "{size} {causal}: {error}");
        }
    }
}
