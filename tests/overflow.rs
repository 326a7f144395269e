//! What happens where the context is full: turns leave, replies go on, and both give what a prompt of just the ids that
//! are left gives.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

mod common;

use common::open;
use headwater::engine::{
    BackendChoice, Dropped, Engine, FinishReason, GenerateRequest, GenerationResult, LoadOptions, Piece,
};
use headwater::error::{ErrorKind, Result};
use pollster::block_on;
use serde_json::{Value, json};

const MODEL: &str = "www/models/tiny-assistant/tiny-assistant-q8_0.gguf";
const CONTEXT: usize = 160;
const QUARTER: usize = CONTEXT / 4;

fn load(backend: BackendChoice) -> Engine {
    let environment = common::environment(77);
    let options = LoadOptions { backend, context: Some(CONTEXT), ..LoadOptions::default() };
    block_on(Engine::load(open(&[MODEL]), &options, environment, &mut |_| Ok(()))).unwrap()
}

/// A reply, and what was told of messages and ids that went.
fn ask(engine: &Engine, prompt: Value, options: Value) -> Result<(GenerationResult, Vec<Dropped>)> {
    let mut request = json!({ "prompt": prompt, "temperature": 0, "seed": 3 });
    let all = request.as_object_mut().unwrap();
    all.extend(options.as_object().unwrap().clone());
    let request = GenerateRequest::from_json(&request.to_string()).unwrap();
    let (mut dropped, mut ids): (_, Vec<Vec<u32>>) = (vec![], vec![vec![]; 4]);
    let mut sink = |piece: &Piece| {
        ids[piece.choice as usize].extend(&piece.tokens);
        dropped.extend(piece.dropped);
    };
    let result = block_on(engine.generate(&request, &|| false, &mut sink))?;
    assert_eq!(ids[0], result.tokens, "an id is told once");
    Ok((result, dropped))
}

fn turn(at: usize) -> Vec<Value> {
    vec![
        json!({ "role": "user", "content": format!("Say {at}.") }),
        json!({ "role": "assistant", "content": format!("It is {at}.") }),
    ]
}

/// A system's message, so many turns and a question.
fn conversation(turns: std::ops::Range<usize>) -> Value {
    let mut messages = vec![json!({ "role": "system", "content": "You are a helpful assistant." })];
    messages.extend(turns.flat_map(turn));
    messages.push(json!({ "role": "user", "content": "What is your name?" }));
    Value::Array(messages)
}

fn count(engine: &Engine, prompt: &Value) -> usize {
    engine.count_tokens(&headwater::engine::Prompt::from_json(&prompt.to_string()).unwrap()).unwrap()
}

#[test]
fn whole_turns_leave_behind_the_systems_message_and_the_next_turns_find_what_stayed() {
    let engine = load(BackendChoice::Cpu);
    let truncate = json!({ "onOverflow": "truncate-middle", "maxTokens": 12 });
    let whole = conversation(0..12);
    let error = ask(&engine, whole.clone(), json!({ "maxTokens": 12 })).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ContextFull);

    let (reply, told) = ask(&engine, whole.clone(), truncate.clone()).unwrap();
    let gone = reply.dropped.unwrap();
    assert_eq!(told, [gone], "told once, at the beginning");
    assert_eq!(gone.messages % 2, 0, "whole turns");
    let left = conversation(gone.messages / 2..12);
    assert_eq!(gone.tokens, count(&engine, &whole) - count(&engine, &left));
    assert_eq!(reply.usage.prompt_tokens, count(&engine, &left));
    assert!(reply.usage.prompt_tokens + 12 <= CONTEXT);
    let (alone, none) = ask(&engine, left, json!({ "maxTokens": 12 })).unwrap();
    assert_eq!((reply.tokens, alone.dropped, none), (alone.tokens, None, vec![]));

    // What leaves is a multiple of a quarter of the context or just more, so that the same leave for a while.
    let mut cuts = vec![];
    for turns in 12..20 {
        let (reply, _) = ask(&engine, conversation(0..turns), truncate.clone()).unwrap();
        let messages = reply.dropped.unwrap().messages;
        if cuts.last() == Some(&messages) {
            assert!(reply.usage.cached_tokens > reply.usage.prompt_tokens / 2, "{turns} turns: {:?}", reply.usage);
        }
        cuts.push(messages);
    }
    let changes = cuts.windows(2).filter(|pair| pair[0] != pair[1]).count();
    assert!((2..=5).contains(&changes), "{cuts:?}");

    let (short, none) = ask(&engine, conversation(0..1), truncate).unwrap();
    assert_eq!((short.dropped, none), (None, vec![]));
}

#[test]
fn what_can_never_leave_is_still_refused() {
    let engine = load(BackendChoice::Cpu);
    for policy in ["truncate-middle", "sliding"] {
        let long = json!([{ "role": "user", "content": "Hi" }, { "role": "assistant", "content": "Hello." },
            { "role": "user", "content": "word ".repeat(CONTEXT) }]);
        let error = ask(&engine, long, json!({ "onOverflow": policy })).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ContextFull, "{policy}: {error}");
    }
    for prompt in [json!("Once"), json!([1, 2, 3])] {
        let error = ask(&engine, prompt, json!({ "onOverflow": "truncate-middle" })).unwrap_err();
        assert_eq!((error.kind(), error.place().as_str()), (ErrorKind::InvalidArgument, "onOverflow"));
    }
}

/// Three quarters of the context at the end of these ids, and the first one before them if it is special.
fn window(engine: &Engine, all: &[u32]) -> Vec<u32> {
    let special = engine.detokenize(&all[..1]).unwrap().starts_with("<|");
    let keep = usize::from(special);
    [&all[..keep], &all[all.len() - (CONTEXT - QUARTER - keep)..]].concat()
}

/// A reply of `long` ids.
fn goes_on(backend: BackendChoice, long: usize) {
    let engine = load(backend);
    let prompt: Vec<u32> = (0..50).map(|i| (i * 37 + 11) % 2000).collect();
    let options = |max: usize| json!({ "onOverflow": "sliding", "maxTokens": max, "ignoreEos": true });
    let (reply, told) = ask(&engine, json!(prompt), options(long)).unwrap();
    assert_eq!((reply.tokens.len(), reply.finish_reason), (long, FinishReason::Length));
    // By hand: a reply at a time, each to what the window has.
    let (mut all, mut ids, mut moves) = (prompt.clone(), prompt.clone(), 0);
    while all.len() < prompt.len() + long {
        let left = (prompt.len() + long - all.len()).min(CONTEXT - ids.len());
        let (part, none) = ask(&engine, json!(ids), json!({ "maxTokens": left, "ignoreEos": true })).unwrap();
        assert!(none.is_empty());
        all.extend(part.tokens);
        if all.len() < prompt.len() + long {
            ids = window(&engine, &all);
            moves += 1;
            assert_eq!(told[moves - 1], Dropped { messages: 0, tokens: all.len() - ids.len() });
        }
    }
    assert_eq!(reply.tokens, all[prompt.len()..]);
    assert_eq!((told.len(), reply.dropped), (moves, told.last().copied()));
    assert!(moves >= long / QUARTER - 3, "{moves}");

    // The same where ids are chosen on this side, and with chance, whose numbers go on by the reply's own.
    let chosen = json!({ "onOverflow": "sliding", "maxTokens": CONTEXT, "ignoreEos": true, "logprobs": true });
    assert_eq!(ask(&engine, json!(prompt), chosen).unwrap().0.tokens, reply.tokens[..CONTEXT]);
    let chance = |logprobs: bool| {
        json!({ "onOverflow": "sliding", "maxTokens": CONTEXT, "ignoreEos": true, "temperature": 1.1, "topK": 30,
            "presencePenalty": 0.4, "repetitionPenalty": 1.1, "logprobs": logprobs })
    };
    let device = ask(&engine, json!(prompt), chance(false)).unwrap().0;
    let here = ask(&engine, json!(prompt), chance(true)).unwrap().0;
    assert_eq!(device.tokens, here.tokens, "penalties and chance know the whole reply");
    assert!(device.dropped.is_some());
    assert!(device.receipt.is_some_and(|receipt| receipt.options["onOverflow"] == "sliding"));
}

#[test]
fn a_reply_goes_on_past_the_end_of_the_context_on_the_cpu() {
    goes_on(BackendChoice::Cpu, 3 * CONTEXT);
}

#[test]
fn a_reply_goes_on_past_the_end_of_the_context_on_the_gpu() {
    goes_on(BackendChoice::Gpu, CONTEXT);
}

#[test]
fn a_conversations_turns_leave_first_then_the_beginning_of_the_reply() {
    let engine = load(BackendChoice::Cpu);
    let options = json!({ "onOverflow": "sliding", "maxTokens": 2 * CONTEXT, "ignoreEos": true, "n": 2 });
    let (reply, told) = ask(&engine, conversation(0..4), options).unwrap();
    assert_eq!((reply.tokens.len(), reply.others[0].tokens.len()), (2 * CONTEXT, 2 * CONTEXT));
    assert!(told.first().is_some_and(|first| first.messages > 0 && first.messages < 8), "{told:?}");
    assert_eq!(told.last().map(|last| last.messages), Some(8), "all but the question: {told:?}");
    // The first time, turns make all the room: the reply stays whole.
    let kept = conversation(told[0].messages / 2..4);
    let first = CONTEXT - count(&engine, &conversation(0..4));
    let (before, _) = ask(&engine, conversation(0..4), json!({ "maxTokens": first, "ignoreEos": true })).unwrap();
    assert_eq!(reply.tokens[..first], before.tokens);
    assert_eq!(told[0].tokens, count(&engine, &conversation(0..4)) - count(&engine, &kept));

    // A question that is more than half of the context leaves too little to slide in.
    let long = json!([{ "role": "user", "content": "word ".repeat(CONTEXT / 2) }]);
    let options = json!({ "onOverflow": "sliding", "maxTokens": 2 * CONTEXT, "ignoreEos": true });
    let (reply, told) = ask(&engine, long, options).unwrap();
    assert_eq!((reply.finish_reason, told), (FinishReason::Length, vec![]));
    assert_eq!(reply.usage.prompt_tokens + reply.tokens.len(), CONTEXT);
}

#[test]
fn a_constraint_holds_across_the_end_of_the_context() {
    let engine = load(BackendChoice::Cpu);
    let options = json!({ "onOverflow": "sliding", "maxTokens": 4 * CONTEXT, "regex": "(ab ){160}end" });
    let (reply, told) = ask(&engine, conversation(0..2), options).unwrap();
    assert_eq!(reply.text, "ab ".repeat(160) + "end");
    assert_eq!((reply.finish_reason, reply.constraint_complete), (FinishReason::Stop, Some(true)));
    assert!(!told.is_empty());
}
