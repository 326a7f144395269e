//! The requests that lm-evaluation-harness makes, and what its own models answered (`tests/lm_eval/recorded.json`, written by
//! `compare.py`): log-likelihoods, rolling ones over texts longer than the context, and replies.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

mod common;

use common::open;
use headwater::engine::{
    BackendChoice, Engine, GenerateRequest, LoadOptions, Prompt, ScoreItem, ScoreRequest, Stops, TextOrIds,
};
use pollster::block_on;
use serde_json::Value;

/// Relative to a log-likelihood's size where that is above 1.
const TOLERANCE: f64 = 1e-4;

fn load(model: &str) -> Engine {
    let files: Vec<String> =
        ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
            .iter()
            .map(|name| format!("{model}/{name}"))
            .filter(|path| std::path::Path::new(path).exists())
            .collect();
    let files: Vec<&str> = files.iter().map(String::as_str).collect();
    let environment = common::environment(0);
    let options = LoadOptions { backend: BackendChoice::Cpu, exact: true, ..LoadOptions::default() };
    block_on(Engine::load(open(&files), &options, environment, &mut |_| Ok(()))).unwrap()
}

fn near(found: f64, expected: f64, asked: &Value) {
    let difference = (found - expected).abs();
    assert!(difference <= TOLERANCE * expected.abs().max(1.0), "{found} where {expected} was expected: {asked}");
}

/// The ids of a context and of what follows, cut as the harness cuts them: white space between belongs to what follows, and
/// the cut is where the context's own ids end.
fn pair(engine: &Engine, context: &str, continuation: &str) -> ScoreItem {
    let whole = engine.tokenize(&format!("{context}{continuation}"), true, true).unwrap();
    let cut = engine.tokenize(context.trim_end(), true, true).unwrap().len();
    ScoreItem { context: Prompt::Ids(whole[..cut].to_vec()), continuation: TextOrIds::Ids(whole[cut..].to_vec()) }
}

fn check(model: &str) {
    let recorded: Value =
        serde_json::from_str(&std::fs::read_to_string("tests/lm_eval/recorded.json").unwrap()).unwrap();
    let recorded = &recorded[model];
    let engine = load(model);
    let samples = |task: &str| recorded["answers"][task].as_array().cloned().unwrap_or_default();

    let (mut items, mut expected) = (vec![], vec![]);
    for sample in samples("headwater_choice") {
        let asked = sample["asked"].as_array().unwrap();
        for (asked, answer) in asked.iter().zip(sample["answers"].as_array().unwrap()) {
            items.push(pair(&engine, asked[0].as_str().unwrap(), asked[1].as_str().unwrap()));
            expected.push((asked.clone(), answer[0].as_f64().unwrap(), answer[1].as_bool().unwrap()));
        }
    }
    assert_eq!(items.len(), 72);
    let scores = block_on(engine.score(&ScoreRequest::new(items), &|| false)).unwrap();
    for (score, (asked, logprob, greedy)) in scores.iter().zip(&expected) {
        near(score.logprob, *logprob, asked);
        assert_eq!(score.is_greedy, *greedy, "{asked}");
    }

    // Rolling windows: each scores a context's worth of ids more, the first from an id of its own.
    let stride = Some(engine.info().context as f64);
    let first = recorded["prefix"].as_u64().map(|id| u32::try_from(id).unwrap());
    let texts = samples("headwater_text");
    let rolling = texts.iter().map(|sample| {
        let ids = engine.tokenize(sample["asked"][0][0].as_str().unwrap(), true, true).unwrap();
        // The harness puts its first id before the tokenizer's own.
        let first = first.unwrap_or(ids[0]);
        ScoreItem { context: Prompt::Ids(vec![first]), continuation: TextOrIds::Ids(ids) }
    });
    let request = ScoreRequest { stride, ..ScoreRequest::new(rolling.collect()) };
    assert!(
        request.items.len() == 6
            && request.items.iter().any(|item| matches!(&item.continuation, TextOrIds::Ids(ids) if ids.len() > 1024))
    );
    for (score, sample) in block_on(engine.score(&request, &|| false)).unwrap().iter().zip(&texts) {
        near(score.logprob, sample["answers"][0].as_f64().unwrap(), &sample["asked"]);
    }

    for sample in samples("headwater_reply") {
        let asked = &sample["asked"][0];
        let ids = engine.tokenize(asked[0].as_str().unwrap(), true, true).unwrap();
        let stops =
            asked[1]["until"].as_array().unwrap().iter().map(|stop| stop.as_str().unwrap().to_owned()).collect();
        let request = GenerateRequest {
            max_tokens: asked[1]["max_gen_toks"].as_f64(),
            temperature: Some(0.0),
            stop: Some(Stops::Many(stops)),
            ..GenerateRequest::new(Prompt::Ids(ids))
        };
        let reply = block_on(engine.generate(&request, &|| false, &mut |_| ())).unwrap();
        assert_eq!(Some(reply.text.as_str()), sample["answers"][0].as_str(), "{asked}");
    }
}

#[test]
fn a_trained_model_answers_as_in_the_harness() {
    check("www/models/tiny-assistant");
}

#[test]
fn a_model_with_a_first_id_answers_as_in_the_harness() {
    check("tests/data/models/llama3");
}
