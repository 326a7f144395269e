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
pub(crate) mod tests {
    use std::cell::Cell;

    use pollster::block_on;

    use super::*;
    use crate::gpu::DeviceOptions;
    use crate::graph::Activation;
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
        let formats = formats.iter().copied().collect();
        Needs { formats, attention, rms_norms: true, kv, mixture: None, conv: None, delta: None }
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

    /// The plan of files.
    fn plan_of(files: &[&str]) -> crate::model::Plan {
        let source = |file: &&str| {
            let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(file);
            let bytes = std::fs::read(&path).expect("a file");
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            std::rc::Rc::new(crate::source::MemorySource::new(name, bytes)) as std::rc::Rc<dyn crate::source::Source>
        };
        let checkpoint = block_on(crate::format::Checkpoint::open(files.iter().map(source).collect())).unwrap();
        crate::model::plan(&checkpoint).unwrap()
    }

    /// The needs of files.
    fn needs_of(files: &[&str], kv: KvFormat) -> Needs {
        let plan = plan_of(files);
        Needs::of(&plan.graph, &plan.formats, kv)
    }

    const LFM2: &[&str] = &["gguf/lfm2-Q4_0.gguf"];
    const QWEN3_NEXT: &[&str] = &["models/qwen3-next/config.json", "models/qwen3-next/model.safetensors"];
    const DEEPSEEK_V3: &[&str] = &["models/deepseek-v3/config.json", "models/deepseek-v3/model.safetensors"];

    #[test]
    fn experts_and_recurrences_are_held_against_the_interpreter_where_a_model_has_them() {
        let found = [LFM2, QWEN3_NEXT, DEEPSEEK_V3].map(|files| {
            let needs = needs_of(files, KvFormat::F32);
            for (subgroups, teams) in [(true, Teams::Workgroup), (false, Teams::Workgroup), (true, Teams::Invocation)] {
                let error = block_on(worst_error(&device(subgroups).with_teams(teams), &needs)).unwrap();
                assert!(error < 1e-9, "{files:?} {teams:?}: {error}");
            }
            (needs.conv.is_some(), needs.delta.is_some(), needs.mixture.is_some())
        });
        assert_eq!(found, [(true, false, false), (true, true, true), (false, false, true)]);
        assert_eq!(needs_of(&["gguf/llama3-F16.gguf"], KvFormat::F32).mixture, None);
    }

    #[test]
    fn every_way_of_choosing_experts_is_right() {
        use crate::graph::{GroupScore, Groups, RouterScore, Routing};
        let device = device(true);
        let plain =
            Routing { experts: 128, used: 6, score: RouterScore::Softmax, groups: None, normalise: true, scale: 1.0 };
        let groups = |by| Some(Groups { count: 8, used: 4, by });
        let routings = [
            (plain, false),
            (Routing { experts: 6, used: 2, score: RouterScore::SoftmaxOfChosen, normalise: false, ..plain }, true),
            (Routing { score: RouterScore::Sigmoid, groups: groups(GroupScore::TwoBest), scale: 2.5, ..plain }, true),
            (Routing { experts: 160, groups: groups(GroupScore::Best), ..plain }, false),
            (Routing { experts: 60, used: 60, ..plain }, false),
        ];
        for routing in routings {
            let clamped = Activation::Clamped { limit: 7.0, slope: 1.702 };
            let mixture = Mixture {
                routing,
                products: vec![(FormatId::Q4K, false), (FormatId::Q8_0, true)],
                activation: routing.1.then_some(clamped),
            };
            let needs = Needs { mixture: Some(mixture), ..needs(&[FormatId::Q8_0], None, KvFormat::F32) };
            let error = block_on(worst_error(&device, &needs)).unwrap_or_else(|error| panic!("{routing:?}: {error}"));
            assert!(error < 1e-9, "{routing:?}: {error}");
        }
    }

    /// Whether a model of those files is refused on a device whose driver is wrong so, by all kernels.
    fn refused(files: &'static [&str], wrong: Spoil) -> bool {
        let refused = move || {
            let device = device(true);
            spoil(wrong);
            let needs = needs_of(files, KvFormat::F16);
            [Teams::Workgroup, Teams::Invocation].map(|teams| {
                let error = block_on(worst_error(&device.clone().with_teams(teams), &needs)).unwrap();
                error.is_nan() || error > RIGHT
            })
        };
        std::thread::spawn(refused).join().unwrap() == [true; 2]
    }

    #[test]
    fn wrong_experts_and_recurrences_are_found_out() {
        fn replaced(source: &str, right: &str, wrong: &str) -> String {
            assert!(source.contains(right), "nothing to spoil");
            source.replace(right, wrong)
        }
        let cases: [(&[&str], Spoil); 6] = [
            (LFM2, |kernel, source| match kernel {
                "short_conv" => replaced(&source, "i32(sequence.rows + j + 1u)", "i32(sequence.rows + j)"),
                _ => source,
            }),
            (QWEN3_NEXT, |kernel, source| match kernel {
                "gated_delta" => replaced(&source, "from_at = to;", ""),
                _ => source,
            }),
            (QWEN3_NEXT, |kernel, source| match kernel {
                "gated_delta" => replaced(&source, "log(1.0 + exp", "log(1.1 + exp"),
                _ => source,
            }),
            (DEEPSEEK_V3, |kernel, source| match kernel {
                "route" => replaced(&source, "score > other_score ||", "score < other_score ||"),
                _ => source,
            }),
            (DEEPSEEK_V3, |kernel, source| match kernel {
                "expert_matmul" => replaced(&source, "add_tile(&acc, lane_t, lane_r);", ""),
                _ => source,
            }),
            (DEEPSEEK_V3, |kernel, source| match kernel {
                "expert_matvec" | "expert_matvec_alone" => {
                    replaced(&source, "factor * partial, held", "1.03 * factor * partial, held")
                }
                _ => source,
            }),
        ];
        for (index, (files, wrong)) in cases.into_iter().enumerate() {
            assert!(refused(files, wrong), "case {index} of {files:?}");
        }
    }

    #[test]
    fn a_model_goes_on_without_wrong_kernels_of_a_family_that_only_it_has() {
        let load = |wrong: Spoil| {
            let loads = move || {
                spoil(wrong);
                let device = device(true);
                let measuring =
                    crate::gpu::Measuring { now_secs: &|| 0.0, kept: &crate::gpu::Forgets, self_test: true };
                let plan = plan_of(DEEPSEEK_V3);
                let made = block_on(Gpu::choosing(&device, &plan, KvFormat::F32, 2, measuring));
                made.map(|gpu| gpu.info()).map_err(|error| error.kind())
            };
            std::thread::spawn(loads).join().unwrap()
        };
        let info = load(|kernel, source| match kernel {
            "expert_matvec" => source.replace("factor * partial, held", "0.0 * partial, held"),
            _ => source,
        });
        let info = info.unwrap();
        assert!(info.features.contains(&"invocations alone".to_owned()), "{info:?}");
        assert!(info.notes.len() == 1 && info.notes[0].contains("wrong numbers"), "{info:?}");
        let none =
            load(|kernel, source| if kernel == "route" { source.replace("e = lane.index", "e = 1u") } else { source });
        assert_eq!(none.err(), Some(ErrorKind::GpuUnavailable));
    }

    #[test]
    fn all_kinds_of_attention_are_right() {
        let devices = [Teams::Workgroup, Teams::Invocation].map(|teams| device(true).with_teams(teams));
        let device = &devices[0];
        let plain = Attention::new(0, (1, 1), 64, 0.125);
        let kinds = [
            plain.clone(),
            // Heads that share keys and values by twos, threes and fours, and that do not.
            Attention { heads: 2, window: Some(3), ..plain.clone() },
            Attention { heads: 6, softcap: Some(3.0), ..plain.clone() },
            Attention { heads: 8, ..plain.clone() },
            Attention { heads: 7, head_dim: 256, value_dim: 256, ..plain.clone() },
            Attention { window: Some(4), softcap: Some(3.0), ..plain.clone() },
            Attention { causal: false, ..plain.clone() },
            Attention { head_dim: 192, value_dim: 128, ..plain.clone() },
            Attention { head_dim: 80, value_dim: 80, chunk: Some(4), ..plain },
        ];
        for kv in KvFormat::ALL {
            for kind in &kinds {
                for device in &devices {
                    let needs = needs(&[FormatId::Q8_0], Some(kind.clone()), kv);
                    let error = block_on(worst_error(device, &needs)).unwrap();
                    assert!(error < RIGHT / 10.0, "{kv:?} {kind:?}: {error}");
                }
            }
        }
        // Heads that are no whole groups of eight, which only floats keep.
        for (size, causal) in [(12, true), (12, false), (20, true), (20, false)] {
            let kind = Attention { causal, ..Attention::new(0, (1, 1), size, 0.125) };
            let error = block_on(worst_error(device, &needs(&[FormatId::Q8_0], Some(kind), KvFormat::F32))).unwrap();
            assert!(error < 1e-10, "{size} {causal}: {error}");
        }
    }
}
