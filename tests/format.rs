//! Files of other software's making are read as that software reads them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

use std::path::{Path, PathBuf};
use std::rc::Rc;

use headwater::error::ErrorKind;
use headwater::format::{Checkpoint, Dialect, Metadata, TensorInfo, Value};
use headwater::quant::{FORMATS, FormatId};
use headwater::source::{MemorySource, Source};
use sha2::{Digest, Sha256};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn source(path: &Path, name: &str) -> Rc<dyn Source> {
    let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    Rc::new(MemorySource::new(name, bytes))
}

fn file(path: &str) -> Rc<dyn Source> {
    source(&root().join(path), path)
}

fn open(files: Vec<Rc<dyn Source>>) -> headwater::error::Result<Checkpoint> {
    pollster::block_on(Checkpoint::open(files))
}

fn bytes_of(checkpoint: &Checkpoint, tensor: &TensorInfo) -> Vec<u8> {
    let len = usize::try_from(tensor.size_bytes).unwrap();
    pollster::block_on(checkpoint.files[tensor.file].read(tensor.offset, len)).unwrap()
}

fn decoded(format: FormatId, bytes: &[u8]) -> Vec<f32> {
    let format = format.format();
    let mut weights = vec![f32::NAN; bytes.len() / format.block_bytes * format.block_weights];
    (format.decode)(bytes, &mut weights);
    weights
}

/// The first 32 hexadecimal digits, as the goldens have them.
fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// A hub folder, with one of its files under the name of another.
fn folder(path: &str, files: &[(&str, &str)]) -> Vec<Rc<dyn Source>> {
    files.iter().map(|(on_disk, name)| source(&root().join(path).join(on_disk), &format!("{path}/{name}"))).collect()
}

const LLAMA3: &str = "tests/data/models/llama3";
const QWEN3: &str = "tests/data/models/qwen3";
const HUB_FILES: &[(&str, &str)] = &[
    ("config.json", "config.json"),
    ("model.safetensors", "model.safetensors"),
    ("tokenizer.json", "tokenizer.json"),
    ("tokenizer_config.json", "tokenizer_config.json"),
];

#[test]
fn every_tensor_of_the_gguf_files_is_where_and_what_the_reference_says() {
    for name in ["llama3-F16", "llama3-Q8_0", "llama3-Q4_0", "qwen3-Q4_0"] {
        let checkpoint = open(vec![file(&format!("tests/data/gguf/{name}.gguf"))]).unwrap();
        let golden = std::fs::read(root().join(format!("tests/data/gguf/{name}.json"))).unwrap();
        let golden: serde_json::Value = serde_json::from_slice(&golden).unwrap();
        let golden = golden["tensors"].as_array().unwrap();
        assert_eq!(checkpoint.tensors.len(), golden.len(), "{name}");
        for expected in golden {
            let tensor_name = expected["name"].as_str().unwrap();
            let place = format!("{name}: {tensor_name}");
            let tensor = checkpoint.tensor(tensor_name).unwrap_or_else(|| panic!("{place} is missing"));
            let mut shape: Vec<usize> = serde_json::from_value(expected["ne"].clone()).unwrap();
            shape.reverse();
            assert_eq!(tensor.shape, shape, "{place}");
            assert_eq!(tensor.format.format().name, expected["type"].as_str().unwrap().to_lowercase(), "{place}");
            assert_eq!(tensor.offset, expected["offset"].as_u64().unwrap(), "{place}");
            assert_eq!(tensor.size_bytes, expected["nbytes"].as_u64().unwrap(), "{place}");
            let raw = bytes_of(&checkpoint, tensor);
            assert_eq!(sha256(&raw), expected["sha256_raw"].as_str().unwrap(), "{place}: bytes");
            let weights: Vec<u8> =
                decoded(tensor.format, &raw).iter().flat_map(|weight| weight.to_le_bytes()).collect();
            assert_eq!(sha256(&weights), expected["sha256_f32"].as_str().unwrap(), "{place}: weights");
        }
    }
}

#[test]
fn blocks_decode_to_the_last_bit() {
    let bytes = std::fs::read(root().join("tests/data/quant_blocks.safetensors")).unwrap();
    let golden = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let mut compared = Vec::new();
    for (id, format) in FORMATS {
        let name = format.name.to_uppercase();
        // Plain floats are in no blocks; bf16 is there because it is a type of quantisation tools.
        let Ok(raw) = golden.tensor(&format!("{name}.raw")) else { continue };
        let expected = golden.tensor(&format!("{name}.f32")).unwrap();
        let weights = decoded(*id, raw.data());
        let expected: Vec<f32> = decoded(FormatId::F32, expected.data());
        assert_eq!(weights.len(), expected.len(), "{name}");
        for (index, (weight, expected)) in weights.iter().zip(&expected).enumerate() {
            assert_eq!(weight.to_bits(), expected.to_bits(), "{name}, weight {index}: {weight} {expected}");
        }
        compared.push(name);
    }
    assert_eq!(compared, ["BF16", "Q8_0", "Q4_0"]);
}

#[test]
fn metadata_of_a_gguf_file() {
    let checkpoint = open(vec![file("tests/data/gguf/llama3-Q4_0.gguf")]).unwrap();
    let metadata = &checkpoint.metadata;
    assert_eq!(metadata.dialect, Dialect::Gguf);
    assert_eq!(metadata.architecture, "llama");
    assert_eq!(metadata.integer("llama.embedding_length").unwrap(), Some(64));
    assert_eq!(metadata.number("llama.rope.freq_base").unwrap(), Some(500_000.0));
    assert_eq!(metadata.boolean("tokenizer.ggml.add_bos_token").unwrap(), Some(true));
    assert_eq!(metadata.text("tokenizer.ggml.pre").unwrap(), Some("llama-bpe"));
    assert_eq!(metadata.texts("tokenizer.ggml.tokens").unwrap().unwrap().len(), 640);
    assert_eq!(metadata.texts("tokenizer.ggml.merges").unwrap().unwrap()[1], "ĠĠ ĠĠ");
    assert_eq!(metadata.integers("tokenizer.ggml.token_type").unwrap().unwrap().len(), 640);
    assert_eq!(metadata.integer("no.such.key").unwrap(), None);
    assert_eq!(metadata.integer("tokenizer.ggml.pre").unwrap_err().kind(), ErrorKind::MalformedGguf);
    let factors = &metadata.small_tensors["rope_freqs.weight"];
    assert_eq!(
        factors,
        &decoded(FormatId::F32, &bytes_of(&checkpoint, checkpoint.tensor("rope_freqs.weight").unwrap()))
    );
    assert_eq!(factors.first(), Some(&1.0));
    assert_eq!(factors.len(), 8);
}

#[test]
fn a_type_that_is_not_supported_is_refused_by_its_name() {
    let error = open(vec![file("tests/data/gguf/llama3-Q5_0.gguf")]).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::UnsupportedFormat);
    let message = error.to_string();
    for part in ["llama3-Q5_0.gguf", "token_embd.weight", "Q5_0", "q4_0"] {
        assert!(message.contains(part), "{message} lacks {part}");
    }
}

/// All tensors of a hub folder, against another reader of safetensors.
fn same_as_the_reference(checkpoint: &Checkpoint, path: &str) {
    let bytes = std::fs::read(root().join(path)).unwrap();
    let golden = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(checkpoint.tensors.len(), golden.len());
    for (name, expected) in golden.tensors() {
        let tensor = checkpoint.tensor(&name).unwrap_or_else(|| panic!("{name} is missing"));
        assert_eq!(tensor.shape, expected.shape(), "{name}");
        assert_eq!(tensor.format.format().name, format!("{:?}", expected.dtype()).to_lowercase(), "{name}");
        assert_eq!(bytes_of(checkpoint, tensor), expected.data(), "{name}");
    }
    assert!(checkpoint.tensors.is_sorted_by_key(|tensor| (tensor.file, tensor.offset)));
}

#[test]
fn hub_folders_load_as_the_reference_reads_them() {
    for path in [LLAMA3, QWEN3] {
        let checkpoint = open(folder(path, HUB_FILES)).unwrap();
        same_as_the_reference(&checkpoint, &format!("{path}/model.safetensors"));
        assert_eq!(checkpoint.metadata.dialect, Dialect::Hub);
        let companions: Vec<_> = checkpoint.metadata.companions.keys().map(String::as_str).collect();
        assert_eq!(companions, ["tokenizer.json", "tokenizer_config.json"]);
        let on_disk = std::fs::read_to_string(root().join(path).join("tokenizer.json")).unwrap();
        assert_eq!(checkpoint.metadata.companions["tokenizer.json"], on_disk);
    }
}

fn config_values(path: &str, config: &str) -> Metadata {
    open(folder(path, &[(config, "config.json"), ("model.safetensors", "model.safetensors")])).unwrap().metadata
}

#[test]
fn both_layouts_of_config_json_load_to_the_same_values() {
    // What only one of the two files says.
    const OWN: &[&str] = &["transformers_version", "layer_types"];
    for path in [LLAMA3, QWEN3] {
        let hub = config_values(path, "config.json");
        let new = config_values(path, "config.v5.json");
        assert_eq!(hub.architecture, new.architecture);
        let common = |metadata: &Metadata| -> Vec<(String, Value)> {
            metadata.values.clone().into_iter().filter(|(key, _)| !OWN.contains(&key.as_str())).collect()
        };
        assert_eq!(common(&hub), common(&new), "{path}");
        assert!(hub.number("rope_theta").unwrap().is_some_and(|theta| theta >= 500_000.0), "{path}");
    }
    let llama3 = config_values(LLAMA3, "config.v5.json");
    assert_eq!(llama3.text("rope_scaling.rope_type").unwrap(), Some("llama3"));
    assert_eq!(llama3.number("rope_scaling.factor").unwrap(), Some(8.0));
}

#[test]
fn tiny_assistant_opens_in_all_its_forms() {
    let path = "www/models/tiny-assistant";
    for (name, n_tensors) in [("tiny-assistant-q8_0.gguf", 68), ("tiny-assistant-q4_0.gguf", 68)] {
        let checkpoint = open(vec![file(&format!("{path}/{name}"))]).unwrap();
        assert_eq!(checkpoint.metadata.architecture, "qwen3");
        assert_eq!(checkpoint.tensors.len(), n_tensors, "{name}");
        assert_eq!(checkpoint.tensor("blk.5.attn_k_norm.weight").unwrap().shape, [32]);
        assert_eq!(checkpoint.tensor("token_embd.weight").unwrap().shape, [2048, 256]);
    }
    let mut files = folder(path, HUB_FILES);
    files.extend(folder(path, &[("generation_config.json", "generation_config.json"), ("README.md", "README.md")]));
    files.reverse();
    let checkpoint = open(files).unwrap();
    same_as_the_reference(&checkpoint, &format!("{path}/model.safetensors"));
    assert_eq!(checkpoint.metadata.companions.len(), 3);
}
