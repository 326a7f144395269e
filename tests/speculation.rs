//! Ids that are expected and verified several in a step: replies are the same as without, whatever is expected, on every
//! backend, and the counts are those of the reply alone.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

mod common;

use std::cell::Cell;

use common::drafts::{N_PAGES, same_drafts};
use common::{CASES, Case, TEAMS, device, environment, open};
use headwater::cpu::Cpu;
use headwater::engine::{
    BackendChoice, Engine, FinishReason, GenerateRequest, GenerationResult, LoadOptions, Piece, Speculation,
};
use headwater::error::ErrorKind;
use headwater::gpu::Gpu;
use headwater::graph::{Backend, KvFormat};
use headwater::model::{Plan, WeightSink, plan, read_weights};
use pollster::block_on;
use serde_json::{Value, json};

const MODEL: &str = "www/models/tiny-assistant/tiny-assistant-q8_0.gguf";

fn load(files: &[&str], backend: BackendChoice) -> Engine {
    let options = LoadOptions { backend, ..LoadOptions::default() };
    block_on(Engine::load(open(files), &options, environment(5), &mut |_| Ok(()))).unwrap()
}

fn request(prompt: &Value, options: &Value, speculation: &str) -> GenerateRequest {
    let mut request = json!({ "prompt": prompt, "speculation": speculation, "ignoreEos": true });
    request.as_object_mut().unwrap().extend(options.as_object().unwrap().clone());
    GenerateRequest::from_json(&request.to_string()).unwrap()
}

fn ask(engine: &Engine, prompt: &Value, options: &Value, speculation: &str) -> GenerationResult {
    block_on(engine.generate(&request(prompt, options, speculation), &|| false, &mut |_| {})).unwrap()
}

/// The same reply with and without; gives what came of drafts.
fn same(engine: &Engine, prompt: &Value, options: &Value) -> Speculation {
    let plain = ask(engine, prompt, options, "off");
    let drafted = ask(engine, prompt, options, "lookup");
    assert_eq!(drafted.tokens, plain.tokens, "{options}");
    assert_eq!((drafted.text, plain.speculation), (plain.text, None));
    drafted.speculation.unwrap()
}

fn fill<B: Backend + WeightSink>(case: &Case, make: impl FnOnce(&Plan) -> B) -> (B, usize) {
    let checkpoint = open(case.files);
    let plan = plan(&checkpoint).unwrap();
    let mut backend = make(&plan);
    block_on(read_weights(&checkpoint, &plan, &mut backend, &mut |_, _| Ok(()))).unwrap();
    (backend, plan.graph.vocab())
}

#[test]
fn every_family_has_the_ids_of_chains_on_the_cpu() {
    let mut checked = 0;
    for case in CASES {
        let (backend, vocab) = fill(case, |plan| Cpu::new(plan, KvFormat::F16, N_PAGES).unwrap());
        if backend.n_states() == 0 {
            same_drafts(&backend, vocab);
            checked += 1;
        }
    }
    assert!(checked > CASES.len() * 3 / 4, "{checked}");
}

#[test]
fn families_have_the_ids_of_chains_on_the_gpu() {
    for name in ["llama3", "gemma2", "gpt-oss", "llama4", "deepseek-v2", "kq-llama-Q4_K_M.gguf"] {
        let Some(case) = CASES.iter().find(|case| case.name == name) else { panic!("{name} is no case") };
        for teams in TEAMS {
            let made = |plan: &Plan| block_on(Gpu::new(&device(teams), plan, KvFormat::F16, N_PAGES)).unwrap();
            let (backend, vocab) = fill(case, made);
            same_drafts(&backend, vocab);
        }
    }
}

/// Ids that repeat; what the demo model makes of them repeats after a while too.
fn quoting() -> Value {
    json!([100, 200, 300, 400, 500, 600].repeat(3))
}

#[test]
fn a_trained_model_is_the_same_and_what_it_copies_is_counted() {
    let greedy = json!({ "maxTokens": 160, "temperature": 0 });
    for backend in [BackendChoice::Cpu, BackendChoice::Gpu] {
        let engine = load(&[MODEL], backend);
        let copied = same(&engine, &quoting(), &greedy);
        assert!(copied.steps >= 3 && copied.accepted * 2 > copied.drafted, "{copied:?}");
        assert_eq!(same(&engine, &quoting(), &greedy), copied, "the same every time");
        let stats = engine.stats().speculation;
        assert_eq!(
            (stats.drafted, stats.accepted, stats.steps),
            (copied.drafted * 2, copied.accepted * 2, copied.steps * 2)
        );
        for seed in 1..4 {
            same(&engine, &quoting(), &json!({ "maxTokens": 60, "temperature": 0.8, "seed": seed, "topK": 40 }));
        }
    }
}

#[test]
fn a_reply_ends_within_a_draft_as_it_does_without() {
    let engine = load(&[MODEL], BackendChoice::Cpu);
    let whole = ask(&engine, &quoting(), &json!({ "maxTokens": 140, "temperature": 0 }), "lookup");
    assert!(whole.speculation.unwrap().steps > 2);
    // At every length, and at a text that comes late.
    for len in 110..130 {
        let cut = ask(&engine, &quoting(), &json!({ "maxTokens": len, "temperature": 0 }), "lookup");
        assert_eq!((cut.tokens.as_slice(), cut.finish_reason), (&whole.tokens[..len], FinishReason::Length));
    }
    let chars = whole.text.chars().count();
    let stop: String = whole.text.chars().skip(chars - 40).collect();
    let options = json!({ "maxTokens": 140, "temperature": 0, "stop": stop });
    let (plain, drafted) = (ask(&engine, &quoting(), &options, "off"), ask(&engine, &quoting(), &options, "lookup"));
    assert_eq!((&drafted.text, drafted.finish_reason), (&plain.text, FinishReason::Stop));
    assert_eq!(drafted.tokens, plain.tokens);
    assert!(drafted.speculation.unwrap().steps > 0 && plain.tokens.len() < 140);

    // An abort keeps what was told; the next reply goes on from it.
    let told = Cell::new(0);
    let ended = block_on(engine.generate(
        &request(&quoting(), &json!({ "maxTokens": 140, "temperature": 0 }), "lookup"),
        &|| told.get() > 100,
        &mut |piece: &Piece| told.set(told.get() + piece.tokens.len()),
    ));
    assert_eq!(ended.unwrap_err().kind(), ErrorKind::Aborted);
    assert_eq!(ask(&engine, &quoting(), &json!({ "maxTokens": 140, "temperature": 0 }), "lookup").tokens, whole.tokens);
}

#[test]
fn several_replies_and_what_drafts_step_aside_for() {
    let engine = load(&[MODEL], BackendChoice::Cpu);
    let three = json!({ "maxTokens": 50, "temperature": 0.3, "seed": 9, "n": 3 });
    let (plain, drafted) = (ask(&engine, &quoting(), &three, "off"), ask(&engine, &quoting(), &three, "lookup"));
    assert_eq!(drafted.tokens, plain.tokens);
    for (a, b) in drafted.others.iter().zip(&plain.others) {
        assert_eq!(a.tokens, b.tokens);
    }
    for aside in [
        json!({ "repetitionPenalty": 1.1 }),
        json!({ "presencePenalty": 0.5 }),
        json!({ "logprobs": true }),
        json!({ "dry": { "multiplier": 0.1 } }),
        json!({ "regex": "[a-z ]{30}", "ignoreEos": false }),
    ] {
        let mut options = json!({ "maxTokens": 40, "temperature": 0 });
        options.as_object_mut().unwrap().extend(aside.as_object().unwrap().clone());
        assert_eq!(same(&engine, &quoting(), &options), Speculation::default(), "{aside}");
    }
    // A receipt says nothing of how the same reply was computed.
    let greedy = json!({ "maxTokens": 40, "temperature": 0 });
    let receipts = ["off", "lookup"].map(|how| ask(&engine, &quoting(), &greedy, how).receipt.unwrap());
    assert_eq!(receipts[0], receipts[1]);
    let error = block_on(engine.generate(&request(&quoting(), &greedy, "always"), &|| false, &mut |_| {})).unwrap_err();
    assert_eq!((error.kind(), error.place().as_str()), (ErrorKind::InvalidArgument, "speculation"));
}
