//! Models with recurrence through the engine, on both backends: turns, stops, lengths, edits and aborts give what a new
//! engine gives, and compute only what follows a state that was kept.
#![allow(clippy::expect_used, reason = "a test says what it expects by failing")]

mod common;

use std::cell::Cell;

use common::open;
use headwater::engine::{
    BackendChoice, BenchRequest, Engine, GenerateRequest, GenerationResult, LoadOptions, Prompt, Stops,
};
use headwater::error::ErrorKind;
use pollster::block_on;

const MODELS: &[&[&str]] = &[
    &["tests/data/gguf/lfm2-Q4_0.gguf"],
    &[
        "tests/data/models/qwen3-next/config.json",
        "tests/data/models/qwen3-next/model.safetensors",
        "tests/data/models/qwen3-next/tokenizer.json",
        "tests/data/models/qwen3-next/tokenizer_config.json",
    ],
];

fn load(files: &[&str], backend: BackendChoice) -> Engine {
    let environment = common::environment(0);
    let options = LoadOptions { backend, exact: true, ..LoadOptions::default() };
    block_on(Engine::load(open(files), &options, environment, &mut |_| Ok(()))).expect("a model that loads")
}

fn request(prompt: &[u32], max_tokens: u32) -> GenerateRequest {
    GenerateRequest {
        temperature: Some(0.0),
        ignore_eos: true,
        max_tokens: Some(f64::from(max_tokens)),
        ..GenerateRequest::new(Prompt::Ids(prompt.to_vec()))
    }
}

fn reply(engine: &Engine, request: &GenerateRequest) -> GenerationResult {
    block_on(engine.generate(request, &|| false, &mut |_| {})).expect("a reply")
}

fn prompt(len: u32) -> Vec<u32> {
    (0..len).map(|i| (i * 37 + 11) % 600).collect()
}

/// Runs a check on every model and backend, with a way to get another engine of the same.
fn on_all(check: impl Fn(&Engine, &dyn Fn() -> Engine)) {
    for files in MODELS {
        for backend in [BackendChoice::Cpu, BackendChoice::Gpu] {
            check(&load(files, backend), &|| load(files, backend));
        }
    }
}

#[test]
fn a_turn_after_a_reply_that_was_cut_is_as_new() {
    on_all(|engine, another| {
        let mut conversation = prompt(150);
        for length in [1, 3, 8, 9, 20] {
            let first = reply(engine, &request(&conversation, length));
            assert_eq!(first.tokens.len(), length as usize);
            conversation.extend(&first.tokens);
            conversation.extend([5, 6, 7]);
            let next = reply(engine, &request(&conversation, 12));
            let kept = first.usage.prompt_tokens + first.tokens.len();
            // No more than a chain is computed again.
            let again = kept - next.usage.cached_tokens;
            assert!((1..=9).contains(&again), "{again} again after {length}");
            assert_eq!(next.tokens, reply(&another(), &request(&conversation, 12)).tokens, "after {length}");
        }
    });
}

#[test]
fn a_turn_after_a_stop_string_is_as_new() {
    on_all(|engine, another| {
        let whole = reply(engine, &request(&prompt(40), 24));
        let text: String = whole.text.chars().skip(whole.text.chars().count() * 2 / 3).take(3).collect();
        let stop = Some(Stops::One(text.clone()));
        let cut = reply(engine, &GenerateRequest { stop, ..request(&prompt(40), 24) });
        assert_eq!(cut.tokens, whole.tokens[..cut.tokens.len()]);
        assert!(cut.tokens.len() < 24, "{text:?} is in {:?}", whole.text);
        assert_eq!(cut.usage.cached_tokens, 39, "the prompt but its last token was kept");
        let turn = [prompt(40), cut.tokens, vec![1, 2, 3]].concat();
        assert_eq!(reply(engine, &request(&turn, 12)).tokens, reply(&another(), &request(&turn, 12)).tokens);
    });
}

#[test]
fn edits_and_aborts_leave_no_trace() {
    on_all(|engine, another| {
        let fresh = another();
        reply(engine, &request(&prompt(200), 20));
        let edited = [&prompt(60)[..], &[9, 9, 9]].concat();
        let found = reply(engine, &request(&edited, 12));
        assert_eq!(
            found.usage.cached_tokens, 0,
            "what two prompts share is not kept unless one is the other's beginning"
        );
        assert_eq!(found.tokens, reply(&fresh, &request(&edited, 12)).tokens);
        for questions in [1, 2, 3, 5, 8] {
            let asked = Cell::new(0);
            let aborted = || asked.replace(asked.get() + 1) >= questions;
            let long = request(&prompt(300), 100);
            let error = block_on(engine.generate(&long, &aborted, &mut |_| {})).expect_err("an abort");
            assert_eq!(error.kind(), ErrorKind::Aborted);
            let after = reply(engine, &request(&prompt(300), 12));
            assert_eq!(after.tokens, reply(&another(), &request(&prompt(300), 12)).tokens, "after {questions}");
        }
        let logits = block_on(engine.logits(&prompt(50))).expect("logits");
        assert_eq!(logits, block_on(fresh.logits(&prompt(50))).expect("logits"), "computed anew");
    });
}

#[test]
fn what_is_measured_starts_at_the_depth_that_was_asked_for() {
    on_all(|engine, _| {
        let report =
            block_on(engine.bench(&BenchRequest { prefill: 20, decode: 6, depth: 30, ..BenchRequest::default() }))
                .expect("a report");
        assert_eq!((report.depth, report.prefill.tokens, report.decode.tokens), (30, 20, 6));
        let submits = report.prefill_counters.submits * 20.0;
        // One for the prompt but its last token, one for that; the CPU counts nothing.
        assert!(submits == 0.0 || (submits - 2.0).abs() < 1e-9, "{submits}");
    });
}
