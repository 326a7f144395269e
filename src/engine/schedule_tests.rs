//! Replies side by side, on a backend that plays a script.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::driver::alone;
use super::fake::{CHAIN, Call, Fake, MAX_ROWS, N_PAGES, loaded};
use super::loaded::Loaded;
use super::reply::Job;
use super::result::GenerationResult;
use crate::error::{Error, ErrorKind, Result};
use crate::graph::PAGE_TOKENS;

pub(super) type Reply<'a> = Pin<Box<dyn Future<Output = Result<GenerationResult>> + 'a>>;

/// A reply that begins when it is first polled.
pub(super) fn ask(loaded: &Rc<Loaded>, job: Job) -> Reply<'_> {
    Box::pin(async move { job.run(loaded, &|| false, &mut |_| {}).await })
}

fn poll<F: Future + ?Sized>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// Polls all in turns, as an executor does, until all are done.
pub(super) fn join(mut replies: Vec<Reply<'_>>) -> Vec<Result<GenerationResult>> {
    let mut done: Vec<Option<Result<GenerationResult>>> = replies.iter().map(|_| None).collect();
    for _ in 0..10_000 {
        for (reply, done) in replies.iter_mut().zip(&mut done) {
            if done.is_none()
                && let Poll::Ready(result) = poll(reply.as_mut())
            {
                *done = Some(result);
            }
        }
        if done.iter().all(Option::is_some) {
            return done.into_iter().flatten().collect();
        }
    }
    panic!("replies that do not end");
}

fn tokens(results: Vec<Result<GenerationResult>>) -> Vec<Vec<u32>> {
    results.into_iter().map(|result| result.expect("a reply").tokens).collect()
}

fn batches(calls: &[Call]) -> Vec<(usize, u32, bool)> {
    let batch = |call: &Call| match call {
        Call::Batch(rows, count, goes_on) => Some((*rows, *count, *goes_on)),
        _ => None,
    };
    calls.iter().filter_map(batch).collect()
}

#[test]
fn replies_of_several_callers_go_through_the_same_steps() {
    let fake = Fake::new(100..200);
    let loaded = loaded(&fake);
    let lengths = [22, 30, 37];
    let replies = lengths.map(|len| ask(&loaded, Job::of(&[len, 2, 3], f64::from(len), 1.0)));
    let expected: Vec<Vec<u32>> = lengths.iter().map(|len| (100..100 + len).collect()).collect();
    assert_eq!(tokens(join(replies.into())), expected);
    let (calls, most_open) = fake.calls();
    // The first has a chain or two before the others are past their prompts.
    let batches = batches(&calls);
    assert!(batches.contains(&(3, CHAIN, true)) || batches.contains(&(3, CHAIN, false)), "{calls:?}");
    assert!(batches.contains(&(2, CHAIN, true)), "{calls:?}");
    assert_eq!((most_open, fake.open_tickets()), (2, 0));
    let steps: u32 = batches.iter().map(|(_, count, _)| count).sum();
    assert!(steps <= 37, "{calls:?}");
}

#[test]
fn a_long_prompt_does_not_hold_up_the_others() {
    let fake = Fake::new(100..200);
    let loaded = loaded(&fake);
    let mut short = ask(&loaded, Job::of(&[1, 2, 3], 30.0, 1.0));
    assert!(poll(short.as_mut()).is_pending());
    let long: Vec<u32> = (0..6 * MAX_ROWS as u32).collect();
    assert_eq!(tokens(join(vec![short, ask(&loaded, Job::of(&long, 2.0, 1.0))]))[1], [100, 101]);
    let calls = fake.calls().0;
    let chunks: Vec<usize> =
        (0..).zip(&calls).filter(|(_, call)| matches!(call, Call::Prefill(_, 8, _))).map(|(at, _)| at).collect();
    assert_eq!(chunks.len(), 6);
    for pair in chunks.windows(2) {
        assert!(
            calls[pair[0]..pair[1]].iter().any(|call| matches!(call, Call::Decode(..) | Call::Collect(_))),
            "{calls:?}"
        );
    }
}

#[test]
fn several_replies_to_a_prompt_compute_it_once() {
    let fake = Fake::new(100..200);
    let loaded = loaded(&fake);
    let prompt: Vec<u32> = (0..20).collect();
    let result = tokens_of_all(join(vec![ask(&loaded, Job::of(&prompt, 6.0, 3.0))]).remove(0).expect("replies"));
    assert_eq!(
        result,
        vec![(0, (100..106).collect::<Vec<u32>>()), (19, (100..106).collect()), (19, (100..106).collect())]
    );
    let prefilled: usize =
        fake.calls().0.iter().map(|call| if let Call::Prefill(_, rows, _) = call { *rows } else { 0 }).sum();
    assert_eq!(prefilled, 20 + 2, "the last id once for each, whose logits are needed");
}

fn tokens_of_all(result: GenerationResult) -> Vec<(usize, Vec<u32>)> {
    let others = result.others.clone();
    std::iter::once(result).chain(others).map(|one| (one.usage.cached_tokens, one.tokens)).collect()
}

#[test]
fn conversations_that_alternate_keep_their_prefixes() {
    let loaded = loaded(&Fake::new(100..200));
    let turn = |prompt: &[u32]| {
        let result = join(vec![ask(&loaded, Job::of(prompt, 3.0, 1.0))]).remove(0).expect("a reply");
        result.usage.cached_tokens
    };
    let (a, b) = ([1, 2, 3, 4], [7, 8, 9]);
    assert_eq!((turn(&a), turn(&b)), (0, 0));
    // The last id of a reply was chosen, and nothing was computed after it.
    assert_eq!(turn(&[1, 2, 3, 4, 100, 101, 102, 5]), 6);
    assert_eq!(turn(&[7, 8, 9, 100, 101, 102, 6, 6]), 5);
    assert_eq!(turn(&[1, 2, 3, 4, 100, 101, 102, 5, 100, 101, 102, 1]), 10);
}

#[test]
fn replies_that_outgrow_the_pages_go_on_later() {
    let fake = Fake::new((0..).map(|id| 100 + id % 50).take(400));
    let loaded = loaded(&fake);
    let expected: Vec<u32> = (0..).map(|id| 100 + id % 50).take(100).collect();
    let replies = [1, 2, 3].map(|first| ask(&loaded, Job::of(&[first, first, 3], 100.0, 1.0)));
    assert!(replies.len() * 100 > N_PAGES * PAGE_TOKENS);
    assert_eq!(tokens(join(replies.into())), vec![expected; 3]);
    assert_eq!(fake.open_tickets(), 0);
    assert!(!batches(&fake.calls().0).is_empty(), "as long as there was room");
}

/// What was put off is let in again when there is room for it, and computed in chunks, between which others take that room.
#[test]
fn prompts_that_lose_their_room_wait_for_it() {
    let script = || (0..).map(|id| 100 + id % 50);
    for (replies, len) in [(5, 150), (7, 90), (3, 200)] {
        let fake = Fake::new(script().take(400));
        fake.rows.set(16);
        let loaded = loaded(&fake);
        let prompt = |first: u32| (0..40).map(|id| 1000 * first + id).collect::<Vec<u32>>();
        let asked = (1..=replies).map(|first| ask(&loaded, Job::of(&prompt(first), f64::from(len), 1.0))).collect();
        let expected: Vec<u32> = script().take(len as usize).collect();
        assert_eq!(tokens(join(asked)), vec![expected; replies as usize]);
        assert_eq!(fake.open_tickets(), 0);
    }
}

#[test]
fn as_many_replies_as_may_be_asked_for_need_no_more_pages_than_there_are() {
    let fake = Fake::new(100..200);
    let loaded = loaded(&fake);
    // Side by side they would take a hundred times as many pages; another reply comes and goes meanwhile.
    let many = ask(&loaded, Job::of(&[1, 2, 3], 60.0, 128.0));
    let mut results = join(vec![many, ask(&loaded, Job::of(&[9, 9], 70.0, 1.0))]);
    assert_eq!(results.pop().expect("two").expect("a reply").tokens, (100..170).collect::<Vec<u32>>());
    let many = tokens_of_all(results.remove(0).expect("replies"));
    assert_eq!(many.len(), 128);
    assert!(many.iter().all(|(_, tokens)| *tokens == (100..160).collect::<Vec<u32>>()));
    assert_eq!(fake.open_tickets(), 0);
}

#[test]
fn the_fault_of_one_is_not_that_of_the_others() {
    let fake = Fake::new(100..200);
    let loaded = loaded(&fake);
    fake.bad_row.set(Some(1));
    let replies = [1, 2, 3].map(|first| ask(&loaded, Job::of(&[first], 20.0, 1.0)));
    let mut results = join(replies.into());
    let failed: Vec<usize> = (0..).zip(&results).filter(|(_, result)| result.is_err()).map(|(at, _)| at).collect();
    assert_eq!(failed.len(), 1);
    assert_eq!(results.remove(failed[0]).expect_err("bad logits").kind(), ErrorKind::BadLogits);
    assert_eq!(tokens(results), vec![(100..120).collect::<Vec<u32>>(); 2]);
}

#[test]
fn callers_that_stop_hold_nobody_up() {
    for (polls, dropped) in [(1, true), (2, true), (5, true), (1, false), (2, false), (5, false)] {
        let fake = Fake::new(100..200);
        let loaded = loaded(&fake);
        let mut idle = ask(&loaded, Job::of(&[1, 2], 60.0, 1.0));
        let mut busy = ask(&loaded, Job::of(&[3, 4, 5], 30.0, 1.0));
        for _ in 0..polls {
            assert!(poll(idle.as_mut()).is_pending() && poll(busy.as_mut()).is_pending());
        }
        // From now on nobody polls the first, or it is gone.
        let idle = if dropped { None } else { Some(idle) };
        assert_eq!(tokens(join(vec![busy])), [(100..130).collect::<Vec<u32>>()], "{polls} {dropped}");
        if let Some(idle) = idle {
            assert_eq!(tokens(join(vec![idle])), [(100..160).collect::<Vec<u32>>()], "it goes on when it comes back");
        }
        assert_eq!(tokens(join(vec![ask(&loaded, Job::of(&[1, 2], 3.0, 1.0))])), [[100, 101, 102]]);
        assert_eq!(fake.open_tickets(), 0);
    }
}

#[test]
fn an_abort_ends_one_of_several() {
    let fake = Fake::new(100..200);
    let loaded = loaded(&fake);
    let told = Cell::new(0);
    let aborted = async {
        let mut sink = |piece: &super::Piece| told.set(told.get() + piece.tokens.len());
        Job::of(&[1, 2], 90.0, 1.0).run(&loaded, &|| told.get() > 6, &mut sink).await
    };
    let results = join(vec![Box::pin(aborted), ask(&loaded, Job::of(&[3, 4], 40.0, 1.0))]);
    let [Err(first), Ok(second)] = results.as_slice() else { panic!("one of each") };
    assert_eq!((first.kind(), second.tokens.len()), (ErrorKind::Aborted, 40));
    assert!(told.get() <= 6 + CHAIN as usize);
    let next = join(vec![ask(&loaded, Job::of(&[1, 2, 100, 101, 102, 103, 104, 9], 1.0, 1.0))]).remove(0);
    assert_eq!(next.expect("a reply").usage.cached_tokens, 7, "what was computed is kept");
}

#[test]
fn other_calls_come_between_what_was_asked_before_and_after_them() {
    let loaded = loaded(&Fake::new(100..200));
    let order = RefCell::new(Vec::new());
    let reply = |name: char| {
        let (order, loaded) = (&order, &loaded);
        async move {
            let mut sink = |_: &super::Piece| order.borrow_mut().push(name);
            Job::of(&[name as u32], 12.0, 1.0).run(loaded, &|| false, &mut sink).await.expect("a reply");
        }
    };
    let call = async {
        let work = async |_: &mut super::session::Session| {
            order.borrow_mut().push('-');
            Ok(())
        };
        alone(&loaded, work).await.expect("its turn");
    };
    let (mut one, mut two, mut call, mut three) = (pin!(reply('a')), pin!(reply('b')), pin!(call), pin!(reply('c')));
    let mut left = [true; 4];
    for _ in 0..1000 {
        left[0] = left[0] && poll(one.as_mut()).is_pending();
        left[1] = left[1] && poll(two.as_mut()).is_pending();
        left[2] = left[2] && poll(call.as_mut()).is_pending();
        left[3] = left[3] && poll(three.as_mut()).is_pending();
    }
    assert_eq!(left, [false; 4]);
    let order: String = order.borrow().iter().collect();
    let (before, after) = order.split_once('-').expect("the call");
    assert!(before.contains('a') && before.contains('b') && !before.contains('c'), "{order}");
    assert!(after.chars().all(|name| name == 'c') && !after.is_empty(), "{order}");
    assert!(!before.trim_start_matches('a').trim_start_matches('b').is_empty(), "a and b come side by side: {order}");
}

#[test]
fn a_call_that_fails_lets_replies_go_on() {
    let loaded = loaded(&Fake::new(100..200));
    let failing = alone(&loaded, async |_| -> Result<()> { Err(Error::new(ErrorKind::Aborted, "enough")) });
    assert!(matches!(poll(pin!(failing)), Poll::Ready(Err(error)) if error.kind() == ErrorKind::Aborted));
    assert_eq!(tokens(join(vec![ask(&loaded, Job::of(&[1], 2.0, 1.0))])), [[100, 101]]);
}

#[test]
fn nobody_waits_for_a_wake_that_does_not_come() {
    let loaded = loaded(&Fake::new(100..200));
    for n in 1..=8 {
        // An executor that polls only what was woken.
        let result = pollster::block_on(Job::of(&[1, 2], 23.0, f64::from(n)).run(&loaded, &|| false, &mut |_| {}));
        assert_eq!(tokens_of_all(result.expect("replies")).len(), n as usize);
    }
}
