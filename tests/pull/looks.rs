//! What is told of models that are not fetched: by their headers, over real sockets, and what that costs.

use crate::lab::{Lab, MODEL, REFERENCE, read, walk};
use serde_json::json;

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
fn fit_tells_what_would_fit_instead_and_whether_the_disk_has_room() {
    let lab = Lab::new("fit");
    lab.servers.put(
        "tiny/assistant",
        "tiny-assistant-Q4_0.gguf",
        read("www/models/tiny-assistant/tiny-assistant-q4_0.gguf"),
    );
    let fit = |memory_bytes: f64, more: &[&str]| {
        let gib = format!("{:.9}", memory_bytes / f64::from(1 << 30));
        lab.run(&[&["fit", REFERENCE, "--backend", "cpu", "--memory", &gib], more].concat())
    };
    let plenty = fit(8e9, &[]);
    assert_eq!((&plenty["verdict"], &plenty["choices"]), (&json!("fits"), &json!([])), "{plenty}");
    let figure = |name: &str| plenty[name].as_f64().expect("a figure");
    // As much as is left when a third of the weights is gone, which a shorter context cannot save.
    let little = figure("totalBytes") - figure("weightBytes") / 3.0;
    let told = fit(little, &["--context", "16"]);
    assert_eq!(told["verdict"], "no", "{told}");
    let choices = told["choices"].as_array().expect("choices");
    let other = choices.iter().find(|choice| choice["reference"].is_string()).expect("a smaller file");
    assert_eq!(other["reference"], "tiny/assistant/tiny-assistant-Q4_0.gguf", "{told}");
    assert!(other["totalBytes"].as_f64().is_some_and(|total| total <= little), "{told}");
    // What is offered is a reference that works.
    let taken = lab.run(&["inspect", "tiny/assistant/tiny-assistant-Q4_0.gguf"]);
    assert!(taken["formats"]["q4_0"].is_number(), "{taken}");

    // A pebibyte more than there is: no disk of a test has it.
    lab.servers.exaggerate(1 << 50);
    let told = fit(8e9, &[]);
    let notes = told["notes"].to_string();
    assert!(told["verdict"] == "no" && notes.contains("bytes have to be kept"), "{told}");
    assert!(!lab.store.exists() || walk(&lab.store).is_empty());
}
