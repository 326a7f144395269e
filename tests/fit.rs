//! What a model is said to take is what is allocated for it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

mod common;

use common::encoders::{ENCODERS, RERANKER, files};
use common::{CASES, open};
use headwater::engine::{BackendChoice, DeviceLimits, LoadOptions, Verdict, fit};
use headwater::gpu::{Device, DeviceOptions, Gpu, footprint};
use headwater::graph::{Backend, KvFormat, PAGE_TOKENS};
use headwater::model::{PlanOptions, plan, plan_with, read_weights};
use pollster::block_on;

/// The most by which figures may be off.
const TOLERANCE: f64 = 0.03;

#[test]
fn figures_agree_with_what_is_allocated() {
    let device = block_on(Device::open(DeviceOptions::default())).expect("an adapter; software Vulkan will do");
    let mut failures = vec![];
    let owned = |files: &[&str]| files.iter().map(ToString::to_string).collect::<Vec<_>>();
    let decoders = CASES.iter().zip([KvFormat::F16, KvFormat::F32].into_iter().cycle());
    let decoders = decoders.map(|(case, kv)| (case.name, owned(case.files), kv));
    let encoders = ENCODERS.iter().map(|encoder| encoder.name).chain([RERANKER]);
    let encoders = encoders.map(|name| (name, files(name, "config.json"), KvFormat::F32));
    for (name, files, kv) in decoders.chain(encoders) {
        let checkpoint = open(&files.iter().map(String::as_str).collect::<Vec<_>>());
        // The small models with a context of many times their weights, so that no part hides another.
        let most = plan(&checkpoint).unwrap().context;
        for context in [most.min(64), most.min(2048)] {
            let options = PlanOptions { context: Some(context), ..PlanOptions::default() };
            let plan = plan_with(&checkpoint, &options).unwrap();
            let n_pages = context.div_ceil(PAGE_TOKENS);
            // The device's own books are older than this model.
            let gpu = block_on(Gpu::new(&device, &plan, kv, 1)).unwrap();
            let before = gpu.counters().buffer_bytes;
            let mut gpu = block_on(Gpu::new(&device, &plan, kv, n_pages)).unwrap();
            block_on(read_weights(&checkpoint, &plan, &mut gpu, &mut |_, _| Ok(()))).unwrap();
            let found = (gpu.counters().buffer_bytes - before) as f64;
            let told = footprint(&plan, kv, n_pages).unwrap();
            // What weights are uploaded through is as large for every model, and would hide everything else here.
            let (found, told) = (found - STAGING, told.total_bytes() as f64 - STAGING);
            if (told / found - 1.0).abs() > TOLERANCE {
                failures.push(format!("{name} at {context}: {told} bytes told, {found} allocated"));
            }
            let before = gpu.counters();
            if !plan.graph.bidirectional() {
                gpu.copy_page(0, n_pages as u32 - 1).unwrap();
                assert_eq!(gpu.counters().buffers, before.buffers, "{name}: a page that is copied makes no buffer");
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

const STAGING: f64 = (8u64 << 20) as f64;

#[test]
fn verdicts_follow_the_limits() {
    let checkpoint = open(&["tests/data/gguf/kq-llama-Q4_K_M.gguf"]);
    for backend in [BackendChoice::Gpu, BackendChoice::Cpu] {
        let options = LoadOptions { backend, context: Some(64), ..LoadOptions::default() };
        let of = |binding_bytes, memory_bytes| {
            fit(&checkpoint, &options, DeviceLimits { binding_bytes, memory_bytes }).unwrap()
        };
        let unknown = of(None, None);
        assert_eq!((unknown.verdict, unknown.notes.len(), unknown.fitting_context), (Verdict::Fits, 1, None));
        let total = unknown.total_bytes;
        assert_eq!(total, unknown.weight_bytes + unknown.kv_bytes + unknown.activation_bytes + unknown.other_bytes);
        for (memory, verdict) in [(total * 2, Verdict::Fits), (total, Verdict::Tight), (total - 1, Verdict::No)] {
            assert_eq!(of(None, Some(memory)).verdict, verdict, "{backend:?}: {memory}");
        }
        assert_eq!(of(None, Some(1000)).fitting_context, None);
    }
    // A shorter context than the one asked for is found, and it is the longest.
    let options = |context| LoadOptions { context: Some(context), ..LoadOptions::default() };
    let longest = plan(&checkpoint).unwrap().hyper.context;
    let of = |context, memory| {
        fit(&checkpoint, &options(context), DeviceLimits { binding_bytes: None, memory_bytes: Some(memory) }).unwrap()
    };
    let memory = of(longest / 2, u64::MAX).total_bytes;
    let told = of(longest, memory);
    let context = told.fitting_context.expect("a shorter one");
    assert_eq!(told.verdict, Verdict::No);
    assert!(of(context, memory).verdict != Verdict::No && of(context + 2 * PAGE_TOKENS, memory).verdict == Verdict::No);
    let small = fit(&checkpoint, &options(64), DeviceLimits { binding_bytes: Some(1024), memory_bytes: None }).unwrap();
    assert_eq!(small.verdict, Verdict::No);
    assert!(small.notes.iter().any(|note| note.contains("this device binds 1024")), "{:?}", small.notes);
}
