//! Every golden record of the tokenizer fixtures, for every style of `tokenizer.json`; streams, marked text, and hostile files.
//! `tests/vocabulary.rs` does the same for the vocabularies of GGUF files.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests say what they expect by failing")]

mod text;

use headwater::error::ErrorKind;
use headwater::format::Value;
use headwater::tokenizer::{MarkedText, Tokenizer};
use serde_json::Value as Json;
use text::{Random, STYLES, Tally, goldens, hub_metadata, ids, report, stream, tokenizer};

#[test]
fn every_golden_record_is_met() {
    let mut tally = Tally::default();
    for style in STYLES {
        let tokenizer = tokenizer(style);
        for (line, record) in goldens(style).iter().enumerate() {
            let place = format!("{style}:{}", line + 1);
            let mut check = |what: &str, got: Json, expected: &Json| tally.check(&place, what, got, expected);
            if let Some(text) = record["text"].as_str() {
                let whole = 0..text.len();
                let all = MarkedText::new(text.to_owned(), Vec::from([whole]));
                check("ids", tokenizer.encode(text, false, true).unwrap().into(), &record["ids"]);
                check("ids of marked text", tokenizer.encode_marked(&all, false).unwrap().into(), &record["ids"]);
                check("ids_special", tokenizer.encode(text, true, true).unwrap().into(), &record["ids_special"]);
                let ids = ids(&record["ids"]);
                check("decoded", tokenizer.decode(&ids, false).unwrap().into(), &record["decoded"]);
                check("decoded_skip", tokenizer.decode(&ids, true).unwrap().into(), &record["decoded_skip"]);
                check("streamed", stream(&tokenizer, &ids, false).into(), &record["decoded"]);
                check("streamed, skip", stream(&tokenizer, &ids, true).into(), &record["decoded_skip"]);
            } else if record["pair"].is_array() {
                tally.check_pair(&place, &tokenizer, record);
            } else if record.get("decode_only").is_some() {
                let ids = ids(&record["ids"]);
                check("decode_only", tokenizer.decode(&ids, false).unwrap().into(), &record["decoded"]);
                check("decode_only, skip", tokenizer.decode(&ids, true).unwrap().into(), &record["decoded_skip"]);
                check("decode_only, streamed", stream(&tokenizer, &ids, false).into(), &record["decoded"]);
                check("decode_only, streamed, skip", stream(&tokenizer, &ids, true).into(), &record["decoded_skip"]);
            }
        }
    }
    tally.report("golden values", 10_000);
}

#[test]
fn a_stream_of_any_ids_equals_decode() {
    let mut random = Random(1);
    let mut wrong = Vec::new();
    let mut n = 0;
    for style in STYLES {
        let tokenizer = tokenizer(style);
        for _ in 0..300 {
            n += 1;
            // Low ids are where special tokens and bytes are, so half of them are low.
            let ids: Vec<u32> = (0..random.below(20))
                .map(|_| if random.below(2) == 0 { random.below(300) } else { random.below(tokenizer.vocab_size()) })
                .map(|id| u32::try_from(id).unwrap())
                .filter(|&id| tokenizer.token(id).is_some())
                .collect();
            for skip_special in [false, true] {
                let (got, expected) =
                    (stream(&tokenizer, &ids, skip_special), tokenizer.decode(&ids, skip_special).unwrap());
                if got != expected {
                    wrong.push(format!("{style}: {ids:?}: {got:?} instead of {expected:?}"));
                }
            }
        }
    }
    report("streams", n, 3600, &wrong);
}

#[test]
fn decoders_without_a_streaming_form_give_their_text_at_the_end() {
    let decoders = [
        r#"{"type": "BPEDecoder", "suffix": "</w>"}"#,
        r#"{"type": "CTC", "pad_token": "a", "word_delimiter_token": "|", "cleanup": true}"#,
        r#"{"type": "Sequence", "decoders": [{"type": "Fuse"}, {"type": "ByteFallback"}]}"#,
        r#"{"type": "Sequence", "decoders": [{"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true}, {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true}]}"#,
        r###"{"type": "WordPiece", "prefix": "##", "cleanup": true}"###,
        r#"{"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true}"#,
        "null",
    ];
    let mut wrong = Vec::new();
    let mut n = 0;
    for decoder in decoders {
        let tokenizer = load(&format!(
            r###"{{"decoder": {decoder}, "model": {{"type": "BPE", "merges": [],
                "vocab": {{"a": 0, "b</w>": 1, "▁c": 2, "##d": 3, "<0xC3>": 4, "<0xA9>": 5, " .": 6, "|": 7}}}}}}"###
        ))
        .unwrap();
        for ids in [&[0u32, 1, 2][..], &[1, 1], &[3, 2, 2, 3], &[4, 5, 4, 0], &[0, 0, 7, 6, 6], &[5], &[]] {
            n += 1;
            let (got, expected) = (stream(&tokenizer, ids, false), tokenizer.decode(ids, false).unwrap());
            if got != expected {
                wrong.push(format!("{decoder}: {ids:?}: {got:?} instead of {expected:?}"));
            }
        }
    }
    report("streams", n, 49, &wrong);
}

#[test]
fn byte_level_text_comes_back_whatever_it_is() {
    let alphabet: Vec<char> =
        "aZ 09\n\t\r'\".<>|▁é\u{301}ßſ漢か한ا\u{200d}🙂👩\u{fe0f}\u{0}\u{7f}\u{85}\u{a0}\u{e000}\u{10ffff}"
            .chars()
            .collect();
    let mut random = Random(2);
    let mut wrong = Vec::new();
    let mut n = 0;
    // qwen2 is left out: it composes characters first.
    for style in ["llama3", "smollm", "deepseek", "o200k"] {
        let tokenizer = tokenizer(style);
        for _ in 0..2000 {
            n += 1;
            let text: String = (0..random.below(30)).map(|_| alphabet[random.below(alphabet.len())]).collect();
            let ids = tokenizer.encode(&text, false, true).unwrap();
            if tokenizer.decode(&ids, false).unwrap() != text {
                wrong.push(format!("{style}: {text:?}: {ids:?}"));
            }
        }
    }
    report("texts", n, 8000, &wrong);
}

#[test]
fn a_stream_never_splits_a_character() {
    let mut wrong = Vec::new();
    let mut n = 0;
    for style in STYLES {
        let tokenizer = tokenizer(style);
        for record in goldens(style) {
            let Some(text) = record["text"].as_str().filter(|text| !text.contains('\u{fffd}')) else { continue };
            let mut decoder = tokenizer.stream(false);
            for &id in &ids(&record["ids"]) {
                n += 1;
                let piece = decoder.push(id).unwrap();
                if piece.contains('\u{fffd}') {
                    wrong.push(format!("{style}: {text:?}: {piece:?}"));
                }
            }
        }
    }
    report("streamed pieces", n, 10_000, &wrong);
}

/// Texts that spell out added tokens, plain or with something in between.
fn disguises(token: &str) -> Vec<String> {
    let cut = token.char_indices().nth(1).map_or(token.len(), |(at, _)| at);
    let (head, tail) = token.split_at(cut);
    vec![
        token.to_owned(),
        format!("a {token} b"),
        format!("{token}{token}"),
        format!("{head}{token}{tail}"),
        format!("{head}\u{200b}{tail}"),
        token
            .chars()
            .map(|c| char::from_u32(u32::from(c) + 0xfee0).filter(|_| ('!'..='~').contains(&c)).unwrap_or(c))
            .collect(),
    ]
}

#[test]
fn untrusted_text_gives_no_control_ids() {
    let mut wrong = Vec::new();
    let mut n = 0;
    for style in STYLES {
        let tokenizer = tokenizer(style);
        let tokens: Vec<(String, bool)> =
            tokenizer.guarded_tokens().map(|(token, special)| (token.to_owned(), special)).collect();
        assert!(!tokens.is_empty(), "{style} has no added tokens");
        for (token, special) in &tokens {
            let id = tokenizer.id(token).unwrap();
            for text in disguises(token) {
                n += 1;
                let ids = tokenizer.encode_marked(&MarkedText::untrusted(text.as_str()), false).unwrap();
                if ids.contains(&id) && !is_unknown(style, id) {
                    wrong.push(format!("{style}: {text:?} gave {token}: {ids:?}"));
                }
                let ids = tokenizer.encode(&text, false, false).unwrap();
                if *special && ids.contains(&id) && !is_unknown(style, id) {
                    wrong.push(format!("{style}: {text:?}, not parsed, gave {token}: {ids:?}"));
                }
            }
            // Trusted on one side only, at every place of the token.
            for (at, _) in token.char_indices().skip(1) {
                n += 1;
                for trusted in [0..at, at..token.len()] {
                    let ids = tokenizer.encode_marked(&MarkedText::new(token.clone(), vec![trusted]), false).unwrap();
                    if ids.contains(&id) && !is_unknown(style, id) {
                        wrong.push(format!("{style}: {token} half trusted (to {at}) gave its id: {ids:?}"));
                    }
                }
            }
        }
    }
    report("untrusted texts", n, 500, &wrong);
}

/// What a vocabulary without byte tokens makes of characters it lacks is no forgery.
fn is_unknown(style: &str, id: u32) -> bool {
    matches!((style, id), ("bert", 1) | ("xlmr", 3))
}

#[test]
fn benign_text_gets_the_reference_ids_wherever_it_comes_from() {
    let mut wrong = Vec::new();
    let mut n = 0;
    for style in STYLES {
        let tokenizer = tokenizer(style);
        let tokens: Vec<String> = tokenizer.guarded_tokens().map(|(token, _)| token.to_owned()).collect();
        for record in goldens(style) {
            let Some(text) = record["text"].as_str() else { continue };
            if tokens.iter().any(|token| text.contains(token.as_str())) {
                continue;
            }
            n += 1;
            let ids = tokenizer.encode_marked(&MarkedText::untrusted(text), false).unwrap();
            if Json::from(ids.clone()) != record["ids"] {
                wrong.push(format!("{style}: {text:?}: got {ids:?}, expected {}", record["ids"]));
            }
        }
    }
    report("benign texts", n, 1500, &wrong);
}

#[test]
fn long_runs_take_linear_time_and_lose_nothing() {
    let hard = [
        ' ', '\n', '\t', '\r', '^', '0', '9', '²', 'a', 'A', 'é', '\'', '.', '/', '-', '_', '<', '|', '漢', 'か', '한',
        'ا', 'ก', 'क', '\u{301}', '\u{200d}', '🙂', '\u{fe0f}', '\u{a0}', '\u{3000}',
    ];
    let mut wrong = Vec::new();
    let mut n = 0;
    for style in ["llama3", "smollm", "o200k"] {
        let tokenizer = tokenizer(style);
        for c in hard {
            n += 1;
            let text: String = std::iter::repeat_n(c, (256 << 10) / c.len_utf8()).collect();
            let before = std::time::Instant::now();
            let ids = tokenizer.encode(&text, false, true).unwrap();
            let secs = before.elapsed().as_secs_f64();
            if tokenizer.decode(&ids, false).unwrap() != text {
                wrong.push(format!("{style}: {c:?} does not come back"));
            }
            // Generous, as tests run unoptimised and beside others: a quadratic step over 256 KiB takes minutes.
            if secs > 10.0 {
                wrong.push(format!("{style}: {c:?} takes {secs:.1} s"));
            }
        }
    }
    report("long runs", n, 87, &wrong);
}

#[test]
fn ids_without_a_token_are_refused_by_name() {
    let tokenizer = tokenizer("llama3");
    assert_eq!(tokenizer.vocab_size(), 3072);
    let error = tokenizer.decode(&[1, 3072], false).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(error.to_string().contains("3072"), "{error}");
    assert_eq!(tokenizer.decode(&[], false).unwrap(), "");
    let mut stream = tokenizer.stream(false);
    assert_eq!(stream.push(u32::MAX).unwrap(), "");
}

#[test]
fn stop_ids_come_from_every_place() {
    let mut metadata = hub_metadata("llama3");
    let id = |token: &str| Tokenizer::from_metadata(&hub_metadata("llama3")).unwrap().id(token).unwrap();
    let ends = |tokens: &[&str]| {
        let mut ids: Vec<u32> = tokens.iter().map(|token| id(token)).collect();
        ids.sort_unstable();
        ids
    };
    let known = ["<|eot_id|>", "<|eom_id|>", "<|end_of_text|>"];
    assert_eq!(Tokenizer::from_metadata(&metadata).unwrap().stop_ids(), ends(&known));
    metadata.companions.insert("generation_config.json".into(), r#"{"eos_token_id": [7, 8]}"#.into());
    metadata.values.insert("eos_token_id".into(), Value::Integer(9));
    let mut expected = ends(&known);
    expected.extend([7, 8, 9]);
    expected.sort_unstable();
    assert_eq!(Tokenizer::from_metadata(&metadata).unwrap().stop_ids(), expected);
    // `<|end|>` ends a message, not the reply, where there is `<|return|>`.
    let harmony = tokenizer("o200k");
    assert!(!harmony.stop_ids().contains(&harmony.id("<|end|>").unwrap()));
    assert!(harmony.stop_ids().contains(&harmony.id("<|return|>").unwrap()));
}

#[test]
fn hostile_files_get_typed_errors() {
    let model = r#"{"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": [["a", "b"]]}"#;
    let file = |fields: &str| format!(r#"{{"version": "1.0", {fields}}}"#);
    let with_model = |fields: &str| file(&format!(r#"{fields}, "model": {model}"#));
    let split = |regex: &str| {
        let regex = serde_json::to_string(regex).unwrap();
        with_model(&format!(
            r#""pre_tokenizer": {{"type": "Split", "pattern": {{"Regex": {regex}}}, "behavior": "Isolated", "invert": false}}"#
        ))
    };
    let added = |id: u32, content: &str| {
        format!(r#""added_tokens": [{{"id": {id}, "content": "{content}", "special": true}}]"#)
    };
    let cases: Vec<(&str, String, ErrorKind)> = vec![
        ("deep", "[".repeat(200_000), ErrorKind::LimitExceeded),
        ("not JSON", "tokenizer".into(), ErrorKind::MalformedTokenizer),
        ("no model", file(r#""added_tokens": []"#), ErrorKind::MalformedTokenizer),
        (
            "empty vocabulary",
            file(r#""model": {"type": "BPE", "vocab": {}, "merges": []}"#),
            ErrorKind::MalformedTokenizer,
        ),
        (
            "id 2^32-1",
            file(r#""model": {"type": "BPE", "vocab": {"a": 4294967295}, "merges": []}"#),
            ErrorKind::LimitExceeded,
        ),
        ("id 2^32-1, added", with_model(&added(u32::MAX, "x")), ErrorKind::LimitExceeded),
        (
            "id 2^32",
            file(r#""model": {"type": "BPE", "vocab": {"a": 4294967296}, "merges": []}"#),
            ErrorKind::MalformedTokenizer,
        ),
        (
            "one id twice",
            file(r#""model": {"type": "BPE", "vocab": {"a": 0, "b": 0}, "merges": []}"#),
            ErrorKind::MalformedTokenizer,
        ),
        ("added id of another token", with_model(&added(1, "x")), ErrorKind::MalformedTokenizer),
        ("added token with another id", with_model(&added(9, "a")), ErrorKind::MalformedTokenizer),
        (
            "merge of unknown tokens",
            file(r#""model": {"type": "BPE", "vocab": {"a": 0}, "merges": [["a", "x"]]}"#),
            ErrorKind::MalformedTokenizer,
        ),
        (
            "merge into an unknown token",
            file(r#""model": {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": [["a", "b"]]}"#),
            ErrorKind::MalformedTokenizer,
        ),
        (
            "merge of one",
            file(r#""model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["a"]}"#),
            ErrorKind::MalformedTokenizer,
        ),
        (
            "merge without the prefix",
            file(
                r###""model": {"type": "BPE", "vocab": {"a": 0}, "merges": [["a", "a"]], "continuing_subword_prefix": "##"}"###,
            ),
            ErrorKind::MalformedTokenizer,
        ),
        ("regex of 1 MB", split(&"a".repeat(1 << 20)), ErrorKind::LimitExceeded),
        ("regex with a huge repetition", split(r"(?:\pL{1,1000}){1,1000000}"), ErrorKind::MalformedTokenizer),
        ("regex that is none", split("("), ErrorKind::MalformedTokenizer),
        (
            "normalizer with look-around",
            with_model(r#""normalizer": {"type": "Replace", "pattern": {"Regex": "a(?!b)"}, "content": ""}"#),
            ErrorKind::UnsupportedFormat,
        ),
        (
            "normalizer that inserts much",
            with_model(&format!(r#""normalizer": {{"type": "Prepend", "prepend": "{}"}}"#, "x".repeat(1000))),
            ErrorKind::LimitExceeded,
        ),
        (
            "a thousand normalizers",
            with_model(&format!(
                r#""normalizer": {{"type": "Sequence", "normalizers": [{}]}}"#,
                vec![r#"{"type": "NFC"}"#; 1000].join(",")
            )),
            ErrorKind::LimitExceeded,
        ),
        (
            "decoder that strips ends",
            with_model(r#""decoder": {"type": "Strip", "content": " ", "start": 0, "stop": 3}"#),
            ErrorKind::UnsupportedFormat,
        ),
        (
            "unknown pre-tokenizer",
            with_model(r#""pre_tokenizer": {"type": "Nonsense"}"#),
            ErrorKind::MalformedTokenizer,
        ),
        (
            "post-processor with an unknown id",
            with_model(r#""post_processor": {"type": "BertProcessing", "sep": ["x", 77], "cls": ["y", 78]}"#),
            ErrorKind::MalformedTokenizer,
        ),
        (
            "Unigram without its unknown token",
            file(r#""model": {"type": "Unigram", "unk_id": 5, "vocab": [["a", 0.0]]}"#),
            ErrorKind::MalformedTokenizer,
        ),
    ];
    let mut wrong = Vec::new();
    for (name, text, kind) in &cases {
        match load(text) {
            Ok(_) => wrong.push(format!("{name}: loads")),
            Err(error) if error.kind() != *kind => {
                wrong.push(format!("{name}: {:?} instead of {kind:?}: {error}", error.kind()));
            }
            Err(error)
                if !error.to_string().starts_with("tokenizer.json")
                    && error.kind() == ErrorKind::MalformedTokenizer
                    && !name.contains("id")
                    && !name.contains("empty")
                    && !name.contains("look") =>
            {
                wrong.push(format!("{name}: does not name the file: {error}"));
            }
            Err(_) => {}
        }
    }
    report("hostile files", cases.len(), 20, &wrong);
}

fn load(text: &str) -> headwater::error::Result<Tokenizer> {
    let mut metadata = hub_metadata("llama3");
    metadata.companions.clear();
    metadata.companions.insert("tokenizer.json".into(), text.into());
    Tokenizer::from_metadata(&metadata)
}

#[test]
fn what_a_vocabulary_lacks_and_what_a_pattern_cannot_do_are_errors() {
    // The reference drops the character without a word.
    let file = r#"{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}}"#;
    let error = load(file).unwrap().encode("aba", false, true).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::MalformedTokenizer);
    // The reference returns one piece, and so wrong ids.
    let file = r#"{"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "(?:(?:a|a)+)+(?!a)b"}, "behavior": "Isolated", "invert": false},
        "model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}}"#;
    let error = load(file).unwrap().encode(&"a".repeat(5000), false, true).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LimitExceeded);
    // Normalizers may not blow a text up.
    let doubling = r#"{"type": "Replace", "pattern": {"String": "a"}, "content": "aaaaaaaaaaaaaaaa"}"#;
    let file = format!(
        r#"{{"normalizer": {{"type": "Sequence", "normalizers": [{}]}}, "model": {{"type": "BPE", "vocab": {{"a": 0}}, "merges": []}}}}"#,
        [doubling; 10].join(",")
    );
    let error = load(&file).unwrap().encode(&"a".repeat(1000), false, true).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LimitExceeded);
}

#[test]
fn added_tokens_strip_and_stand_alone_as_in_the_reference() {
    let file = r#"{"added_tokens": [
            {"id": 10, "content": "<l>", "lstrip": true, "normalized": false, "special": true},
            {"id": 11, "content": "<r>", "rstrip": true, "normalized": false, "special": true},
            {"id": 12, "content": "w", "single_word": true, "normalized": false, "special": false},
            {"id": 13, "content": "AB", "normalized": true, "special": false},
            {"id": 14, "content": "   ", "normalized": false, "special": false}],
        "normalizer": {"type": "Lowercase"},
        "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, " ": 2, "w": 12, "<": 3, "l": 4, ">": 5, "r": 6}, "merges": []}}"#;
    let tokenizer = load(file).unwrap();
    let cases: [(&str, &[u32]); 8] = [
        ("a  <l> a", &[0, 10, 2, 0]),
        ("a  <r>  a", &[0, 2, 2, 11, 0]),
        ("<r> <l>a", &[11, 10, 0]),
        ("w aw w", &[12, 2, 0, 12, 2, 12]),
        ("aABa", &[0, 13, 0]),
        ("abA", &[13, 0]),
        ("a   a", &[0, 14, 0]),
        ("a    <l>", &[0, 14, 10]),
    ];
    let mut wrong = Vec::new();
    for (text, expected) in cases {
        let got = tokenizer.encode(text, false, true).unwrap();
        if got != expected {
            wrong.push(format!("{text:?}: {got:?} instead of {expected:?}"));
        }
    }
    report("texts", cases.len(), 8, &wrong);
    // In untrusted text, runs of white space are still tokens; the others are text.
    let untrusted = |text: &str| tokenizer.encode_marked(&MarkedText::untrusted(text), false).unwrap();
    assert_eq!(untrusted("a   AB<l>"), [0, 14, 0, 1, 3, 4, 5]);
}
