//! Choosing among the files of repositories as they are published.

use super::{choose, has_tag, shard_name, shard_of};
use crate::error::ErrorKind::{self, InvalidArgument, NotFound, UnsupportedFormat};
use crate::hub::{Address, Card, Expected, Gate, Manifest, Pick, RepoFile};

fn manifest(paths: &[&str]) -> Manifest {
    let file = |path: &&str| RepoFile {
        path: (*path).to_owned(),
        size_bytes: 1,
        expected: Expected::Unknown(None),
        address: Address::parse("https://hub.example/").unwrap(),
    };
    Manifest {
        hub: "https://hub.example".to_owned(),
        repo: "o/n".to_owned(),
        revision: None,
        commit: "0".repeat(40),
        files: paths.iter().map(file).collect(),
        card: Card::default(),
        gate: Gate::Open,
    }
}

fn chosen(paths: &[&str], pick: Pick) -> Vec<String> {
    choose(&manifest(paths), &pick).unwrap().into_iter().map(|file| file.path).collect()
}

fn refused(paths: &[&str], pick: Pick) -> (ErrorKind, String) {
    let error = choose(&manifest(paths), &pick).unwrap_err();
    (error.kind(), error.to_string())
}

fn tag(text: &str) -> Pick {
    Pick::Tag(text.to_owned())
}

fn path(text: &str) -> Pick {
    Pick::Path(text.to_owned())
}

const QUANTS: &[&str] = &[
    "README.md",
    "mmproj-model-f16.gguf",
    "m-Q4_K_M.gguf",
    "m-Q4_K_S.gguf",
    "m.f16.gguf",
    "Q8_0/m-Q8_0-00002-of-00002.gguf",
    "Q8_0/m-Q8_0-00001-of-00002.gguf",
];
const FOLDER: &[&str] = &[
    ".gitattributes",
    "config.json",
    "tokenizer.json",
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors",
    "model.safetensors.index.json",
    "consolidated.safetensors",
    "pytorch_model.bin",
    "original/params.json",
];

#[test]
fn tags_are_whole_words_of_names() {
    assert!(has_tag("dir/model-Q4_K_M", "q4_k_m") && has_tag("model.Q8_0", "Q8_0") && has_tag("UD-Q8_0-x", "Q8_0"));
    assert!(!has_tag("model-Q4_K_M", "Q4_K") && !has_tag("model-IQ4_XS", "Q4_XS") && !has_tag("abf16", "bf16"));
    let shard = shard_of("a/m-00002-of-00003.gguf").unwrap();
    assert_eq!((shard.number, shard.count, shard_name(&shard, 3)), (2, 3, "a/m-00003-of-00003.gguf".to_owned()));
    assert!(shard_of("m-00004-of-00003.gguf").is_none() && shard_of("m-00000-of-00003.gguf").is_none());
}

#[test]
fn one_gguf_is_found_by_tag_path_or_for_being_alone() {
    assert_eq!(chosen(QUANTS, tag("Q4_K_M")), ["m-Q4_K_M.gguf"]);
    assert_eq!(chosen(QUANTS, tag("F16")), ["m.f16.gguf"]);
    let split = ["Q8_0/m-Q8_0-00001-of-00002.gguf", "Q8_0/m-Q8_0-00002-of-00002.gguf"];
    assert_eq!(chosen(QUANTS, tag("q8_0")), split);
    assert_eq!(chosen(QUANTS, path("Q8_0/m-Q8_0-00002-of-00002.gguf")), split);
    assert_eq!(chosen(QUANTS, path("Q8_0")), split);
    assert_eq!(chosen(&["only.gguf", "mmproj.gguf"], Pick::Any), ["only.gguf"]);
}

#[test]
fn a_folder_is_taken_together() {
    let expected = [
        "config.json",
        "tokenizer.json",
        "model.safetensors.index.json",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    ];
    assert_eq!(chosen(FOLDER, Pick::Any), expected);
    assert_eq!(chosen(FOLDER, path("config.json")), expected);
    let embedder = ["config.json", "modules.json", "1_Pooling/config.json", "onnx/x/config.json", "model.safetensors"];
    let pooled = ["config.json", "modules.json", "1_Pooling/config.json", "model.safetensors"];
    assert_eq!(chosen(&embedder, Pick::Any), pooled);
    assert!(
        !chosen(&embedder.map(|path| path.trim_end_matches("modules.json")), Pick::Any).contains(&pooled[2].to_owned())
    );
    let below = ["x.gguf", "sub/config.json", "sub/model.safetensors", "sub/deeper/model.safetensors"];
    assert_eq!(chosen(&below, path("sub")), ["sub/config.json", "sub/model.safetensors"]);
}

#[test]
fn an_adapter_is_meant_where_there_is_no_model() {
    let adapter = ["adapter_config.json", "adapter_model.safetensors"];
    assert_eq!(chosen(&[&adapter[..], &["README.md", "tokenizer.json"]].concat(), Pick::Any), adapter);
    let beside = [&adapter[..], &["config.json", "model.safetensors"]].concat();
    assert_eq!(chosen(&beside, Pick::Any), ["config.json", "model.safetensors"]);
}

#[test]
fn what_cannot_be_chosen_is_explained() {
    let cases: &[(&[&str], Pick, ErrorKind, &[&str])] = &[
        (QUANTS, Pick::Any, InvalidArgument, &["several GGUF models", "m-Q4_K_M", "m-Q4_K_S"]),
        (QUANTS, tag("Q5_K_M"), NotFound, &["Q5_K_M", "m-Q4_K_M"]),
        (&["a-Q8_0.gguf", "b-Q8_0.gguf"], tag("Q8_0"), InvalidArgument, &["a-Q8_0, b-Q8_0"]),
        (&["m-Q8_0-00001-of-00002.gguf"], tag("Q8_0"), NotFound, &["shard 2 of 2"]),
        (&["config.json", "model-00001-of-00002.safetensors"], Pick::Any, NotFound, &["shard 2 of 2"]),
        (FOLDER, tag("Q8_0"), NotFound, &["safetensors; leave the tag out"]),
        (&["config.json", "model.safetensors", "m-Q4_0.gguf"], Pick::Any, InvalidArgument, &["/config.json", "m-Q4_0"]),
        (&["config.json", "pytorch_model.bin"], Pick::Any, UnsupportedFormat, &["pytorch_model.bin", "pickle"]),
        (&["model.pt"], Pick::Any, UnsupportedFormat, &["model.pt", "pickle"]),
        (&["config.json"], Pick::Any, NotFound, &["no safetensors"]),
        (&["README.md"], Pick::Any, NotFound, &["neither a GGUF file nor a config.json"]),
        (&[], Pick::Any, NotFound, &["o/n"]),
        (QUANTS, path("nowhere.gguf"), NotFound, &["nowhere.gguf"]),
        (QUANTS, path("README.md"), UnsupportedFormat, &["neither GGUF nor safetensors"]),
    ];
    for (paths, pick, kind, words) in cases {
        let (found, told) = refused(paths, pick.clone());
        assert_eq!(found, *kind, "{told}");
        assert!(words.iter().all(|word| told.contains(word)), "{told}");
    }
}
