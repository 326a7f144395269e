//! The GPU backend, natively, against the references: logits and greedy continuations of the same table as the CPU's.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

mod common;

use common::parity::{Load, Parity};
use common::{device, open};
use headwater::gpu::{Gpu, Teams};
use headwater::graph::{Backend, KvFormat};
use headwater::model::{PlanOptions, plan_with, read_weights};
use pollster::block_on;

/// Float32 throughout, other orders of additions. A wrong epsilon in a norm costs 3e-8.
const NMSE: f64 = 1e-10;

const PARITY: Parity<'static> = parity(&|files, options, kv, pages| load(Teams::Workgroup, files, options, kv, pages));

const ALONE: Parity<'static> = parity(&|files, options, kv, pages| load(Teams::Invocation, files, options, kv, pages));

const fn parity(load: Load<'static>) -> Parity<'static> {
    Parity { load, nmse: NMSE, chunks: NMSE }
}

fn load(teams: Teams, files: &[&str], options: &PlanOptions, kv: KvFormat, n_pages: usize) -> Box<dyn Backend> {
    let device = device(teams);
    let checkpoint = open(files);
    let plan = plan_with(&checkpoint, options).unwrap_or_else(|error| panic!("{files:?}: {error}"));
    let mut gpu = block_on(Gpu::new(&device, &plan, kv, n_pages)).unwrap();
    block_on(read_weights(&checkpoint, &plan, &mut gpu, &mut |_, _| Ok(()))).unwrap();
    Box::new(gpu)
}

#[test]
fn logits_and_continuations_equal_the_goldens() {
    PARITY.exact("gpu-exact");
}

#[test]
fn invocations_alone_equal_the_goldens() {
    ALONE.exact("gpu-alone-exact");
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
    ALONE.replies();
}
