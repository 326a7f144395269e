//! The n-th call fails, for every n: once, and from then on, and as a crash. Nothing wrong is used, nothing is called
//! stored that is not, no lock or handle stays, and the next attempt ends it.

use std::rc::Rc;

use headwater::error::Result;
use headwater::hub::{Incoming, Pulled};

use crate::world::{Break, sha256};
use crate::{Lab, MIB, call};

/// Three blocks and a bit, so that spans, blocks and the short last block are all met.
const SIZE: usize = 3 * MIB + 77_777;
const REFERENCE: &str = "o/n:Q8_0";

fn kept(lab: &Lab) -> usize {
    lab.memory.breaker.set(Break::Never);
    pollster::block_on(lab.hub.shelf.list()).expect("a list").len()
}

/// What is got hold of: the model's files, or what a load makes of them while they come, here their hashes.
enum Got {
    Pulled(Pulled),
    Loaded(Vec<String>),
}

impl Got {
    fn is_right(&self, lab: &Lab) -> bool {
        match self {
            Got::Pulled(pulled) => lab.is_right(pulled, "o/n"),
            Got::Loaded(hashes) => *hashes == [sha256(&lab.servers.files.borrow()["o/n"]["m-Q8_0.gguf"])],
        }
    }
}

type Get = fn(&Lab) -> Result<Got>;

fn pull(lab: &Lab) -> Result<Got> {
    lab.pull(REFERENCE, &call()).map(Got::Pulled)
}

/// Reads the header as soon as it is there, and all the rest once it was verified.
fn load(lab: &Lab) -> Result<Got> {
    let work = async |incoming: Rc<Incoming>| {
        let sources = incoming.sources().await?;
        for source in &sources {
            source.read(0, 4096).await?;
        }
        incoming.seal();
        let mut hashes = Vec::new();
        for source in &sources {
            hashes.push(sha256(&source.read(0, source.size_bytes() as usize).await?));
        }
        Ok(hashes)
    };
    let (_, hashes) = pollster::block_on(lab.hub.pull_while(REFERENCE, &call(), work))?;
    Ok(Got::Loaded(hashes))
}

/// Gets the model with a fault set, then without one; gives whether the first attempt met the fault at all.
fn survives(get: Get, break_at: impl Fn(&Lab), crash: impl Fn(&Lab), what: &str) -> bool {
    let lab = Lab::with_gguf(SIZE);
    lab.servers.put("o/n", "other-Q4_0.gguf", crate::world::weights(2, 100));
    break_at(&lab);
    let first = get(&lab);
    let broken = [&lab.memory.breaker, &lab.servers.breaker]
        .iter()
        .any(|breaker| matches!(breaker.breaks.get(), Break::Once(n) | Break::From(n) if n <= breaker.calls.get()));
    lab.memory.breaker.set(Break::Never);
    lab.servers.breaker.set(Break::Never);
    assert_eq!(lab.memory.leaks(), (0, 0), "{what}: locks and handles");
    match &first {
        Ok(got) => assert!(got.is_right(&lab), "{what}: wrong bytes"),
        Err(error) => {
            assert!(!error.to_string().contains("X-Sig=signature"), "{what}: {error}");
            // A model whose record was the last thing that failed may be whole; then it is right, below.
            assert!(kept(&lab) <= 1, "{what}");
        }
    }
    crash(&lab);
    lab.servers.forget();
    let again = get(&lab).unwrap_or_else(|error| panic!("{what}: not resumed: {error}"));
    assert!(again.is_right(&lab), "{what}: wrong bytes after all");
    assert_eq!((kept(&lab), lab.memory.leaks()), (1, (0, 0)), "{what}");
    if first.is_ok() {
        assert_eq!(lab.servers.seen.borrow().len(), 0, "{what}: what is kept asks nobody");
    }
    broken
}

/// Runs `survives` for n = 1, 2, ... until n is past every call.
fn for_every_n(what: &str, break_at: impl Fn(&Lab, usize), crash: impl Fn(&Lab)) {
    for (get, how) in [(pull as Get, "pulled"), (load as Get, "loaded")] {
        let mut n = 1;
        while survives(get, |lab| break_at(lab, n), &crash, &format!("{how}: {what} {n}")) {
            n += 1;
        }
        assert!(n > 10, "{how}: {what}: only {n} calls were met");
    }
}

#[test]
fn any_one_request_may_fail() {
    for_every_n("request", |lab, n| lab.servers.breaker.set(Break::Once(n)), |_| {});
}

#[test]
fn the_network_may_go_at_any_request() {
    for_every_n("network gone at", |lab, n| lab.servers.breaker.set(Break::From(n)), |_| {});
}

#[test]
fn any_one_call_of_the_store_may_fail() {
    for_every_n("store call", |lab, n| lab.memory.breaker.set(Break::Once(n)), |_| {});
}

#[test]
fn the_process_may_be_killed_at_any_call_of_the_store() {
    for_every_n("killed at", |lab, n| lab.memory.breaker.set(Break::From(n)), |lab| lab.memory.kill());
}

#[test]
fn the_power_may_go_at_any_call_of_the_store() {
    for_every_n("power cut at", |lab, n| lab.memory.breaker.set(Break::From(n)), |lab| lab.memory.power_cut());
}
