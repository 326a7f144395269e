//! What is kept: offline, resumed, shared, locked, listed, removed, imported, seen by several tabs.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use headwater::error::ErrorKind;
use headwater::hub::{Call, Hub, Lock, Phase, Progress};
use headwater::source::{MemorySource, Source};

use crate::world::{Clock, Disk, Fault, HUB, Memory, Wire, sha256, weights};
use crate::{Lab, MIB, call};

const REFERENCE: &str = "o/n:Q8_0";

fn list(lab: &Lab) -> Vec<headwater::hub::Listed> {
    pollster::block_on(lab.hub.shelf.list()).expect("a list")
}

#[test]
fn a_kept_model_needs_no_request() {
    let lab = Lab::with_gguf(2 * MIB);
    let first = lab.pull(REFERENCE, &call()).expect("fetched");
    assert_eq!(first.hosts, ["cdn.example", "hub.example"]);
    assert_eq!(first.license.id.as_deref(), Some("apache-2.0"));
    lab.servers.forget();
    lab.servers.rule(|_, _| panic!("a request"));
    lab.clock.now_secs.set(5000.0);
    for offline in [false, true] {
        let pulled = lab.pull(REFERENCE, &Call { offline, ..call() }).expect("kept");
        assert!(lab.is_right(&pulled, "o/n") && pulled.hosts.is_empty() && pulled.fetched_bytes == 0);
        assert_eq!(pulled.license, first.license);
    }
    let listed = list(&lab);
    assert_eq!((listed.len(), listed[0].used_at, listed[0].size_bytes), (1, Some(5000.0), 2 * MIB as u64));
    assert_eq!(listed[0].model.commit, lab.servers.commit("o/n"));
    let error = lab.pull("o/other:Q8_0", &Call { offline: true, ..call() }).err().expect("not there");
    assert!(error.kind() == ErrorKind::NotFound && error.to_string().contains("offline"), "{error}");
}

#[test]
fn a_newer_commit_comes_when_asked_for_and_shares_what_is_the_same() {
    let lab = Lab::with_gguf(2 * MIB);
    lab.servers.put("o/n", "m-Q4_0.gguf", weights(9, MIB));
    lab.pull(REFERENCE, &call()).expect("fetched");
    let old = lab.servers.commit("o/n");
    lab.servers.put("o/n", "m-Q4_0.gguf", weights(10, MIB));
    assert_eq!(lab.pull(REFERENCE, &call()).expect("kept").model.commit, old);
    lab.servers.forget();
    let newer = lab.pull(REFERENCE, &Call { refresh: true, ..call() }).expect("resolved");
    assert_ne!(newer.model.commit, old);
    assert_eq!(newer.fetched_bytes, 0, "the same bytes under another commit");
    assert_eq!(list(&lab).len(), 2);
    let pinned = lab.pull(&format!("o/n@{old}:Q8_0"), &Call { offline: true, ..call() }).expect("the old one");
    assert_eq!(pinned.model.commit, old);
    let usage = pollster::block_on(lab.hub.shelf.usage()).expect("usage");
    assert_eq!((usage.models, usage.model_bytes, usage.partial_bytes), (2, 2 * MIB as u64, 0));
}

#[test]
fn finished_files_are_never_fetched_again() {
    let lab = Lab::new();
    lab.servers.put("o/n", "README.md", b"---\nlicense: mit\n---\n".to_vec());
    for shard in 1..=3 {
        lab.servers.put("o/n", &format!("m-Q8_0-0000{shard}-of-00003.gguf"), weights(shard, 5 * MIB));
    }
    let last = sha256(&lab.servers.files.borrow()["o/n"]["m-Q8_0-00003-of-00003.gguf"]);
    lab.servers.rule(move |seen, count| {
        (seen.url.contains(&last) && count % 2 == 0).then_some(Fault::Status(418, vec![], ""))
    });
    lab.pull(REFERENCE, &call()).err().expect("the third is refused");
    *lab.servers.rule.borrow_mut() = None;
    lab.servers.forget();
    let pulled = lab.pull(REFERENCE, &call()).expect("the rest");
    assert!(lab.is_right(&pulled, "o/n") && pulled.sources.len() == 3);
    assert!(pulled.fetched_bytes <= 5 * MIB as u64, "{}", pulled.fetched_bytes);
}

#[test]
fn progress_tells_bytes_rate_and_time() {
    let lab = Lab::with_gguf(5 * MIB);
    let told: Rc<RefCell<Vec<Progress>>> = Rc::default();
    let (sink, clock) = (Rc::clone(&told), Rc::clone(&lab.clock));
    let on_progress: headwater::hub::Listener = Rc::new(move |progress| {
        clock.now_secs.set(clock.now_secs.get() + 1.0);
        sink.borrow_mut().push(progress.clone());
    });
    lab.pull(REFERENCE, &Call { on_progress, ..call() }).expect("fetched");
    let told = told.borrow();
    assert_eq!(told[0].phase, Phase::Resolve);
    let last = told.last().expect("some");
    assert_eq!((last.loaded_bytes, last.total_bytes, last.file_loaded_bytes), (5 << 20, 5 << 20, 5 << 20));
    assert!(told.windows(2).all(|pair| pair[0].loaded_bytes <= pair[1].loaded_bytes));
    let middle = &told[told.len() - 2];
    assert!(middle.bytes_per_second > 0.0 && middle.eta_secs.is_some_and(|secs| secs > 0.0), "{middle:?}");
}

#[test]
fn a_lock_file_holds_a_model_to_its_bytes() {
    let lab = Lab::with_gguf(MIB);
    lab.pull(REFERENCE, &call()).expect("fetched");
    let mut lock = pollster::block_on(lab.hub.lock()).expect("a lock");
    let text = lock.to_json().expect("text");
    assert_eq!(Lock::from_json(&text).expect("read"), lock);
    assert_eq!(lock.models[0].license.as_ref().and_then(|license| license.id.as_deref()), Some("apache-2.0"));

    // A mirror elsewhere, empty store: the same bytes load.
    let other = Lab::with_gguf(MIB);
    let locked = |lock: &Lock| Call { lock: Some(lock.clone()), ..call() };
    assert!(other.is_right(&other.pull(REFERENCE, &locked(&lock)).expect("the same"), "o/n"));
    let error = other.pull("o/n:Q4_0", &locked(&lock)).err().expect("not locked");
    assert_eq!(error.kind(), ErrorKind::PolicyRefused, "{error}");

    // Another hash: told before a byte of weights, and for what is kept as well.
    let found = lock.models[0].files[0].sha256.clone();
    lock.models[0].files[0].sha256 = "ab".repeat(32);
    for lab in [&lab, &other, &Lab::with_gguf(MIB)] {
        lab.servers.forget();
        let error = lab.pull(REFERENCE, &locked(&lock)).err().expect("changed");
        assert_eq!(error.kind(), ErrorKind::IntegrityMismatch, "{error}");
        assert!(error.to_string().contains(&found) && error.to_string().contains(&"ab".repeat(32)), "{error}");
        assert_eq!(lab.servers.served(".gguf"), 0);
    }

    // The mirror says the right hash and sends other bytes.
    let lab = Lab::with_gguf(MIB);
    let good = Lock::from_json(&text).expect("read");
    lab.servers.rule(|seen, _| seen.url.contains("cdn.").then_some(Fault::Flip(99)));
    assert_eq!(lab.pull(REFERENCE, &locked(&good)).err().expect("flipped").kind(), ErrorKind::IntegrityMismatch);
    let mut pulled = Lab::with_gguf(MIB).pull(REFERENCE, &call()).expect("fetched");
    let mut good = good;
    good.models[0].template_hash = Some("t1".to_owned());
    let note = |pulled: &mut _, hash| pollster::block_on(lab.hub.note_template(pulled, Some(hash), &locked(&good)));
    note(&mut pulled, "t1").expect("the same");
    assert_eq!(note(&mut pulled, "t2").expect_err("changed").kind(), ErrorKind::IntegrityMismatch);
}

#[test]
fn what_was_lost_behind_our_back_is_fetched_again() {
    let lab = Lab::with_gguf(2 * MIB);
    lab.pull(REFERENCE, &call()).expect("fetched");
    let blob = lab
        .memory
        .names()
        .into_iter()
        .find(|name| name.contains("sha256-") && !name.ends_with(".log"))
        .expect("a blob");
    for bytes in [None, Some(weights(1, MIB))] {
        match bytes {
            None => lab.memory.take(&blob),
            Some(bytes) => lab.memory.set(&blob, bytes),
        }
        let error = lab.pull(REFERENCE, &Call { offline: true, ..call() }).err().expect("lost");
        assert_eq!(error.kind(), ErrorKind::StorageLost, "{error}");
        assert!(lab.is_right(&lab.pull(REFERENCE, &call()).expect("again"), "o/n"));
    }
}

#[test]
fn models_are_removed_with_what_only_they_need() {
    let lab = Lab::with_gguf(2 * MIB);
    lab.servers.put("o/n", "m-Q4_0.gguf", weights(9, MIB));
    lab.servers.put("o/n", "copy-IQ4_XS.gguf", weights(9, MIB));
    for reference in [REFERENCE, "o/n:Q4_0", "o/n:IQ4_XS"] {
        lab.pull(reference, &call()).expect("fetched");
    }
    let remove = |reference: &str| pollster::block_on(lab.hub.remove(reference, Some(HUB))).expect("removed");
    assert_eq!(remove("o/n:Q4_0"), 0, "another model has the same content");
    assert_eq!(remove("o/n:IQ4_XS"), MIB as u64);
    assert_eq!(remove("o/n:IQ4_XS"), 0);
    assert!(lab.is_right(&lab.pull(REFERENCE, &Call { offline: true, ..call() }).expect("kept"), "o/n"));
    lab.memory.set("v0/old/layout.bin", vec![1; 10]);
    lab.memory.set("v2/newer/layout.bin", vec![1; 10]);
    lab.memory.set("vacation.txt", vec![1; 10]);
    assert_eq!(pollster::block_on(lab.hub.shelf.migrate()).expect("migrated"), 1);
    for other in ["v2/newer/layout.bin", "vacation.txt"] {
        assert!(lab.memory.names().contains(&other.to_owned()));
    }
    pollster::block_on(lab.hub.shelf.clear()).expect("cleared");
    assert!(lab.memory.names().is_empty());
}

#[test]
fn torn_records_are_no_models() {
    let lab = Lab::with_gguf(MIB);
    lab.pull(REFERENCE, &call()).expect("fetched");
    let record = lab.memory.names().into_iter().find(|name| name.contains("/models/")).expect("a record");
    let whole = lab.memory.bytes(&record).expect("bytes");
    for cut in [0, 1, whole.len() / 2, whole.len() - 1] {
        lab.memory.set(&record, whole[..cut].to_vec());
        assert!(list(&lab).is_empty(), "{cut}");
        lab.servers.forget();
        let again = lab.pull(REFERENCE, &call()).expect("resolved again");
        assert_eq!(again.fetched_bytes, 0, "the files were whole");
    }
}

#[test]
fn files_are_imported_only_when_they_are_the_right_ones() {
    let lab = Lab::with_gguf(3 * MIB);
    let source = |bytes: Vec<u8>| vec![Rc::new(MemorySource::new("folder/m-Q8_0.gguf", bytes)) as Rc<dyn Source>];
    let import = |sources: &[Rc<dyn Source>], call: &Call| pollster::block_on(lab.hub.import(REFERENCE, sources, call));
    let wrong = import(&source(weights(7, 3 * MIB)), &call()).err().expect("other bytes");
    assert_eq!(wrong.kind(), ErrorKind::IntegrityMismatch, "{wrong}");
    let short = import(&source(weights(1, MIB)), &call()).err().expect("short");
    assert_eq!(short.kind(), ErrorKind::SizeMismatch, "{short}");
    let offline = Call { offline: true, ..call() };
    assert_eq!(
        import(&source(weights(1, 3 * MIB)), &offline).err().expect("no lock").kind(),
        ErrorKind::InvalidArgument
    );
    let imported = import(&source(weights(1, 3 * MIB)), &call()).expect("the right one");
    assert!(lab.is_right(&imported, "o/n") && imported.fetched_bytes == 0);

    let lock = pollster::block_on(lab.hub.lock()).expect("a lock");
    pollster::block_on(lab.hub.shelf.clear()).expect("cleared");
    lab.servers.rule(|_, _| panic!("a request"));
    let offline = Call { offline: true, lock: Some(lock), ..call() };
    assert!(lab.is_right(&import(&source(weights(1, 3 * MIB)), &offline).expect("by the lock"), "o/n"));
    assert_eq!(list(&lab).len(), 1);
}

#[test]
fn tabs_take_turns_and_fetch_once() {
    let lab = Lab::with_gguf(6 * MIB);
    let tabs: Vec<Hub> = (0..5)
        .map(|_| {
            let store = Disk(Rc::clone(&lab.memory));
            Hub::new(Rc::new(Wire(Rc::clone(&lab.servers))), Rc::new(store), Rc::<Clock>::default())
        })
        .collect();
    let call = call();
    let mut pulls: Vec<_> = tabs.iter().map(|tab| Box::pin(tab.pull(REFERENCE, &call))).collect();
    let mut done = 0;
    let waker = std::task::Waker::noop();
    while done < tabs.len() {
        done = 0;
        pulls.retain_mut(|pull| match pull.as_mut().poll(&mut std::task::Context::from_waker(waker)) {
            std::task::Poll::Ready(pulled) => {
                assert!(lab.is_right(&pulled.expect("a model"), "o/n"));
                false
            }
            std::task::Poll::Pending => true,
        });
        done += tabs.len() - pulls.len();
    }
    let served: u64 =
        lab.servers.served.borrow().iter().filter(|(path, _)| path.contains("cdn.")).map(|(_, n)| n).sum();
    assert_eq!(served, 6 << 20);
}

#[test]
fn a_tab_that_hangs_is_told_and_a_crashed_one_is_not_waited_for() {
    let lab = Lab::with_gguf(MIB);
    lab.memory.hold("v1/hub.example/o_2Fn");
    let error = lab.pull(REFERENCE, &call()).err().expect("busy");
    assert_eq!(error.kind(), ErrorKind::StorageBusy, "{error}");
    lab.memory.kill();
    lab.pull(REFERENCE, &call()).expect("free");
}

#[test]
fn a_full_store_is_told_before_the_first_byte_and_in_the_middle() {
    let lab = Lab::with_gguf(4 * MIB);
    lab.memory.room.set(Some(2 << 20));
    let error = lab.pull(REFERENCE, &call()).err().expect("no room");
    assert!(error.kind() == ErrorKind::QuotaExceeded && error.to_string().contains("4194304"), "{error}");
    assert_eq!(lab.servers.seen.borrow().iter().filter(|seen| seen.url.contains("cdn.")).count(), 0);
    lab.memory.room.set(None);
    let (memory, room) = (Rc::clone(&lab.memory), 3 << 20);
    lab.servers.rule(move |_, _| {
        if memory.names().iter().any(|name| name.contains("/blobs/")) {
            memory.room.set(Some(room));
        }
        None
    });
    let error = lab.pull(REFERENCE, &call()).err().expect("it fills up");
    assert_eq!(error.kind(), ErrorKind::QuotaExceeded, "{error}");
    *lab.servers.rule.borrow_mut() = None;
    lab.memory.room.set(None);
    let pulled = lab.pull(REFERENCE, &call()).expect("with room again");
    assert!(lab.is_right(&pulled, "o/n") && pulled.fetched_bytes <= 3 << 20, "{}", pulled.fetched_bytes);
}

#[test]
fn giving_up_at_any_point_keeps_what_came() {
    let memory = Rc::new(Memory::default());
    let lab = Lab::with_gguf(6 * MIB);
    let hub =
        Hub::new(Rc::new(Wire(Rc::clone(&lab.servers))), Rc::new(Disk(Rc::clone(&memory))), Rc::<Clock>::default());
    let mut asked = 3_usize;
    loop {
        let left = Rc::new(std::cell::Cell::new(asked));
        let aborted: Rc<dyn Fn() -> bool> = Rc::new(move || {
            left.set(left.get().saturating_sub(1));
            left.get() == 0
        });
        match pollster::block_on(hub.pull(REFERENCE, &Call { aborted, ..call() })) {
            Err(error) => assert_eq!(error.kind(), ErrorKind::Aborted, "{error}"),
            Ok(pulled) => {
                assert!(lab.is_right(&pulled, "o/n"));
                break;
            }
        }
        assert_eq!(memory.leaks(), (0, 0));
        asked += 7;
        assert!(asked < 1000, "it never ends");
    }
}

#[test]
fn files_that_sites_share_are_taken_by_their_hash_and_offered_once_verified() {
    let size = 2 * MIB + 5;
    let lab = Lab::with_gguf(size);
    *lab.memory.shared.borrow_mut() = Some(BTreeMap::new());
    lab.pull(REFERENCE, &call()).expect("from the network");
    let shared = lab.memory.shared.borrow().clone().expect("a place to share");
    let right = lab.servers.files.borrow()["o/n"]["m-Q8_0.gguf"].clone();
    // It took a token to fetch: not for everybody.
    assert_eq!(shared, BTreeMap::from([(sha256(&right), (right.clone(), false))]));

    let other = Lab::with_gguf(size);
    *other.memory.shared.borrow_mut() = Some(shared);
    let pulled = other.pull(REFERENCE, &Call { token: None, ..call() }).expect("shared");
    assert!(other.is_right(&pulled, "o/n"));
    assert_eq!((pulled.fetched_bytes, other.servers.served(".gguf")), (0, 0));

    // What is not what it is called costs nothing but the look at it.
    for wrong in [weights(9, size), right[..MIB].to_vec()] {
        let lab = Lab::with_gguf(size);
        *lab.memory.shared.borrow_mut() = Some(BTreeMap::from([(sha256(&right), (wrong, true))]));
        let pulled = lab.pull(REFERENCE, &call()).expect("from the network after all");
        assert!(lab.is_right(&pulled, "o/n"));
        assert_eq!((pulled.fetched_bytes, lab.memory.leaks()), (size as u64, (0, 0)));
    }
}
