//! Options of sampling through the engine: replies chosen on this side of the device are those that the device would have
//! chosen, probabilities are those of the logits, several replies share one prompt, seeds repeat, and what is refused.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

mod common;

use common::open;
use headwater::engine::{
    BackendChoice, Engine, GenerateRequest, GenerationResult, LoadOptions, Piece, Prompt, ScoreItem, ScoreRequest,
    TextOrIds,
};
use headwater::error::{Error, ErrorKind};
use pollster::block_on;
use serde_json::{Value, json};

const ASSISTANT: &[&str] = &["www/models/tiny-assistant/tiny-assistant-q8_0.gguf"];
const BACKENDS: [BackendChoice; 2] = [BackendChoice::Cpu, BackendChoice::Gpu];

fn load(files: &[&str], backend: BackendChoice) -> Engine {
    let environment = common::environment(77);
    let options = LoadOptions { backend, exact: true, context: Some(256), ..LoadOptions::default() };
    block_on(Engine::load(open(files), &options, environment, &mut |_| Ok(()))).unwrap()
}

fn request(options: Value) -> GenerateRequest {
    let mut all = json!({ "prompt": "Make a list of bread, olives and green tea.", "maxTokens": 12 });
    all.as_object_mut().unwrap().extend(options.as_object().unwrap().clone());
    GenerateRequest::from_json(&all.to_string()).unwrap()
}

fn try_reply(engine: &Engine, options: Value) -> Result<(GenerationResult, Vec<Piece>), Error> {
    let mut pieces = vec![];
    let result = block_on(engine.generate(&request(options), &|| false, &mut |piece| pieces.push(piece.clone())));
    result.map(|result| (result, pieces))
}

fn reply(engine: &Engine, options: Value) -> GenerationResult {
    try_reply(engine, options).unwrap().0
}

fn with(options: &Value, more: &Value) -> Value {
    let mut all = options.clone();
    all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    all
}

/// Everything that the device's kernel can do, done on this side: the ids are the same.
#[test]
fn the_same_ids_are_chosen_on_both_sides_of_the_device() {
    for backend in BACKENDS {
        let engine = load(ASSISTANT, backend);
        for options in [
            json!({}),
            json!({ "temperature": 0.9, "seed": 5 }),
            json!({ "temperature": 1.5, "topK": 20, "topP": 0.9, "minP": 0.02, "seed": 6 }),
            json!({ "temperature": 0.7, "repetitionPenalty": 1.3, "frequencyPenalty": 0.2, "presencePenalty": 0.1, "seed": 7 }),
        ] {
            let there = reply(&engine, options.clone());
            let here = reply(&engine, with(&options, &json!({ "logprobs": true })));
            assert_eq!((&here.tokens, &here.text), (&there.tokens, &there.text), "{backend:?} {options}");
            assert_eq!(here.finish_reason, there.finish_reason);
        }
    }
}

/// Models that keep a state go on from it in single steps too.
#[test]
fn models_with_state_are_chosen_here_as_well() {
    for name in ["lfm2", "qwen3-next"] {
        let model = format!("tests/data/models/{name}");
        let files = ["model.safetensors", "config.json"].map(|file| format!("{model}/{file}"));
        let mut files: Vec<&str> = files.iter().map(String::as_str).collect();
        files.push("tests/data/models/llama3/tokenizer.json");
        for backend in BACKENDS {
            let engine = load(&files, backend);
            let prompt = json!({ "prompt": [5, 9, 2, 7, 11, 3], "ignoreEos": true });
            let there = reply(&engine, prompt.clone());
            let here = reply(&engine, with(&prompt, &json!({ "logprobs": true })));
            let again = reply(&engine, with(&prompt, &json!({ "logprobs": true })));
            assert_eq!(here.tokens, there.tokens, "{name} {backend:?}");
            assert_eq!((again.tokens, again.usage.cached_tokens), (here.tokens, 5), "{name} {backend:?}");
        }
    }
}

#[test]
fn log_probabilities_are_those_of_the_logits() {
    for backend in BACKENDS {
        let engine = load(ASSISTANT, backend);
        // Neither bias nor temperature has a part in them.
        let options =
            json!({ "logprobs": true, "topLogprobs": 5, "temperature": 1.2, "seed": 3, "logitBias": { "9": 2 } });
        let (result, pieces) = try_reply(&engine, options).unwrap();
        assert_eq!(result.logprobs.len(), result.tokens.len());
        let told: Vec<_> = pieces.iter().flat_map(|piece| piece.logprobs.clone()).collect();
        assert_eq!(told, result.logprobs, "pieces tell the same");
        let ids = engine.tokenize("Make a list of bread, olives and green tea.", true, false).unwrap();
        let item = ScoreItem { context: Prompt::Ids(ids), continuation: TextOrIds::Ids(result.tokens.clone()) };
        let score = &block_on(engine.score(&ScoreRequest::new(vec![item]), &|| false)).unwrap()[0];
        for (told, scored) in result.logprobs.iter().zip(&score.token_logprobs) {
            assert!((told.logprob - scored).abs() < 1e-4, "{backend:?}: {told:?} {scored}");
            assert_eq!(told.top.len(), 5);
            assert!(told.top.is_sorted_by(|a, b| a.logprob >= b.logprob));
            assert!(told.top[0].logprob >= told.logprob && told.top.iter().all(|top| top.top.is_empty()));
            assert!(told.top.iter().map(|top| top.logprob.exp()).sum::<f64>() <= 1.0 + 1e-9);
        }
        let plain = reply(&engine, json!({ "logprobs": true }));
        assert!(plain.logprobs.iter().all(|told| told.top.is_empty() && !told.text.is_empty()));
    }
}

/// Every id of the vocabulary as a continuation: one of them comes next.
#[test]
fn probabilities_of_all_ids_sum_to_one() {
    for backend in BACKENDS {
        let engine = load(ASSISTANT, backend);
        let item = |id| ScoreItem { context: Prompt::Ids(vec![300]), continuation: TextOrIds::Ids(vec![id]) };
        let items = (0..engine.info().vocab_size as u32).map(item).collect();
        let scores = block_on(engine.score(&ScoreRequest::new(items), &|| false)).unwrap();
        let sum: f64 = scores.iter().map(|score| score.logprob.exp()).sum();
        assert!((sum - 1.0).abs() < 1e-5, "{backend:?}: {sum}");
    }
}

/// Probabilities by the definitions of the filters, in the order that the documentation gives them.
fn expected(logits: &[f32], options: &Value) -> Vec<f64> {
    let option = |name: &str, otherwise: f64| options[name].as_f64().unwrap_or(otherwise);
    let temperature = option("temperature", 1.0);
    let logits: Vec<f64> = logits.iter().map(|logit| f64::from(*logit)).collect();
    let largest = logits.iter().copied().fold(f64::MIN, f64::max);
    let mut weights: Vec<f64> = logits.iter().map(|logit| ((logit - largest) / temperature).exp()).collect();
    let keep = |weights: &mut Vec<f64>, keeps: &dyn Fn(&[f64], f64) -> bool| {
        let sum: f64 = weights.iter().sum();
        let before: Vec<f64> = weights.iter().map(|weight| weight / sum).collect();
        *weights = before.iter().map(|p| if keeps(&before, *p) { *p } else { 0.0 }).collect();
        let sum: f64 = weights.iter().sum();
        weights.iter_mut().for_each(|weight| *weight /= sum);
    };
    let k = option("topK", 0.0);
    keep(&mut weights, &|all, p| k == 0.0 || (all.iter().filter(|other| **other > p).count() as f64) < k);
    if let Some(typical) = options["typicalP"].as_f64() {
        let entropy: f64 = weights.iter().filter(|p| **p > 0.0).map(|p| -p * p.ln()).sum();
        let far = |p: f64| (-p.ln() - entropy).abs();
        keep(&mut weights, &|all, p| {
            let nearer: f64 = all.iter().filter(|other| **other > 0.0 && far(**other) < far(p) - 1e-9).sum();
            p > 0.0 && nearer < typical
        });
    }
    let top_p = option("topP", 1.0);
    keep(&mut weights, &|all, p| all.iter().filter(|other| **other > p).sum::<f64>() < top_p);
    let min_p = option("minP", 0.0);
    keep(&mut weights, &|all, p| p >= min_p * all.iter().copied().fold(0.0, f64::max));
    weights
}

/// The temperature at which of the `k` likeliest ids as many as that are likely, by the exponential of the entropy: how certain a model is of its next
/// id says nothing here.
fn temperature_for(logits: &[f32], k: u32, ids: f64) -> f64 {
    let (mut low, mut high) = (0.01, 50.0);
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        let entropy: f64 = expected(logits, &json!({ "temperature": middle, "topK": k }))
            .iter()
            .filter(|p| **p > 0.0)
            .map(|p| -p * p.ln())
            .sum();
        *(if entropy < ids.ln() { &mut low } else { &mut high }) = middle;
    }
    low
}

/// The first ids of many replies, of either backend, against the exact probabilities: Pearson's chi-square, ids that are
/// expected fewer than five times together.
#[test]
fn ids_follow_the_distribution_of_every_filter_on_both_backends() {
    const DRAWS: usize = 2 * 128;
    let prompt = "Make a list of bread, olives and green tea.";
    let mut failures = vec![];
    for backend in BACKENDS {
        let engine = load(ASSISTANT, backend);
        let ids = engine.tokenize(prompt, true, false).unwrap();
        let logits = block_on(engine.logits(&ids)).unwrap();
        let logits = &logits[logits.len() - engine.info().vocab_size..];
        let warm = temperature_for(logits, 12, 8.0);
        for options in [
            json!({ "temperature": warm }),
            json!({ "temperature": warm, "topK": 4 }),
            json!({ "temperature": warm, "topK": 12, "topP": 0.7 }),
            json!({ "temperature": warm, "topK": 12, "minP": 0.02 }),
            json!({ "temperature": warm, "topK": 12, "topP": 0.9, "minP": 0.02 }),
            json!({ "temperature": warm, "topK": 12, "typicalP": 0.9 }),
        ] {
            let expected = expected(logits, &options);
            let mut counts = vec![0_usize; expected.len()];
            for group in 0..DRAWS / 128 {
                let more = json!({ "n": 128, "maxTokens": 1, "seed": 1000 * group, "ignoreEos": true });
                let first = reply(&engine, with(&options, &more));
                for one in std::iter::once(&first).chain(&first.others) {
                    counts[one.tokens[0] as usize] += 1;
                }
            }
            assert_eq!(counts.iter().sum::<usize>(), DRAWS);
            let (mut chi_square, mut freedom, mut rest) = (0.0, -1.0_f64, (0.0, 0.0));
            let mut cell = |count: f64, mean: f64| {
                chi_square += (count - mean).powi(2) / mean;
                freedom += 1.0;
            };
            for (id, (count, p)) in counts.iter().zip(&expected).enumerate() {
                let (count, mean) = (*count as f64, p * DRAWS as f64);
                match mean {
                    0.0 => assert_eq!(count, 0.0, "{backend:?} {options}: id {id} was filtered out"),
                    5.0.. => cell(count, mean),
                    _ => rest = (rest.0 + count, rest.1 + mean),
                }
            }
            if rest.1 > 0.0 {
                cell(rest.0, rest.1);
            }
            // Four standard deviations above the mean of chi-square.
            let bound = freedom + 4.0 * (2.0 * freedom).sqrt();
            println!("{backend:?} {options}: chi-square {chi_square:.1} of {freedom} degrees, bound {bound:.1}");
            assert!(freedom >= 1.0, "{options}: too few ids to tell");
            if chi_square > bound {
                failures.push(format!("{backend:?} {options}: {chi_square:.1} > {bound:.1}"));
            }
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
}

#[test]
fn a_bias_forces_and_forbids() {
    let engine = load(ASSISTANT, BackendChoice::Cpu);
    let free = reply(&engine, json!({}));
    let first = free.tokens[0];
    let forbidden = reply(&engine, json!({ "logitBias": { first.to_string(): -100 } }));
    assert!(!forbidden.tokens.contains(&first));
    let forced = reply(&engine, json!({ "logitBias": { "300": 100 }, "maxTokens": 3 }));
    assert_eq!(forced.tokens, [300, 300, 300]);
}

/// Every filter that only this side knows changes what a hot reply becomes, and repeats with its seed.
#[test]
fn further_filters_are_applied_and_repeat() {
    let engine = load(ASSISTANT, BackendChoice::Cpu);
    let hot = json!({ "temperature": 3, "seed": 11, "maxTokens": 24, "ignoreEos": true });
    let free = reply(&engine, hot.clone());
    for filter in [
        json!({ "typicalP": 0.2 }),
        json!({ "topNSigma": 0.5 }),
        json!({ "xtc": { "probability": 1, "threshold": 0.001 } }),
        json!({ "mirostat": { "tau": 2, "eta": 0.2 } }),
        json!({ "dry": { "multiplier": 50, "allowedLength": 1, "sequenceBreakers": [] } }),
        json!({ "repetitionPenalty": 4, "penaltyWindow": 8 }),
    ] {
        let options = with(&hot, &filter);
        let (one, two) = (reply(&engine, options.clone()), reply(&engine, options));
        assert_eq!(one.tokens, two.tokens, "{filter}");
        assert_ne!(one.tokens, free.tokens, "{filter}");
    }
    // With a filter that leaves one id the hottest reply is the greedy one.
    let greedy = reply(&engine, json!({ "maxTokens": 24, "ignoreEos": true }));
    assert_eq!(reply(&engine, with(&hot, &json!({ "topNSigma": 0.000_001 }))).tokens, greedy.tokens);
}

#[test]
fn several_replies_share_one_prompt_and_each_has_its_seed() {
    for backend in BACKENDS {
        let engine = load(ASSISTANT, backend);
        let hot = json!({ "temperature": 1.4, "seed": 21, "ignoreEos": true });
        let (result, pieces) = try_reply(&engine, with(&hot, &json!({ "n": 4 }))).unwrap();
        assert_eq!(result.others.len(), 3);
        let all: Vec<&GenerationResult> = std::iter::once(&result).chain(&result.others).collect();
        for (choice, one) in (0..).zip(&all) {
            let told: String = pieces.iter().filter(|piece| piece.choice == choice).map(|piece| &*piece.text).collect();
            assert_eq!(told, one.text, "choice {choice}");
            if choice > 0 {
                assert_eq!(one.usage.cached_tokens, one.usage.prompt_tokens - 1, "the prompt is computed once");
            }
            let alone = reply(&engine, with(&hot, &json!({ "seed": one.seed })));
            assert_eq!(alone.tokens, one.tokens, "{backend:?}: the seed of choice {choice}");
        }
        assert!(all.iter().skip(1).any(|one| one.tokens != all[0].tokens), "they differ");
    }
}

#[test]
fn what_cannot_be_honoured_is_named() {
    let engine = load(ASSISTANT, BackendChoice::Cpu);
    for (options, place, words) in [
        (json!({ "typicalP": 2 }), "typicalP", "from 0 to 1"),
        (json!({ "topNSigma": -1 }), "topNSigma", "from 0 to 100"),
        (json!({ "xtc": { "probability": 2 } }), "xtc: probability", "from 0 to 1"),
        (json!({ "mirostat": { "eta": 7 } }), "mirostat: eta", "from 0 to 1"),
        (json!({ "mirostat": {}, "topP": 0.5 }), "mirostat", "takes the place of topP"),
        (json!({ "dry": { "multiplier": 1, "base": 0.5 } }), "dry: base", "from 1 to 10"),
        (json!({ "penaltyWindow": 1.5 }), "penaltyWindow", "a whole number"),
        (json!({ "logitBias": { "x": 1 } }), "logitBias", "is not a token id"),
        (json!({ "logitBias": { "5": 101 } }), "logitBias", "from -100 to 100"),
        (json!({ "logitBias": { "5000000": 1 } }), "logitBias", "is not below"),
        (json!({ "topLogprobs": 3 }), "topLogprobs", "needs `logprobs`"),
        (json!({ "logprobs": true, "topLogprobs": 21 }), "topLogprobs", "from 0 to 20"),
        (json!({ "n": 1000 }), "n", "from 1 to 128"),
    ] {
        let error = try_reply(&engine, options.clone()).unwrap_err();
        assert_eq!((error.kind(), error.place().as_str()), (ErrorKind::InvalidArgument, place), "{options}: {error}");
        assert!(error.message().contains(words), "{options}: {error}");
    }
    assert!(!reply(&engine, json!({})).tokens.is_empty(), "and the next call works");
}

/// Of what the device chooses ids come back; of what is filtered here, or told, the largest logits; and the ids are those that
/// all logits lead to.
#[test]
fn candidates_come_back_and_not_all_logits() {
    let [here, there] = BACKENDS.map(|backend| load(ASSISTANT, backend));
    let top_bytes = 4 * (8 + 2 * 256);
    for (options, most_bytes) in [
        (json!({ "logitBias": { "300": 1.5 }, "temperature": 0.9, "seed": 5 }), 4),
        (json!({ "repetitionPenalty": 1.2, "penaltyWindow": 16 }), 4),
        (json!({ "dry": { "multiplier": 2, "allowedLength": 1 }, "temperature": 0.8, "topP": 0.9, "seed": 3 }), 4),
        (json!({ "logprobs": true, "topLogprobs": 20, "presencePenalty": 0.5 }), top_bytes + 8),
        (json!({ "temperature": 0.9, "topK": 30, "typicalP": 0.8, "seed": 9 }), top_bytes),
        (json!({ "temperature": 0.9, "topNSigma": 1, "seed": 9 }), top_bytes),
        (
            json!({ "temperature": 0.9, "topP": 0.9, "xtc": { "probability": 0.5, "threshold": 0.1 }, "seed": 4 }),
            top_bytes,
        ),
        (json!({ "temperature": 0.9, "mirostat": { "tau": 2 }, "seed": 8 }), top_bytes),
        (json!({ "temperature": 0.9, "topNSigma": 1, "seed": 9, "logprobs": true }), 2 * top_bytes + 4),
    ] {
        let before = there.stats().counters;
        let told = reply(&there, options.clone());
        let after = there.stats().counters;
        assert_eq!(after.full_reads, before.full_reads, "{options}");
        let bytes = after.read_bytes - before.read_bytes;
        assert!(bytes > 0 && bytes <= most_bytes * told.tokens.len() as u64, "{options}: {bytes} bytes");
        let all = reply(&here, options.clone());
        assert_eq!(told.tokens, all.tokens, "{options}");
        for (told, all) in told.logprobs.iter().zip(&all.logprobs) {
            assert!((told.logprob - all.logprob).abs() < 1e-3, "{told:?} {all:?}");
            assert_eq!(told.top.len(), all.top.len());
        }
    }
    // A filter that goes by everything reads everything, and says so.
    let before = there.stats().counters;
    let options = json!({ "temperature": 0.9, "typicalP": 0.8, "seed": 9, "ignoreEos": true });
    let told = reply(&there, options.clone());
    assert_eq!(there.stats().counters.full_reads - before.full_reads, told.tokens.len() as u64);
    assert_eq!(told.tokens, reply(&here, options).tokens);
}
