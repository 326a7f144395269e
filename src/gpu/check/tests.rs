//! The check itself: what is right is trusted, what a driver gets wrong is found out, family by family.

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
    block_on(Device::open(DeviceOptions { subgroups, ..DeviceOptions::default() })).expect("software Vulkan will do")
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
            let measuring = crate::gpu::Measuring { now_secs: &|| 0.0, kept: &crate::gpu::Forgets, self_test: true };
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
