//! `headwater pull` and its kin over real sockets: a hub, a CDN on another port, a folder, and everything that goes wrong
//! between them.
#![allow(clippy::expect_used, reason = "a test says what it expects by failing")]

mod server;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use server::{Fault, Servers, sha256};

const MODEL: &str = "www/models/tiny-assistant/tiny-assistant-q8_0.gguf";
const REFERENCE: &str = "tiny/assistant:Q8_0";
const TOKEN: &str = "hf_secretofthetests";
/// What may be fetched again of the file that was open.
const AGAIN: u64 = 4 << 20;

fn read(path: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).expect("a file of the project")
}

/// Servers with the demo's model, and a store that is empty.
struct Lab {
    servers: Servers,
    store: PathBuf,
}

impl Lab {
    fn new(name: &str) -> Self {
        let store = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("pull-{name}"));
        if store.exists() {
            std::fs::remove_dir_all(&store).expect("an old store");
        }
        let servers = Servers::start();
        servers.put("tiny/assistant", "tiny-assistant-Q8_0.gguf", read(MODEL));
        servers.put(
            "tiny/assistant",
            "README.md",
            b"---\nlicense: apache-2.0\nbase_model: o/n\n---\n# Tiny\n".to_vec(),
        );
        Self { servers, store }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_headwater"));
        command.current_dir(env!("CARGO_MANIFEST_DIR")).args(args).arg("--json");
        command.args(["--endpoint", &format!("http://{}", self.servers.hub), "--allow-host", &self.servers.cdn]);
        command.arg("--store").arg(&self.store).env_remove("HF_TOKEN").stdin(Stdio::null());
        command
    }

    /// The object that a command prints, whether it succeeded or not.
    fn run(&self, args: &[&str]) -> Value {
        let output = self.command(args).output().expect("the program");
        let (text, words) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        for secret in [TOKEN, "verysecret"] {
            assert!(!text.contains(secret) && !words.contains(secret), "{secret} is told: {text}{words}");
        }
        assert!(!words.contains("panicked"), "{words}");
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{args:?}: {error}: {text}{words}"))
    }

    fn pulls(&self, args: &[&str]) -> Value {
        let told = self.run(&[&["pull", REFERENCE], args].concat());
        assert_eq!(told["files"][0]["sha256"], json!(sha256(&read(MODEL))), "{told}");
        assert_eq!(self.kept(), Some(read(MODEL)));
        told
    }

    fn fails(&self, args: &[&str], kind: &str, words: &str) {
        let told = self.run(args);
        assert_eq!(told["error"]["kind"], kind, "{told}");
        assert!(told["error"]["message"].as_str().expect("words").contains(words), "{told}");
    }

    /// The content of the model's file, if it is said to be kept.
    fn kept(&self) -> Option<Vec<u8>> {
        let listed = self.run(&["store", "list"]);
        let model = listed["models"].as_array().expect("models").first()?;
        let name = format!("sha256-{}", model["files"][0]["sha256"].as_str().expect("a hash"));
        let files = walk(&self.store);
        let path = files.iter().find(|path| path.ends_with(&name)).expect("a listed model's file");
        Some(std::fs::read(path).expect("bytes"))
    }
}

fn walk(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
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

#[test]
fn a_model_is_pulled_kept_and_run_without_the_network() {
    let lab = Lab::new("whole");
    let told = lab.pulls(&[]);
    assert_eq!((&told["license"]["id"], &told["license"]["baseModels"]), (&json!("apache-2.0"), &json!(["o/n"])));
    assert_eq!(told["fetchedBytes"], json!(read(MODEL).len()));
    assert_eq!(told["hosts"].as_array().map(Vec::len), Some(2));
    assert!(told["templateHash"].is_string() && told["warning"].is_null(), "{told}");
    lab.servers.forget();
    let generate = |reference: &str, more: &[&str]| {
        let args =
            ["generate", reference, "--backend", "cpu", "--prompt", "Once", "--max-tokens", "4", "--temperature", "0"];
        lab.run(&[&args[..], more].concat())
    };
    let kept = generate(REFERENCE, &["--offline"]);
    assert_eq!(kept["tokens"].as_array().map(Vec::len), Some(4), "{kept}");
    assert_eq!(generate(REFERENCE, &[])["text"], kept["text"]);
    assert_eq!(generate(MODEL, &[])["text"], kept["text"], "a file that is there is meant, whatever the flags say");
    let inspected = lab.run(&["inspect", REFERENCE]);
    assert_eq!((&inspected["architecture"], &inspected["origin"]["commit"]), (&json!("qwen3"), &told["commit"]));
    assert_eq!(lab.servers.seen().len(), 0, "nobody was asked");
    assert_eq!(lab.pulls(&[])["fetchedBytes"], json!(0));

    let freed = lab.run(&["store", "remove", REFERENCE]);
    assert_eq!(freed["freedBytes"], json!(read(MODEL).len()));
    assert_eq!(lab.kept(), None);
    lab.fails(&["generate", REFERENCE, "--offline", "--prompt", "x"], "NotFound", "not stored here");
}

#[test]
fn inspect_reads_the_header_and_keeps_nothing() {
    let lab = Lab::new("inspect");
    let told = lab.run(&["inspect", REFERENCE]);
    assert_eq!((&told["architecture"], &told["origin"]["license"]["id"]), (&json!("qwen3"), &json!("apache-2.0")));
    assert!(told["origin"]["files"][0]["expected"].as_str().is_some_and(|hash| hash.starts_with("sha256:")), "{told}");
    assert!(lab.servers.sent() < 600_000, "{} bytes", lab.servers.sent());
    assert!(!lab.store.exists() || walk(&lab.store).is_empty());
}

/// A GGUF file with that many items more at the start of a list of `item_type`, each of the bytes that `item` gives; as many
/// bytes are added as keep the tensors aligned, which takes a last item of some length.
fn with_longer_list(
    gguf: &[u8],
    key: &str,
    items: u64,
    item: impl Fn(u64) -> Vec<u8>,
    pad: impl Fn(usize) -> Vec<u8>,
) -> Vec<u8> {
    let place = gguf.windows(key.len()).position(|part| part == key.as_bytes()).expect("the key");
    // The key, the type of the value, that of its items, and their number.
    let count = place + key.len() + 8;
    let first = count + 8;
    let before = u64::from_le_bytes(gguf[count..first].try_into().expect("a number"));
    let mut more: Vec<u8> = (0..items - 1).flat_map(item).collect();
    let last = pad((32 - more.len() % 32) % 32);
    more.extend(last);
    assert_eq!(more.len() % 32, 0);
    [&gguf[..count], &(before + items).to_le_bytes(), &more, &gguf[first..]].concat()
}

#[test]
fn inspect_passes_over_the_vocabulary_of_a_gguf_file() {
    const ITEMS: u64 = 150_000;
    let text = |text: &[u8]| [&(text.len() as u64).to_le_bytes(), text].concat();
    // A text of a length such that it and what is missing to 32 come out even.
    let pad = |missing: usize| text(&vec![b'x'; (missing + 56) % 32 + 32]);
    let token = |index: u64| text(format!("t{}", index * index % 99_999_999).as_bytes());
    let merge = |index: u64| text(format!("{} {index}", index * index % 9_999).as_bytes());
    let mut bytes = with_longer_list(&read(MODEL), "tokenizer.ggml.tokens", ITEMS, token, pad);
    // A multiple of eight items of four bytes.
    bytes = with_longer_list(
        &bytes,
        "tokenizer.ggml.token_type",
        ITEMS,
        |_| 1_u32.to_le_bytes().to_vec(),
        |missing| vec![0; missing],
    );
    bytes = with_longer_list(&bytes, "tokenizer.ggml.merges", ITEMS, merge, pad);
    let lab = Lab::new("long");
    let plain = lab.run(&["inspect", REFERENCE]);
    lab.servers.put("tiny/long", "long-Q8_0.gguf", bytes);
    let before = lab.servers.sent();
    let told = lab.run(&["inspect", "tiny/long"]);
    let sent = lab.servers.sent() - before;
    assert!(sent < 550_000, "{sent} bytes of two looks, one of them for the licence");
    for key in ["architecture", "parameters", "layers", "vocabSize", "context", "formats", "template", "name"] {
        assert_eq!(told[key], plain[key], "{key}");
    }
    assert!(told["warnings"][0].as_str().is_some_and(|words| words.contains("tokenizer.ggml.tokens")), "{told}");
    assert!(plain["warnings"].as_array().is_some_and(Vec::is_empty), "{plain}");
}

#[test]
fn inspect_leaves_a_large_tokenizer_where_it_is() {
    let lab = Lab::new("look");
    for name in ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"] {
        let mut bytes = read(&format!("tests/data/models/llama3/{name}"));
        if name == "tokenizer.json" {
            bytes.extend(vec![b' '; 2 << 20]);
        }
        lab.servers.put("test/llama3", name, bytes);
    }
    let told = lab.run(&["inspect", "test/llama3"]);
    assert_eq!((&told["architecture"], told["template"]["hash"].is_string()), (&json!("llama"), true), "{told}");
    assert!(told["warnings"][0].as_str().is_some_and(|words| words.contains("tokenizer.json")), "{told}");
    assert!(lab.servers.seen().iter().all(|seen| !seen.path.ends_with("/tokenizer.json")));
    // A load reads it all the same.
    lab.run(&["pull", "test/llama3"]);
    let kept = lab.run(&["inspect", "test/llama3", "--offline"]);
    assert_eq!(
        (&kept["template"]["hash"], kept["warnings"].as_array().map(Vec::len)),
        (&told["template"]["hash"], Some(0))
    );
}

#[test]
fn faults_of_servers_are_passed_over_at_little_cost() {
    let faults = [
        Fault::Cut(700_000),
        Fault::CutSilently(300_000),
        Fault::Status(429, "Retry-After: 0"),
        Fault::Status(503, "Retry-After: 0"),
        Fault::Status(500, ""),
        Fault::Status(403, ""),
        Fault::NoRanges,
    ];
    for (index, fault) in faults.into_iter().enumerate() {
        let lab = Lab::new(&format!("fault-{index}"));
        let bad = fault.clone();
        lab.servers.rule(move |seen, count| (seen.cdn && count == 2).then(|| bad.clone()));
        lab.pulls(&[]);
        let again = lab.servers.sent().saturating_sub(read(MODEL).len() as u64);
        let most = if matches!(fault, Fault::NoRanges) { 2 * read(MODEL).len() as u64 } else { AGAIN };
        assert!(again <= most, "{fault:?}: {again} bytes again");
    }
    let lab = Lab::new("wrong-once");
    lab.servers.rule(|seen, count| (seen.cdn && count == 2).then_some(Fault::Flip(77)));
    lab.pulls(&[]);
}

#[test]
fn faults_that_stay_are_typed_and_leave_what_was_verified() {
    let lab = Lab::new("stays");
    lab.servers.rule(|seen, _| seen.cdn.then_some(Fault::Flip(77)));
    lab.fails(&["pull", REFERENCE], "IntegrityMismatch", &sha256(&read(MODEL)));
    assert_eq!(lab.kept(), None);
    lab.servers.rule(|seen, count| (seen.cdn && count > 1).then_some(Fault::Status(403, "")));
    lab.fails(&["pull", REFERENCE], "SignedUrlExpired", "403");
    lab.servers.honest();
    lab.servers.expire();
    lab.servers.forget();
    lab.pulls(&[]);
    let (sent, size) = (lab.servers.sent(), read(MODEL).len() as u64);
    assert!(sent <= size + AGAIN, "{sent} bytes for {size}: more than an open block again");

    let other = Lab::new("expires");
    let expire = other.servers.expirer();
    other.servers.rule(move |seen, count| {
        if seen.cdn && count == 2 {
            expire();
        }
        seen.cdn.then_some(Fault::Slow(Duration::from_millis(20)))
    });
    other.pulls(&[]);
    lab.fails(&["pull", "tiny/nothing"], "NotFound", "no such repository");
    lab.fails(&["pull", "tiny/assistant@v9:Q8_0"], "NotFound", "no such revision");
    lab.fails(&["pull", "tiny/assistant:Q4_K_M"], "NotFound", "tiny-assistant-Q8_0");
    lab.fails(&["pull", "tiny"], "InvalidArgument", "owner/name");
}

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
fn what_the_disk_has_no_room_for_is_refused_in_figures_before_the_weights() {
    let lab = Lab::new("room");
    // A pebibyte more than there is: no disk of a test has it.
    lab.servers.exaggerate(1 << 50);
    let wanted = (1_u64 << 50) + read(MODEL).len() as u64;
    lab.fails(&["pull", REFERENCE], "QuotaExceeded", &format!("{wanted} bytes have to be kept, and there are "));
    assert_eq!(lab.servers.sent(), 0);
    lab.servers.exaggerate(0);
    lab.pulls(&[]);
}

#[test]
fn folders_with_safetensors_come_whole() {
    let lab = Lab::new("folder");
    for name in ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"] {
        lab.servers.put("test/llama3", name, read(&format!("tests/data/models/llama3/{name}")));
    }
    lab.servers.put("test/llama3", "pytorch_model.bin", b"\x80\x02}q\x00.".to_vec());
    let told = lab.run(&["pull", "test/llama3"]);
    assert_eq!(told["files"].as_array().map(Vec::len), Some(4), "{told}");
    let info = lab.run(&["inspect", "test/llama3", "--offline"]);
    assert_eq!(info["architecture"], "llama", "{info}");
    lab.servers.put("test/pickle", "pytorch_model.bin", vec![0x80, 2]);
    lab.fails(&["pull", "test/pickle"], "UnsupportedFormat", "pickle");
}

#[test]
fn a_killed_pull_goes_on_where_it_was() {
    let lab = Lab::new("killed");
    lab.servers.rule(|seen, _| seen.cdn.then_some(Fault::Slow(Duration::from_millis(40))));
    let size = read(MODEL).len() as u64;
    let mut kills = 0;
    for sent in [1 << 20, 3 << 20, 4 << 20] {
        let mut child =
            lab.command(&["pull", REFERENCE]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the program");
        let start = Instant::now();
        while lab.servers.sent() < sent + kills * AGAIN && start.elapsed() < Duration::from_secs(60) {
            std::thread::sleep(Duration::from_millis(5));
            if child.try_wait().expect("a child").is_some() {
                break;
            }
        }
        child.kill().ok();
        child.wait().expect("its end");
        kills += 1;
    }
    lab.servers.honest();
    lab.pulls(&[]);
    assert!(lab.servers.sent() <= size + kills * AGAIN, "{} bytes for {size}", lab.servers.sent());
}

#[test]
fn two_processes_fetch_once() {
    let lab = Lab::new("two");
    lab.servers.rule(|seen, _| seen.cdn.then_some(Fault::Slow(Duration::from_millis(10))));
    let children: Vec<_> = (0..3)
        .map(|_| {
            lab.command(&["pull", REFERENCE]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("the program")
        })
        .collect();
    for child in children {
        let output = child.wait_with_output().expect("its end");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
    assert_eq!(lab.servers.sent(), read(MODEL).len() as u64);
    assert_eq!(lab.kept(), Some(read(MODEL)));
}
