//! `headwater pull` and its kin over real sockets: a hub, a CDN on another port, a folder, and everything that goes wrong
//! between them.
#![allow(clippy::expect_used, reason = "a test says what it expects by failing")]

mod lab;
mod looks;
#[path = "../common/repository.rs"]
mod repository;
mod server;
mod terms;

use std::process::Stdio;
use std::time::{Duration, Instant};

use lab::{AGAIN, Lab, MODEL, REFERENCE, read};
use repository::sha256;
use serde_json::json;
use server::Fault;

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

#[test]
fn a_stores_folder_and_a_models_files_are_imported_once_they_are_vouched_for() {
    let (lab, other) = (Lab::new("imported-from"), Lab::new("imported"));
    let lock = lab.store.with_extension("lock.json").to_string_lossy().into_owned();
    std::fs::remove_file(&lock).ok();
    lab.pulls(&["--lock", &lock]);
    // Another machine, without a network: the store's own files, as they lie there.
    let store = lab.store.to_string_lossy().into_owned();
    let import = |from: &str, more: &[&str]| other.run(&[&["store", "import", REFERENCE, from], more].concat());
    let told = import(&store, &["--lock", &lock, "--offline"]);
    assert_eq!(
        (&told["files"][0]["sha256"], &told["fetchedBytes"]),
        (&json!(sha256(&read(MODEL))), &json!(0)),
        "{told}"
    );
    assert_eq!((other.kept(), other.servers.seen().len()), (Some(read(MODEL)), 0));
    other.run(&["store", "clear"]);
    // Under its own name, vouched for by the hub; another file of that name is refused.
    let folder = other.store.with_extension("files");
    std::fs::create_dir_all(&folder).expect("a folder");
    let file = folder.join("tiny-assistant-Q8_0.gguf");
    std::fs::write(&file, read(MODEL)).expect("a file");
    assert_eq!(import(&folder.to_string_lossy(), &[])["files"].as_array().map(Vec::len), Some(1));
    assert_eq!((other.kept(), other.servers.sent()), (Some(read(MODEL)), 0));
    other.run(&["store", "clear"]);
    let mut wrong = read(MODEL);
    wrong[3_000_000] ^= 1;
    std::fs::write(&file, wrong).expect("a file");
    let told = import(&file.to_string_lossy(), &[]);
    assert_eq!(told["error"]["kind"], "IntegrityMismatch", "{told}");
    assert_eq!(other.kept(), None);
    assert_eq!(import(&file.to_string_lossy(), &["--offline"])["error"]["kind"], "InvalidArgument", "nobody vouches");
}

/// Fills the disk while a pull is under way, makes room again, and pulls once more: `$0` is the folder that gets a disk of its
/// own, the rest is the pull.
const FILLED: &str = r#"
mount -t tmpfs -o size=12m none "$0" || exit 9
"$@" &
until [ "$(du -sk "$0" | cut -f1)" -gt 1500 ]; do sleep 0.02; done
head -c 20000000 /dev/zero >"$0/other" 2>/dev/null
wait $!
rm "$0/other"
"$@"
"#;

#[test]
fn a_disk_that_fills_up_is_told_and_what_came_is_kept() {
    let lab = Lab::new("full");
    std::fs::create_dir_all(&lab.store).expect("a folder");
    lab.servers.rule(|seen, _| seen.cdn.then_some(Fault::Slow(Duration::from_millis(30))));
    let pull = lab.command(&["pull", REFERENCE]);
    // In a namespace where an ordinary user may give a folder a disk of its own.
    let mut shell = std::process::Command::new("unshare");
    shell.args(["--user", "--map-root-user", "--mount", "sh", "-c", FILLED]).arg(&lab.store);
    shell.arg(pull.get_program()).args(pull.get_args()).current_dir(env!("CARGO_MANIFEST_DIR"));
    let output = shell.output().expect("unshare (util-linux)");
    let text = String::from_utf8_lossy(&output.stdout);
    let told: Vec<serde_json::Value> =
        serde_json::Deserializer::from_str(&text).into_iter().map(|value| value.expect("JSON")).collect();
    assert_eq!(told.len(), 2, "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(told[0]["error"]["kind"], "QuotaExceeded", "{text}");
    let size = read(MODEL).len() as u64;
    assert_eq!(told[1]["files"][0]["sha256"], json!(sha256(&read(MODEL))), "{text}");
    assert!(told[1]["fetchedBytes"].as_u64().is_some_and(|fetched| fetched < size), "{text}");
    // What was on its way to the four connections when the disk was full comes again.
    assert!(lab.servers.sent() <= size + AGAIN, "{} bytes for {size}", lab.servers.sent());
}
