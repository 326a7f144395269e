//! The GPU backend, natively, against the references: logits and greedy continuations of the same table as the CPU's.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

mod common;

use common::open;
use common::parity::Parity;
use headwater::gpu::{Device, Gpu};
use headwater::graph::KvFormat;
use headwater::model::{PlanOptions, plan_with, read_weights};
use pollster::block_on;

/// Float32 throughout, other orders of additions. A wrong epsilon in a norm costs 3e-8.
const NMSE: f64 = 1e-10;

const PARITY: Parity<'static> =
    Parity { load: &|files, options, kv, pages| Box::new(load(files, options, kv, pages)), nmse: NMSE, chunks: NMSE };

fn load(files: &[&str], options: &PlanOptions, kv: KvFormat, n_pages: usize) -> Gpu {
    let device = block_on(Device::of_thread()).expect("an adapter; software Vulkan will do");
    let checkpoint = open(files);
    let plan = plan_with(&checkpoint, options).unwrap_or_else(|error| panic!("{files:?}: {error}"));
    let mut gpu = block_on(Gpu::new(&device, &plan, kv, n_pages)).unwrap();
    block_on(read_weights(&checkpoint, &plan, &mut gpu, &mut |_, _| Ok(()))).unwrap();
    gpu
}

#[test]
fn logits_and_continuations_equal_the_goldens() {
    PARITY.exact("gpu-exact");
}

#[test]
fn the_context_chooses_among_rotations() {
    PARITY.by_context();
}

/// Models whose attentions differ; `tests/kv_blocks.rs` holds the blocks to the interpreter's.
const BLOCK_CASES: &[&str] = &["llama3", "qwen3", "gemma3", "phi3", "smollm3", "llama3-Q4_0.gguf"];

#[test]
fn blocks_of_keys_and_values_cost_what_they_may() {
    PARITY.blocks(|name| BLOCK_CASES.contains(&name));
}

#[test]
fn half_precision_keys_and_values_cost_little() {
    PARITY.everyday("gpu-everyday");
}

#[test]
fn tiny_assistant_answers_as_its_reference_does() {
    PARITY.replies();
}
