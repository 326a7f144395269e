//! What the tests of tokenizers and templates share: the fixtures, and a report of all failures at once.
#![allow(dead_code, reason = "each test binary uses a part")]

use std::collections::BTreeMap;
use std::io::Read;
use std::path::PathBuf;

use headwater::format::{Dialect, Metadata};
use headwater::tokenizer::Tokenizer;
use serde_json::Value;

/// All styles of tokenizer.
pub const STYLES: [&str; 12] = [
    "bert",
    "deepseek",
    "gemma",
    "llama2",
    "llama3",
    "mistral",
    "modernbert",
    "o200k",
    "phi3",
    "qwen2",
    "smollm",
    "xlmr",
];

/// A path under `tests/data`.
pub fn data(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(path)
}

/// A style's files as metadata of a hub folder.
pub fn hub_metadata(style: &str) -> Metadata {
    let mut companions = BTreeMap::new();
    for file in ["tokenizer.json", "tokenizer_config.json"] {
        let text = std::fs::read_to_string(data(&format!("tokenizers/{style}/{file}"))).unwrap();
        companions.insert(file.to_owned(), text);
    }
    Metadata {
        dialect: Dialect::Hub,
        architecture: style.to_owned(),
        values: BTreeMap::new(),
        companions,
        small_tensors: BTreeMap::new(),
    }
}

/// A style's tokenizer.
pub fn tokenizer(style: &str) -> Tokenizer {
    Tokenizer::from_metadata(&hub_metadata(style)).unwrap_or_else(|error| panic!("{style}: {error}"))
}

/// The text of a gzipped file under `tests/data`.
pub fn unzip(path: &str) -> String {
    let file = std::fs::File::open(data(path)).unwrap();
    let mut text = String::new();
    flate2::read::GzDecoder::new(file).read_to_string(&mut text).unwrap();
    text
}

/// A style's golden records.
pub fn goldens(style: &str) -> Vec<Value> {
    let text = unzip(&format!("tokenizers/{style}/goldens.jsonl.gz"));
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// An array of ids.
pub fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| u32::try_from(id.as_u64().unwrap()).unwrap()).collect()
}

/// Fails with every failure; and when fewer than `at_least` were tried.
pub fn report(what: &str, n: usize, at_least: usize, wrong: &[String]) {
    assert!(n >= at_least, "only {n} {what} were tried");
    assert!(wrong.is_empty(), "{} of {n} {what} are wrong:\n{}", wrong.len(), wrong.join("\n"));
}
