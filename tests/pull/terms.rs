//! On which terms models are fetched and loaded: tokens, declared hosts, lock files, policies; and that adapters come under them.

use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use crate::lab::{Lab, MODEL, REFERENCE, TOKEN, read, walk};
use crate::repository::sha256;

#[test]
fn the_token_opens_gates_and_goes_to_the_hub_alone() {
    let lab = Lab::new("gated");
    lab.servers.want_token(TOKEN);
    lab.fails(&["pull", REFERENCE], "AuthRequired", "asks for a token");
    lab.fails(&["pull", REFERENCE, "--token", "hf_another"], "Gated", "accepted on the hub");
    lab.servers.forget();
    let told = lab.pulls(&["--token", TOKEN]);
    assert_eq!(told["license"]["gated"], json!(true));
    let seen = lab.servers.seen();
    assert!(seen.iter().any(|seen| seen.cdn) && seen.iter().any(|seen| !seen.cdn));
    for seen in seen {
        assert_eq!(seen.token.as_deref(), (!seen.cdn).then_some(TOKEN), "{}", seen.path);
    }
    for path in walk(&lab.store) {
        let bytes = std::fs::read(&path).expect("bytes");
        for secret in [TOKEN, "verysecret"] {
            let there = bytes.windows(secret.len()).any(|part| part == secret.as_bytes());
            assert!(!there, "{secret} is in {}", path.display());
        }
    }
    // The environment's token is the default hub's; a mirror does not get it.
    let fresh = Lab::new("gated-environment");
    fresh.servers.want_token(TOKEN);
    let output = fresh.command(&["pull", REFERENCE]).env("HF_TOKEN", TOKEN).output().expect("the program");
    assert!(String::from_utf8_lossy(&output.stdout).contains("AuthRequired"));
    assert!(fresh.servers.seen().iter().all(|seen| seen.token.is_none()));
}

#[test]
fn a_host_that_is_not_declared_is_not_asked() {
    let lab = Lab::new("hosts");
    let output = Command::new(env!("CARGO_BIN_EXE_headwater"))
        .args(["pull", REFERENCE, "--json", "--endpoint", &format!("http://{}", lab.servers.hub), "--store"])
        .arg(&lab.store)
        .output()
        .expect("the program");
    let told: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(told["error"]["kind"], "PolicyRefused", "{told}");
    assert!(lab.servers.seen().iter().all(|seen| !seen.cdn));
}

#[test]
fn a_lock_file_is_written_and_then_obeyed() {
    let lab = Lab::new("lock");
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("headwater.lock.json");
    std::fs::remove_file(&path).ok();
    let lock = path.to_str().expect("UTF-8");
    let told = lab.pulls(&["--lock", lock]);
    let text = std::fs::read_to_string(&path).expect("a lock file");
    let locked: Value = serde_json::from_str(&text).expect("JSON");
    let model = &locked["models"][0];
    assert_eq!((&model["commit"], &model["reference"]), (&told["commit"], &json!(REFERENCE)));
    assert_eq!((&model["license"]["id"], &model["templateHash"]), (&json!("apache-2.0"), &told["templateHash"]));

    // The branch moves on; who has the lock file stays.
    lab.servers.put("tiny/assistant", "tiny-assistant-Q8_0.gguf", [read(MODEL), vec![0; 64]].concat());
    let run = |more: &[&str]| {
        lab.run(&[&["generate", REFERENCE, "--backend", "cpu", "--prompt", "a", "--max-tokens", "1"], more].concat())
    };
    assert!(run(&["--lock", lock])["text"].is_string());
    lab.fails(&["pull", REFERENCE, "--lock", lock], "NotFound", "revision");
    assert_eq!(std::fs::read_to_string(&path).expect("a lock file"), text);
    let hash = sha256(&read(MODEL));
    std::fs::write(&path, text.replace(&hash, &"ab".repeat(32))).expect("a lock file");
    let refused = run(&["--lock", lock]);
    assert_eq!(refused["error"]["kind"], "IntegrityMismatch", "{refused}");
    let words = refused["error"]["message"].as_str().expect("words");
    assert!(words.contains(&hash) && words.contains(&"ab".repeat(32)), "{words}");
    lab.fails(&["inspect", "tiny/other", "--lock", lock], "PolicyRefused", "lock file");
    lab.fails(&["inspect", REFERENCE, "--lock", "nowhere.json"], "NotFound", "nowhere.json");
}

#[test]
fn a_policy_is_judged_before_the_weights() {
    let lab = Lab::new("policy");
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("policy.json");
    for (policy, kind, words) in [
        (r#"{"licenses": {"deny": ["apache-2.0"]}}"#, "PolicyRefused", "apache-2.0"),
        (r#"{"maxBytes": 1000}"#, "PolicyRefused", "maxBytes"),
        (r#"{"license": {}}"#, "InvalidArgument", "license"),
    ] {
        std::fs::write(&path, policy).expect("a policy");
        lab.fails(&["pull", REFERENCE, "--policy", path.to_str().expect("UTF-8")], kind, words);
    }
    assert_eq!(lab.servers.sent(), 0);
    std::fs::write(&path, r#"{"licenses": {"allow": ["apache-2.0"]}, "requireHash": true}"#).expect("a policy");
    lab.pulls(&["--policy", path.to_str().expect("UTF-8")]);
}

#[test]
fn an_adapter_of_a_hub_comes_under_the_models_terms() {
    let lab = Lab::new("adapter");
    for name in ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"] {
        lab.servers.put("o/llama3", name, read(&format!("tests/data/models/llama3/{name}")));
    }
    lab.servers.put("o/llama3", "README.md", b"---\nlicense: apache-2.0\n---\n".to_vec());
    for name in ["adapter_config.json", "adapter_model.safetensors"] {
        lab.servers.put("o/lora", name, read(&format!("tests/data/lora/llama3-plain/{name}")));
    }
    lab.servers.put("o/lora", "README.md", b"---\nlicense: cc-by-nc-4.0\n---\n".to_vec());
    let generate = |more: &[&str]| {
        let args =
            ["generate", "o/llama3", "--backend", "cpu", "--ids", "1,2,3", "--max-tokens", "8", "--temperature", "0"];
        lab.run(&[&args[..], more].concat())
    };
    let local = generate(&["--adapter", "tests/data/lora/llama3-plain"]);
    let from_hub = generate(&["--adapter", "o/lora"]);
    assert_eq!(from_hub["tokens"].as_array().map(Vec::len), Some(8), "{from_hub}");
    assert_eq!(from_hub["tokens"], local["tokens"]);
    assert_ne!(from_hub["tokens"], generate(&[])["tokens"]);
    // Kept like a model, and applied as little as is asked for.
    lab.servers.forget();
    assert_eq!(generate(&["--adapter", "o/lora:0", "--offline"])["tokens"], generate(&["--offline"])["tokens"]);
    assert!(lab.servers.seen().is_empty());
    let denied = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("pull-adapter-policy.json");
    std::fs::write(&denied, r#"{"licenses": {"deny": ["@non-commercial"]}}"#).expect("a policy");
    let told = generate(&["--adapter", "o/lora", "--policy", &denied.to_string_lossy()]);
    assert_eq!(told["error"]["kind"], "PolicyRefused", "{told}");
    // What a lock file does not pin is not loaded under it.
    let lock = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("pull-adapter.lock.json");
    std::fs::remove_file(&lock).ok();
    let lock = lock.to_string_lossy().into_owned();
    lab.run(&["pull", "o/llama3", "--lock", &lock]);
    let told = generate(&["--adapter", "o/lora", "--lock", &lock]);
    assert_eq!(told["error"]["kind"], "PolicyRefused", "{told}");
    lab.run(&["pull", "o/lora", "--lock", &lock]);
    assert_eq!(generate(&["--adapter", "o/lora", "--lock", &lock])["tokens"], local["tokens"]);
}
