//! A reply from its first id to its end, on a backend that plays a script.

use std::cell::Cell;
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Waker};

use pollster::block_on;

use super::fake::{Call, Fake, MAX_ROWS, loaded};
use super::loaded::Loaded;
use super::reply::Job;
use super::result::{FinishReason, GenerationResult};
use crate::error::{ErrorKind, Result};
use crate::graph::{AdapterId, AdapterUse};

const STOP_ID: u32 = 2047;

fn job(prompt: &[u32], max_tokens: f64) -> Job {
    Job::of(prompt, max_tokens, 1.0)
}

fn run(loaded: &Rc<Loaded>, job: &Job, aborted: &dyn Fn() -> bool) -> Result<GenerationResult> {
    block_on(job.run(loaded, aborted, &mut |_| {}))
}

fn reply(loaded: &Rc<Loaded>, prompt: &[u32], max_tokens: f64) -> GenerationResult {
    run(loaded, &job(prompt, max_tokens), &|| false).expect("a reply")
}

#[test]
fn the_next_chain_is_submitted_before_the_last_is_read() {
    let fake = Fake::new(100..200);
    let loaded = loaded(&fake);
    let result = reply(&loaded, &[1, 2, 3], 10.0);
    assert_eq!((result.tokens, result.finish_reason), ((100..110).collect(), FinishReason::Length));
    let (calls, most_open) = fake.calls();
    let expected = [
        Call::Prefill(0, 3, true),
        Call::Decode(3, 4, 1),
        Call::Collect(0),
        Call::Decode(7, 4, 5),
        Call::Collect(1),
        Call::Decode(11, 1, 9),
        Call::Collect(5),
        Call::Collect(9),
    ];
    assert_eq!((calls.as_slice(), most_open), (expected.as_slice(), 2));
}

#[test]
fn a_reply_of_one_id_submits_nothing_after_the_prompt() {
    let fake = Fake::new(vec![9]);
    let prompt: Vec<u32> = (0..MAX_ROWS as u32 + 1).collect();
    assert_eq!(reply(&loaded(&fake), &prompt, 1.0).tokens, [9]);
    let expected = [Call::Prefill(0, MAX_ROWS, false), Call::Prefill(MAX_ROWS as u32, 1, true), Call::Collect(0)];
    assert_eq!(fake.calls().0, expected);
}

#[test]
fn what_comes_after_the_end_is_dropped() {
    let fake = Fake::new(vec![10, 11, 12, STOP_ID, 13, 14, 15, 16, 17]);
    let loaded = loaded(&fake);
    let result = reply(&loaded, &[1, 2, 3], 100.0);
    assert_eq!((result.tokens, result.finish_reason), (vec![10, 11, 12, STOP_ID], FinishReason::Stop));
    assert_eq!(fake.open_tickets(), 0);

    fake.calls();
    let next = reply(&loaded, &[1, 2, 3, 10, 11, 12, STOP_ID, 13, 5], 1.0);
    assert_eq!(next.usage.cached_tokens, 7, "the reply is kept, the rest is not");
    assert_eq!(fake.calls().0.first(), Some(&Call::Prefill(7, 2, true)));
}

#[test]
fn what_one_adapter_computed_is_not_reused_by_another() {
    let loaded = loaded(&Fake::new(100..200));
    let with = |adapter: Option<(u64, f32)>| {
        let adapter = adapter.map(|(id, scale)| AdapterUse { id: AdapterId(id), scale });
        let job = Job { adapter, ..job(&[1, 2, 3], 2.0) };
        run(&loaded, &job, &|| false).expect("a reply").usage.cached_tokens
    };
    for adapter in [None, Some((1, 1.0)), Some((1, 0.5)), Some((2, 0.5))] {
        assert_eq!((with(adapter), with(adapter)), (0, 2), "{adapter:?}");
    }
    assert_eq!(with(None), 2, "what each computed is kept for itself");
}

#[test]
fn a_reply_fills_the_context_to_its_last_place() {
    let fake = Fake::new(vec![5; 200]);
    let loaded = loaded(&fake);
    let result = reply(&loaded, &[1, 2, 3], 1000.0);
    assert_eq!((result.tokens.len(), result.finish_reason), (loaded.context - 3, FinishReason::Length));
}

#[test]
fn an_error_of_a_chain_leaves_nothing_behind() {
    let fake = Fake::new(100..200);
    fake.bad.set(Some(6));
    let loaded = loaded(&fake);
    let error = run(&loaded, &job(&[1, 2, 3], 20.0), &|| false).expect_err("bad logits");
    assert_eq!((error.kind(), fake.open_tickets()), (ErrorKind::BadLogits, 0));
    let result = reply(&loaded, &[1, 2, 3], 3.0);
    assert_eq!((result.tokens, result.usage.cached_tokens), (vec![100, 101, 102], 0));
}

#[test]
fn an_abort_takes_no_more_than_the_chains_under_way() {
    let fake = Fake::new(100..200);
    let loaded = loaded(&fake);
    let told = Cell::new(0);
    let aborted = || told.get() > 0;
    let mut sink = |piece: &super::result::Piece| told.set(told.get() + piece.tokens.len());
    let error = block_on(job(&[1, 2, 3], 90.0).run(&loaded, &aborted, &mut sink)).expect_err("an abort");
    assert_eq!((error.kind(), fake.open_tickets(), told.get()), (ErrorKind::Aborted, 0, 1));
    let decodes = fake.calls().0.iter().filter(|call| matches!(call, Call::Decode(..))).count();
    assert_eq!(decodes, 1, "the chain that was submitted before the first id was read");
    let result = reply(&loaded, &[1, 2, 3, 100, 101, 102, 7], 1.0);
    assert_eq!(result.usage.cached_tokens, 6, "what was computed is kept");
}

#[test]
fn a_dropped_reply_is_settled_by_the_next() {
    let fake = Fake::new(100..200);
    let loaded = loaded(&fake);
    for polls in 1..6 {
        let (job, never) = (job(&[1, 2, 3], 90.0), || false);
        let mut sink = |_: &super::result::Piece| {};
        let mut work = pin!(job.run(&loaded, &never, &mut sink));
        for _ in 0..polls {
            assert!(work.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        }
    }
    assert!(fake.open_tickets() > 0);
    assert_eq!(reply(&loaded, &[1, 2, 3], 6.0).tokens, [100, 101, 102, 103, 104, 105]);
    assert_eq!(fake.open_tickets(), 0);
}

#[test]
fn a_model_with_state_goes_on_from_the_chain_before_the_end() {
    // The prompt but its last token, then that token, then chains of four: states after 2, 3, 7, 11, ... tokens.
    for (length, kept) in [(1, 3), (3, 3), (4, 7), (7, 7), (8, 11), (20, 23), (21, 23)] {
        let script = (100..100 + length - 1).chain([STOP_ID]).chain(200..300);
        let fake = Fake::with_state(script.clone());
        let loaded = loaded(&fake);
        let first = reply(&loaded, &[1, 2, 3], 90.0);
        assert_eq!((first.tokens.len(), first.finish_reason), (length as usize, FinishReason::Stop));
        let turn: Vec<u32> = [1, 2, 3].into_iter().chain(script.take(length as usize)).chain([7, 8, 9]).collect();
        let next = reply(&loaded, &turn, 3.0);
        assert_eq!(next.usage.cached_tokens, kept, "after a reply of {length}");
    }
}

#[test]
fn a_model_with_state_keeps_the_prompt_but_its_last_token() {
    let fake = Fake::with_state(100..200);
    let loaded = loaded(&fake);
    let prompt: Vec<u32> = (0..2 * MAX_ROWS as u32 + 3).collect();
    let cached = |prompt: &[u32], max_tokens| reply(&loaded, prompt, max_tokens).usage.cached_tokens;
    assert_eq!(cached(&prompt, 30.0), 0);
    assert_eq!(cached(&prompt, 30.0), prompt.len() - 1);
    assert_eq!(cached(&prompt, 1.0), prompt.len() - 1);
    let edited: Vec<u32> = prompt.iter().copied().take(12).chain([99, 98]).collect();
    assert_eq!(cached(&edited, 5.0), 0, "what comes before the mark is not kept");
    let longer: Vec<u32> = edited.iter().copied().chain([55]).collect();
    assert_eq!(cached(&longer, 5.0), edited.len());
}

#[test]
fn a_model_with_state_is_as_good_as_new_after_aborts_and_faults() {
    let fake = Fake::with_state(100..200);
    let loaded = loaded(&fake);
    let prompt: Vec<u32> = (0..3 * MAX_ROWS as u32).collect();
    for questions in 0..9 {
        let asked = Cell::new(0);
        let aborted = || asked.replace(asked.get() + 1) >= questions;
        let error = run(&loaded, &job(&prompt, 60.0), &aborted).expect_err("an abort");
        assert_eq!((error.kind(), fake.open_tickets()), (ErrorKind::Aborted, 0));
    }
    let turn: Vec<u32> = prompt.iter().copied().chain([100, 101, 102, 7]).collect();
    assert!(reply(&loaded, &turn, 9.0).usage.cached_tokens >= prompt.len() - 1);

    fake.bad.set(Some(6));
    assert_eq!(run(&loaded, &job(&turn, 20.0), &|| false).expect_err("bad").kind(), ErrorKind::BadLogits);
    assert_eq!(reply(&loaded, &turn, 20.0).usage.cached_tokens, 0);
    for polls in 1..6 {
        let (job, never) = (job(&prompt, 60.0), || false);
        let mut sink = |_: &super::result::Piece| {};
        let mut work = pin!(job.run(&loaded, &never, &mut sink));
        for _ in 0..polls {
            assert!(work.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        }
    }
    assert_eq!(reply(&loaded, &prompt, 6.0).tokens, [100, 101, 102, 103, 104, 105]);
}
