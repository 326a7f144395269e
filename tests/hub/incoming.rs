//! Work on files while they come: headers early, everything else once it was verified; and nothing of it outlives a
//! transfer that failed.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use headwater::error::{Error, ErrorKind, Result};
use headwater::hub::{Call, Incoming};
use pollster::block_on;

use crate::world::{CDN, Fault, sha256, weights};
use crate::{Lab, MIB, call};

const SIZE: usize = 6 * MIB + 1234;
const REFERENCE: &str = "o/n:Q8_0";
/// Of a file's beginning.
const HEADER: usize = 4096;

/// Two shards of a model; the second is longer.
fn sharded() -> Lab {
    let lab = Lab::new();
    lab.servers.put("o/n", "README.md", b"---\nlicense: apache-2.0\n---\n".to_vec());
    lab.servers.put("o/n", "m-Q8_0-00001-of-00002.gguf", weights(1, SIZE));
    lab.servers.put("o/n", "m-Q8_0-00002-of-00002.gguf", weights(2, SIZE + MIB));
    lab
}

/// What a load does: the beginnings of all files, then all of each file, noting what the CDN had sent by then.
async fn load(lab: &Lab, incoming: Rc<Incoming>, seen: &RefCell<Vec<(String, u64)>>) -> Result<Vec<String>> {
    let sent = || lab.servers.served.borrow().iter().filter(|(path, _)| path.starts_with(CDN)).map(|(_, n)| n).sum();
    let sources = incoming.sources().await?;
    for source in &sources {
        source.read(0, HEADER).await?;
        seen.borrow_mut().push((format!("header {}", source.name()), sent()));
    }
    incoming.seal();
    let mut hashes = Vec::new();
    for source in &sources {
        hashes.push(sha256(&source.read(0, source.size_bytes() as usize).await?));
        seen.borrow_mut().push((source.name().to_owned(), sent()));
    }
    Ok(hashes)
}

fn right(lab: &Lab) -> Vec<String> {
    let files = lab.servers.files.borrow();
    files["o/n"].iter().filter(|(path, _)| path.ends_with(".gguf")).map(|(_, bytes)| sha256(bytes)).collect()
}

#[test]
fn headers_come_early_and_a_verified_shard_is_used_while_the_next_one_comes() {
    let (lab, seen) = (sharded(), RefCell::new(Vec::new()));
    let (_, hashes) =
        block_on(lab.hub.pull_while(REFERENCE, &call(), |incoming| load(&lab, incoming, &seen))).expect("a load");
    assert_eq!(hashes, right(&lab));
    let seen = seen.into_inner();
    let at = |what: &str| seen.iter().find(|(name, _)| name.contains(what)).map(|(_, sent)| *sent as usize).unwrap();
    assert_eq!(seen.len(), 4);
    assert!(at("header m-Q8_0-00001") < SIZE && at("header m-Q8_0-00002") < SIZE, "{seen:?}");
    let first = seen[2].1 as usize;
    assert!((SIZE..2 * SIZE).contains(&first), "the first shard was read after {first} bytes");
    // The header of the shard whose turn had not come was asked for by itself.
    assert_eq!(seen[3].1 as usize, 2 * SIZE + MIB + HEADER, "{seen:?}");
    assert_eq!(lab.memory.leaks(), (0, 0));
    // Kept, the same work asks nobody.
    lab.servers.forget();
    let again = RefCell::new(Vec::new());
    let (_, hashes) =
        block_on(lab.hub.pull_while(REFERENCE, &call(), |incoming| load(&lab, incoming, &again))).expect("kept");
    assert_eq!((hashes, lab.servers.seen.borrow().len()), (right(&lab), 0));
}

#[test]
fn no_byte_is_used_before_its_file_was_verified() {
    // A bit is wrong in the middle of the first shard, the first time: it is fetched again before anything of it is read.
    let (lab, seen) = (sharded(), RefCell::new(Vec::new()));
    let count = Cell::new(0);
    lab.servers.rule(move |seen, _| {
        let is_block = seen.url.starts_with(CDN) && seen.range.is_some_and(|(at, _)| at > 0);
        count.set(count.get() + usize::from(is_block));
        (is_block && count.get() == 1).then_some(Fault::Flip(500))
    });
    let (_, hashes) =
        block_on(lab.hub.pull_while(REFERENCE, &call(), |incoming| load(&lab, incoming, &seen))).expect("a load");
    assert_eq!(hashes, right(&lab));
}

#[test]
fn work_over_a_header_that_turns_out_wrong_is_done_again() {
    for fails in [false, true] {
        let lab = Lab::with_gguf(SIZE);
        let count = Cell::new(0);
        lab.servers.rule(move |seen, _| {
            count.set(count.get() + usize::from(seen.url.starts_with(CDN)));
            (seen.url.starts_with(CDN) && count.get() == 1).then_some(Fault::Flip(500))
        });
        let headers = RefCell::new(Vec::new());
        let work = async |incoming: Rc<Incoming>| {
            let sources = incoming.sources().await?;
            let header = sources[0].read(0, HEADER).await?;
            let first = headers.borrow().is_empty();
            headers.borrow_mut().push(sha256(&header));
            if fails && first {
                return Err(Error::new(ErrorKind::MalformedGguf, "a bit is wrong"));
            }
            incoming.seal();
            Ok(sha256(&sources[0].read(0, SIZE).await?))
        };
        let (_, hash) = block_on(lab.hub.pull_while(REFERENCE, &call(), work)).expect("a load");
        assert_eq!(vec![hash], right(&lab));
        let headers = headers.into_inner();
        assert!(headers.len() == 2 && headers[0] != headers[1], "{headers:?}");
    }
}

#[test]
fn a_transfer_that_fails_or_is_given_up_ends_the_work() {
    let cases: [(Option<Fault>, ErrorKind); 2] =
        [(Some(Fault::Status(418, vec![], "teapot")), ErrorKind::HttpStatus), (None, ErrorKind::Aborted)];
    for (fault, kind) in cases {
        let (lab, seen) = (sharded(), RefCell::new(Vec::new()));
        let aborts = fault.is_none();
        lab.servers.rule(move |seen, _| fault.clone().filter(|_| seen.range.is_some_and(|(at, _)| at > 0)));
        let servers = Rc::clone(&lab.servers);
        let aborted = move || aborts && servers.served.borrow().values().sum::<u64>() > MIB as u64;
        let call = Call { aborted: Rc::new(aborted), ..call() };
        let ended = Cell::new(None);
        let work = async |incoming: Rc<Incoming>| {
            let done = load(&lab, incoming, &seen).await;
            ended.set(Some(done.is_err()));
            done
        };
        let error = block_on(lab.hub.pull_while(REFERENCE, &call, work)).err().expect("an error");
        assert_eq!((error.kind(), ended.get(), lab.memory.leaks()), (kind, Some(true), (0, 0)), "{error}");
    }
}

#[test]
fn work_that_fails_leaves_the_model_kept() {
    let lab = Lab::with_gguf(SIZE);
    let work = async |incoming: Rc<Incoming>| -> Result<()> {
        incoming.sources().await?[0].read(0, HEADER).await?;
        incoming.seal();
        Err(Error::new(ErrorKind::GpuOutOfMemory, "too large"))
    };
    let error = block_on(lab.hub.pull_while(REFERENCE, &call(), work)).err().expect("an error");
    assert_eq!(error.kind(), ErrorKind::GpuOutOfMemory);
    assert_eq!(block_on(lab.hub.shelf.list()).expect("a list").len(), 1);
}
