//! Adapters that cannot be applied as they were meant are refused, naming what stands in the way.

use headwater::error::{Error, ErrorKind, Result};
use headwater::format::{ADAPTER_CONFIG, Checkpoint, TensorInfo, Value};
use headwater::model::plan_adapter;
use headwater::source::{MemorySource, Source};
use pollster::block_on;
use serde_json::{Value as Json, json};
use std::rc::Rc;

use super::common::{open, source};

const LLAMA: &[&str] = &["tests/data/models/llama3/config.json", "tests/data/models/llama3/model.safetensors"];
const QWEN3: &[&str] = &["tests/data/models/qwen3/config.json", "tests/data/models/qwen3/model.safetensors"];
const PEFT: &[&str] =
    &["tests/data/lora/llama3-plain/adapter_config.json", "tests/data/lora/llama3-plain/adapter_model.safetensors"];
const DORA: &[&str] =
    &["tests/data/lora/qwen3-dora/adapter_config.json", "tests/data/lora/qwen3-dora/adapter_model.safetensors"];
const MIXTRAL: &[&str] = &["tests/data/models/mixtral/config.json", "tests/data/models/mixtral/model.safetensors"];
const EXPERTS: &[&str] = &[
    "tests/data/lora/mixtral-experts/adapter_config.json",
    "tests/data/lora/mixtral-experts/adapter_model.safetensors",
];
const QWEN3MOE: &[&str] = &["tests/data/models/qwen3moe/config.json", "tests/data/models/qwen3moe/model.safetensors"];
const PARAMETERS: &[&str] = &[
    "tests/data/lora/qwen3moe-parameters/adapter_config.json",
    "tests/data/lora/qwen3moe-parameters/adapter_model.safetensors",
];
const GGUF: &[&str] = &["tests/data/lora/llama3-plain/adapter.gguf"];

fn adapter(files: &[&str]) -> Checkpoint {
    block_on(Checkpoint::open_adapter(files.iter().map(|file| source(file)).collect())).unwrap()
}

/// A damage, and the error that it must give.
struct Damage {
    files: &'static [&'static str],
    damage: Box<dyn Fn(&mut Checkpoint)>,
    kind: ErrorKind,
    place: &'static str,
    words: &'static str,
}

/// A key of the configuration set to a value.
fn set(key: &'static str, value: Json, kind: ErrorKind, place: &'static str, words: &'static str) -> Damage {
    let damage = Box::new(move |adapter: &mut Checkpoint| {
        let text = adapter.metadata.companions.get_mut(ADAPTER_CONFIG).unwrap();
        let mut config: Json = serde_json::from_str(text).unwrap();
        config.as_object_mut().unwrap().insert(key.into(), value.clone());
        *text = config.to_string();
    });
    Damage { files: PEFT, damage, kind, place, words }
}

/// A key of a GGUF file set to a value, or removed.
fn key(key: &'static str, value: Option<Value>, kind: ErrorKind, words: &'static str) -> Damage {
    let damage = Box::new(move |adapter: &mut Checkpoint| {
        drop(match value.clone() {
            Some(value) => adapter.metadata.values.insert(key.into(), value),
            None => adapter.metadata.values.remove(key),
        });
    });
    Damage { files: GGUF, damage, kind, place: key, words }
}

fn tensor(
    files: &'static [&'static str],
    name: &'static str,
    change: impl Fn(&mut TensorInfo) + 'static,
    kind: ErrorKind,
    place: &'static str,
    words: &'static str,
) -> Damage {
    let damage = Box::new(move |adapter: &mut Checkpoint| {
        change(adapter.tensors.iter_mut().find(|tensor| tensor.name == name).unwrap());
    });
    Damage { files, damage, kind, place, words }
}

const UP_A: &str = "base_model.model.model.layers.1.mlp.up_proj.lora_A.weight";
const UP_B: &str = "base_model.model.model.layers.1.mlp.up_proj.lora_B.weight";
const UP: &str = "model.layers.1.mlp.up_proj";

fn damages() -> Vec<Damage> {
    use ErrorKind::{LimitExceeded, MalformedGguf, MalformedModel, UnsupportedFormat};
    let in_config = |key: &'static str, value, words| {
        let place: &'static str = Box::leak(format!("{ADAPTER_CONFIG}: {key}").into_boxed_str());
        set(key, value, UnsupportedFormat, place, words)
    };
    let text = |text: &str| Some(Value::Text(text.into()));
    vec![
        in_config("peft_type", json!("IA3"), "\"IA3\" is not supported"),
        in_config("bias", json!("lora_only"), "\"lora_only\" is not supported"),
        in_config("fan_in_fan_out", json!(true), "true is not supported"),
        in_config("lora_bias", json!(true), "true is not supported"),
        in_config("modules_to_save", json!(["lm_head"]), "[\"lm_head\"] is not supported"),
        in_config("init_lora_weights", json!("pissa_niter_4"), "\"pissa_niter_4\" is not supported"),
        in_config("layer_replication", json!([[0, 1]]), "is not supported"),
        in_config("trainable_token_indices", json!([3]), "is not supported"),
        in_config("alora_invocation_tokens", json!([1, 2]), "is not supported"),
        in_config("use_qalora", json!(true), "true is not supported"),
        in_config("something_new", json!({ "how": 1 }), "is not supported"),
        set("use_dora", json!("yes"), MalformedModel, "adapter_config.json: use_dora", "a boolean is needed"),
        set("r", json!(512), LimitExceeded, "adapter_config.json: r", "rank 512; supported are whole ones to 256"),
        set("r", json!(0), LimitExceeded, "adapter_config.json: r", "rank 0"),
        set("r", json!("4"), MalformedModel, "adapter_config.json: r", "\"4\" is no number"),
        set("lora_alpha", json!(null), MalformedModel, "adapter_config.json: lora_alpha", "null is no number"),
        set(
            "r",
            json!(8),
            MalformedModel,
            "model.layers.0.mlp.down_proj",
            "rank 4 in the tensors where adapter_config.json says 8",
        ),
        set("rank_pattern", json!({ "1.mlp.up_proj": 2 }), MalformedModel, UP, "rank 4 in the tensors"),
        set(
            "alpha_pattern",
            json!({ "(": 2 }),
            UnsupportedFormat,
            "adapter_config.json: alpha_pattern: (",
            "cannot be read",
        ),
        set(
            "alpha_pattern",
            json!({ "q_proj": "x" }),
            MalformedModel,
            "adapter_config.json: alpha_pattern: q_proj",
            "\"x\" is no number",
        ),
        set(
            "use_dora",
            json!(true),
            MalformedModel,
            "base_model.model.model.layers.0.mlp.down_proj.lora_magnitude_vector",
            "the tensor is missing",
        ),
        tensor(
            PEFT,
            UP_A,
            |t| t.shape = vec![4, 96],
            MalformedModel,
            UP_A,
            "shape [4, 96] where [4, 64] is needed; the adapter was made for \"llama3\"",
        ),
        tensor(PEFT, UP_B, |t| t.shape = vec![80, 4], MalformedModel, UP_B, "shape [80, 4] where [160, 4] is needed"),
        tensor(PEFT, UP_B, |t| t.size_bytes -= 4, MalformedModel, UP_B, "2556 bytes are not [160, 4]"),
        tensor(PEFT, UP_B, |t| t.shape = vec![640], MalformedModel, UP_B, "a matrix is needed"),
        tensor(PEFT, UP_B, |t| t.shape = vec![2, 320], LimitExceeded, UP_B, "rank 320; supported are 1 to 256"),
        tensor(
            PEFT,
            UP_A,
            |t| t.name = UP_A.replace("up_proj", "side_proj"),
            MalformedModel,
            "base_model.model.model.layers.1.mlp.side_proj.lora_B.weight",
            "missing",
        ),
        Damage {
            files: PEFT,
            damage: Box::new(|adapter| {
                for tensor in &mut adapter.tensors {
                    tensor.name = tensor.name.replace("layers.1.mlp.up_proj", "layers.1.mlp.experts.0.up_proj");
                }
            }),
            kind: UnsupportedFormat,
            place: "model.layers.1.mlp.experts.0.up_proj",
            words: "no matrix of that name that an adapter could change; the adapter was made for \"llama3\"",
        },
        tensor(
            PEFT,
            UP_A,
            |t| t.name = "base_model.model.lm_head.weight".into(),
            UnsupportedFormat,
            "base_model.model.lm_head.weight",
            "modules_to_save",
        ),
        tensor(
            PEFT,
            UP_A,
            |t| t.name = "base_model.model.model.embed_tokens.lora_embedding_A".into(),
            UnsupportedFormat,
            "base_model.model.model.embed_tokens.lora_embedding_A",
            "adapters of embeddings are not supported",
        ),
        tensor(PEFT, UP_A, |t| t.name = UP_A.replace("_A.", "_A.other."), MalformedModel, "", ""),
        Damage {
            files: PEFT,
            damage: Box::new(|adapter| adapter.tensors.clear()),
            kind: MalformedModel,
            place: "",
            words: "the adapter has no matrices",
        },
        Damage {
            files: DORA,
            damage: Box::new(|adapter| {
                let text = adapter.metadata.companions.get_mut(ADAPTER_CONFIG).unwrap();
                *text = text.replace("\"use_dora\": true", "\"use_dora\": false");
            }),
            kind: MalformedModel,
            place: "base_model.model.model.layers.0.mlp.up_proj.lora_magnitude_vector",
            words: "where use_dora is false",
        },
        Damage {
            files: PEFT,
            damage: Box::new(|adapter| drop(adapter.metadata.companions.insert(ADAPTER_CONFIG.into(), "{".into()))),
            kind: MalformedModel,
            place: ADAPTER_CONFIG,
            words: "not JSON",
        },
        key("general.type", text("model"), UnsupportedFormat, "\"adapter\" is needed, \"model\" is there"),
        key("adapter.type", text("control_vector"), UnsupportedFormat, "\"lora\" is needed"),
        key("adapter.type", None, UnsupportedFormat, "\"lora\" is needed, nothing is there"),
        key("adapter.lora.alpha", text("8"), MalformedGguf, "a number is needed"),
        key("adapter.lora.alpha", Some(Value::Number(f64::INFINITY)), MalformedModel, "inf is no factor"),
        key(
            "adapter.alora.invocation_tokens",
            Some(Value::Integers(vec![1])),
            UnsupportedFormat,
            "after certain tokens",
        ),
        Damage {
            files: GGUF,
            damage: Box::new(|adapter| adapter.metadata.architecture = "qwen2".into()),
            kind: MalformedModel,
            place: "general.architecture",
            words: "\"llama\" is needed, \"qwen2\" is there: an adapter of another base",
        },
        tensor(
            GGUF,
            "blk.0.ffn_up.weight.lora_a",
            |t| t.name = "blk.0.ffn_up_exps.weight.lora_a".into(),
            MalformedModel,
            "blk.0.ffn_up.weight.lora_a",
            "missing",
        ),
        tensor(
            GGUF,
            "blk.0.ffn_up.weight.lora_a",
            |t| t.name = "blk.0.ffn_up.weight".into(),
            UnsupportedFormat,
            "blk.0.ffn_up.weight",
            "only lora_a and lora_b",
        ),
    ]
}

/// What is wrong about an error, if something is.
fn amiss(found: Result<impl Sized>, kind: ErrorKind, place: &str, words: &str) -> Option<String> {
    let wrong = |error: &Error| error.kind() != kind || error.place() != place || !error.message().contains(words);
    match found {
        Ok(_) => Some(format!("{place}: ..{words}..: no error")),
        Err(error) => wrong(&error).then(|| format!("{kind:?} {place}: ..{words}..: {:?} {error}", error.kind())),
    }
}

#[test]
fn damaged_adapters_are_refused_by_name() {
    let (llama, qwen3) = (headwater::model::plan(&open(LLAMA)).unwrap(), headwater::model::plan(&open(QWEN3)).unwrap());
    let mut failures = vec![];
    for Damage { files, damage, kind, place, words } in damages() {
        let base = if files == DORA { &qwen3 } else { &llama };
        let mut damaged = adapter(files);
        assert!(plan_adapter(base, &damaged).is_ok(), "{files:?}: whole");
        damage(&mut damaged);
        // A name between is older peft's, and means the same.
        if words.is_empty() {
            assert!(plan_adapter(base, &damaged).is_ok());
            continue;
        }
        failures.extend(amiss(plan_adapter(base, &damaged), kind, place, words));
    }
    // Another model altogether.
    let other = plan_adapter(&qwen3, &adapter(PEFT));
    let place = "base_model.model.model.layers.0.mlp.down_proj.lora_A.weight";
    let same_shapes = plan_adapter(&qwen3, &adapter(GGUF));
    failures.extend(amiss(same_shapes, ErrorKind::MalformedModel, "general.architecture", "another base"));
    assert!(other.is_err(), "{place}");
    assert!(failures.is_empty(), "{failures:#?}");
}

#[test]
fn adapters_that_do_not_fit_the_experts_are_refused_by_name() {
    use ErrorKind::{MalformedModel, UnsupportedFormat};
    const W1_B: &str = "base_model.model.model.layers.0.block_sparse_moe.experts.1.w1.lora_B.weight";
    const DOWN_B: &str = "base_model.model.model.layers.0.mlp.experts.lora_B.weight";
    const NESTED_A: &str = "base_model.model.model.layers.0.mlp.experts.base_layer.lora_A.weight";
    let renamed = |files, from: &'static str, to: &'static str, kind, place, words| {
        let damage = Box::new(move |adapter: &mut Checkpoint| {
            adapter.tensors.iter_mut().for_each(|tensor| tensor.name = tensor.name.replace(from, to));
        });
        Damage { files, damage, kind, place, words }
    };
    let damages = [
        renamed(
            EXPERTS,
            "layers.0.block_sparse_moe.experts.1.",
            "layers.0.block_sparse_moe.experts.9.",
            UnsupportedFormat,
            "model.layers.0.block_sparse_moe.experts.9.w1",
            "no matrix of that name",
        ),
        tensor(EXPERTS, W1_B, |t| t.shape = vec![95, 4], MalformedModel, W1_B, "shape [95, 4] where [96, 4] is needed"),
        tensor(PARAMETERS, DOWN_B, |t| t.shape = vec![64, 23], MalformedModel, DOWN_B, "23 columns for 8 experts"),
        tensor(PARAMETERS, NESTED_A, |t| t.shape = vec![24, 60], MalformedModel, NESTED_A, "where [24, 48] is needed"),
        // One expert's pair beside that of all.
        renamed(
            PARAMETERS,
            "layers.0.self_attn.q_proj",
            "layers.0.mlp.experts.down_proj",
            MalformedModel,
            "base_model.model.model.layers.0.mlp.experts.down_proj.lora_A.weight",
            "shape [3, 64] where [3, 48] is needed",
        ),
    ];
    let mut failures = vec![];
    for Damage { files, damage, kind, place, words } in damages {
        let base = headwater::model::plan(&open(if files == EXPERTS { MIXTRAL } else { QWEN3MOE })).unwrap();
        let mut damaged = adapter(files);
        assert!(plan_adapter(&base, &damaged).is_ok(), "{files:?}: whole");
        damage(&mut damaged);
        failures.extend(amiss(plan_adapter(&base, &damaged), kind, place, words));
    }
    // The same experts twice: an expert's own pair, and that of all of them.
    let mut both = adapter(PARAMETERS);
    for tensor in &mut both.tensors {
        let own = "layers.0.mlp.experts.0.down_proj";
        if tensor.name.contains("layers.0.self_attn.q_proj") {
            tensor.name = tensor.name.replace("layers.0.self_attn.q_proj", own);
            if tensor.name.contains("lora_A") {
                (tensor.shape, tensor.size_bytes) = (vec![3, 48], 3 * 48 * 4);
            }
        }
    }
    let base = headwater::model::plan(&open(QWEN3MOE)).unwrap();
    let (place, words) =
        ("model.layers.0.mlp.experts.0.down_proj", "changes the same matrix, blk.0.ffn_down_exps.weight");
    failures.extend(amiss(plan_adapter(&base, &both), MalformedModel, place, words));
    assert!(failures.is_empty(), "{failures:#?}");
}

#[test]
fn files_that_are_no_adapter_are_refused_by_name() {
    let memory = |name: &str, bytes: &[u8]| Rc::new(MemorySource::new(name, bytes.to_vec())) as Rc<dyn Source>;
    let opened = |files: Vec<Rc<dyn Source>>| block_on(Checkpoint::open_adapter(files));
    let (config, weights) = (source(PEFT[0]), source(PEFT[1]));
    let pickle = memory("adapter_model.bin", b"\x80\x02}");
    let cases = [
        (vec![config.clone()], ErrorKind::NotFound, "", "adapter_model.safetensors is not among the files"),
        (vec![weights.clone()], ErrorKind::NotFound, "", "adapter_config.json is not among the files"),
        (vec![config.clone(), pickle.clone()], ErrorKind::UnsupportedFormat, "adapter_model.bin", "a pickle"),
        (vec![pickle], ErrorKind::UnsupportedFormat, "adapter_model.bin", "this is"),
        (vec![], ErrorKind::NotFound, "", "is not among the files"),
        (
            vec![config, memory("adapter_model.safetensors", b"\x02\0\0\0\0\0\0\0{}x")],
            ErrorKind::MalformedSafetensors,
            "adapter_model.safetensors",
            "behind its header",
        ),
        (
            vec![memory("adapter_config.json", &[0xff]), weights],
            ErrorKind::MalformedModel,
            "adapter_config.json",
            "not UTF-8",
        ),
    ];
    let failures: Vec<String> =
        cases.into_iter().filter_map(|(files, kind, place, words)| amiss(opened(files), kind, place, words)).collect();
    assert!(failures.is_empty(), "{failures:#?}");
    // An adapter is not a model either.
    let error = headwater::model::plan(&open(GGUF)).err().unwrap();
    assert_eq!((error.kind(), error.place().as_str()), (ErrorKind::UnsupportedFormat, "general.type"), "{error}");
}
