//! The whole way from files to text on the CPU: golden replies, stops, aborts, reuse of what was computed, limits.
#![allow(clippy::expect_used, reason = "a test says what it expects by failing")]

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use headwater::engine::{
    BackendChoice, BenchRequest, Engine, Environment, FinishReason, GenerateRequest, GenerationResult, LoadOptions,
    Phase, Piece, Prompt, Stops,
};
use headwater::error::{Error, ErrorKind, Result};
use headwater::format::Checkpoint;
use headwater::source::{MemorySource, Source};
use pollster::block_on;

const TINY: &str = "www/models/tiny-assistant";
const TINY_Q8: &str = "www/models/tiny-assistant/tiny-assistant-q8_0.gguf";
/// Smallest difference between the two likeliest logits at which another order of additions cannot change the choice.
const SAFE_MARGIN: f64 = 0.05;

fn files(path: &str) -> Vec<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if path.is_file() {
        return vec![path];
    }
    let belongs = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "json" || ending == "safetensors");
    path.read_dir().expect("a folder").map(|entry| entry.expect("an entry").path()).filter(belongs).collect()
}

/// The model's files in memory, each changed by `change`.
fn checkpoint(path: &str, change: impl Fn(&str, &mut Vec<u8>)) -> Checkpoint {
    let source = |path: PathBuf| {
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        let mut bytes = std::fs::read(&path).expect("a file");
        change(&name, &mut bytes);
        Rc::new(MemorySource::new(name, bytes)) as Rc<dyn Source>
    };
    block_on(Checkpoint::open(files(path).into_iter().map(source).collect())).expect("a model")
}

/// A clock that ticks, seeds that count, and pauses that are pauses.
fn environment() -> Environment {
    let (clock, seeds) = (Cell::new(1.7e9), Cell::new(0));
    Environment {
        now_secs: Box::new(move || clock.replace(clock.get() + 1e-3)),
        seed: Box::new(move || seeds.replace(seeds.get() + 1)),
        grammars: Box::<headwater::sample::NativeGrammars>::default(),
        kept: Box::new(headwater::gpu::Forgets),
        yield_now: Box::new(|| {
            let mut paused = false;
            Box::pin(std::future::poll_fn(move |context| {
                context.waker().wake_by_ref();
                if std::mem::replace(&mut paused, true) { Poll::Ready(()) } else { Poll::Pending }
            }))
        }),
    }
}

fn cpu() -> LoadOptions {
    LoadOptions { backend: BackendChoice::Cpu, ..LoadOptions::default() }
}

fn load(path: &str, options: &LoadOptions) -> Engine {
    let checkpoint = checkpoint(path, |_, _| {});
    block_on(Engine::load(checkpoint, options, environment(), &mut |_| Ok(()))).expect("a model that loads")
}

fn tiny() -> Engine {
    load(TINY_Q8, &cpu())
}

/// A greedy request for a reply to one message of a user.
fn user(content: &str) -> GenerateRequest {
    let json = serde_json::json!({ "prompt": [{ "role": "user", "content": content }], "temperature": 0 });
    GenerateRequest::from_json(&json.to_string()).expect("valid")
}

/// A greedy request that goes on to its length.
fn ids(ids: &[u32]) -> GenerateRequest {
    GenerateRequest { temperature: Some(0.0), ignore_eos: true, ..GenerateRequest::new(Prompt::Ids(ids.to_vec())) }
}

const FOX: &str = "Tell me a story about a fox and a lantern.";

fn generate(engine: &Engine, request: &GenerateRequest) -> Result<GenerationResult> {
    let mut pieces: Vec<Piece> = Vec::new();
    let result = block_on(engine.generate(request, &|| false, &mut |piece| pieces.push(piece.clone())));
    if let Ok(result) = &result {
        assert_eq!(pieces.iter().map(|piece| piece.text.as_str()).collect::<String>(), result.text);
        assert_eq!(pieces.iter().flat_map(|piece| piece.tokens.clone()).collect::<Vec<_>>(), result.tokens);
        assert_eq!(result.usage.completion_tokens, result.tokens.len());
    }
    result
}

fn reply(engine: &Engine, request: &GenerateRequest) -> GenerationResult {
    generate(engine, request).expect("a reply")
}

fn refused(engine: &Engine, request: &GenerateRequest) -> Error {
    generate(engine, request).expect_err("an error")
}

/// Ids that mean nothing, for prompts of a given length.
fn noise(len: u32) -> Vec<u32> {
    (0..len).map(|i| (i * 37 + 11) % 2000).collect()
}

fn golden_replies(path: &str, options: &LoadOptions, compared: usize) {
    let golden = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(TINY).join("golden.json"));
    let golden: serde_json::Value = serde_json::from_str(&golden.expect("a file")).expect("JSON");
    let safe = |case: &&serde_json::Value| case["least_margin"].as_f64().expect("a number") > SAFE_MARGIN;
    let cases: Vec<_> = golden["cases"].as_array().expect("cases").iter().filter(safe).collect();
    assert_eq!(cases.len(), compared);
    let engine = load(path, options);
    for case in cases {
        let json = serde_json::json!({ "prompt": case["messages"], "temperature": 0 });
        let request = GenerateRequest::from_json(&json.to_string()).expect("valid");
        assert_eq!(
            block_on(async { engine.count_tokens(&request.prompt) }).expect("a prompt"),
            case["prompt_ids"].as_array().expect("ids").len()
        );
        let reply = reply(&engine, &request);
        assert_eq!(reply.text, case["greedy_text"].as_str().expect("a text"));
        assert_eq!(serde_json::json!(reply.tokens), case["greedy_ids"]);
        assert_eq!(reply.finish_reason, FinishReason::Stop);
    }
}

#[test]
fn a_gguf_file_gives_the_golden_replies() {
    golden_replies(TINY_Q8, &cpu(), 8);
}

#[test]
fn a_hub_folder_gives_the_golden_replies() {
    golden_replies(TINY, &LoadOptions { exact: true, ..cpu() }, 8);
}

#[test]
fn loading_tells_its_phases_and_ends_when_told_to() {
    let mut seen = Vec::new();
    let checkpoint_of = || checkpoint(TINY_Q8, |_, _| {});
    let mut progress = |progress: headwater::engine::Progress| {
        assert_eq!(progress.file, "tiny-assistant-q8_0.gguf");
        assert!(progress.loaded_bytes <= progress.total_bytes);
        seen.push((progress.phase, progress.loaded_bytes));
        Ok(())
    };
    let engine = block_on(Engine::load(checkpoint_of(), &cpu(), environment(), &mut progress)).expect("a model");
    assert_eq!((seen[0], seen.last().copied().map(|last| last.0)), ((Phase::Inspect, 0), Some(Phase::Ready)));
    assert!(seen.iter().filter(|(phase, _)| *phase == Phase::Weights).count() > 10);
    assert!(seen.is_sorted_by_key(|(_, bytes)| *bytes));

    let info = serde_json::to_value(engine.info()).expect("JSON");
    assert_eq!((info["architecture"].as_str(), info["parameters"].as_u64()), (Some("qwen3"), Some(5_246_592)));
    assert_eq!((info["context"].as_u64(), info["vocabSize"].as_u64()), (Some(512), Some(2048)));
    assert_eq!((info["backend"]["name"].as_str(), info["license"].as_str()), (Some("cpu"), Some("apache-2.0")));
    assert_eq!(info["template"]["source"].as_str(), Some("tokenizer.chat_template"));

    let mut enough = |progress: headwater::engine::Progress| match progress.phase {
        Phase::Weights => Err(Error::new(ErrorKind::Aborted, "enough")),
        _ => Ok(()),
    };
    let ended = block_on(Engine::load(checkpoint_of(), &cpu(), environment(), &mut enough)).err().expect("an error");
    assert_eq!(ended.kind(), ErrorKind::Aborted);
}

#[test]
fn stop_texts_end_a_reply_wherever_tokens_end() {
    let engine = tiny();
    let whole = reply(&engine, &user(FOX));
    for stop in ["many friends", "y fr", "She", "a"] {
        let cut = reply(&engine, &GenerateRequest { stop: Some(Stops::One(stop.into())), ..user(FOX) });
        let (before, _) = whole.text.split_once(stop).expect("in the story");
        assert_eq!((cut.text.as_str(), cut.finish_reason), (before, FinishReason::Stop), "{stop}");
        assert_eq!(cut.tokens, whole.tokens[..cut.tokens.len()], "{stop}");
    }
    let never = Stops::Many(vec!["many foes".into(), "home!".into()]);
    assert_eq!(reply(&engine, &GenerateRequest { stop: Some(never), ..user(FOX) }).text, whole.text);
}

#[test]
fn lengths_end_a_reply() {
    let engine = tiny();
    let whole = reply(&engine, &user(FOX));
    for count in [1, 2, 7] {
        let short = reply(&engine, &GenerateRequest { max_tokens: Some(f64::from(count)), ..user(FOX) });
        assert_eq!((short.tokens.len(), short.finish_reason), (count as usize, FinishReason::Length));
        assert!(whole.text.starts_with(&short.text));
    }
    let on = reply(&engine, &GenerateRequest { ignore_eos: true, max_tokens: Some(140.0), ..user(FOX) });
    assert_eq!((on.tokens.len(), on.finish_reason), (140, FinishReason::Length));
    assert_eq!(on.tokens[..whole.tokens.len()], whole.tokens);
}

#[test]
fn the_context_is_a_limit_and_says_so() {
    let engine = load(TINY_Q8, &LoadOptions { context: Some(40), ..cpu() });
    let full = reply(&engine, &GenerateRequest { ignore_eos: true, ..user(FOX) });
    assert_eq!(full.finish_reason, FinishReason::Length);
    assert_eq!(full.usage.prompt_tokens + full.usage.completion_tokens, 40);

    let last = reply(&engine, &ids(&noise(39)));
    assert_eq!((last.tokens.len(), last.finish_reason), (1, FinishReason::Length));
    let error = refused(&engine, &ids(&noise(40)));
    assert_eq!(error.kind(), ErrorKind::ContextFull);
    assert!(error.message().contains("40 tokens") && error.message().contains("39"), "{error}");
    assert_eq!(reply(&engine, &GenerateRequest { ignore_eos: true, ..user(FOX) }).tokens, full.tokens);

    for context in [0, 1, 513] {
        let options = LoadOptions { context: Some(context), ..cpu() };
        let checkpoint = checkpoint(TINY_Q8, |_, _| {});
        let refused = block_on(Engine::load(checkpoint, &options, environment(), &mut |_| Ok(())));
        let error = refused.err().expect("an error");
        assert_eq!((error.kind(), error.place().as_str()), (ErrorKind::InvalidArgument, "context"));
    }
}

#[test]
fn a_turn_computes_only_what_is_new() {
    let engine = tiny();
    let first = reply(&engine, &user("Make a list of bread, olives and green tea."));
    assert_eq!(first.usage.cached_tokens, 0);
    let json = serde_json::json!({ "temperature": 0, "prompt": [
        { "role": "user", "content": "Make a list of bread, olives and green tea." },
        { "role": "assistant", "content": first.text },
        { "role": "user", "content": "What is the first item?" },
    ]});
    let next = GenerateRequest::from_json(&json.to_string()).expect("valid");
    let second = reply(&engine, &next);
    // The id that ended the first reply was chosen last; nothing was computed after it.
    assert_eq!(second.usage.cached_tokens, first.usage.prompt_tokens + first.usage.completion_tokens - 1);
    let fresh = reply(&tiny(), &next);
    assert_eq!((fresh.usage.cached_tokens, &fresh.tokens), (0, &second.tokens));

    let again = reply(&engine, &next);
    assert_eq!(again.usage.cached_tokens, again.usage.prompt_tokens - 1, "the last id is always computed");
    assert_eq!(again.tokens, fresh.tokens);
    let stats = engine.stats();
    assert_eq!(
        (stats.replies, stats.cached_tokens),
        (3, (second.usage.cached_tokens + again.usage.cached_tokens) as u64)
    );
}

/// By the device's own counts: a conversation's next turn launches what its new ids alone would.
#[test]
fn the_second_turn_of_a_thousand_ids_computes_only_what_is_new() {
    let long = || {
        let longer = |name: &str, bytes: &mut Vec<u8>| {
            if name == "config.json" {
                let text = String::from_utf8_lossy(bytes).into_owned();
                *bytes = text.replace("\"max_position_embeddings\": 512", "\"max_position_embeddings\": 2048").into();
            }
        };
        let options = LoadOptions { backend: BackendChoice::Gpu, context: Some(1200), ..LoadOptions::default() };
        let checkpoint = checkpoint("tests/data/models/llama3", longer);
        block_on(Engine::load(checkpoint, &options, environment(), &mut |_| Ok(()))).expect("a model that loads")
    };
    let turn = |engine: &Engine, prompt: &[u32]| {
        let before = engine.stats().counters;
        let request = GenerateRequest { max_tokens: Some(8.0), ignore_eos: true, ..ids(prompt) };
        let result = reply(engine, &request);
        let after = engine.stats().counters;
        (result, (after.passes - before.passes, after.write_bytes - before.write_bytes))
    };
    let engine = long();
    let first: Vec<u32> = (0..1000).map(|id| (id * 37 + 11) % 600).collect();
    let (reply, whole) = turn(&engine, &first);
    assert_eq!(reply.usage.cached_tokens, 0);
    let new: Vec<u32> = (0..40).map(|id| (id * 29 + 5) % 600).collect();
    let second = [first.as_slice(), &reply.tokens, &new].concat();
    let (reply, again) = turn(&engine, &second);
    assert_eq!((reply.usage.prompt_tokens, reply.usage.cached_tokens), (1048, 1007), "the reply's last id is new too");
    // The new ids alone, in a conversation of their own, and the whole of it where nothing was kept.
    let (_, alone) = turn(&long(), &second[1007..]);
    let (fresh, anew) = turn(&long(), &second);
    println!(
        "passes and uploaded bytes: a thousand ids {whole:?}, 41 more {again:?}, 41 alone {alone:?}, all {anew:?}"
    );
    // What an engine has learnt of its device makes its chunks larger than the first ones of another.
    assert!(again.0 <= alone.0, "passes of the device");
    assert!(again.1 * 4 < whole.1 && whole.1 < anew.1 && again.0 < whole.0, "uploads of the device");
    assert_eq!(fresh.tokens, reply.tokens);
}

#[test]
fn an_aborted_reply_leaves_the_engine_as_good_as_new() {
    let long = GenerateRequest { max_tokens: Some(6.0), ..ids(&noise(300)) };
    let expected = reply(&tiny(), &long);
    let engine = tiny();
    // It is asked before anything is done, and at least once for each of six ids.
    for questions in 0..7 {
        let asked = Cell::new(0);
        let aborted = || asked.replace(asked.get() + 1) >= questions;
        let mut pieces = Vec::new();
        let error = block_on(engine.generate(&long, &aborted, &mut |piece| pieces.extend(piece.tokens.clone())));
        assert_eq!(error.expect_err("an abort").kind(), ErrorKind::Aborted);
        assert!(expected.tokens.starts_with(&pieces));
        assert!(pieces.len() <= questions, "{} ids after {questions} questions", pieces.len());
    }
    let after = reply(&engine, &long);
    assert_eq!((after.tokens, after.usage.cached_tokens), (expected.tokens, 299));
}

#[test]
fn a_reply_that_nobody_waits_for_leaves_the_engine_as_good_as_new() {
    let expected = reply(&tiny(), &user(FOX));
    let engine = tiny();
    for polls in [1, 2, 5] {
        let (request, mut sink) = (user(FOX), |_: &Piece| {});
        let mut dropped = pin!(engine.generate(&request, &|| false, &mut sink));
        let mut left = polls;
        block_on(std::future::poll_fn(|context| {
            left -= 1;
            let _pending = dropped.as_mut().poll(context);
            context.waker().wake_by_ref();
            if left == 0 { Poll::Ready(()) } else { Poll::Pending }
        }));
    }
    assert_eq!(reply(&engine, &user(FOX)).tokens, expected.tokens);
}

#[test]
fn the_same_seed_gives_the_same_reply() {
    let engine = tiny();
    let sampled = |seed: Option<f64>| {
        let request = GenerateRequest { temperature: Some(1.2), seed, max_tokens: Some(24.0), ..user(FOX) };
        reply(&engine, &request)
    };
    let (one, other, drawn) = (sampled(Some(7.0)), sampled(Some(8.0)), sampled(None));
    assert_eq!((one.seed, sampled(Some(7.0)).tokens), (7, one.tokens.clone()));
    assert_ne!(one.tokens, other.tokens);
    assert_eq!(sampled(Some(f64::from(drawn.seed))).tokens, drawn.tokens);
    assert_ne!(sampled(None).seed, drawn.seed, "each reply draws its own");
}

#[test]
fn a_folder_is_sampled_as_its_authors_say() {
    let engine = load(TINY, &cpu());
    let silent = GenerateRequest { temperature: None, seed: Some(3.0), max_tokens: Some(16.0), ..user(FOX) };
    let spoken = GenerateRequest { temperature: Some(0.6), top_k: Some(20.0), top_p: Some(0.95), ..silent.clone() };
    assert_eq!(reply(&engine, &silent).tokens, reply(&engine, &spoken).tokens);
}

#[test]
fn bad_requests_are_refused_and_named() {
    let engine = tiny();
    let cases = [
        (GenerateRequest::new(Prompt::Text(String::new())), "prompt: the text is empty"),
        (GenerateRequest::new(Prompt::Messages(vec![])), "prompt: the list of messages is empty"),
        (GenerateRequest::new(Prompt::Ids(vec![])), "prompt: the list of ids is empty"),
        (ids(&[5, 2048]), "item 1: the id is outside 0 ..= 2047"),
        (GenerateRequest { temperature: Some(-1.0), ..user(FOX) }, "temperature: -1"),
        (GenerateRequest { temperature: Some(f64::NAN), ..user(FOX) }, "temperature: NaN"),
        (GenerateRequest { max_tokens: Some(0.0), ..user(FOX) }, "maxTokens: 0"),
        (GenerateRequest { parse_special: true, ..user(FOX) }, "parseSpecial"),
        (GenerateRequest { tools: Some(serde_json::json!([])), ..ids(&[1]) }, "tools"),
    ];
    for (request, words) in cases {
        let error = refused(&engine, &request);
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
        assert!(error.to_string().contains(words), "{words}: {error}");
    }
    assert_eq!(engine.stats().replies, 0);
    assert_eq!(block_on(engine.logits(&[2048])).expect_err("an error").kind(), ErrorKind::InvalidArgument);
    assert_eq!(block_on(engine.logits(&noise(513))).expect_err("an error").kind(), ErrorKind::ContextFull);
    assert_eq!(block_on(engine.logits(&[])).expect_err("an error").kind(), ErrorKind::InvalidArgument);
    assert_eq!(reply(&engine, &user("What are you?")).finish_reason, FinishReason::Stop);
}

#[test]
fn special_tokens_in_a_text_are_text_unless_asked_for() {
    let engine = tiny();
    let prompt = |parse_special| {
        let prompt = Prompt::Text("<|im_start|>user\nWhat are you?<|im_end|>\n<|im_start|>assistant\n".into());
        GenerateRequest {
            temperature: Some(0.0),
            max_tokens: Some(40.0),
            parse_special,
            ..GenerateRequest::new(prompt)
        }
    };
    let (text, parsed, chat) =
        (reply(&engine, &prompt(false)), reply(&engine, &prompt(true)), reply(&engine, &user("What are you?")));
    assert_eq!((parsed.tokens, parsed.usage.prompt_tokens), (chat.tokens, chat.usage.prompt_tokens));
    assert!(text.usage.prompt_tokens > parsed.usage.prompt_tokens);
}

#[test]
fn a_model_without_a_template_says_so() {
    let without = checkpoint(TINY, |name, bytes| {
        if name == "tokenizer_config.json" {
            *bytes = br#"{"eos_token": "<|im_end|>"}"#.to_vec();
        }
    });
    let engine = block_on(Engine::load(without, &cpu(), environment(), &mut |_| Ok(()))).expect("a model");
    assert_eq!(refused(&engine, &user(FOX)).kind(), ErrorKind::TemplateError);
    assert_eq!(reply(&engine, &GenerateRequest { max_tokens: Some(2.0), ..ids(&[1, 2]) }).tokens.len(), 2);
}

#[test]
fn weights_that_are_not_numbers_end_in_bad_logits() {
    let whole = checkpoint(TINY_Q8, |_, _| {});
    let norm = whole.tensor("output_norm.weight").expect("a tensor").clone();
    let broken = checkpoint(TINY_Q8, |_, bytes| {
        bytes[norm.offset as usize..][..4].copy_from_slice(&f32::NAN.to_le_bytes());
    });
    let engine = block_on(Engine::load(broken, &cpu(), environment(), &mut |_| Ok(()))).expect("a model");
    for _ in 0..2 {
        assert_eq!(refused(&engine, &user(FOX)).kind(), ErrorKind::BadLogits);
        assert_eq!(block_on(engine.logits(&[1, 2])).expect_err("an error").kind(), ErrorKind::BadLogits);
    }
    assert_eq!(engine.detokenize(&engine.tokenize("fox", false, false).expect("ids")).expect("text"), "fox");
}

/// Drives two futures side by side, the first one first.
async fn both<A: Future, B: Future>(a: A, b: B) -> (A::Output, B::Output) {
    let (mut a, mut b) = (pin!(a), pin!(b));
    let (mut of_a, mut of_b) = (None, None);
    std::future::poll_fn(move |context| {
        if of_a.is_none() {
            of_a = match a.as_mut().poll(context) {
                Poll::Ready(done) => Some(done),
                Poll::Pending => None,
            };
        }
        if of_b.is_none() {
            of_b = match b.as_mut().poll(context) {
                Poll::Ready(done) => Some(done),
                Poll::Pending => None,
            };
        }
        match (of_a.take(), of_b.take()) {
            (Some(a), Some(b)) => Poll::Ready((a, b)),
            (a, b) => {
                (of_a, of_b) = (a, b);
                Poll::Pending
            }
        }
    })
    .await
}

#[test]
fn replies_at_the_same_time_are_those_that_each_has_alone() {
    let engine = tiny();
    let sampled = |seed: f64| GenerateRequest {
        temperature: Some(1.2),
        repetition_penalty: Some(1.1),
        seed: Some(seed),
        max_tokens: Some(40.0),
        ..user("Make a list of bread, olives and green tea.")
    };
    let requests = [user("What are you?"), sampled(3.0), sampled(4.0)];
    let expected = requests.each_ref().map(|request| reply(&tiny(), request).tokens);
    let order = RefCell::new(Vec::new());
    let ask = |name: usize| {
        let (engine, order, request) = (&engine, &order, &requests[name]);
        async move { engine.generate(request, &|| false, &mut |_| order.borrow_mut().push(name)).await }
    };
    let ((one, two), three) = block_on(both(both(ask(0), ask(1)), ask(2)));
    assert_eq!([one, two, three].map(|result| result.expect("a reply").tokens), expected);
    assert!(!order.borrow().is_sorted(), "one after the other: {order:?}");
}

#[test]
fn one_prefill_serves_several_replies_and_several_calls() {
    let engine = tiny();
    let request = GenerateRequest { n: Some(4.0), max_tokens: Some(6.0), temperature: Some(1.0), ..ids(&noise(200)) };
    let result = block_on(engine.generate(&request, &|| false, &mut |_| {})).expect("replies");
    let cached: Vec<usize> = result.others.iter().map(|other| other.usage.cached_tokens).collect();
    assert_eq!((result.usage.cached_tokens, cached), (0, vec![199; 3]), "the last id is always computed");
    for (at, other) in result.others.iter().enumerate() {
        let alone = GenerateRequest { n: None, seed: Some(f64::from(other.seed)), ..request.clone() };
        assert_eq!(reply(&tiny(), &alone).tokens, other.tokens, "reply {at}");
    }
}

#[test]
fn replies_that_outgrow_the_pages_come_to_their_ends() {
    let small = || load(TINY_Q8, &LoadOptions { context: Some(96), ..cpu() });
    let request = |first: u32, logprobs: bool| GenerateRequest {
        logprobs,
        max_tokens: Some(70.0),
        ignore_eos: true,
        ..ids(&[first, 9, 8, 7, 6, 5])
    };
    // Chosen by the backend and by the caller, together more than there is room for.
    let requests = [request(20, false), request(30, true), request(40, false)];
    let expected = requests.each_ref().map(|request| reply(&small(), request).tokens);
    let engine = small();
    let ask = |at: usize| {
        let (engine, request) = (&engine, &requests[at]);
        async move { engine.generate(request, &|| false, &mut |_| {}).await.expect("a reply").tokens }
    };
    let ((one, two), three) = block_on(both(both(ask(0), ask(1)), ask(2)));
    assert_eq!([one, two, three], expected);
}

#[test]
fn conversations_in_turns_keep_their_prefixes() {
    let engine = tiny();
    let (a, b) = (noise(150), noise(140).into_iter().rev().collect::<Vec<u32>>());
    let turn = |history: &mut Vec<u32>| {
        let result = reply(&engine, &GenerateRequest { max_tokens: Some(5.0), ignore_eos: true, ..ids(history) });
        history.extend(&result.tokens);
        history.push(7);
        result.usage.cached_tokens
    };
    let (mut first, mut second) = (a.clone(), b.clone());
    assert_eq!((turn(&mut first), turn(&mut second)), (0, 0));
    assert_eq!((turn(&mut first), turn(&mut second)), (150 + 4, 140 + 4), "the last id of a reply was not computed");
    assert_eq!((turn(&mut first), turn(&mut second)), (150 + 10, 140 + 10));
}

#[test]
fn a_disposed_model_answers_nothing() {
    let engine = tiny();
    let request = user(FOX);
    let mut seen = 0;
    let handle = engine.clone();
    let result = block_on(engine.generate(&request, &|| false, &mut |_| {
        seen += 1;
        if seen == 3 {
            handle.dispose();
        }
    }));
    assert_eq!((result.expect_err("an error").kind(), seen), (ErrorKind::Disposed, 3));
    assert_eq!(refused(&engine, &request).kind(), ErrorKind::Disposed);
    assert_eq!(engine.tokenize("fox", false, false).expect_err("an error").kind(), ErrorKind::Disposed);
    assert_eq!(engine.info().architecture, "qwen3");
    engine.dispose();
}

#[test]
fn logits_do_not_depend_on_chunks_or_on_what_was_there() {
    let engine = load(TINY_Q8, &LoadOptions { exact: true, ..cpu() });
    let long = block_on(engine.logits(&noise(150))).expect("logits");
    reply(&engine, &user("What are you?"));
    let short = block_on(engine.logits(&noise(20))).expect("logits");
    assert_eq!((long.len(), short.len()), (150 * 2048, 20 * 2048));
    assert_eq!(short, long[..20 * 2048]);
}

#[test]
fn speed_is_measured_inside_the_context() {
    let engine = load(TINY_Q8, &LoadOptions { context: Some(64), ..cpu() });
    let report = block_on(engine.bench(&BenchRequest {
        prefill: 512,
        decode: 4,
        depth: 8,
        replies: 3,
        speculation: true,
        profile: false,
    }))
    .expect("a report");
    assert_eq!((report.depth, report.prefill.tokens, report.decode.tokens), (8, 56, 4));
    assert_eq!(report.notes, ["prefill: 56 instead of 512, the context is 64"]);
    // All matrices once (the tied head is the table), one row of the table, the norms; keys and values of 10 positions.
    let weights = engine.stats().weight_bytes + 256 / 32 * 34;
    assert_eq!(report.bytes_per_token, weights + 10 * (6 * 2 * 4 * 32 * 2));
    assert_eq!(report.together.map(|rate| rate.tokens), Some(3 * 4));
    let rates = report.speculation.expect("drafts");
    assert!(rates.iter().all(|rates| (rates.plain.tokens, rates.drafted.tokens) == (3, 3)));
    let many = block_on(engine.bench(&BenchRequest { replies: 9, ..BenchRequest::default() })).expect_err("too many");
    assert_eq!((many.kind(), many.place().as_str()), (ErrorKind::InvalidArgument, "replies"));
    let profile =
        block_on(engine.bench(&BenchRequest { profile: true, ..BenchRequest::default() })).expect_err("a CPU");
    assert_eq!((profile.kind(), profile.place().as_str()), (ErrorKind::InvalidArgument, "profile"));
    let nothing = block_on(engine.bench(&BenchRequest { prefill: 0, ..BenchRequest::default() }));
    assert_eq!(nothing.expect_err("an error").kind(), ErrorKind::InvalidArgument);
    assert_eq!(reply(&engine, &user("What are you?")).finish_reason, FinishReason::Stop);
}
