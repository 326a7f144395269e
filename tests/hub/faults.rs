//! What servers do wrong, one at a time, and what it costs: bytes that are fetched again, and which error comes out.

use headwater::error::ErrorKind;

use crate::world::{CDN, Fault, HUB, Seen};
use crate::{Lab, MIB, call};

const SIZE: usize = 6 * MIB + 1234;
const REFERENCE: &str = "o/n:Q8_0";
/// What may be fetched again of the file that was open.
const AGAIN: u64 = 4 << 20;

fn of_cdn(seen: &Seen) -> bool {
    seen.url.starts_with(CDN)
}

/// A fault in the n-th answer of the CDN only.
fn once(lab: &Lab, n: usize, fault: Fault) {
    let count = std::cell::Cell::new(0);
    lab.servers.rule(move |seen, _| {
        count.set(count.get() + usize::from(of_cdn(seen)));
        (of_cdn(seen) && count.get() == n).then(|| fault.clone())
    });
}

#[test]
fn faults_that_pass_are_passed_over() {
    let faults = [
        Fault::Reset(MIB / 2),
        Fault::Cut(MIB / 2),
        Fault::Cut(0),
        Fault::Hang(1000),
        Fault::Trickle(1000),
        Fault::Longer(5000),
        Fault::Status(500, vec![], "oops"),
        Fault::Status(503, vec![("Retry-After", "2")], ""),
        Fault::Status(429, vec![("Retry-After", "1")], "slow down"),
        Fault::Status(403, vec![], "expired"),
        Fault::Status(416, vec![], ""),
        Fault::Header("Content-Range", "bytes 5-9/10"),
        Fault::NoRanges,
    ];
    for fault in faults {
        for n in [1, 2, 3] {
            let lab = Lab::with_gguf(SIZE);
            once(&lab, n, fault.clone());
            let pulled = lab.pull(REFERENCE, &call()).unwrap_or_else(|error| panic!("{fault:?} at {n}: {error}"));
            assert!(lab.is_right(&pulled, "o/n"), "{fault:?} at {n}");
            // A server that sends everything to a request for a part makes us read what lies before that part.
            let more = if matches!(fault, Fault::NoRanges) { SIZE as u64 } else { AGAIN };
            let served: u64 =
                lab.servers.served.borrow().iter().filter(|(path, _)| path.starts_with(CDN)).map(|(_, n)| n).sum();
            assert!(served <= SIZE as u64 + more, "{fault:?} at {n}: {served} bytes");
            assert_eq!(lab.memory.leaks(), (0, 0));
        }
    }
}

#[test]
fn faults_that_stay_end_in_typed_errors_and_what_came_is_kept() {
    let cases: Vec<(Fault, ErrorKind, &str)> = vec![
        (Fault::Reset(0), ErrorKind::Network, "reset"),
        (Fault::Cut(0), ErrorKind::SizeMismatch, "ended at byte"),
        (Fault::Hang(0), ErrorKind::Stalled, "30 seconds"),
        (Fault::Trickle(0), ErrorKind::Stalled, "bytes came in 3"),
        (Fault::Status(500, vec![], "oops"), ErrorKind::HttpStatus, "oops"),
        (Fault::Status(503, vec![("Retry-After", "3600")], ""), ErrorKind::HttpStatus, "503"),
        (Fault::Status(403, vec![], "AccessDenied"), ErrorKind::SignedUrlExpired, "AccessDenied"),
        (Fault::Status(418, vec![], "teapot"), ErrorKind::HttpStatus, "teapot"),
        (Fault::Header("Content-Range", "bytes 5-9/10"), ErrorKind::SizeMismatch, "bytes 5-9/10"),
        (Fault::Redirect("https://stranger.example/x"), ErrorKind::PolicyRefused, "stranger.example"),
        (Fault::Redirect("http://cdn.example/x"), ErrorKind::HttpStatus, "https is needed"),
        (Fault::Redirect("https://cdn.example/x"), ErrorKind::HttpStatus, "redirects"),
    ];
    for (fault, kind, words) in cases {
        let lab = Lab::with_gguf(SIZE);
        // The first two answers of the CDN are good.
        let (bad, count) = (fault.clone(), std::cell::Cell::new(0));
        lab.servers.rule(move |seen, _| {
            count.set(count.get() + usize::from(of_cdn(seen)));
            (of_cdn(seen) && count.get() > 1).then(|| bad.clone())
        });
        let error = lab.pull(REFERENCE, &call()).err().unwrap_or_else(|| panic!("{fault:?} passes"));
        let told = error.to_string();
        assert_eq!(error.kind(), kind, "{fault:?}: {told}");
        assert!(told.contains(words) && told.contains("m-Q8_0.gguf"), "{fault:?}: {told}");
        assert!(!told.contains("signature0") && !told.contains(crate::world::TOKEN), "{told}");
        *lab.servers.rule.borrow_mut() = None;
        lab.servers.forget();
        let pulled = lab.pull(REFERENCE, &call()).expect("the rest");
        assert!(lab.is_right(&pulled, "o/n") && pulled.fetched_bytes < SIZE as u64, "{fault:?}");
    }
}

#[test]
fn wrong_bytes_are_fetched_once_more_and_then_named() {
    let lab = Lab::with_gguf(SIZE);
    once(&lab, 2, Fault::Flip(500));
    let pulled = lab.pull(REFERENCE, &call()).expect("the second time is good");
    assert!(lab.is_right(&pulled, "o/n") && pulled.fetched_bytes <= 2 * SIZE as u64);

    let lab = Lab::with_gguf(SIZE);
    lab.servers.rule(|seen, _| of_cdn(seen).then_some(Fault::Flip(500)));
    let error = lab.pull(REFERENCE, &call()).err().expect("wrong for good");
    let wanted = crate::world::sha256(&lab.servers.files.borrow()["o/n"]["m-Q8_0.gguf"]);
    assert_eq!(error.kind(), ErrorKind::IntegrityMismatch, "{error}");
    assert!(error.to_string().contains(&format!("the hash {wanted}, it has ")), "{error}");
    let half_kept: Vec<_> =
        lab.memory.names().into_iter().filter(|name| lab.memory.bytes(name).is_some_and(|b| b.len() > 4096)).collect();
    assert!(half_kept.is_empty(), "{half_kept:?}");
    *lab.servers.rule.borrow_mut() = None;
    assert!(lab.is_right(&lab.pull(REFERENCE, &call()).expect("good"), "o/n"));
}

#[test]
fn pages_and_pointers_in_place_of_weights_are_told_before_anything_is_kept() {
    for (body, words) in [
        ("<!DOCTYPE html><title>Sign in</title>", "an HTML page"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "Git LFS pointer"),
    ] {
        let lab = Lab::new();
        let mut page = body.as_bytes().to_vec();
        page.resize(2 * MIB, b' ');
        lab.servers.put("o/n", "m-Q8_0.gguf", page);
        lab.servers.put("o/n", "README.md", b"---\nlicense: mit\n---\n".to_vec());
        let error = lab.pull(REFERENCE, &call()).err().expect("no weights");
        assert_eq!(error.kind(), ErrorKind::UnsupportedFormat, "{error}");
        assert!(error.to_string().contains(words), "{error}");
        assert!(lab.memory.names().iter().all(|name| lab.memory.bytes(name).is_none_or(|bytes| bytes.len() < 1000)));
    }
}

#[test]
fn a_server_without_ranges_serves_a_resumed_file_too() {
    let lab = Lab::with_gguf(SIZE);
    let count = std::cell::Cell::new(0);
    lab.servers.rule(move |seen, _| {
        count.set(count.get() + usize::from(of_cdn(seen)));
        (of_cdn(seen) && count.get() > 1).then_some(Fault::Status(418, vec![], ""))
    });
    lab.pull(REFERENCE, &call()).err().expect("cut off");
    lab.servers.rule(|seen, _| of_cdn(seen).then_some(Fault::NoRanges));
    lab.servers.forget();
    let pulled = lab.pull(REFERENCE, &call()).expect("the whole");
    assert!(lab.is_right(&pulled, "o/n"));
    assert_eq!(lab.servers.seen.borrow().iter().filter(|seen| of_cdn(seen)).count(), 1, "one connection takes it all");
    // It breaks in the middle of the whole, and goes on.
    let lab = Lab::with_gguf(SIZE);
    let count = std::cell::Cell::new(0);
    lab.servers.rule(move |seen, _| {
        count.set(count.get() + usize::from(of_cdn(seen)));
        of_cdn(seen).then(|| if count.get() < 3 { Fault::Status(200, vec![], "") } else { Fault::NoRanges })
    });
    assert!(lab.is_right(&lab.pull(REFERENCE, &call()).expect("after two empty answers"), "o/n"));
}

#[test]
fn expired_signatures_are_asked_for_again() {
    let lab = Lab::with_gguf(40 * MIB);
    let servers = std::rc::Rc::clone(&lab.servers);
    let count = std::cell::Cell::new(0);
    lab.servers.rule(move |seen, _| {
        count.set(count.get() + usize::from(of_cdn(seen)));
        // From the second request of the CDN on, what was signed before is refused.
        if of_cdn(seen) && count.get() == 2 {
            servers.signature.set(9);
        }
        None
    });
    let pulled = lab.pull(REFERENCE, &call()).expect("signed again");
    assert!(lab.is_right(&pulled, "o/n"));
    let asked = lab.servers.seen.borrow().iter().filter(|seen| seen.url.contains("/resolve/")).count();
    assert!((2..=6).contains(&asked), "{asked} times");
}

#[test]
fn several_connections_are_used_and_fewer_where_a_server_is_busy() {
    let lab = Lab::with_gguf(66 * MIB);
    lab.pull(REFERENCE, &call()).expect("fetched");
    assert_eq!(lab.servers.most_open.get(), 4);
    // A server that serves one at a time, and sends the others away.
    let lab = Lab::with_gguf(66 * MIB);
    let (servers, refused) = (std::rc::Rc::downgrade(&lab.servers), std::rc::Rc::new(std::cell::Cell::new(0)));
    let counted = std::rc::Rc::clone(&refused);
    lab.servers.rule(move |seen, _| {
        let busy = of_cdn(seen) && servers.upgrade().is_some_and(|servers| servers.open.get() > 0);
        counted.set(counted.get() + usize::from(busy));
        busy.then_some(Fault::Status(429, vec![("Retry-After", "1")], "one at a time"))
    });
    let pulled = lab.pull(REFERENCE, &call()).expect("one after another");
    assert!(lab.is_right(&pulled, "o/n"));
    assert!((1..20).contains(&refused.get()), "{} requests were refused", refused.get());
    // Beside the words of the refusals and the hub's own answers, nothing came twice.
    assert!(lab.servers.served("") < (66 << 20) + 4096, "{} bytes", lab.servers.served(""));
}

#[test]
fn small_files_are_held_to_the_hash_that_git_has_of_them() {
    let lab = Lab::new();
    for (path, bytes) in
        [("config.json", &b"{\"model_type\": \"llama\"}"[..]), ("README.md", b"---\nlicense: mit\n---\n")]
    {
        lab.servers.put("o/folder", path, bytes.to_vec());
    }
    lab.servers.put("o/folder", "model.safetensors", crate::world::noise(3, MIB));
    let right = crate::repository::git_hash(&lab.servers.files.borrow()["o/folder"]["config.json"]);
    lab.servers.rule(|seen, _| seen.url.ends_with("config.json").then_some(Fault::Flip(5)));
    let error = lab.pull("o/folder", &call()).err().expect("another byte");
    assert_eq!(error.kind(), ErrorKind::IntegrityMismatch, "{error}");
    assert!(error.to_string().contains("config.json") && error.to_string().contains(&right), "{error}");
    assert_eq!(lab.servers.served(".safetensors"), 0);
    *lab.servers.rule.borrow_mut() = None;
    let pulled = lab.pull("o/folder", &call()).expect("the right one");
    assert!(lab.is_right(&pulled, "o/folder") && pulled.model.unverified.is_empty());
}

#[test]
fn a_branch_that_moves_does_not_mix_models() {
    let lab = Lab::with_gguf(SIZE);
    lab.servers.put("o/n", "z-Q4_0.gguf", crate::world::weights(3, 100));
    let servers = std::rc::Rc::clone(&lab.servers);
    let (old, moved) = (lab.servers.commit("o/n"), std::cell::Cell::new(false));
    lab.servers.rule(move |seen, _| {
        if of_cdn(seen) && !moved.replace(true) {
            servers.put("o/n", "README.md", b"moved".to_vec());
        }
        None
    });
    // The commit that was resolved is gone from this server, so nothing of the new one can come in its place.
    match lab.pull(REFERENCE, &call()) {
        Ok(pulled) => assert_eq!(pulled.model.commit, old),
        Err(error) => assert_eq!(error.kind(), ErrorKind::NotFound, "{error}"),
    }
    let kept = pollster::block_on(lab.hub.shelf.list()).expect("a list");
    assert!(kept.iter().all(|kept| kept.model.commit == old));
}

#[test]
fn plain_files_that_change_are_noticed() {
    let lab = Lab::new();
    lab.servers.put("plain", "m.gguf", crate::world::readable(4, 3 * MIB));
    let servers = std::rc::Rc::clone(&lab.servers);
    lab.servers.rule(move |seen, _| {
        if seen.range.is_some_and(|(first, _)| first as usize >= MIB) {
            servers.put("plain", "m.gguf", crate::world::readable(5, 3 * MIB));
        }
        None
    });
    let plain = headwater::hub::Call { endpoint: None, token: None, ..call() };
    let error = lab.pull(&format!("{HUB}/m.gguf"), &plain).err().expect("it changed");
    assert_eq!(error.kind(), ErrorKind::RevisionChanged, "{error}");
    *lab.servers.rule.borrow_mut() = None;
    let pulled = lab.pull(&format!("{HUB}/m.gguf"), &plain).expect("the new one");
    assert!(lab.is_right(&pulled, "plain"));
    assert_eq!(pulled.model.unverified, ["m.gguf"]);
    // Without a card, the file's own header tells the licence.
    assert_eq!((pulled.license.id.as_deref(), pulled.license.told_by), (Some("llama3.2"), Some("metadata")));
    let longer = Lab::new();
    longer.servers.put("plain", "m.gguf", crate::world::readable(4, 1000));
    longer.servers.rule(|seen, count| (count > 3 && seen.range.is_some()).then_some(Fault::Longer(10)));
    assert_eq!(longer.pull(&format!("{HUB}/m.gguf"), &plain).err().expect("longer").kind(), ErrorKind::SizeMismatch);
}
