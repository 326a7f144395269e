//! Hostile safetensors files (C-S), folders around them, and files that are no model (C-X).

use headwater::error::ErrorKind::{
    InvalidArgument, LimitExceeded, MalformedModel, MalformedSafetensors, MalformedTokenizer, NotFound,
    UnsupportedFormat,
};

use crate::case::{Case, Expect, files};
use crate::gguf::Gguf;

use Expect::{Fails, Loads};

/// The least that a folder's configuration says.
pub(crate) const CONFIG: &[u8] = br#"{"model_type": "llama"}"#;

/// A file of a header and `data` bytes.
pub(crate) fn safetensors(header: impl AsRef<[u8]>, data: usize) -> Vec<u8> {
    let header = header.as_ref();
    [&(header.len() as u64).to_le_bytes(), header, &vec![7; data]].concat()
}

/// A small file that is right.
pub(crate) fn small() -> Vec<u8> {
    let header = concat!(
        r#"{"__metadata__":{"format":"pt"},"#,
        r#""a.weight":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},"#,
        r#""b":{"dtype":"BF16","shape":[4],"data_offsets":[24,32]}}"#,
    );
    safetensors(header, 32)
}

fn one(id: &str, bytes: Vec<u8>, expect: Expect) -> Case {
    Case::new(format!("C-S {id}"), files(&[("config.json", CONFIG), ("model.safetensors", &bytes)]), expect)
}

fn tensor(dtype: &str, shape: &str, offsets: &str) -> String {
    format!(r#"{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}"#)
}

fn header_cases() -> Vec<Case> {
    let file: &[&str] = &["model.safetensors"];
    let length = |length: u64| [&length.to_le_bytes()[..], b"{}"].concat();
    let metadata = |value: &str| safetensors(format!(r#"{{"__metadata__":{value}}}"#), 0);
    let deep = |depth: usize| metadata(&format!(r#"{{"a":{}{}}}"#, "[".repeat(depth), "]".repeat(depth)));
    let entry = tensor("F32", "[0]", "[0,0]");
    let many: String = (0..200_001).map(|index| format!(r#""{index}":{entry},"#)).collect();
    vec![
        one("1 seven bytes", vec![2, 0, 0, 0, 0, 0, 0], Fails(MalformedSafetensors, &["model.safetensors", "7 bytes"])),
        one("2 header of 2^64-1 bytes", length(u64::MAX), Fails(LimitExceeded, &["model.safetensors", "header"])),
        one("3 header of 100,000,001 bytes", length(100_000_001), Fails(LimitExceeded, &["header", "100000000"])),
        one("4 header longer than the file", length(3), Fails(MalformedSafetensors, &["header of 3 bytes"])),
        one("5 not UTF-8", safetensors(b"{\"\xff\":1}", 0), Fails(MalformedSafetensors, &["UTF-8"])),
        one("6 not JSON", safetensors("{nonsense", 0), Fails(MalformedSafetensors, file)),
        one("6 an array", safetensors("[]", 0), Fails(MalformedSafetensors, file)),
        one("7 leading space", safetensors(" {}", 0), Fails(MalformedSafetensors, &["start with {"])),
        one("8 trailing spaces", safetensors("{}   ", 0), Loads),
        one("8 a length that looks like gzip", safetensors(format!("{:35615}", "{}"), 0), Loads),
        one("8 trailing letters", safetensors("{}x", 0), Fails(MalformedSafetensors, file)),
        one("9 200 deep", deep(200), Fails(LimitExceeded, &["model.safetensors", "nesting"])),
        one("9 100,000 deep", deep(100_000), Fails(LimitExceeded, &["model.safetensors", "nesting"])),
        one("9 20 deep", deep(20), Fails(MalformedSafetensors, file)),
        one("10 metadata that is a number", metadata(r#"{"a":1}"#), Fails(MalformedSafetensors, file)),
        one(
            "10 metadata twice",
            safetensors(r#"{"__metadata__":{},"__metadata__":{}}"#, 0),
            Fails(MalformedSafetensors, file),
        ),
        one(
            "21 200,001 entries",
            safetensors(format!("{{{}}}", many.trim_end_matches(',')), 0),
            Fails(LimitExceeded, &["200000"]),
        )
        .large(),
    ]
}

fn tensor_cases() -> Vec<Case> {
    let file = |entry: String, data: usize| safetensors(format!(r#"{{"t":{entry}}}"#), data);
    let two = |first: &str, second: &str, data: usize| {
        let (first, second) = (tensor("F32", "[2]", first), tensor("F32", "[2]", second));
        safetensors(format!(r#"{{"t":{first},"u":{second}}}"#), data)
    };
    let named = |name: &str| safetensors(format!(r#"{{"{name}":{}}}"#, tensor("F32", "[2]", "[0,8]")), 8);
    let t: &[&str] = &["model.safetensors", "t"];
    vec![
        one("a small file", small(), Loads),
        one(
            "11 key twice",
            safetensors(format!(r#"{{"t":{0},"t":{0}}}"#, tensor("F32", "[2]", "[0,8]")), 8),
            Fails(MalformedSafetensors, &["t: ", "twice"]),
        ),
        one(
            "12 unknown type",
            file(tensor("F31", "[2]", "[0,8]"), 8),
            Fails(UnsupportedFormat, &["t: ", "F31", "BF16"]),
        ),
        one("12 integers that are no weight", file(tensor("I64", "[1]", "[0,8]"), 8), Loads),
        one(
            "12 integers that are a weight",
            safetensors(format!(r#"{{"t.weight":{}}}"#, tensor("I8", "[8]", "[0,8]")), 8),
            Fails(UnsupportedFormat, &["t.weight: ", "I8", "BF16"]),
        ),
        one(
            "13 shape overflows",
            file(tensor("F32", "[4294967296,4294967296,2]", "[0,8]"), 8),
            Fails(MalformedSafetensors, &["t: ", "overflows"]),
        ),
        one(
            "13 seventeen dimensions",
            file(tensor("F32", "[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]", "[0,4]"), 4),
            Fails(LimitExceeded, &["t: ", "dimensions"]),
        ),
        one("14 negative offset", file(tensor("F32", "[2]", "[-8,0]"), 8), Fails(MalformedSafetensors, t)),
        one("14 fractional offset", file(tensor("F32", "[2]", "[0,8.5]"), 8), Fails(MalformedSafetensors, t)),
        one("14 offset 1e30", file(tensor("F32", "[2]", "[0,1e30]"), 8), Fails(MalformedSafetensors, t)),
        one("14 negative dimension", file(tensor("F32", "[-2]", "[0,8]"), 8), Fails(MalformedSafetensors, t)),
        one("15 end before begin", two("[0,8]", "[8,0]", 8), Fails(MalformedSafetensors, &["u: ", "begin"])),
        one("16 overlap", two("[0,8]", "[4,12]", 12), Fails(MalformedSafetensors, &["u: ", "overlap"])),
        one(
            "17 hole at the start",
            file(tensor("F32", "[2]", "[8,16]"), 16),
            Fails(MalformedSafetensors, &["t: ", "hole"]),
        ),
        one("17 hole in the middle", two("[0,8]", "[12,20]", 20), Fails(MalformedSafetensors, &["u: ", "hole"])),
        one("17 hole at the end", file(tensor("F32", "[2]", "[0,8]"), 9), Fails(MalformedSafetensors, &["9 behind"])),
        one(
            "18 size of another shape",
            file(tensor("F32", "[3]", "[0,8]"), 8),
            Fails(MalformedSafetensors, &["t: ", "12"]),
        ),
        one(
            "19 half a byte",
            file(tensor("F4", "[3]", "[0,2]"), 2),
            Fails(MalformedSafetensors, &["t: ", "whole byte"]),
        ),
        one("20 nothing in it", file(tensor("F32", "[0,4]", "[0,0]"), 0), Loads),
        one("20 a scalar", file(tensor("F32", "[]", "[0,4]"), 4), Loads),
        one("22 name with a zero byte", named("a\\u0000b"), Fails(MalformedSafetensors, &["a\\0b"])),
        one("22 name of another folder", named("../../t"), Loads),
        one("22 name of 1 MB", named(&"n".repeat(1_000_000)), Fails(LimitExceeded, &["nnnn", "name"])),
        one(
            "26 ZIP behind the end",
            [small(), b"PK\x05\x06".to_vec(), vec![0; 18]].concat(),
            Fails(MalformedSafetensors, &["54 behind"]),
        ),
        one(
            "cut by one byte",
            small().split_last().map(|(_, rest)| rest.to_vec()).unwrap_or_default(),
            Fails(MalformedSafetensors, &["b: ", "past the end"]),
        ),
        one(
            "a long text in place of a shape",
            file(tensor("F32", &format!("{:?}", "s".repeat(100_000)), "[0,8]"), 8),
            Fails(MalformedSafetensors, &["t: ", "sss"]),
        ),
        one(
            "a missing field",
            file(r#"{"dtype":"F32","shape":[2]}"#.to_owned(), 8),
            Fails(MalformedSafetensors, &["data_offsets"]),
        ),
    ]
}

const SHARD_A: &str = "model-00001-of-00002.safetensors";
const SHARD_B: &str = "model-00002-of-00002.safetensors";

/// An index of the tensors `a` and `b`.
fn index(shard_of_a: &str, shard_of_b: &str) -> String {
    format!(r#"{{"weight_map":{{"a":"{shard_of_a}","b":"{shard_of_b}"}}}}"#)
}

/// Two shards with a tensor each, and an index.
fn sharded_by(index: &str) -> Vec<(String, Vec<u8>)> {
    let shard = |name: &str| safetensors(format!(r#"{{"{name}":{}}}"#, tensor("F32", "[2]", "[0,8]")), 8);
    files(&[
        ("m/config.json", CONFIG),
        (&format!("m/{SHARD_B}"), &shard("b")),
        (&format!("m/{SHARD_A}"), &shard("a")),
        ("m/model.safetensors.index.json", index.as_bytes()),
        ("outside.safetensors", &shard("a")),
    ])
}

/// The same with an index that is right.
pub(crate) fn sharded_files() -> Vec<(String, Vec<u8>)> {
    sharded_by(&index(SHARD_A, SHARD_B))
}

fn sharded(id: &str, index: &str, expect: Expect) -> Case {
    Case::new(format!("C-S {id}"), sharded_by(index), expect)
}

fn index_cases() -> Vec<Case> {
    let (a, b, map) = (SHARD_A, SHARD_B, index);
    let outside: &[&str] = &["m/model.safetensors.index.json", "a: ", "no name of a shard"];
    vec![
        sharded("23 a right index", &map(a, b), Loads),
        sharded(
            "23 shard in the folder above",
            &map("../outside.safetensors", b),
            Fails(MalformedSafetensors, outside),
        ),
        sharded(
            "23 shard at an address",
            &map("https://a.example/x.safetensors", b),
            Fails(MalformedSafetensors, outside),
        ),
        sharded("23 shard at a path", &map("/etc/x.safetensors", b), Fails(MalformedSafetensors, outside)),
        sharded(
            "23 the index names itself",
            &map("model.safetensors.index.json", b),
            Fails(MalformedSafetensors, outside),
        ),
        sharded("23 no such shard", &map("c.safetensors", b), Fails(NotFound, &["c.safetensors"])),
        sharded("24 shards exchanged", &map(b, a), Fails(MalformedSafetensors, &["a: ", "the index has"])),
        sharded(
            "24 tensor that no shard has",
            &format!(r#"{{"weight_map":{{"a":"{a}","b":"{b}","c":"{b}"}}}}"#),
            Fails(MalformedSafetensors, &["c: ", "lacks"]),
        ),
        Case::new(
            "C-S 24 a shard that is a pointer",
            files(&[
                ("config.json", CONFIG),
                ("a.safetensors", &small()),
                ("b.safetensors", LFS),
                ("model.safetensors.index.json", br#"{"weight_map":{"a.weight":"a.safetensors","c":"b.safetensors"}}"#),
            ]),
            Fails(UnsupportedFormat, &["b.safetensors", "LFS"]),
        ),
        sharded("24 a shard that is a number", r#"{"weight_map":{"a":1}}"#, Fails(MalformedSafetensors, &["index"])),
        sharded(
            "24 a long text in place of a map",
            &format!(r#"{{"weight_map":"{}"}}"#, "m".repeat(100_000)),
            Fails(MalformedSafetensors, &["index", "mmm"]),
        ),
        sharded("24 no map", "{}", Fails(MalformedSafetensors, &["weight_map"])),
        sharded(
            "25 wrong total size",
            &format!(r#"{{"metadata":{{"total_size":1}},"weight_map":{{"a":"{a}","b":"{b}"}}}}"#),
            Loads,
        ),
    ]
}

fn folder_cases() -> Vec<Case> {
    let weights = small();
    let config = |id: &str, config: &[u8], expect: Expect| {
        Case::new(format!("folder: {id}"), files(&[("config.json", config), ("model.safetensors", &weights)]), expect)
    };
    let with = |id: &str, name: &str, bytes: &[u8], expect: Expect| {
        let list = [("config.json", CONFIG), ("model.safetensors", &weights[..]), (name, bytes)];
        Case::new(format!("folder: {id}"), files(&list), expect)
    };
    let deep = "[".repeat(100_000);
    let deep_config = format!(r#"{{"model_type":"llama","a":{}{}}}"#, "[".repeat(200), "]".repeat(200));
    vec![
        config("configuration that is no JSON", b"{", Fails(MalformedModel, &["config.json"])),
        config("configuration that is no object", b"[]", Fails(MalformedModel, &["config.json", "object"])),
        config("configuration that is no text", b"{\"a\xff\":1}", Fails(MalformedModel, &["config.json", "UTF-8"])),
        config("configuration without a type", b"{}", Fails(MalformedModel, &["config.json", "model_type"])),
        config("type that is a number", br#"{"model_type":1}"#, Fails(MalformedModel, &["config.json", "model_type"])),
        config(
            "configuration that is a page",
            b"<!DOCTYPE html><html>",
            Fails(UnsupportedFormat, &["config.json", "HTML"]),
        ),
        config("deep configuration", deep_config.as_bytes(), Fails(LimitExceeded, &["config.json", "nesting"])),
        config("configuration of 5 MB", &vec![b' '; 5 << 20], Fails(LimitExceeded, &["config.json", "bytes"])),
        with("deep tokenizer", "tokenizer.json", deep.as_bytes(), Fails(LimitExceeded, &["tokenizer.json", "nesting"])),
        with("tokenizer not UTF-8", "tokenizer.json", b"\"\xff\"", Fails(MalformedTokenizer, &["tokenizer.json"])),
        with(
            "tokenizer that is a pointer",
            "tokenizer.json",
            LFS,
            Fails(UnsupportedFormat, &["tokenizer.json", "LFS"]),
        ),
        with("a file twice", "config.json", CONFIG, Fails(InvalidArgument, &["config.json", "twice"])),
        with("a folder below", "onnx/config.json", b"not read", Loads),
        with("GGUF beside safetensors", "m.gguf", &Gguf::small().build(), Fails(InvalidArgument, &["choose one"])),
        Case::new(
            "folder: no configuration",
            files(&[("model.safetensors", &weights)]),
            Fails(NotFound, &["config.json"]),
        ),
        Case::new("folder: no weights", files(&[("config.json", CONFIG)]), Fails(NotFound, &["model.safetensors"])),
        Case::new("folder: nothing", Vec::new(), Fails(InvalidArgument, &["no files"])),
        Case::new(
            "folder: shards without an index",
            files(&[("config.json", CONFIG), ("a.safetensors", &weights), ("b.safetensors", &weights)]),
            Fails(NotFound, &["index"]),
        ),
        Case::new(
            "folder: weights under another name",
            files(&[("config.json", CONFIG), ("adapter.safetensors", &weights)]),
            Loads,
        ),
    ]
}

const LFS: &[u8] = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n";

fn foreign_cases() -> Vec<Case> {
    const PICKLE: &[u8] = b"\x80\x02}q\x00X\x06\x00\x00\x00weightq\x01K\x01s.";
    let zip = [b"PK\x03\x04", &[0; 26][..], b"archive/data.pkl"].concat();
    let as_model = |id: &str, name: &str, bytes: &[u8], words: &'static [&'static str]| {
        Case::new(format!("C-X {id}"), files(&[(name, bytes)]), Fails(UnsupportedFormat, words))
    };
    vec![
        as_model("1 pickle", "pytorch_model.bin", PICKLE, &["pytorch_model.bin", "pickle"]),
        as_model("1 pickle in a ZIP archive", "model.pt", &zip, &["model.pt", "pickle"]),
        as_model("1 pickle named like safetensors", "model.safetensors", PICKLE, &["model.safetensors", "pickle"]),
        Case::new(
            "C-X 1 pickle in a folder",
            files(&[("config.json", CONFIG), ("pytorch_model.bin", &zip)]),
            Fails(UnsupportedFormat, &["pytorch_model.bin", "pickle"]),
        ),
        as_model("2 HTML", "model.gguf", b"\n <!DOCTYPE html><title>Sign in</title>", &["model.gguf", "HTML"]),
        as_model("3 Git LFS pointer", "model.gguf", LFS, &["model.gguf", "Git LFS pointer"]),
        as_model("4 gzip", "model.gguf.gz", b"\x1f\x8b\x08\x00\x00\x00\x00\x00", &["gzip"]),
        as_model("5 ONNX", "model.onnx", b"\x08\x07\x12\x07pytorch\x1a\x052.1.0", &["model.onnx", "ONNX"]),
        as_model("6 empty file", "model.safetensors", b"", &["model.safetensors", "empty"]),
        as_model("GGML from before GGUF", "ggml-model.bin", b"tjgg\x03\x00\x00\x00", &["GGML"]),
        as_model("random bytes", "model.gguf", &[0xaa; 600], &["model.gguf", "neither"]),
    ]
}

/// All cases about folders and other files.
pub(crate) fn cases() -> Vec<Case> {
    [header_cases(), tensor_cases(), index_cases(), folder_cases(), foreign_cases()].into_iter().flatten().collect()
}
