//! The GPU backend, natively, against the references: logits and greedy continuations of the same table as the CPU's.

mod common;

use common::{
    BY_CONTEXT, CASES, Figures, Goldens, LONGROPE, Report, TINY_ASSISTANT, check_chunks, check_greedy, check_logits,
    check_replies, check_states, open, pages_for,
};
use headwater::gpu::{Device, Gpu};
use headwater::graph::{KvFormat, PAGE_TOKENS};
use headwater::model::{PlanOptions, plan, plan_with, read_weights};
use pollster::block_on;

/// Float32 throughout, other orders of additions. A wrong epsilon in a norm costs 3e-8.
const NMSE: f64 = 1e-10;

/// Keys and values of 16 bits. The layers of smollm3 that do not rotate cost most.
const HALF_NMSE: f64 = 1e-5;

fn load(files: &[&str], kv: KvFormat, n_pages: usize) -> Gpu {
    load_with(files, &PlanOptions::default(), kv, n_pages)
}

fn load_with(files: &[&str], options: &PlanOptions, kv: KvFormat, n_pages: usize) -> Gpu {
    let device = block_on(Device::of_thread()).expect("an adapter; software Vulkan will do");
    let checkpoint = open(files);
    let plan = plan_with(&checkpoint, options).unwrap_or_else(|error| panic!("{files:?}: {error}"));
    let mut gpu = block_on(Gpu::new(&device, &plan, kv, n_pages)).unwrap();
    block_on(read_weights(&checkpoint, &plan, &mut gpu, &mut |_, _| Ok(()))).unwrap();
    gpu
}

#[test]
fn logits_and_continuations_equal_the_goldens() {
    let mut report = Report::default();
    let mut figures = Figures::new("gpu-exact");
    for case in CASES {
        let goldens = Goldens::read(case.goldens);
        let gpu = load(case.files, KvFormat::F32, pages_for(&goldens));
        let worst = check_logits(&gpu, case.name, &goldens, case.nmse(NMSE), &mut report);
        figures.add(case, &plan(&open(case.files)).unwrap(), worst);
        check_greedy(&gpu, case.name, &goldens, case.margin(0.01), &mut report);
        check_chunks(&gpu, case.name, &goldens, NMSE, &mut report);
        check_states(&gpu, case.name, &goldens, &mut report);
    }
    figures.write();
    report.finish();
}

#[test]
fn the_context_chooses_among_rotations() {
    let mut report = Report::default();
    for (context, prompts) in BY_CONTEXT {
        let goldens = Goldens::read(LONGROPE.goldens).only(prompts);
        let options = PlanOptions { context: Some(*context), ..PlanOptions::default() };
        let gpu = load_with(LONGROPE.files, &options, KvFormat::F32, pages_for(&goldens));
        let name = format!("{}, context {context}", LONGROPE.name);
        check_logits(&gpu, &name, &goldens, NMSE, &mut report);
        check_greedy(&gpu, &name, &goldens, 0.01, &mut report);
        check_chunks(&gpu, &name, &goldens, NMSE, &mut report);
    }
    report.finish();
}

/// Keys and values in blocks, with what they cost at most in these models of random weights: measured, and some more.
const BLOCK_NMSE: &[(KvFormat, f64)] = &[(KvFormat::Q8_0, 3e-3), (KvFormat::Q4_0, 0.4)];

/// Models whose attentions differ; `tests/kv_blocks.rs` holds the blocks to the interpreter's.
const BLOCK_CASES: &[&str] = &["llama3", "qwen3", "gemma3", "phi3", "smollm3", "llama3-Q4_0.gguf"];

#[test]
fn blocks_of_keys_and_values_cost_what_they_may() {
    let mut report = Report::default();
    for (format, bound) in BLOCK_NMSE {
        let cases: Vec<_> = CASES.iter().filter(|case| BLOCK_CASES.contains(&case.name)).collect();
        assert_eq!(cases.len(), BLOCK_CASES.len());
        for case in cases {
            let goldens = Goldens::read(case.goldens);
            let gpu = load(case.files, *format, pages_for(&goldens));
            let name = format!("{}, {}", case.name, format.name());
            check_logits(&gpu, &name, &goldens, case.nmse(*bound), &mut report);
        }
    }
    report.finish();
}

#[test]
fn half_precision_keys_and_values_cost_little() {
    let mut report = Report::default();
    let mut figures = Figures::new("gpu-everyday");
    for case in CASES {
        let goldens = Goldens::read(case.goldens);
        let gpu = load(case.files, KvFormat::F16, pages_for(&goldens));
        let worst = check_logits(&gpu, case.name, &goldens, case.nmse(HALF_NMSE), &mut report);
        figures.add(case, &plan(&open(case.files)).unwrap(), worst);
        check_greedy(&gpu, case.name, &goldens, case.margin(0.03), &mut report);
    }
    figures.write();
    report.finish();
}

#[test]
fn tiny_assistant_answers_as_its_reference_does() {
    let mut report = Report::default();
    for case in TINY_ASSISTANT {
        let gpu = load(case.files, KvFormat::F32, 512 / PAGE_TOKENS);
        check_replies(&gpu, case, 1e-3, &mut report);
    }
    report.finish();
}
