//! What is refused, and what is told to whom: secrets, strangers, licences, repositories without a model.

use std::cell::RefCell;
use std::rc::Rc;

use headwater::error::ErrorKind;
use headwater::hub::{Call, Consent, Policy, Token};
use serde_json::json;

use crate::world::{Fault, HUB, TOKEN, weights};
use crate::{Lab, MIB, call};

const REFERENCE: &str = "o/n:Q8_0";

#[test]
fn the_token_goes_to_the_hub_alone_and_is_never_told() {
    for follows in [false, true] {
        let lab = Lab::with_gguf(3 * MIB);
        lab.servers.follows.set(follows);
        lab.servers.gated.borrow_mut().insert("o/n".to_owned());
        let without = lab.pull(REFERENCE, &Call { token: None, ..call() }).err().expect("a token is needed");
        assert_eq!(without.kind(), ErrorKind::AuthRequired, "{without}");
        lab.servers.forget();
        assert!(lab.is_right(&lab.pull(REFERENCE, &call()).expect("with the token"), "o/n"));
        for seen in lab.servers.seen.borrow().iter() {
            assert_eq!(seen.bearer, seen.url.starts_with(HUB), "{}", seen.url);
            assert!(!seen.url.contains(TOKEN));
        }
        for name in lab.memory.names() {
            let bytes = lab.memory.bytes(&name).expect("bytes");
            let text = String::from_utf8_lossy(&bytes);
            assert!(!name.contains(TOKEN) && !text.contains(TOKEN) && !text.contains("X-Sig"), "{name}");
        }
    }
    let token = Token::new(TOKEN).expect("a token");
    assert!(!format!("{token:?} {:?}", Some(&token)).contains(TOKEN));
    assert!(Token::new("two words").is_err() && Token::new("").is_err() && Token::new("a\r\nb").is_err());
}

#[test]
fn a_server_that_repeats_secrets_does_not_make_us_tell_them() {
    let lab = Lab::with_gguf(MIB);
    lab.servers.rule(|seen, _| {
        let told = "you sent Bearer hf_secretsecretsecret and X-Sig=signature00000000 hf_secretsecretsecret";
        seen.url.contains("cdn.").then(|| Fault::Status(403, vec![("x-error-message", "hf_secretsecretsecret")], told))
    });
    let error = lab.pull(REFERENCE, &call()).err().expect("refused");
    assert_eq!(error.kind(), ErrorKind::SignedUrlExpired);
    assert!(!error.to_string().contains("hf_secret") && !error.to_string().contains("signature0"), "{error}");
    lab.servers.rule(|seen, _| {
        seen.url.contains("cdn.").then(|| Fault::Status(500, vec![], "X-Sig=signature00000000 hf_secretsecretsecret"))
    });
    let error = lab.pull(REFERENCE, &call()).err().expect("refused");
    assert!(!error.to_string().contains("hf_secret") && !error.to_string().contains("signature0"), "{error}");
}

#[test]
fn hosts_that_are_not_declared_are_not_asked() {
    for follows in [false, true] {
        let lab = Lab::with_gguf(MIB);
        lab.servers.follows.set(follows);
        let strict = Call { policy: Policy::default(), ..call() };
        let error = lab.pull(REFERENCE, &strict).err().expect("the CDN is not declared");
        assert_eq!(error.kind(), ErrorKind::PolicyRefused, "{error}");
        assert!(error.to_string().contains("cdn.example"), "{error}");
        // A browser has followed by itself; nothing of the answer's body was read then.
        assert_eq!(lab.servers.served.borrow().iter().filter(|(path, _)| path.contains("cdn.")).count(), 0);
    }
}

#[test]
fn what_the_hub_refuses_has_a_kind() {
    let cases: &[(&str, Fault, ErrorKind)] = &[
        ("/api/", Fault::Status(401, vec![("X-Error-Code", "RepoNotFound")], ""), ErrorKind::AuthRequired),
        ("/api/", Fault::Status(403, vec![("X-Error-Code", "GatedRepo")], ""), ErrorKind::Gated),
        ("/resolve/", Fault::Status(403, vec![("X-Error-Code", "GatedRepo")], ""), ErrorKind::Gated),
        ("/api/", Fault::Status(404, vec![("X-Error-Code", "RepoNotFound")], ""), ErrorKind::NotFound),
        ("/api/", Fault::Status(200, vec![], "<html>Sign in</html>"), ErrorKind::UnsupportedFormat),
        ("/revision/", Fault::Status(200, vec![], "{}"), ErrorKind::UnsupportedFormat),
        ("/revision/", Fault::Status(200, vec![], "{\"sha\": \"main\"}"), ErrorKind::UnsupportedFormat),
        ("/tree/", Fault::Status(200, vec![], "[]"), ErrorKind::NotFound),
        ("/tree/", Fault::Status(200, vec![], "{}"), ErrorKind::UnsupportedFormat),
        (
            "/tree/",
            Fault::Status(200, vec![], "[{\"type\": \"file\", \"path\": \"../x-Q8_0.gguf\", \"size\": 1}]"),
            ErrorKind::UnsupportedFormat,
        ),
        (
            "/tree/",
            Fault::Status(200, vec![("Link", "<https://evil.example/more>; rel=\"next\"")], "[]"),
            ErrorKind::UnsupportedFormat,
        ),
        (
            "/tree/",
            Fault::Status(200, vec![("Link", "</api/models/o/n/tree/x>; rel=\"next\"")], "[]"),
            ErrorKind::LimitExceeded,
        ),
        ("/api/", Fault::Status(500, vec![], ""), ErrorKind::HttpStatus),
        ("/api/", Fault::Hang(0), ErrorKind::Stalled),
        ("/api/", Fault::Reset(0), ErrorKind::Network),
    ];
    for (part, fault, kind) in cases {
        let lab = Lab::with_gguf(MIB);
        let (part, bad) = ((*part).to_owned(), fault.clone());
        lab.servers.rule(move |seen, _| seen.url.contains(&part).then(|| bad.clone()));
        let error = lab.pull(REFERENCE, &call()).err().unwrap_or_else(|| panic!("{fault:?} passes"));
        assert_eq!(error.kind(), *kind, "{fault:?}: {error}");
        assert_eq!(lab.servers.served(".gguf"), 0);
        assert!(lab.memory.names().iter().all(|name| !name.contains("/models/")));
    }
    // A listing of more files than any repository has, in one page, is not read to its end.
    let entry = r#"{"type": "file", "path": "a/b.txt", "size": 1, "oid": "0000000000000000000000000000000000000000"},"#;
    let huge: &'static str = format!("[{}]", entry.repeat(50_001).trim_end_matches(',')).leak();
    let endless: &'static str = "[".repeat((16 << 20) + 1).leak();
    for (text, words) in [(huge, "50000"), (endless, "16777216")] {
        let lab = Lab::with_gguf(MIB);
        lab.servers.rule(move |seen, _| seen.url.contains("/tree/").then(|| Fault::Status(200, vec![], text)));
        let error = lab.pull(REFERENCE, &call()).err().expect("too long");
        assert!(error.kind() == ErrorKind::LimitExceeded && error.to_string().contains(words), "{error}");
    }
    let lab = Lab::with_gguf(MIB);
    for (reference, kind) in [
        ("o/unknown:Q8_0", ErrorKind::NotFound),
        ("o/n@nowhere:Q8_0", ErrorKind::NotFound),
        ("o/n:Q9_Z", ErrorKind::NotFound),
    ] {
        assert_eq!(lab.pull(reference, &call()).err().expect(reference).kind(), kind, "{reference}");
    }
    let nowhere = Call { endpoint: None, ..call() };
    assert_eq!(lab.pull(REFERENCE, &nowhere).err().expect("which hub").kind(), ErrorKind::InvalidArgument);
}

#[test]
fn licences_are_judged_before_a_byte_of_weights() {
    let policy = |json: serde_json::Value| Policy {
        hosts: vec!["cdn.example".to_owned()],
        ..Policy::from_json(&json.to_string()).expect("a policy")
    };
    let lab = Lab::with_gguf(MIB);
    let deny = Call { policy: policy(json!({"licenses": {"deny": ["apache*"]}})), ..call() };
    let error = lab.pull(REFERENCE, &deny).err().expect("denied");
    assert!(error.kind() == ErrorKind::PolicyRefused && error.to_string().contains("apache-2.0"), "{error}");
    for bad in [json!({"maxBytes": 1000}), json!({"licenses": {"allow": ["mit"]}})] {
        let error = lab.pull(REFERENCE, &Call { policy: policy(bad), ..call() }).err().expect("refused");
        assert_eq!(error.kind(), ErrorKind::PolicyRefused, "{error}");
    }
    assert_eq!(
        lab.servers
            .seen
            .borrow()
            .iter()
            .filter(|seen| seen.url.contains("/resolve/") && seen.url.contains(".gguf"))
            .count(),
        0
    );

    let asked: Rc<RefCell<Vec<String>>> = Rc::default();
    let consent = |answer: bool| -> Option<Consent> {
        let asked = Rc::clone(&asked);
        Some(Rc::new(move |license, why| {
            asked.borrow_mut().push(format!("{} {why}", license.id.unwrap_or_default()));
            Box::pin(async move { Ok(answer) })
        }))
    };
    let error = lab.pull(REFERENCE, &Call { consent: consent(false), ..call() }).err().expect("not accepted");
    assert_eq!(error.kind(), ErrorKind::PolicyRefused, "{error}");
    assert_eq!(lab.servers.served(".gguf"), 0);
    lab.pull(REFERENCE, &Call { consent: consent(true), ..call() }).expect("accepted");
    lab.pull(REFERENCE, &Call { consent: consent(false), ..call() }).expect("kept models were accepted before");
    assert_eq!(asked.borrow().len(), 2);
    let error = lab.pull(REFERENCE, &deny).err().expect("kept, but no longer allowed");
    assert_eq!(error.kind(), ErrorKind::PolicyRefused, "{error}");
}

#[test]
fn base_models_are_judged_where_the_policy_looks_at_them() {
    let policy = |licenses: serde_json::Value| Call {
        policy: Policy {
            hosts: vec!["cdn.example".to_owned()],
            ..Policy::from_json(&json!({ "licenses": licenses }).to_string()).expect("a policy")
        },
        ..call()
    };
    let lab = Lab::with_gguf(MIB);
    let tell = |repo: &str, card: serde_json::Value| {
        lab.servers.put(repo, "README.md", b"# Card\n".to_vec());
        lab.servers.info.borrow_mut().insert(repo.to_owned(), json!({ "cardData": card }));
    };
    tell("o/n", json!({"license": "apache-2.0", "base_model": "a/tuned", "base_model_relation": "quantized"}));
    tell("a/tuned", json!({"license": "mit", "base_model": ["a/root", "o/n"], "base_model_relation": "finetune"}));
    tell("a/root", json!({"license": "cc-by-nc-4.0"}));
    let asked = |lab: &Lab| {
        let seen = lab.servers.seen.borrow();
        seen.iter().filter(|seen| seen.url.contains("/api/models/a/")).count()
    };
    // Not looked at, nobody is asked; what is kept is asked about once the policy looks.
    let pulled = lab.pull(REFERENCE, &policy(json!({"deny": ["@non-commercial"]}))).expect("its own licence is fine");
    assert_eq!((pulled.license.bases.len(), asked(&lab)), (0, 0));
    let check = policy(json!({"deny": ["@non-commercial"], "baseModel": "check"}));
    let error = lab.pull(REFERENCE, &check).err().expect("the base's base is not");
    assert_eq!(error.kind(), ErrorKind::PolicyRefused, "{error}");
    assert!(error.to_string().contains("a/root") && error.to_string().contains("cc-by-nc-4.0"), "{error}");
    assert_eq!(asked(&lab), 2);

    // Allowed, it is recorded in the store and the lock file, and needs no request again.
    let check = policy(json!({"deny": ["gemma"], "baseModel": "check"}));
    let pulled = lab.pull(REFERENCE, &check).expect("allowed");
    let bases: Vec<_> =
        pulled.license.bases.iter().map(|base| (base.repo.as_str(), base.license.id.as_deref())).collect();
    let expected = [("a/tuned", Some("mit")), ("a/root", Some("cc-by-nc-4.0")), ("o/n", Some("apache-2.0"))];
    assert_eq!((bases.as_slice(), pulled.license.base_relation.as_deref()), (&expected[..], Some("quantized")));
    lab.servers.forget();
    let again = lab.pull(REFERENCE, &check).expect("kept");
    assert_eq!((&again.license, lab.servers.seen.borrow().len()), (&pulled.license, 0));
    let lock = pollster::block_on(lab.hub.lock()).expect("a lock").to_json().expect("JSON");
    let read = headwater::hub::Lock::from_json(&lock).expect("read again");
    assert_eq!(read.models[0].license.as_ref().expect("a licence").bases.len(), 3, "{lock}");
    let denied = lab.pull(REFERENCE, &policy(json!({"deny": ["cc-by-nc*"], "baseModel": "check"}))).err();
    assert_eq!(denied.expect("denied from what is kept").kind(), ErrorKind::PolicyRefused);

    // A base that the hub does not have has a licence that is not told.
    tell("o/n", json!({"license": "apache-2.0", "base_model": "a/gone"}));
    let lenient = policy(json!({"onUnknown": "allow", "baseModel": "check"}));
    let refresh = |call: Call| Call { refresh: true, ..call };
    lab.pull(REFERENCE, &refresh(lenient)).expect("unknown is allowed");
    let error = lab.pull(REFERENCE, &refresh(policy(json!({"baseModel": "check"})))).err().expect("unknown is not");
    assert!(error.to_string().contains("a/gone"), "{error}");
}

#[test]
fn a_chain_of_base_models_is_followed_so_far_and_no_further() {
    let lab = Lab::with_gguf(MIB);
    for index in 0..20 {
        lab.servers.put(&format!("a/b{index}"), "README.md", b"# Card\n".to_vec());
        let card = json!({"license": "mit", "base_model": format!("a/b{}", index + 1)});
        lab.servers.info.borrow_mut().insert(format!("a/b{index}"), json!({ "cardData": card }));
    }
    let card = json!({"license": "mit", "base_model": "a/b0"});
    lab.servers.info.borrow_mut().insert("o/n".to_owned(), json!({ "cardData": card }));
    let policy = Policy {
        hosts: vec!["cdn.example".to_owned()],
        ..Policy::from_json(r#"{"licenses": {"baseModel": "check"}}"#).expect("a policy")
    };
    let error = lab.pull(REFERENCE, &Call { policy, ..call() }).err().expect("what is behind is not told");
    assert!(error.kind() == ErrorKind::PolicyRefused && error.to_string().contains("a/b8"), "{error}");
    assert_eq!(lab.servers.seen.borrow().iter().filter(|seen| seen.url.contains("/api/models/a/")).count(), 8);
}

#[test]
fn what_the_api_tells_of_the_card_counts() {
    let lab = Lab::with_gguf(MIB);
    let info = json!({"gated": "manual", "cardData": {"license": "other", "license_name": "qwen-research", "base_model": ["a/b"]}});
    lab.servers.info.borrow_mut().insert("o/n".to_owned(), info);
    let found = pollster::block_on(lab.hub.find(REFERENCE, &call())).expect("found");
    assert_eq!((found.license.id.as_deref(), found.license.gated), (Some("qwen-research"), true));
    assert_eq!((found.license.base_models.as_slice(), found.files.len()), (&["a/b".to_owned()][..], 1));
    assert_eq!(found.hosts(), ["hub.example"]);
    let unknown = Policy::from_json(r#"{"licenses": {"onUnknown": "ask"}}"#).expect("a policy");
    lab.servers.info.borrow_mut().insert("o/n".to_owned(), json!({"cardData": {"license": "acme"}}));
    let error = lab.pull(REFERENCE, &Call { policy: unknown, ..call() }).err().expect("nobody to ask");
    assert!(error.to_string().contains("consent") && error.to_string().contains("acme"), "{error}");
}

#[test]
fn plain_folders_come_together_and_strict_policies_refuse_them() {
    let lab = Lab::new();
    let index =
        json!({"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}});
    lab.servers.put("plain", "m/config.json", b"{\"model_type\": \"llama\"}".to_vec());
    lab.servers.put("plain", "m/tokenizer.json", b"{}".to_vec());
    lab.servers.put("plain", "m/README.md", b"---\nlicense: gemma\n---\n".to_vec());
    lab.servers.put("plain", "m/model.safetensors.index.json", index.to_string().into_bytes());
    for shard in 1..=2 {
        lab.servers.put(
            "plain",
            &format!("m/model-0000{shard}-of-00002.safetensors"),
            crate::world::noise(shard, 5 * MIB),
        );
    }
    let plain = Call { endpoint: None, token: None, ..call() };
    let folder = format!("{HUB}/m/");
    let strict = Call { policy: Policy { require_hash: true, ..Policy::default() }, ..plain.clone() };
    assert_eq!(lab.pull(&folder, &strict).err().expect("no hashes").kind(), ErrorKind::PolicyRefused);
    let pulled = lab.pull(&folder, &plain).expect("fetched");
    assert_eq!((pulled.sources.len(), pulled.model.unverified.len()), (5, 5));
    assert_eq!(pulled.license.id.as_deref(), Some("gemma"));
    lab.servers.forget();
    lab.pull(&folder, &plain).expect("kept");
    assert_eq!(lab.servers.seen.borrow().len(), 0);
    assert_eq!(lab.pull(&folder, &strict).err().expect("kept without hashes").kind(), ErrorKind::PolicyRefused);
    for name in
        ["../x.safetensors", "https://evil.example/x.safetensors", "sub/x.safetensors", "model.safetensors.index.json"]
    {
        let index = json!({"weight_map": {"a": name}});
        lab.servers.put("plain", "m/model.safetensors.index.json", index.to_string().into_bytes());
        let error = lab.pull(&folder, &Call { refresh: true, ..plain.clone() }).err().expect(name);
        assert_eq!(error.kind(), ErrorKind::MalformedSafetensors, "{name}: {error}");
    }
    let split: Vec<String> = (1..=2).map(|shard| format!("s-0000{shard}-of-00002.gguf")).collect();
    for (seed, name) in split.iter().enumerate() {
        lab.servers.put("plain", name, weights(seed as u64, 1000));
    }
    let error = lab.pull(&format!("{HUB}/s-00002-of-00002.gguf"), &plain).err().expect("no real header");
    assert!(matches!(error.kind(), ErrorKind::UnsupportedFormat | ErrorKind::MalformedGguf), "{error}");
}
