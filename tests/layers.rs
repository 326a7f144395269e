//! The order of layers: each part of the library may use only what stands before it. Read from the sources themselves.

use std::fs;
use std::path::{Path, PathBuf};

/// The layers, first to last; those of one row may use each other.
const LAYERS: &[&[&str]] = &[
    &["error"],
    &["digest"],
    &["quant"],
    &["source"],
    &["format"],
    &["tokenizer"],
    &["chat"],
    &["graph"],
    &["model"],
    &["sample"],
    &["cpu"],
    &["gpu", "kernel"],
    &["cache"],
    &["engine"],
    &["hub"],
    &["web"],
];
/// Parts that may use less than their place allows.
const NARROW: &[(&str, &[&str])] = &[("hub", &["error", "digest", "source", "format"])];
/// Crates that one part alone may name.
const CRATES: &[(&str, &[&str])] = &[
    ("wgpu", &["gpu"]),
    ("wasm_bindgen", &["web"]),
    ("wasm_bindgen_futures", &["web"]),
    ("js_sys", &["web"]),
    ("web_sys", &["web"]),
    ("tokenizers", &["tokenizer"]),
    ("minijinja", &["chat"]),
];

#[test]
fn every_part_uses_only_what_stands_before_it() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    list(&src, &mut files);
    let mut faults = Vec::new();
    let mut n_uses = 0;
    for file in &files {
        let module = module_path(file.strip_prefix(&src).unwrap());
        let Some(layer) = module.first() else { continue };
        let text = without_tests_and_comments(&fs::read_to_string(file).unwrap());
        let uses = uses(&text, module.len());
        n_uses += uses.len();
        faults.extend(check(layer, &text, &uses).into_iter().map(|fault| format!("{}: {fault}", file.display())));
    }
    assert!(files.len() > 10 && n_uses > 10, "the reader finds nothing: {} files, {n_uses} uses", files.len());
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn the_reader_sees_every_way_to_name_a_layer() {
    let text = "use crate::error::Error;\nuse crate::{quant, graph::{Op, Graph}};\nlet x = crate :: cpu::Cpu;\n\
                use super::super::source::Source;\nuse super::near;\n";
    assert_eq!(uses(text, 2), ["error", "quant", "graph", "cpu", "source"]);
    assert_eq!(uses("use super::format::Metadata;", 1), ["format"]);
    let text = "// crate::gpu\nuse crate::error; // crate::cpu\n#[cfg(test)]\nmod tests {\n    use crate::engine;\n}\n";
    assert_eq!(uses(&without_tests_and_comments(text), 1), ["error"]);
}

#[test]
fn the_order_is_held() {
    let faults = |layer: &str, text: &str| check(layer, text, &uses(text, 1)).len();
    assert_eq!(faults("cpu", "use crate::graph::Graph;"), 0);
    assert_eq!(faults("graph", "use crate::cpu::Cpu;"), 1);
    assert_eq!(faults("gpu", "use crate::kernel::KERNELS; use wgpu::Device;"), 0);
    assert_eq!(faults("kernel", "use wgpu::Device;"), 1);
    assert_eq!(faults("engine", "let value = js_sys::Date::now();"), 1);
    assert_eq!(faults("engine", "let my_wgpu_device = not_wgpu::x();"), 0);
    assert_eq!(faults("hub", "use crate::format::Metadata; use crate::hub::Lock;"), 0);
    assert_eq!(faults("hub", "use crate::engine::Engine;"), 1);
    assert_eq!(faults("surprise", ""), 1);
}

/// What a part must not name, of the layers and crates that it does name.
fn check(layer: &str, text: &str, uses: &[String]) -> Vec<String> {
    if layer == "bin" {
        // The programs are an edge like `web`: they may use everything but the other edge, which is not there natively.
        return Vec::new();
    }
    let place = |name: &str| LAYERS.iter().position(|row| row.contains(&name));
    let Some(here) = place(layer) else { return vec![format!("{layer} has no place among the layers")] };
    let mut faults = Vec::new();
    for name in uses {
        if place(name).is_some_and(|there| there > here) {
            faults.push(format!("{layer} uses {name}, which stands after it"));
        }
    }
    for (narrow, may) in NARROW.iter().filter(|(narrow, _)| *narrow == layer) {
        let beyond =
            uses.iter().filter(|name| place(name).is_some() && name != narrow && !may.contains(&name.as_str()));
        faults.extend(beyond.map(|name| format!("{layer} uses {name}, of the library it may use {may:?} alone")));
    }
    for (name, may) in CRATES {
        if !may.contains(&layer) && words(text).any(|word| word == *name) {
            faults.push(format!("{layer} names the crate {name}, which is for {may:?} alone"));
        }
    }
    faults
}

/// The names that follow `crate::`, also within braces, and those that follow enough `super::` to leave the layer.
/// `depth` is the length of the file's own module path.
fn uses(text: &str, depth: usize) -> Vec<String> {
    let tokens = tokens(text);
    let mut found = Vec::new();
    let mut i = 0;
    while i < tokens.len() {
        let mut n_super = 0;
        let start = i;
        while tokens[i] == "super" && tokens.get(i + 1) == Some(&"::") {
            n_super += 1;
            i += 2;
            if i >= tokens.len() {
                return found;
            }
        }
        let at_root = if n_super > 0 {
            n_super >= depth
        } else {
            let is_crate = tokens[i] == "crate" && tokens.get(i + 1) == Some(&"::");
            i += if is_crate { 2 } else { 0 };
            is_crate
        };
        if at_root {
            i = name_after_root(&tokens, i, &mut found);
        }
        if i == start {
            i += 1;
        }
    }
    found
}

/// Collects the name at `i`, or every first name of the braces that open there; gives where to go on.
fn name_after_root(tokens: &[&str], mut i: usize, found: &mut Vec<String>) -> usize {
    if tokens.get(i) != Some(&"{") {
        found.extend(tokens.get(i).map(|name| (*name).to_owned()));
        return i + 1;
    }
    let mut depth = 0;
    let mut expects_name = false;
    while let Some(token) = tokens.get(i) {
        match *token {
            "{" => {
                depth += 1;
                expects_name = depth == 1;
            }
            "}" => {
                depth -= 1;
                if depth == 0 {
                    return i + 1;
                }
            }
            "," => expects_name = depth == 1,
            name => {
                if expects_name {
                    found.push(name.to_owned());
                }
                expects_name = false;
            }
        }
        i += 1;
    }
    i
}

/// Names, `::` and single marks.
fn tokens(text: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = if is_name(first) {
            rest.find(|letter| !is_name(letter)).unwrap_or(rest.len())
        } else if rest.starts_with("::") {
            2
        } else {
            first.len_utf8()
        };
        let (token, after) = rest.split_at(length);
        tokens.push(token);
        rest = after.trim_start();
    }
    tokens
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|letter| !is_name(letter))
}

fn is_name(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}

/// A source file's text up to its test module, comments left out: tests may compare with later layers.
fn without_tests_and_comments(text: &str) -> String {
    let mut kept = String::new();
    for line in text.lines() {
        if line.starts_with("#[cfg(test)]") {
            break;
        }
        kept.push_str(line.split("//").next().unwrap_or_default());
        kept.push('\n');
    }
    kept
}

/// A file's module path: `gpu/device.rs` is gpu, device; `gpu/mod.rs` is gpu; `lib.rs` is nothing.
fn module_path(file: &Path) -> Vec<String> {
    let path = file.with_extension("");
    let names = path.iter().map(|name| name.to_string_lossy().into_owned());
    names.filter(|name| name != "mod" && name != "lib").collect()
}

/// Every source file that is not a test's own.
fn list(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            list(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with("tests.rs") {
            files.push(path);
        }
    }
}
