//! Drafts, on a backend that plays a script.

use std::rc::Rc;

use super::fake::{CHAIN, Call, Fake, loaded};
use super::loaded::Loaded;
use super::reply::Job;
use super::result::{FinishReason, GenerationResult};
use super::schedule_tests::{ask, join};
use super::speculation::{Speculate, Speculation};
use crate::error::{ErrorKind, Result};

/// The script of a model that writes its prompt down, again and again.
fn copy(len: u32) -> Vec<u32> {
    (0..200).map(|at| 100 + at % len).collect()
}

fn job(prompt: &[u32], max_tokens: usize) -> Job {
    let mut job = Job::of(prompt, max_tokens as f64, 1.0);
    job.settings.speculate = Speculate::Lookup;
    job
}

fn run(loaded: &Rc<Loaded>, job: Job) -> Result<GenerationResult> {
    join(vec![ask(loaded, job)]).remove(0)
}

fn verified(calls: &[Call]) -> Vec<usize> {
    let rows = |call: &Call| if let Call::Batch(rows, ..) = call { Some(*rows) } else { None };
    calls.iter().filter_map(rows).collect()
}

#[test]
fn a_copy_takes_a_step_for_eight_ids() {
    let script = copy(50);
    let fake = Fake::new(script.clone());
    let result = run(&loaded(&fake), job(&script[..50], 60)).expect("a reply");
    assert_eq!((result.tokens.as_slice(), result.finish_reason), (&script[..60], FinishReason::Length));
    // One id by the prompt, two chains that were under way when it showed, and the rest in drafts.
    let (calls, most_open) = fake.calls();
    assert_eq!(verified(&calls), [4, 8, 8, 8, 8, 8, 7], "{calls:?}");
    assert_eq!(calls.iter().filter(|call| matches!(call, Call::Decode(..))).count(), 2, "{calls:?}");
    let counts = Speculation { drafted: 3 + 5 * 7 + 6, accepted: 44, steps: 7 };
    assert_eq!((result.speculation, most_open), (Some(counts), 2));
    assert_eq!(1 + 2 * CHAIN as u64 + counts.accepted + counts.steps, 60);
    assert_eq!(fake.open_tickets(), 0);
}

#[test]
fn what_was_not_as_expected_is_taken_back() {
    // The copy leaves its original after 30 ids, goes on with something else, and comes back.
    let original: Vec<u32> = (100..140).collect();
    let reply = [&original[..30], &[300, 301, 302], &original[10..40], &[303]].concat();
    let fake = Fake::new(reply.clone());
    let loaded = loaded(&fake);
    let result = run(&loaded, job(&original, reply.len())).expect("a reply");
    assert_eq!(result.tokens, reply);
    let counts = result.speculation.expect("counts");
    assert!(counts.accepted < counts.drafted && counts.steps >= 4, "{counts:?}");
    let stats = loaded.stats();
    assert_eq!((stats.speculation, stats.completion_tokens), (counts, reply.len() as u64));
    // What stays of it is what was told: it is found again, but for the last id.
    fake.calls();
    let prompt = [original.as_slice(), &reply, &[7]].concat();
    let again = run(&loaded, Job::of(&prompt, 1.0, 1.0)).expect("a reply");
    assert_eq!(again.usage.cached_tokens, original.len() + reply.len() - 1);
    assert_eq!(again.speculation, None, "it was not asked for");
}

#[test]
fn a_reply_may_end_within_a_draft() {
    let script = copy(50);
    for len in 1..60 {
        let fake = Fake::new(script.clone());
        let result = run(&loaded(&fake), job(&script[..50], len)).expect("a reply");
        assert_eq!((result.tokens.as_slice(), fake.open_tickets()), (&script[..len], 0));
    }
    // A step that has no logits ends it too, unless it is behind what was right.
    let fake = Fake::new(script.clone());
    fake.bad_row.set(Some(2));
    let loaded = loaded(&fake);
    assert_eq!(run(&loaded, job(&script[..50], 60)).expect_err("bad").kind(), ErrorKind::BadLogits);
    assert_eq!(run(&loaded, job(&script[..50], 60)).expect("a reply").tokens, &script[..60]);
    let turned = [&script[..10], &[7, 8, 9], &script[10..]].concat();
    let fake = Fake::new(turned.clone());
    // The first draft is wrong from its second id on.
    fake.bad_row.set(Some(3));
    let result = run(&super::fake::loaded(&fake), job(&script[..50], 40)).expect("a reply");
    assert_eq!(result.tokens, turned[..40], "{:?}", result.speculation);
    assert!(fake.bad_row.get().is_none(), "a draft has come across it");
}

#[test]
fn others_are_computed_together_and_the_last_one_goes_on_with_drafts() {
    let script = copy(40);
    let fake = Fake::new(script.clone());
    let loaded = loaded(&fake);
    let lengths = [20, 70];
    let replies = lengths.map(|len| ask(&loaded, job(&script[..40], len)));
    let results: Vec<GenerationResult> = join(replies.into()).into_iter().map(|one| one.expect("a reply")).collect();
    for (result, len) in results.iter().zip(lengths) {
        assert_eq!(result.tokens, &script[..len]);
    }
    let counts = results[1].speculation.expect("counts");
    assert!(counts.steps >= 3 && counts.accepted == counts.drafted, "{counts:?}");
    assert!(fake.calls().0.iter().any(|call| matches!(call, Call::Batch(2, CHAIN, _))), "side by side before");
}

#[test]
fn what_cannot_be_taken_back_is_not_drafted() {
    let script = copy(30);
    let asked = || job(&script[..30], 50);
    let penalised = |mut job: Job| {
        job.settings.sampler.presence_penalty = 0.5;
        job
    };
    for (fake, job) in [
        (Fake::with_state(script.clone()), asked()),
        (Fake::new(script.clone()), penalised(asked())),
        (Fake::new(script.clone()), Job::of(&script[..30], 50.0, 1.0)),
    ] {
        let asked = job.settings.speculate == Speculate::Lookup;
        let result = run(&loaded(&fake), job).expect("a reply");
        assert_eq!(result.tokens, &script[..50]);
        assert_eq!(result.speculation, asked.then(Speculation::default));
        assert!(verified(&fake.calls().0).is_empty());
    }
}
