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
            fit(&checkpoint, &options, DeviceLimits { binding_bytes, memory_bytes, ..DeviceLimits::default() }).unwrap()
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
        fit(&checkpoint, &options(context), DeviceLimits { memory_bytes: Some(memory), ..DeviceLimits::default() })
            .unwrap()
    };
    let memory = of(longest / 2, u64::MAX).total_bytes;
    let told = of(longest, memory);
    let context = told.fitting_context.expect("a shorter one");
    assert_eq!(told.verdict, Verdict::No);
    assert!(of(context, memory).verdict != Verdict::No && of(context + 2 * PAGE_TOKENS, memory).verdict == Verdict::No);
    let small =
        fit(&checkpoint, &options(64), DeviceLimits { binding_bytes: Some(1024), ..DeviceLimits::default() }).unwrap();
    assert_eq!(small.verdict, Verdict::No);
    assert!(small.notes.iter().any(|note| note.contains("this device binds 1024")), "{:?}", small.notes);
}

#[test]
fn what_would_fit_instead_is_told_the_least_change_first() {
    let checkpoint = open(&["tests/data/gguf/kq-llama-Q4_K_M.gguf"]);
    let longest = plan(&checkpoint).unwrap().hyper.context;
    let asked = LoadOptions { context: Some(longest), backend: BackendChoice::Gpu, ..LoadOptions::default() };
    let of = |options: &LoadOptions, limits| fit(&checkpoint, options, limits).unwrap();
    let memory = |memory_bytes| DeviceLimits { memory_bytes: Some(memory_bytes), ..DeviceLimits::default() };
    let needed = of(&asked, DeviceLimits::default());
    assert!(needed.choices.is_empty() && needed.fitting_context.is_none());

    // A byte is missing: smaller keys and values do, or a shorter context; the weights are quantised already.
    let limits = memory(needed.total_bytes - 1);
    let told = of(&asked, limits);
    let options: Vec<_> = told.choices.iter().map(|choice| &choice.options).collect();
    assert_eq!(options.len(), 3, "{options:?}");
    assert_eq!((options[0].kv_format, options[2].backend), (Some("q8_0"), Some("cpu")));
    assert!(options[1].context.is_some_and(|context| context < longest) && told.fitting_context == options[1].context);
    // Each of them does fit, and takes what was told.
    for choice in &told.choices {
        let options = LoadOptions {
            kv_format: choice.options.kv_format.map(str::to_owned),
            context: choice.options.context.or(asked.context),
            backend: if choice.options.backend.is_some() { BackendChoice::Cpu } else { asked.backend },
            ..asked.clone()
        };
        let found = of(&options, limits);
        assert!(found.verdict != Verdict::No && found.total_bytes == choice.total_bytes, "{choice:?}");
    }
    // What the caller has chosen is not changed, and the processor may have less.
    let chosen = LoadOptions { kv_format: Some("f16".to_owned()), ..asked.clone() };
    let told = of(&chosen, DeviceLimits { cpu_memory_bytes: Some(1000), ..limits });
    assert!(told.choices.iter().all(|choice| choice.options.context.is_some()), "{:?}", told.choices);

    // Other files of the model are reckoned by their sizes; the largest that fits goes before another backend.
    let mut told = of(&asked, memory(needed.total_bytes - needed.weight_bytes / 4));
    let before = told.choices.len();
    let others = [("large", 150), ("same", 100), ("half", 50), ("tenth", 10)];
    told.consider(100, others.map(|(name, bytes)| (name.to_owned(), bytes)));
    assert_eq!(told.choices.len(), before + 1);
    let found = told.choices.iter().position(|choice| choice.reference.is_some()).expect("another file");
    assert_eq!(told.choices[found].reference.as_deref(), Some("half"));
    assert_eq!(told.choices[found].total_bytes, needed.total_bytes - needed.weight_bytes + needed.weight_bytes / 2);
    assert!(told.choices[found + 1..].iter().all(|choice| choice.options.backend.is_some()));
    // A model that fits is not looked past.
    let mut fits = of(&asked, DeviceLimits::default());
    fits.consider(100, [("tenth".to_owned(), 10)]);
    assert!(fits.choices.is_empty());

    // Floats can be made smaller.
    let floats = open(&["tests/data/models/llama3/config.json", "tests/data/models/llama3/model.safetensors"]);
    let least = LoadOptions { context: Some(PAGE_TOKENS), ..LoadOptions::default() };
    let needed = fit(&floats, &least, DeviceLimits::default()).unwrap().total_bytes;
    let told = fit(&floats, &least, memory(needed - needed / 20)).unwrap();
    assert!(told.choices.iter().any(|choice| choice.options.quantize.is_some()), "{:?}", told.choices);
}
