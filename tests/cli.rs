//! The command line as a program: every command on the CPU, and what it says to bad input.
#![allow(clippy::expect_used, reason = "a test says what it expects by failing")]

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};

const TINY_Q8: &str = "www/models/tiny-assistant/tiny-assistant-q8_0.gguf";
const TINY: &str = "www/models/tiny-assistant";
const LLAMA3: &str = "tests/data/models/llama3";

/// Runs `headwater` in the project's folder.
fn run(args: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_headwater"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program");
    child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("input");
    child.wait_with_output().expect("an end")
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

/// The lines that a successful run prints.
fn prints(args: &[&str], input: &str) -> Vec<String> {
    let output = run(args, input);
    assert!(output.status.success(), "{args:?}: {}{}", stdout(&output), String::from_utf8_lossy(&output.stderr));
    stdout(&output).lines().map(str::to_owned).collect()
}

/// The one JSON object that a successful run prints.
fn json(args: &[&str]) -> Value {
    let lines = prints(args, "");
    assert_eq!(lines.len(), 1, "{args:?}: {lines:?}");
    serde_json::from_str(&lines[0]).expect("JSON")
}

/// A file of this test run.
fn scratch(name: &str, content: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, content).expect("a file");
    path
}

#[test]
fn generate_answers_messages_in_words_and_in_json() {
    let messages = scratch("messages.json", r#"[{"role": "user", "content": "What are you?"}]"#);
    let messages = messages.to_str().expect("UTF-8");
    let args = ["generate", TINY_Q8, "--backend", "cpu", "--messages", messages, "--temperature", "0"];
    let reply = json(&[&args[..], &["--json"]].concat());
    assert_eq!(reply["finish_reason"], "stop");
    assert_eq!(reply["prompt_tokens"], 12);
    assert_eq!(reply["tokens"].as_array().expect("ids").len(), 21);
    assert!(reply["timings"]["prefill_secs"].as_f64().expect("a time") > 0.0);
    assert_eq!(prints(&args, "").join("\n"), reply["text"].as_str().expect("a text"));

    let cut = json(&[&args[..], &["--json", "--max-tokens", "3"]].concat());
    assert_eq!((&cut["finish_reason"], cut["tokens"].as_array().map(Vec::len)), (&json!("length"), Some(3)));
    let first = reply["text"].as_str().and_then(|text| text.split_once(' ')).expect("words").0;
    assert_eq!(json(&[&args[..], &["--json", "--stop", " "]].concat())["text"], first);
}

/// What peft made of a prompt, with its name.
fn peft(prompt: &str) -> (String, Value) {
    let path = format!("{}/tests/data/lora/llama3-plain/goldens.json", env!("CARGO_MANIFEST_DIR"));
    let goldens: Value = serde_json::from_str(&std::fs::read_to_string(path).expect("a file")).expect("JSON");
    let prompts = goldens["prompts"].as_array().expect("prompts");
    let prompt = prompts.iter().find(|found| found["name"] == prompt).expect("that prompt");
    let ids: Vec<String> = prompt["ids"].as_array().expect("ids").iter().map(Value::to_string).collect();
    (ids.join(","), prompt["greedy"].clone())
}

#[test]
fn an_adapter_is_a_folder_or_a_file_and_a_scale() {
    let (ids, greedy) = peft("mid");
    let reply = |adapter: &[&str]| {
        let args = ["generate", LLAMA3, "--backend", "cpu", "--exact", "--json", "--ids", &ids, "--ignore-eos"];
        json(&[&args[..], &["--temperature", "0", "--max-tokens", "32"], adapter].concat())["tokens"].clone()
    };
    let plain = reply(&[]);
    assert_eq!(reply(&["--adapter", "tests/data/lora/llama3-plain"]), greedy);
    assert_eq!(reply(&["--adapter", "tests/data/lora/llama3-plain/adapter.gguf:1"]), greedy);
    assert_eq!(reply(&["--adapter", "tests/data/lora/llama3-plain:0"]), plain);
    assert_ne!(plain, greedy);
    let wrong = run(
        &["generate", LLAMA3, "--backend", "cpu", "--json", "--ids", "1", "--adapter", "tests/data/lora/qwen3-dora"],
        "",
    );
    let error: Value = serde_json::from_str(&stdout(&wrong)).expect("JSON");
    assert!(!wrong.status.success() && error.to_string().contains("lora_A.weight"), "{error}");
}

#[test]
fn generate_continues_ids_as_the_reference_does() {
    let goldens = std::fs::read_to_string(format!("{}/{LLAMA3}/goldens.json", env!("CARGO_MANIFEST_DIR")));
    let goldens: Value = serde_json::from_str(&goldens.expect("a file")).expect("JSON");
    for prompt in goldens["prompts"].as_array().expect("prompts") {
        let ids: Vec<String> = prompt["ids"].as_array().expect("ids").iter().map(Value::to_string).collect();
        let reply = json(&[
            "generate",
            LLAMA3,
            "--backend",
            "cpu",
            "--exact",
            "--ids",
            &ids.join(","),
            "--max-tokens",
            "32",
            "--ignore-eos",
            "--json",
        ]);
        assert_eq!(reply["tokens"], prompt["greedy"], "{}", prompt["name"]);
    }
}

#[test]
fn generate_samples_by_seed() {
    let args = ["generate", TINY, "--backend", "cpu", "--json", "--prompt", "Once", "--max-tokens", "12"];
    let sampling = ["--temperature", "1.5", "--top-k", "50", "--top-p", "0.98", "--min-p", "0.001"];
    let of = |seed: &str| json(&[&args[..], &sampling[..], &["--seed", seed]].concat());
    let (one, same, other) = (of("5"), of("5"), of("6"));
    assert_eq!((&one["tokens"], &one["seed"]), (&same["tokens"], &json!(5)));
    assert_ne!(one["tokens"], other["tokens"]);
}

#[test]
fn logits_are_those_of_the_reference() {
    let out = scratch("logits.safetensors", "");
    let folder = format!("{}/{LLAMA3}", env!("CARGO_MANIFEST_DIR"));
    let goldens: Value =
        serde_json::from_str(&std::fs::read_to_string(format!("{folder}/goldens.json")).expect("a file"))
            .expect("JSON");
    let ids: Vec<String> = goldens["prompts"][0]["ids"].as_array().expect("ids").iter().map(Value::to_string).collect();
    let out = out.to_str().expect("UTF-8");
    let told =
        json(&["logits", LLAMA3, "--backend", "cpu", "--exact", "--ids", &ids.join(","), "--out", out, "--json"]);
    assert_eq!(told["tokens"], ids.len());

    let (ours, theirs) = (std::fs::read(out).expect("a file"), std::fs::read(format!("{folder}/goldens.safetensors")));
    let theirs = theirs.expect("a file");
    let ours = SafeTensors::deserialize(&ours).expect("safetensors");
    let theirs = SafeTensors::deserialize(&theirs).expect("safetensors");
    let (ours, theirs) = (ours.tensor("logits").expect("logits"), theirs.tensor("short.logits").expect("logits"));
    assert_eq!((ours.dtype(), ours.shape()), (Dtype::F32, theirs.shape()));
    let floats = |bytes: &[u8]| -> Vec<f64> {
        bytes.chunks_exact(4).map(|b| f64::from(f32::from_le_bytes([b[0], b[1], b[2], b[3]]))).collect()
    };
    let (ours, theirs) = (floats(ours.data()), floats(theirs.data()));
    let error: f64 = ours.iter().zip(&theirs).map(|(a, b)| (a - b) * (a - b)).sum();
    let size: f64 = theirs.iter().map(|b| b * b).sum();
    assert!(error / size <= 1e-8, "NMSE {}", error / size);
}

/// Lines of texts, and the numbers of one line of the program's.
fn lines(texts: &[&str]) -> String {
    texts.iter().map(|text| format!("{}\n", json!({ "text": text }))).collect()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().expect("an array").iter().map(|number| number.as_f64().expect("a number")).collect()
}

#[test]
fn embed_writes_a_vector_for_every_line() {
    let goldens = std::fs::read("tests/data/models/bert-minilm/goldens.safetensors").expect("goldens");
    let goldens = SafeTensors::deserialize(&goldens).expect("safetensors");
    let golden: Vec<f32> = goldens
        .tensor("embeddings")
        .expect("embeddings")
        .data()
        .as_chunks::<4>()
        .0
        .iter()
        .map(|raw| f32::from_le_bytes(*raw))
        .collect();
    let input = lines(&["A short sentence.", "How do I free memory in Rust?"]);
    let args = ["embed", "tests/data/models/bert-minilm", "--backend", "cpu"];
    let vectors: Vec<Vec<f64>> = prints(&args, &input)
        .iter()
        .map(|line| numbers(&serde_json::from_str::<Value>(line).expect("JSON")["embedding"]))
        .collect();
    assert_eq!(vectors.len(), 2);
    for (found, golden) in vectors.concat().iter().zip(&golden) {
        assert!((found - f64::from(*golden)).abs() < 1e-5, "{found} {golden}");
    }
    let short = prints(
        &[&args[..], &["--json", "--dimensions", "8", "--pooling", "cls", "--normalize", "false"]].concat(),
        &input,
    );
    let short: Value = serde_json::from_str(&short.concat()).expect("JSON");
    assert_eq!(
        (&short["dimensions"], &short["pooling"], &short["prompt_tokens"]),
        (&json!(8), &json!("cls"), &json!(27))
    );
    assert!(short["embeddings"].as_array().expect("an array").iter().all(|vector| numbers(vector).len() == 8));

    // The module's folder is read, and the GGUF file of the same model gives nearly the same.
    let info = json(&["inspect", "tests/data/models/bert-bge-cls", "--json"]);
    assert_eq!(
        (&info["kind"], &info["pooling"], &info["embeddingSize"]),
        (&json!("embedder"), &json!("cls"), &json!(64))
    );
    let gguf = prints(&["embed", "tests/data/gguf/bert-minilm-F16.gguf", "--backend", "cpu"], &input);
    let first = numbers(&serde_json::from_str::<Value>(&gguf[0]).expect("JSON")["embedding"]);
    assert!(first.iter().zip(&vectors[0]).all(|(a, b)| (a - b).abs() < 1e-3));
}

#[test]
fn score_writes_a_line_for_each() {
    let input = "{\"context\": \"The sky is\", \"continuation\": \" blue\"}\n{\"continuation\": [5, 6]}\n";
    let args = ["score", TINY, "--backend", "cpu"];
    let output = run(&[&args[..], &["--json"]].concat(), input);
    assert!(!output.status.success() && stdout(&output).contains("items: item 1"), "{}", stdout(&output));
    let input =
        "{\"context\": \"The sky is\", \"continuation\": \" blue\"}\n{\"context\": [7], \"continuation\": [5, 6]}\n";
    let scores: Vec<Value> =
        prints(&args, input).iter().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(scores.len(), 2);
    for score in &scores {
        assert!(score["logprob"].as_f64().is_some_and(|logprob| logprob < 0.0) && score["is_greedy"].is_boolean());
    }
    assert_eq!(scores[1]["tokens"], serde_json::json!([5, 6]));
    let sum: f64 = scores[1]["token_logprobs"].as_array().expect("numbers").iter().filter_map(Value::as_f64).sum();
    assert!((scores[1]["logprob"].as_f64().expect("a number") - sum).abs() < 1e-9);
    let output = run(&args, "{\"context\": 3}\n");
    assert!(!output.status.success() && String::from_utf8_lossy(&output.stderr).contains("line 1"));
}

#[test]
fn rerank_writes_the_best_first() {
    let args =
        ["rerank", "tests/data/models/bert-reranker", "--backend", "cpu", "--query", "How do I free memory in Rust?"];
    let input = lines(&["x", "Ownership rules decide when a value is dropped.", "今天天气很好"]);
    let ranked: Vec<Value> =
        prints(&args, &input).iter().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(ranked.len(), 3);
    let logits: Vec<f64> = ranked.iter().map(|ranked| ranked["logit"].as_f64().expect("a number")).collect();
    assert!(logits.is_sorted_by(|a, b| a >= b), "{logits:?}");
    let golden = ranked.iter().find(|ranked| ranked["index"] == 1).expect("every document");
    assert!((golden["logit"].as_f64().expect("a number") + 1.469_890).abs() < 1e-4);
    let best = prints(&[&args[..], &["--top-k", "1", "--json"]].concat(), &input);
    let best: Value = serde_json::from_str(&best.concat()).expect("JSON");
    assert_eq!(best["results"].as_array().map(Vec::len), Some(1));

    let output = run(&["embed", "tests/data/models/bert-reranker", "--backend", "cpu", "--json"], &input);
    assert!(!output.status.success() && stdout(&output).contains("it can: rerank"), "{}", stdout(&output));
    let output = run(&["generate", "tests/data/models/bert-minilm", "--backend", "cpu", "--json", "--prompt", "x"], "");
    assert!(!output.status.success() && stdout(&output).contains("it can: embed"), "{}", stdout(&output));
}

#[test]
fn tokenize_reads_lines_and_writes_lines() {
    let input = "{\"text\": \"Once upon\"}\n{\"text\": \"\"}\n{\"text\": \"<|im_end|> né\"}\n";
    let lines = prints(&["tokenize", TINY_Q8], input);
    let lines: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let texts: Vec<&Value> = lines.iter().map(|line| &line["text"]).collect();
    assert_eq!(texts, ["Once upon", "", "<|im_end|> né"]);
    assert_eq!(
        (&lines[0]["ids"], &lines[1]["ids"], &lines[2]["ids"][0]),
        (&json!([563, 561]), &json!([]), &json!(2047))
    );
    let plain = prints(&["tokenize", TINY_Q8, "--plain"], "{\"text\": \"<|im_end|>\"}\n");
    let plain: Value = serde_json::from_str(&plain[0]).expect("JSON");
    assert!(plain["ids"].as_array().expect("ids").len() > 1);
    assert_eq!(plain["text"], "<|im_end|>");
}

#[test]
fn inspect_tells_what_a_model_is() {
    let info = json(&["inspect", TINY_Q8, "--json"]);
    assert_eq!((&info["architecture"], &info["parameters"]), (&json!("qwen3"), &json!(5_246_592)));
    assert_eq!((&info["license"], &info["backend"]), (&json!("apache-2.0"), &Value::Null));
    let folder = json(&["inspect", TINY, "--json"]);
    assert_eq!(folder["formats"], json!({ "bf16": 10_493_184 }));
    assert_eq!(folder["sampling"]["topK"], 20.0);
    let words = prints(&["inspect", TINY], "").join("\n");
    assert!(words.contains("qwen3, 6 layers") && words.contains("5246592"), "{words}");
}

#[test]
fn bench_measures_what_fits_and_says_so() {
    let args = ["bench", TINY_Q8, "--backend", "cpu", "--context", "32", "--pp", "512", "--tg", "4", "--depth", "4"];
    let report = json(&[&args[..], &["--json"]].concat());
    assert_eq!((&report["prefill"]["tokens"], &report["decode"]["tokens"]), (&json!(28), &json!(4)));
    assert!(report["decode"]["tokensPerSecond"].as_f64().expect("a rate") > 0.0);
    assert!(report["bytesPerToken"].as_u64().expect("bytes") > 5_000_000);
    for count in ["dispatches", "passes", "submits", "writes", "objects", "readBytes"] {
        assert!(report["decodeCounters"][count].is_number(), "{count}");
    }
    assert_eq!(report["notes"], json!(["prefill: 28 instead of 512, the context is 32"]));
    let words = prints(&args, "").join("\n");
    assert!(words.contains("note: prefill") && words.contains("decode of 4 tokens at depth 4"), "{words}");
}

#[test]
fn bad_input_is_an_error_with_a_kind() {
    let not_messages = scratch("not-messages.json", r#"[{"content": "no role"}]"#);
    let not_json = scratch("not-json.json", "{");
    let not_a_model = scratch("not-a-model.gguf", "hello, this is not a model at all");
    let path = |path: &PathBuf| path.to_str().expect("UTF-8").to_owned();
    let (not_messages, not_json, not_a_model) = (path(&not_messages), path(&not_json), path(&not_a_model));
    let empty = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("empty");
    std::fs::create_dir_all(&empty).expect("a folder");
    let long = vec!["1"; 600].join(",");
    let cpu = ["--backend", "cpu"];
    let cases: &[(&[&str], &str, &str)] = &[
        (&["generate", "nowhere.gguf", "--prompt", "x"], "NotFound", "nowhere.gguf"),
        (&["generate", &path(&empty), "--prompt", "x"], "NotFound", "empty"),
        (&["generate", &not_a_model, "--prompt", "x"], "UnsupportedFormat", "not-a-model.gguf"),
        (&["generate", "hf:someone/something", "--prompt", "x", "--offline"], "NotFound", "not stored here"),
        (&["generate", "hf:someone", "--prompt", "x"], "InvalidArgument", "owner/name"),
        (&["generate", TINY_Q8, "--prompt", ""], "InvalidArgument", "empty"),
        (&["generate", TINY_Q8, "--ids", "1,2048"], "InvalidArgument", "2047"),
        (&["generate", TINY_Q8, "--ids", "1,x"], "InvalidArgument", "--ids"),
        (&["generate", TINY_Q8, "--ids", &long], "ContextFull", "600"),
        (&["generate", TINY_Q8, "--prompt", "x", "--temperature", "-1"], "InvalidArgument", "temperature: -1"),
        (&["generate", TINY_Q8, "--prompt", "x", "--max-tokens", "0"], "InvalidArgument", "maxTokens: 0"),
        (&["generate", TINY_Q8, "--prompt", "x", "--context", "513"], "InvalidArgument", "context: 513"),
        (&["generate", TINY_Q8, "--prompt", "x", "--colour", "red"], "InvalidArgument", "--colour"),
        (&["generate", TINY_Q8, "--prompt", "x", "--ids", "1"], "InvalidArgument", "--ids"),
        (&["generate", TINY_Q8], "InvalidArgument", "--prompt"),
        (&["generate", TINY_Q8, "--messages", &not_messages], "InvalidArgument", "item 0"),
        (&["generate", TINY_Q8, "--messages", &not_json], "InvalidArgument", "not JSON"),
        (&["generate", TINY_Q8, "--messages", "nowhere.json"], "NotFound", "nowhere.json"),
        (&["logits", TINY_Q8, "--ids", "9999", "--out", "x"], "InvalidArgument", "item 0"),
        (&["logits", TINY_Q8, "--ids", "1", "--out", "no/such/folder/x"], "NotFound", "no/such/folder/x"),
        (&["inspect", TINY_Q8, "--frobnicate"], "InvalidArgument", "--frobnicate"),
        (&["bench", TINY_Q8, "--tg", "0"], "InvalidArgument", "decode"),
    ];
    for (args, kind, words) in cases {
        let args = [args, &cpu[..]].concat();
        let output = run(&[&args[..], &["--json"]].concat(), "");
        assert_eq!(output.status.code(), Some(1), "{args:?}: {}", stdout(&output));
        let error: Value = serde_json::from_str(&stdout(&output)).expect("one JSON object");
        assert_eq!(error["error"]["kind"], *kind, "{args:?}: {error}");
        assert!(error["error"]["message"].as_str().expect("words").contains(words), "{args:?}: {error}");
        assert_eq!(error.as_object().map(serde_json::Map::len), Some(1));

        let in_words = run(&args, "");
        assert!(!in_words.status.success() && in_words.stdout.is_empty(), "{args:?}");
        assert!(!in_words.stderr.is_empty() && !String::from_utf8_lossy(&in_words.stderr).contains("panicked"));
    }
    let output = run(&["tokenize", TINY_Q8, "--json"], "{\"text\": \"fox\"}\n{\"txt\": 1}\n");
    let told = stdout(&output);
    let last: Value = serde_json::from_str(told.lines().last().expect("a line")).expect("JSON");
    assert_eq!((output.status.code(), &last["error"]["kind"]), (Some(1), &json!("InvalidArgument")));
    assert!(last["error"]["message"].as_str().expect("words").starts_with("line 2"), "{last}");
}

#[test]
fn no_gpu_is_told_and_nothing_else_is_used_instead() {
    // A loader without drivers finds no adapter; where another kind of driver answers, the reply must be the GPU's own.
    let output = Command::new(env!("CARGO_BIN_EXE_headwater"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["generate", TINY_Q8, "--prompt", "Once", "--max-tokens", "2", "--json"])
        .env("VK_DRIVER_FILES", "/nonexistent")
        .env("VK_ICD_FILENAMES", "/nonexistent")
        .env("WGPU_BACKEND", "vulkan")
        .output()
        .expect("the program");
    let told: Value = serde_json::from_str(&stdout(&output)).expect("JSON");
    assert_eq!((output.status.code(), &told["error"]["kind"]), (Some(1), &json!("GpuUnavailable")));
}
