//! The GPU backend, natively, against the references: logits and greedy continuations of the same table as the CPU's.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

mod common;

use common::parity::{Load, Parity};
use common::{Reply, Sequence, TINY_ASSISTANT, device, nmse, open};
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

/// Forced decoding of replies of the trained model, an id at a time: at every position the id that floats would choose.
#[test]
fn products_by_integers_choose_as_floats_do() {
    let floats: &[&str] = TINY_ASSISTANT[0].files;
    let models = [
        (TINY_ASSISTANT[1].files, None),
        (&["www/models/tiny-assistant/tiny-assistant-q4_0.gguf"][..], None),
        (floats, Some("q4_k")),
        (floats, Some("q6_k")),
    ];
    let replies = Reply::all();
    let (mut positions, mut same) = (0_usize, 0_usize);
    for (files, quantize) in models {
        let checkpoint = open(files);
        let options = PlanOptions { quantize: quantize.map(str::to_owned), ..PlanOptions::default() };
        let plan = plan_with(&checkpoint, &options).unwrap();
        let [plain, rounded] = [false, true].map(|rounds| {
            let device = device(Teams::Invocation).with_rounding(rounds);
            let mut gpu = block_on(Gpu::new(&device, &plan, KvFormat::F16, 8)).unwrap();
            block_on(read_weights(&checkpoint, &plan, &mut gpu, &mut |_, _| Ok(()))).unwrap();
            gpu
        });
        let (mut worst, mut first) = (0.0_f64, positions);
        for reply in replies.iter().filter(|reply| reply.prompt.len() + reply.ids.len() <= 256).take(5) {
            let ids: Vec<u32> = reply.prompt.iter().chain(&reply.ids).copied().collect();
            let expected = Sequence::new(&plain).all_logits(&ids, 128);
            let found = Sequence::new(&rounded).all_logits(&ids, 1);
            let vocab = expected.len() / ids.len();
            let error = nmse(&found, &expected);
            // Something is rounded, and no more than that.
            assert!(error > 1e-8 && error < 1e-2, "{files:?} {quantize:?}: {error}");
            worst = worst.max(error);
            for (expected, found) in expected.chunks_exact(vocab).zip(found.chunks_exact(vocab)) {
                let best = |logits: &[f32]| (0..vocab).max_by(|a, b| logits[*a].total_cmp(&logits[*b]));
                positions += 1;
                same += usize::from(best(expected) == best(found));
            }
        }
        first = positions - first;
        println!("{files:?} {quantize:?}: {first} positions, NMSE {worst:.1e}; {same} of {positions} the same so far");
    }
    assert!(positions > 500 && same as f64 >= 0.99 * positions as f64, "{same} of {positions}");
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
