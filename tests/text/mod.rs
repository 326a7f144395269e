//! What the tests of tokenizers and templates share: the fixtures, and a report of all failures at once.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests say what they expect by failing")]
#![allow(dead_code, reason = "each test binary uses a part")]

use std::collections::BTreeMap;
use std::io::Read;
use std::path::PathBuf;

use headwater::error::ErrorKind;
use headwater::format::{self, Dialect, Metadata};
use headwater::tokenizer::Tokenizer;
use serde_json::Value;

/// All styles of tokenizer.
pub(crate) const STYLES: [&str; 14] = [
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
    "r1-distill-llama",
    "r1-distill-qwen",
    "smollm",
    "xlmr",
];

/// A path under `tests/data`.
pub(crate) fn data(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(path)
}

/// A style's files as metadata of a hub folder.
pub(crate) fn hub_metadata(style: &str) -> Metadata {
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
pub(crate) fn tokenizer(style: &str) -> Tokenizer {
    Tokenizer::from_metadata(&hub_metadata(style)).unwrap_or_else(|error| panic!("{style}: {error}"))
}

/// The text of a gzipped file under `tests/data`.
pub(crate) fn unzip(path: &str) -> String {
    let file = std::fs::File::open(data(path)).unwrap();
    let mut text = String::new();
    flate2::read::GzDecoder::new(file).read_to_string(&mut text).unwrap();
    text
}

/// A style's golden records.
pub(crate) fn goldens(style: &str) -> Vec<Value> {
    let text = unzip(&format!("tokenizers/{style}/goldens.jsonl.gz"));
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// An array of ids.
pub(crate) fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| u32::try_from(id.as_u64().unwrap()).unwrap()).collect()
}

/// Fails with every failure; and when fewer than `at_least` were tried.
pub(crate) fn report(what: &str, n: usize, at_least: usize, wrong: &[String]) {
    assert!(n >= at_least, "only {n} {what} were tried");
    assert!(wrong.is_empty(), "{} of {n} {what} are wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// The stream's pieces, and what `finish` adds.
pub(crate) fn stream(tokenizer: &Tokenizer, ids: &[u32], skip_special: bool) -> String {
    let mut decoder = tokenizer.stream(skip_special);
    let mut text: String = ids.iter().map(|&id| decoder.push(id).unwrap()).collect();
    text.push_str(&decoder.finish().unwrap());
    text
}

/// A small generator of numbers, the same every time.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % end
    }
}

/// Values that were compared with golden records, and those that were wrong.
#[derive(Default)]
pub(crate) struct Tally {
    n: usize,
    wrong: Vec<String>,
}

impl Tally {
    /// Compares a value of the record at `place`.
    pub(crate) fn check(&mut self, place: &str, what: &str, got: impl Into<Value>, expected: &Value) {
        self.n += 1;
        let got = got.into();
        if got != *expected {
            self.wrong.push(format!("{place}: {what}: got {got}, expected {expected}"));
        }
    }

    /// Compares the ids and segments of a record of two texts.
    pub(crate) fn check_pair(&mut self, place: &str, tokenizer: &Tokenizer, record: &Value) {
        let text = |index: usize| record["pair"][index].as_str().unwrap();
        let [first, second] = [0, 1].map(|index| tokenizer.encode(text(index), false, true).unwrap());
        // Without a post-processor nothing is said about pairs.
        match tokenizer.around_pair(&first, &second) {
            Ok(pair) => {
                self.check(place, "pair", pair.ids, &record["ids_special"]);
                self.check(place, "segments", pair.segments, &record["type_ids"]);
            }
            Err(error) => self.check(place, &format!("pair ({error})"), Value::Null, &record["ids_special"]),
        }
    }

    /// See [`report`].
    pub(crate) fn report(&self, what: &str, at_least: usize) {
        report(what, self.n, at_least, &self.wrong);
    }
}

/// A key of a vocabulary, what it is changed to (or that it is gone), and the error that follows.
pub(crate) type Damage<'a> = (&'a str, &'a str, Option<format::Value>, ErrorKind);

/// Every damage to the vocabulary that `whole` makes of the first word of the case gives its error.
pub(crate) fn check_damages(cases: &[Damage<'_>], whole: impl Fn(&str) -> Metadata) {
    let mut wrong = Vec::new();
    for (index, (name, key, value, kind)) in cases.iter().enumerate() {
        let mut metadata = whole(name);
        metadata.values.remove(*key);
        metadata.values.extend(value.clone().map(|value| ((*key).to_owned(), value)));
        match Tokenizer::from_metadata(&metadata) {
            Ok(_) => wrong.push(format!("{index}, {name}: {key} loads")),
            Err(error) if error.kind() != *kind => {
                wrong.push(format!("{index}, {name}: {:?} instead of {kind:?}: {error}", error.kind()));
            }
            Err(_) => {}
        }
    }
    report("damaged vocabularies", cases.len(), cases.len().max(5), &wrong);
}
