//! Scores of continuations through the engine, against probabilities reckoned from the references' logits; windows, common
//! beginnings, and what is refused.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

mod common;

use common::{CASES, Goldens, Report, open};
use headwater::engine::{
    BackendChoice, Engine, Environment, GenerateRequest, LoadOptions, Prompt, Score, ScoreItem, ScoreRequest, TextOrIds,
};
use headwater::error::{Error, ErrorKind};
use pollster::block_on;

const ASSISTANT: &str = "www/models/tiny-assistant/tiny-assistant-q8_0.gguf";

fn environment() -> Environment {
    common::environment(0)
}

fn load(files: &[&str], backend: BackendChoice, context: Option<usize>) -> Engine {
    let options = LoadOptions { backend, context, exact: true, ..LoadOptions::default() };
    block_on(Engine::load(open(files), &options, environment(), &mut |_| Ok(()))).unwrap()
}

fn ids(context: &[u32], continuation: &[u32]) -> ScoreItem {
    ScoreItem { context: Prompt::Ids(context.to_vec()), continuation: TextOrIds::Ids(continuation.to_vec()) }
}

fn text(context: &str, continuation: &str) -> ScoreItem {
    ScoreItem { context: Prompt::Text(context.into()), continuation: TextOrIds::Text(continuation.into()) }
}

fn score(engine: &Engine, request: &ScoreRequest) -> Vec<Score> {
    block_on(engine.score(request, &|| false)).unwrap()
}

fn refused(engine: &Engine, request: &ScoreRequest) -> Error {
    block_on(engine.score(request, &|| false)).unwrap_err()
}

/// The logarithm of the probability of `target` by definition.
fn logprob(logits: &[f32], target: u32) -> f64 {
    let largest = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let sum: f64 = logits.iter().map(|logit| (f64::from(*logit) - largest).exp()).sum();
    f64::from(logits[target as usize]) - largest - sum.ln()
}

/// Families whose keys and values, windows, experts and states differ.
const FAMILIES: &[&str] =
    &["llama3", "qwen3", "gemma3", "mixtral", "deepseek-v3", "lfm2", "qwen3-next", "llama3-Q4_0.gguf"];

/// Every golden prompt cut in two at three places, all in one request, scores as the golden logits say.
fn check(backend: BackendChoice, families: &[&str]) {
    let mut report = Report::default();
    for name in families {
        let case = CASES.iter().find(|case| case.name == *name).unwrap_or_else(|| panic!("{name}"));
        let goldens = Goldens::read(case.goldens);
        // Ids are given as such, so that any tokenizer will do where the model has none of its own.
        let mut files = case.files.to_vec();
        if !files.iter().any(|file| file.ends_with(".gguf") || file.ends_with("tokenizer.json")) {
            files.push("tests/data/models/llama3/tokenizer.json");
        }
        let engine = load(&files, backend, None);
        let vocab = engine.info().vocab_size;
        let (mut items, mut expected) = (vec![], vec![]);
        for prompt in &goldens.prompts {
            let Some(logits) = goldens.tensor(&prompt.name, "logits") else { continue };
            assert_eq!(logits.len(), prompt.ids.len() * vocab, "{name}: logits of every id");
            for cut in [1, prompt.ids.len() / 2, prompt.ids.len() - 1] {
                items.push(ids(&prompt.ids[..cut], &prompt.ids[cut..]));
                let of = |at: usize| logprob(&logits[(at - 1) * vocab..at * vocab], prompt.ids[at]);
                expected.push((cut..prompt.ids.len()).map(of).collect::<Vec<f64>>());
            }
        }
        assert!(items.len() >= 3, "{name}: golden prompts");
        let scores = score(&engine, &ScoreRequest::new(items));
        let mut worst: f64 = 0.0;
        for (score, expected) in scores.iter().zip(&expected) {
            assert_eq!(score.token_logprobs.len(), expected.len(), "{name}");
            for (found, expected) in score.token_logprobs.iter().zip(expected) {
                worst = worst.max((found - expected).abs());
            }
            assert!((score.logprob - score.token_logprobs.iter().sum::<f64>()).abs() < 1e-9);
        }
        report.at_most(format!("{name}, log probabilities of single ids, difference"), worst, 1e-4);
    }
    report.finish();
}

#[test]
fn scores_on_the_cpu_are_those_of_the_goldens() {
    check(BackendChoice::Cpu, FAMILIES);
}

#[test]
fn scores_on_the_gpu_are_those_of_the_goldens() {
    check(BackendChoice::Gpu, &["llama3", "gemma3", "qwen3-next"]);
}

#[test]
fn a_greedy_reply_is_greedy_and_another_is_not() {
    let engine = load(&[ASSISTANT], BackendChoice::Cpu, None);
    let request = GenerateRequest { max_tokens: Some(8.0), ..GenerateRequest::new(Prompt::Text("Once".into())) };
    let reply = block_on(engine.generate(&request, &|| false, &mut |_| ())).unwrap();
    let prompt = engine.tokenize("Once", true, false).unwrap();
    let mut other = reply.tokens.clone();
    other[5] ^= 1;
    let scores = score(&engine, &ScoreRequest::new(vec![ids(&prompt, &reply.tokens), ids(&prompt, &other)]));
    assert!(scores[0].is_greedy && !scores[1].is_greedy, "{scores:?}");
    assert!(scores[0].logprob > scores[1].logprob);
    assert_eq!(scores[0].token_logprobs[..5], scores[1].token_logprobs[..5]);
    assert_eq!(scores[1].tokens, other);
    let expected = (-scores[0].logprob / scores[0].tokens.len() as f64).exp();
    assert!((scores[0].perplexity - expected).abs() < 1e-12);
}

/// The space between belongs to the continuation, wherever it is written, and tokens do not break where the texts do.
#[test]
fn alternatives_are_those_of_the_logits() {
    let engine = load(&[ASSISTANT], BackendChoice::Cpu, Some(64));
    let all: Vec<u32> = (0..20).map(|i| (i * 37 + 11) % 2000).collect();
    let logits = block_on(engine.logits(&all)).expect("logits");
    let vocab = engine.info().vocab_size;
    let asked = vec![ids(&all[..1], &all[1..]), ids(&all[..7], &all[7..])];
    let scores = score(&engine, &ScoreRequest { top_logprobs: Some(3.0), ..ScoreRequest::new(asked.clone()) });
    for (score, first) in scores.iter().zip([1, 7]) {
        assert_eq!(score.top_logprobs.len(), all.len() - first);
        for (at, (top, id)) in (first..).zip(score.top_logprobs.iter().zip(&all[first..])) {
            let row = &logits[(at - 1) * vocab..at * vocab];
            let mut likeliest: Vec<u32> = (0..vocab as u32).collect();
            likeliest.sort_by(|a, b| row[*b as usize].total_cmp(&row[*a as usize]).then(a.cmp(b)));
            assert_eq!(top.iter().map(|told| told.id).collect::<Vec<_>>(), likeliest[..3], "place {at}");
            for told in top {
                assert!((told.logprob - logprob(row, told.id)).abs() < 1e-4, "place {at}: {told:?}");
                assert_eq!(told.text, engine.detokenize(&[told.id]).expect("a text"));
            }
            assert_eq!(top[0].id == *id, score.token_logprobs[at - first] == top[0].logprob);
        }
    }
    let plain = score(&engine, &ScoreRequest::new(asked));
    assert!(plain.iter().zip(&scores).all(|(plain, told)| plain.token_logprobs == told.token_logprobs));
    assert!(plain[0].top_logprobs.is_empty());
}

#[test]
fn texts_are_encoded_as_one() {
    let engine = load(&[ASSISTANT], BackendChoice::Cpu, None);
    let items = vec![text("The sky is ", "blue today"), text("The sky is", " blue today")];
    let scores = score(&engine, &ScoreRequest::new(items));
    assert_eq!(scores[0], scores[1]);
    let whole = engine.tokenize("The sky is blue today", false, false).unwrap();
    assert!(whole.ends_with(&scores[0].tokens), "{scores:?}");
}

/// Four choices after one long context: its pages are computed once, and each score is what the choice alone gets.
#[test]
fn a_common_context_is_computed_once() {
    let engine = || load(&[ASSISTANT], BackendChoice::Gpu, None);
    let context: String = (0..14).map(|i| format!("Lantern {i} stands on shelf {}. ", i % 7)).collect();
    let question = format!("{context}Where does lantern 9 stand? On shelf");
    let choices = [" 1", " 2", " 3", " 4"];
    let items: Vec<ScoreItem> = choices.iter().map(|choice| text(&question, choice)).collect();
    let rows = engine().tokenize(&question, true, false).unwrap().len();
    assert!(rows > 200, "{rows}");
    let counted_on = |engine: &Engine, request: &ScoreRequest| {
        let before = engine.stats().counters.dispatches;
        let scores = score(engine, request);
        (scores, engine.stats().counters.dispatches - before)
    };
    // A model of its own each time, so that nothing is there of an earlier call.
    let counted = |request: &ScoreRequest| counted_on(&engine(), request);
    let (together, cost) = counted(&ScoreRequest::new(items.clone()));
    let (first, cost_of_one) = counted(&ScoreRequest::new(items[..1].to_vec()));
    assert_eq!(together[0], first[0]);
    assert_eq!(cost, cost_of_one, "four choices take the steps of one");
    let kept = engine();
    let (cold, cost_cold) = counted_on(&kept, &ScoreRequest::new(items.clone()));
    let (warm, cost_warm) = counted_on(&kept, &ScoreRequest::new(items.clone()));
    assert_eq!(cold, warm);
    assert!(cost_warm < cost_cold, "its pages are kept: {cost_warm} {cost_cold}");
    for (item, score_of) in items.iter().zip(&together) {
        let (alone, _) = counted(&ScoreRequest::new(vec![item.clone()]));
        assert!((alone[0].logprob - score_of.logprob).abs() < 1e-4, "{alone:?} {score_of:?}");
    }
}

/// Windows of a long text give every id the probability that it has after the ids of its window.
#[test]
fn what_is_longer_than_the_context_is_scored_in_windows() {
    let engine = load(&[ASSISTANT], BackendChoice::Cpu, Some(64));
    let long: String = (0..60).map(|i| format!("word {i} ")).collect();
    let all = engine.tokenize(&long, true, false).unwrap();
    assert!(all.len() > 150, "{}", all.len());
    let request = |stride| ScoreRequest { stride, ..ScoreRequest::new(vec![ids(&all[..1], &all[1..])]) };
    let error = refused(&engine, &request(None));
    assert_eq!((error.kind(), error.place().as_str()), (ErrorKind::ContextFull, "items: item 0"));
    assert!(error.message().contains("room for 64"), "{error}");

    let scores = score(&engine, &request(Some(16.0)));
    assert_eq!(scores[0].tokens, all[1..]);
    // The third window: ids up to 64 + 1 + 32, of which the last 16 are scored.
    let (end, first) = (65 + 32, 65 + 16);
    let window = score(&engine, &ScoreRequest::new(vec![ids(&all[end - 65..first], &all[first..end])]));
    for (one, other) in window[0].token_logprobs.iter().zip(&scores[0].token_logprobs[first - 1..]) {
        assert!((one - other).abs() < 1e-9, "{one} {other}");
    }
}

/// Messages stand for the ids that the template makes of them, up to where the reply begins.
#[test]
fn messages_are_a_context() {
    let engine = load(&[ASSISTANT], BackendChoice::Cpu, None);
    let asked = Prompt::from_json(r#"[{"role": "user", "content": "Does anything leave my device?"}]"#).unwrap();
    let written = engine
        .tokenize("<|im_start|>user\nDoes anything leave my device?<|im_end|>\n<|im_start|>assistant\n", false, true)
        .unwrap();
    let item =
        |context: Prompt, continuation: &str| ScoreItem { context, continuation: TextOrIds::Text(continuation.into()) };
    let (right, wrong) = ("What you type stays on your device.", "What you type goes to a server.");
    let items = vec![item(asked.clone(), right), item(Prompt::Ids(written), right), item(asked, wrong)];
    let scores = score(&engine, &ScoreRequest::new(items));
    assert_eq!(scores[0], scores[1]);
    assert!(scores[0].is_greedy && scores[0].logprob > scores[2].logprob, "{scores:?}");
    let item = ScoreItem { context: Prompt::Messages(vec![]), continuation: TextOrIds::Text("7".into()) };
    let error = refused(&engine, &ScoreRequest::new(vec![item]));
    assert_eq!((error.kind(), error.place().as_str()), (ErrorKind::InvalidArgument, "items: item 0: context: prompt"));
}

#[test]
fn what_cannot_be_honoured_is_named() {
    let engine = load(&[ASSISTANT], BackendChoice::Cpu, Some(64));
    for (request, place, words) in [
        (ScoreRequest::new(vec![]), "items", "0 items are outside 1 ..="),
        (ScoreRequest::new(vec![text("a", "b"), text("a", "")]), "items: item 1: continuation", "empty"),
        (ScoreRequest::new(vec![ids(&[], &[1])]), "items: item 0: context", "nothing before"),
        (ScoreRequest::new(vec![ids(&[1], &[99_999])]), "items: item 0: prompt", "outside"),
        (ScoreRequest { stride: Some(0.0), ..ScoreRequest::new(vec![text("a", "b")]) }, "stride", "0 is not a whole"),
        (
            ScoreRequest { top_logprobs: Some(21.0), ..ScoreRequest::new(vec![text("a", "b")]) },
            "topLogprobs",
            "21 is not a whole number from 0 to 20",
        ),
        (ScoreRequest { stride: Some(65.0), ..ScoreRequest::new(vec![text("a", "b")]) }, "stride", "from 1 to 64"),
    ] {
        let error = refused(&engine, &request);
        assert_eq!((error.kind(), error.place().as_str()), (ErrorKind::InvalidArgument, place), "{error}");
        assert!(error.message().contains(words), "{error}");
    }
    for (json, words) in [
        (r#"{"items": [{"continuation": 3}]}"#, "a text or an array of ids"),
        (r#"{"items": [{"context": 3, "continuation": "x"}]}"#, "a text, an array of messages or an array of ids"),
        (r#"{"items": [{"context": "x"}]}"#, "continuation"),
        (r#"{"items": [], "colour": 1}"#, "colour"),
    ] {
        let error = ScoreRequest::from_json(json).unwrap_err();
        assert!(error.kind() == ErrorKind::InvalidArgument && error.to_string().contains(words), "{json}: {error}");
    }
    let error = block_on(engine.score(&ScoreRequest::new(vec![text("a", "b")]), &|| true)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Aborted);
    assert_eq!(score(&engine, &ScoreRequest::new(vec![text("a", "b")])).len(), 1, "and the next call works");
}
