//! Files that name an architecture nobody knows: what is nearest is told, and they are read as what their user says.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests say what they expect by failing")]

mod common;

use common::open;
use headwater::error::ErrorKind;
use headwater::format::{Checkpoint, Value};
use headwater::model::{PlanOptions, plan, plan_with};

const LLAMA: &[&str] = &["tests/data/models/llama3/config.json", "tests/data/models/llama3/model.safetensors"];
const QWEN3: &[&str] = &["tests/data/models/qwen3/config.json", "tests/data/models/qwen3/model.safetensors"];
const QWEN3_GGUF: &[&str] = &["tests/data/gguf/qwen3-Q4_0.gguf"];

/// Files under another name for their architecture.
fn renamed(files: &[&str], name: &str) -> Checkpoint {
    let mut checkpoint = open(files);
    let own = std::mem::replace(&mut checkpoint.metadata.architecture, name.to_owned());
    // Keys of GGUF begin with it.
    let values = std::mem::take(&mut checkpoint.metadata.values);
    let rename = |key: String| key.strip_prefix(&format!("{own}.")).map(|rest| format!("{name}.{rest}")).unwrap_or(key);
    checkpoint.metadata.values = values.into_iter().map(|(key, value)| (rename(key), value)).collect();
    checkpoint
}

fn read_as(name: &str) -> PlanOptions {
    PlanOptions { architecture: Some(name.to_owned()), ..PlanOptions::default() }
}

#[test]
fn an_unknown_architecture_is_refused_with_the_nearest_one() {
    for (files, nearest) in [(LLAMA, "llama"), (QWEN3, "qwen3"), (QWEN3_GGUF, "qwen3")] {
        let checkpoint = renamed(files, "nobodys");
        let error = plan(&checkpoint).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnsupportedFormat);
        let words = format!("fit {nearest:?}, and it is read as that where the option architecture says so");
        assert!(error.message().contains(&words), "{error}");
        // And so it is.
        let (found, own) = (plan_with(&checkpoint, &read_as(nearest)).unwrap(), plan(&open(files)).unwrap());
        assert_eq!((found.architecture, found.hyper, found.graph), (own.architecture, own.hyper, own.graph));
    }
}

#[test]
fn nothing_is_near_what_has_a_tensor_or_a_setting_too_many() {
    let mut checkpoint = renamed(LLAMA, "nobodys");
    let mut extra = checkpoint.tensors[0].clone();
    extra.name = "model.layers.0.self_attn.gate.weight".into();
    checkpoint.tensors.push(extra);
    let error = plan(&checkpoint).unwrap_err();
    assert!(!error.message().contains("fit"), "{error}");
    let error = plan_with(&checkpoint, &read_as("llama")).unwrap_err();
    assert_eq!(
        (error.kind(), error.place().as_str()),
        (ErrorKind::MalformedModel, "model.layers.0.self_attn.gate.weight")
    );

    let mut checkpoint = renamed(LLAMA, "nobodys");
    checkpoint.metadata.values.insert("hidden_act".into(), Value::Text("relu2".into()));
    assert!(!plan(&checkpoint).unwrap_err().message().contains("fit"));
}

#[test]
fn an_override_must_name_what_is_known_and_fit() {
    let checkpoint = open(QWEN3);
    let error = plan_with(&checkpoint, &read_as("nobodys")).unwrap_err();
    assert_eq!((error.kind(), error.place().as_str()), (ErrorKind::InvalidArgument, "architecture"));
    assert!(error.message().contains("qwen3"), "{error}");
    // llama has no norms of queries and keys.
    let error = plan_with(&checkpoint, &read_as("llama")).unwrap_err();
    assert!(error.place().contains("_norm.weight"), "{error}");
}
