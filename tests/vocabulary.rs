//! The vocabularies of GGUF files: the ids that llama.cpp and the models' own files give, and damaged ones.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests say what they expect by failing")]

mod text;

use std::rc::Rc;

use headwater::error::ErrorKind;
use headwater::format::{Checkpoint, Dialect, Metadata, Value};
use headwater::source::{MemorySource, Source};
use headwater::tokenizer::{MarkedText, Tokenizer};
use serde_json::Value as Json;
use text::{Damage, Random, Tally, check_damages, goldens, hub_metadata, ids, report, stream};

/// The vocabularies of GGUF files with merges, and those with scores.
const VOCABULARIES: &[&str] = &["llama3", "qwen2", "smollm2", "deepseek-v3", "gpt-oss-g", "llama4-g"];
const SCORED: &[&str] = &["llama2-spm", "mistral-nemo", "phi3-g", "gemma3"];

/// A vocabulary as a GGUF file has it, and what llama.cpp makes of some texts with it.
fn vocabulary(name: &str) -> (Metadata, Json) {
    let file: Json = serde_json::from_str(&text::unzip(&format!("vocabularies/{name}.json.gz"))).unwrap();
    let value = |json: &Json| match json {
        Json::String(text) => Value::Text(text.clone()),
        Json::Bool(flag) => Value::Bool(*flag),
        Json::Number(number) => Value::Integer(number.as_i64().unwrap().into()),
        Json::Array(items) if items[0].is_string() => {
            Value::Texts(items.iter().map(|item| item.as_str().unwrap().to_owned()).collect())
        }
        Json::Array(items) if items[0].is_f64() => {
            Value::Numbers(items.iter().map(|item| item.as_f64().unwrap() as f32).collect())
        }
        Json::Array(items) => Value::Integers(items.iter().map(|item| item.as_i64().unwrap()).collect()),
        other => panic!("{other}"),
    };
    let mut metadata = hub_metadata("llama3");
    metadata.dialect = Dialect::Gguf;
    metadata.companions.clear();
    metadata.values =
        file["values"].as_object().unwrap().iter().map(|(key, json)| (key.clone(), value(json))).collect();
    (metadata, file["tokenizer"].clone())
}

#[test]
fn vocabularies_of_gguf_files_give_the_ids_of_llama_cpp() {
    let mut wrong = Vec::new();
    let mut n = 0;
    for name in VOCABULARIES.iter().chain(SCORED) {
        let (metadata, records) = vocabulary(name);
        let tokenizer = Tokenizer::from_metadata(&metadata).unwrap();
        let bos = metadata.integer("tokenizer.ggml.bos_token_id").unwrap();
        let adds_bos = metadata.boolean("tokenizer.ggml.add_bos_token").unwrap().unwrap();
        for record in records.as_array().unwrap() {
            let text = record["text"].as_str().unwrap();
            let parsed = ids(&record["ids_special"]);
            let mut plain = record.get("ids_plain").map_or_else(|| parsed.clone(), ids);
            // In vocabularies such as these llama.cpp takes the control token `<|end|>` for one that users may write.
            if matches!(*name, "gpt-oss-g" | "llama4-g") && text.contains("<|end|>") {
                plain = tokenizer.encode_marked(&MarkedText::untrusted(text), false).unwrap();
                assert!(!plain.contains(&tokenizer.id("<|end|>").unwrap()));
            }
            let mut around = parsed.clone();
            if adds_bos {
                around.insert(0, u32::try_from(bos.unwrap()).unwrap());
            }
            for (what, got, expected) in [
                ("parsed", tokenizer.encode(text, false, true).unwrap(), &parsed),
                ("plain", tokenizer.encode(text, false, false).unwrap(), &plain),
                ("with begin", tokenizer.encode(text, true, true).unwrap(), &around),
            ] {
                n += 1;
                if got != *expected {
                    wrong.push(format!("{name}: {text:?} {what}: {got:?} instead of {expected:?}"));
                }
            }
            // A vocabulary with scores puts a space behind every added token, the tokens of Phi-3 take those they find,
            // and the letter that stands for a space cannot be told from one.
            let added = text.contains('▁') || tokenizer.guarded_tokens().any(|(token, _)| text.contains(token));
            let decoded = tokenizer.decode(&parsed, false).unwrap();
            if decoded != stream(&tokenizer, &parsed, false) || decoded != text && !(SCORED.contains(name) && added) {
                wrong.push(format!("{name}: {text:?} does not come back"));
            }
        }
    }
    report("texts", n, 4200, &wrong);
}

#[test]
fn damaged_vocabularies_with_scores_get_typed_errors() {
    let scores = "tokenizer.ggml.scores";
    let cases: Vec<Damage<'_>> = vec![
        ("no scores", scores, None, ErrorKind::MalformedGguf),
        ("fewer scores", scores, Some(Value::Numbers(vec![0.0, 1.0])), ErrorKind::MalformedGguf),
        ("scores that are none", scores, Some(Value::Numbers(vec![f32::NAN; 640])), ErrorKind::MalformedGguf),
        ("scores as texts", scores, Some(Value::Texts(vec!["1".into()])), ErrorKind::MalformedGguf),
        ("begin token", "tokenizer.ggml.bos_token_id", Some(Value::Integer(9999)), ErrorKind::MalformedTokenizer),
    ];
    check_damages(&cases, |_| vocabulary("llama2-spm").0);
}

#[test]
fn a_gguf_file_brings_its_tokenizer() {
    let path = text::data("gguf/llama3-F16.gguf");
    let source: Rc<dyn Source> = Rc::new(MemorySource::new("llama3-F16.gguf", std::fs::read(path).unwrap()));
    let checkpoint = pollster::block_on(Checkpoint::open(vec![source])).unwrap();
    let tokenizer = Tokenizer::from_metadata(&checkpoint.metadata).unwrap();
    let (_, records) = vocabulary("llama3");
    for record in records.as_array().unwrap() {
        let text = record["text"].as_str().unwrap();
        assert_eq!(tokenizer.encode(text, false, true).unwrap(), ids(&record["ids_special"]), "{text:?}");
    }
    assert_eq!(
        tokenizer.stop_ids(),
        ["<|end_of_text|>", "<|eot_id|>", "<|eom_id|>"].map(|token| tokenizer.id(token).unwrap())
    );
}

#[test]
fn damaged_vocabularies_of_gguf_files_get_typed_errors() {
    let texts = |items: &[&str]| Value::Texts(items.iter().map(|item| (*item).to_owned()).collect());
    let cases: Vec<Damage<'_>> = vec![
        (
            "unknown pre-tokenizer",
            "tokenizer.ggml.pre",
            Some(Value::Text("nobody's".into())),
            ErrorKind::UnsupportedFormat,
        ),
        ("unknown kind", "tokenizer.ggml.model", Some(Value::Text("rwkv".into())), ErrorKind::UnsupportedFormat),
        ("no tokenizer", "tokenizer.ggml.model", None, ErrorKind::NotFound),
        ("no tokens", "tokenizer.ggml.tokens", None, ErrorKind::MalformedGguf),
        ("tokens of another type", "tokenizer.ggml.tokens", Some(Value::Integer(1)), ErrorKind::MalformedGguf),
        ("fewer types", "tokenizer.ggml.token_type", Some(Value::Integers(vec![1, 2])), ErrorKind::MalformedGguf),
        ("types as texts", "tokenizer.ggml.token_type", Some(texts(&["x"])), ErrorKind::MalformedGguf),
        ("no merges", "tokenizer.ggml.merges", None, ErrorKind::MalformedGguf),
        ("merge of one", "tokenizer.ggml.merges", Some(texts(&["x"])), ErrorKind::MalformedGguf),
        ("merge of three", "tokenizer.ggml.merges", Some(texts(&["a b c"])), ErrorKind::MalformedGguf),
        (
            "merge of unknown tokens",
            "tokenizer.ggml.merges",
            Some(texts(&["qqqq zzzz"])),
            ErrorKind::MalformedTokenizer,
        ),
        ("no begin token", "tokenizer.ggml.bos_token_id", None, ErrorKind::MalformedGguf),
        (
            "begin token out of range",
            "tokenizer.ggml.bos_token_id",
            Some(Value::Integer(640)),
            ErrorKind::MalformedTokenizer,
        ),
        (
            "begin token no id at all",
            "tokenizer.ggml.bos_token_id",
            Some(Value::Integer(1 << 40)),
            ErrorKind::MalformedGguf,
        ),
        ("end token out of range", "tokenizer.ggml.eos_token_id", Some(Value::Integer(640)), ErrorKind::MalformedGguf),
    ];
    check_damages(&cases, |_| vocabulary("llama3").0);
    let (mut metadata, _) = vocabulary("llama3");
    if let Some(Value::Texts(tokens)) = metadata.values.get_mut("tokenizer.ggml.tokens") {
        tokens[5] = tokens[4].clone();
    }
    assert_eq!(Tokenizer::from_metadata(&metadata).err().map(|error| error.kind()), Some(ErrorKind::MalformedGguf));
    // The error names what would work.
    let (mut metadata, _) = vocabulary("llama3");
    metadata.values.insert("tokenizer.ggml.pre".into(), Value::Text("nobody's".into()));
    let words = Tokenizer::from_metadata(&metadata).err().unwrap().to_string();
    assert!(words.contains("nobody's") && words.contains("qwen2") && words.contains("smollm"), "{words}");
}

/// The keys that llama.cpp's converter makes of a WordPiece tokenizer: what begins a word is marked instead of what
/// continues one.
fn wordpiece_values(json: &Json) -> Vec<(String, Value)> {
    let mut tokens: Vec<(u64, String)> = json["model"]["vocab"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(token, id)| (id.as_u64().unwrap(), token.clone()))
        .collect();
    tokens.sort_unstable();
    let marked = |token: &str| match token.strip_prefix("##") {
        Some(rest) => rest.to_owned(),
        None if token.starts_with('[') && token.ends_with(']') => token.to_owned(),
        None => format!("▁{token}"),
    };
    let special: Vec<u64> =
        json["added_tokens"].as_array().unwrap().iter().map(|token| token["id"].as_u64().unwrap()).collect();
    vec![
        ("tokenizer.ggml.model".into(), Value::Text("bert".into())),
        ("tokenizer.ggml.tokens".into(), Value::Texts(tokens.iter().map(|(_, token)| marked(token)).collect())),
        (
            "tokenizer.ggml.token_type".into(),
            Value::Integers(tokens.iter().map(|(id, _)| if special.contains(id) { 3 } else { 1 }).collect()),
        ),
    ]
}

/// The bytes of a text in base64.
fn base64(text: &str) -> Vec<i64> {
    let digit = |byte: u8| match byte {
        b'A'..=b'Z' => Some(u32::from(byte - b'A')),
        b'a'..=b'z' => Some(u32::from(byte - b'a') + 26),
        b'0'..=b'9' => Some(u32::from(byte - b'0') + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let digits: Vec<u32> = text.bytes().filter_map(digit).collect();
    let bytes = digits.chunks(4).flat_map(|four| {
        let bits = four.iter().fold(0, |bits, digit| bits << 6 | digit) << (6 * (4 - four.len()));
        [16, 8, 0].into_iter().take(four.len() - 1).map(move |shift| i64::from(bits >> shift & 0xff))
    });
    bytes.collect()
}

/// The same of a Unigram tokenizer.
fn unigram_values(json: &Json) -> Vec<(String, Value)> {
    let vocab = json["model"]["vocab"].as_array().unwrap();
    let special: Vec<u64> =
        json["added_tokens"].as_array().unwrap().iter().map(|token| token["id"].as_u64().unwrap()).collect();
    let map = json["normalizer"]["normalizers"][0]["precompiled_charsmap"].as_str().unwrap();
    let id = |id| Value::Integer(id);
    vec![
        ("tokenizer.ggml.model".into(), Value::Text("t5".into())),
        (
            "tokenizer.ggml.tokens".into(),
            Value::Texts(vocab.iter().map(|entry| entry[0].as_str().unwrap().to_owned()).collect()),
        ),
        (
            "tokenizer.ggml.scores".into(),
            Value::Numbers(vocab.iter().map(|entry| entry[1].as_f64().unwrap() as f32).collect()),
        ),
        (
            "tokenizer.ggml.token_type".into(),
            Value::Integers((0..vocab.len() as u64).map(|id| if special.contains(&id) { 3 } else { 1 }).collect()),
        ),
        ("tokenizer.ggml.precompiled_charsmap".into(), Value::Integers(base64(map))),
        ("tokenizer.ggml.add_space_prefix".into(), Value::Bool(true)),
        ("tokenizer.ggml.remove_extra_whitespaces".into(), Value::Bool(true)),
        ("tokenizer.ggml.add_bos_token".into(), Value::Bool(true)),
        ("tokenizer.ggml.add_eos_token".into(), Value::Bool(true)),
        ("tokenizer.ggml.bos_token_id".into(), id(0)),
        ("tokenizer.ggml.eos_token_id".into(), id(2)),
        ("tokenizer.ggml.unknown_token_id".into(), id(3)),
    ]
}

fn gguf_metadata(style: &str) -> Metadata {
    let mut metadata = hub_metadata(style);
    let json: Json = serde_json::from_str(&metadata.companions["tokenizer.json"]).unwrap();
    let values = if style == "bert" { wordpiece_values(&json) } else { unigram_values(&json) };
    metadata.dialect = Dialect::Gguf;
    metadata.companions.clear();
    metadata.values = values.into_iter().collect();
    metadata
}

#[test]
fn wordpiece_and_unigram_vocabularies_give_the_ids_of_the_models_own_files() {
    let mut tally = Tally::default();
    for style in ["bert", "xlmr"] {
        let tokenizer = Tokenizer::from_metadata(&gguf_metadata(style)).unwrap();
        for (line, record) in goldens(style).iter().enumerate() {
            let place = format!("{style}:{}", line + 1);
            if let Some(text) = record["text"].as_str() {
                let ids = ids(&record["ids"]);
                tally.check(&place, "ids", tokenizer.encode(text, false, true).unwrap(), &record["ids"]);
                tally.check(&place, "special", tokenizer.encode(text, true, true).unwrap(), &record["ids_special"]);
                tally.check(&place, "decoded", tokenizer.decode(&ids, false).unwrap(), &record["decoded"]);
            } else if record["pair"].is_array() {
                tally.check_pair(&place, &tokenizer, record);
            }
        }
    }
    tally.report("texts", 1000);
}

#[test]
fn damaged_wordpiece_and_unigram_vocabularies_get_typed_errors() {
    let cases: Vec<Damage<'_>> = vec![
        ("bert", "tokenizer.ggml.tokens", None, ErrorKind::MalformedGguf),
        ("bert", "tokenizer.ggml.tokens", Some(Value::Texts(vec!["▁a".into()])), ErrorKind::MalformedGguf),
        ("bert", "tokenizer.ggml.unknown_token_id", Some(Value::Integer(1 << 40)), ErrorKind::MalformedGguf),
        ("bert", "tokenizer.ggml.unknown_token_id", Some(Value::Integer(1 << 20)), ErrorKind::MalformedGguf),
        ("bert", "tokenizer.ggml.cls_token_id", Some(Value::Integer(1 << 20)), ErrorKind::MalformedTokenizer),
        ("xlmr", "tokenizer.ggml.scores", None, ErrorKind::MalformedGguf),
        ("xlmr", "tokenizer.ggml.scores", Some(Value::Numbers(vec![0.0])), ErrorKind::MalformedGguf),
        ("xlmr", "tokenizer.ggml.scores", Some(Value::Numbers(vec![f32::NAN; 3074])), ErrorKind::MalformedGguf),
        ("xlmr", "tokenizer.ggml.unknown_token_id", Some(Value::Integer(1 << 20)), ErrorKind::MalformedTokenizer),
        ("xlmr", "tokenizer.ggml.add_space_prefix", Some(Value::Bool(false)), ErrorKind::UnsupportedFormat),
        ("xlmr", "tokenizer.ggml.remove_extra_whitespaces", Some(Value::Bool(false)), ErrorKind::UnsupportedFormat),
        ("xlmr", "tokenizer.ggml.precompiled_charsmap", Some(Value::Integers(vec![1000])), ErrorKind::MalformedGguf),
        (
            "xlmr",
            "tokenizer.ggml.precompiled_charsmap",
            Some(Value::Integers(vec![8, 0, 0])),
            ErrorKind::MalformedTokenizer,
        ),
        (
            "xlmr",
            "tokenizer.ggml.precompiled_charsmap",
            Some(Value::Integers(vec![4, 0, 0, 0, 0, 0xff, 0xff, 0x7f, 0])),
            ErrorKind::MalformedTokenizer,
        ),
    ];
    check_damages(&cases, gguf_metadata);
    // A damaged table of rewritings may be refused or may rewrite otherwise; it must not end the program.
    let whole = gguf_metadata("xlmr");
    let Some(Value::Integers(map)) = whole.values.get("tokenizer.ggml.precompiled_charsmap").cloned() else { panic!() };
    let mut random = Random(7);
    for _ in 0..60 {
        let mut damaged = map.clone();
        for _ in 0..=random.below(40) {
            let place = random.below(damaged.len());
            damaged[place] = random.below(256) as i64;
        }
        let mut metadata = gguf_metadata("xlmr");
        metadata.values.insert("tokenizer.ggml.precompiled_charsmap".into(), Value::Integers(damaged));
        if let Ok(tokenizer) = Tokenizer::from_metadata(&metadata) {
            for text in ["plain", "ﬁ ① ｶﾞ é ü ½ ™ \u{1f468}\u{200d}\u{1f469} 한국어 ①②③ ㌔ ﷺ"]
            {
                tokenizer.encode(text, true, false).unwrap();
            }
        }
    }
}
