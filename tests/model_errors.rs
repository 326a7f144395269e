//! Models that do not hold together are refused by name, before a weight byte is read; weights arrive as promised.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

mod common;

use common::open;
use headwater::error::{Error, ErrorKind, Result};
use headwater::format::{Checkpoint, TensorInfo, Value};
use headwater::graph::{WeightId, WeightKind};
use headwater::model::{WeightSink, plan, read_weights};
use headwater::quant::FormatId;

const HUB: &[&str] = &["tests/data/models/llama3/config.json", "tests/data/models/llama3/model.safetensors"];
const QWEN3: &[&str] = &["tests/data/models/qwen3/config.json", "tests/data/models/qwen3/model.safetensors"];
const MIXTRAL: &[&str] = &["tests/data/gguf/mixtral-Q4_0.gguf"];
const QWEN3MOE: &[&str] = &["tests/data/models/qwen3moe/config.json", "tests/data/models/qwen3moe/model.safetensors"];
const GPT_OSS: &[&str] = &["tests/data/models/gpt-oss/config.json", "tests/data/models/gpt-oss/model.safetensors"];
const LLAMA4: &[&str] = &["tests/data/models/llama4/config.json", "tests/data/models/llama4/model.safetensors"];
const GGUF: &[&str] = &["tests/data/gguf/llama3-Q4_0.gguf"];

/// A damage, and the error that it must give.
struct Damage {
    files: &'static [&'static str],
    damage: Box<dyn Fn(&mut Checkpoint)>,
    kind: ErrorKind,
    place: &'static str,
    words: &'static str,
}

fn set(
    files: &'static [&'static str],
    key: &'static str,
    value: Value,
    kind: ErrorKind,
    words: &'static str,
) -> Damage {
    let damage = Box::new(move |checkpoint: &mut Checkpoint| {
        checkpoint.metadata.values.insert(key.into(), value.clone());
    });
    Damage { files, damage, kind, place: key, words }
}

fn without(files: &'static [&'static str], key: &'static str) -> Damage {
    let damage = Box::new(move |checkpoint: &mut Checkpoint| {
        assert!(checkpoint.metadata.values.remove(key).is_some(), "{key}");
    });
    Damage { files, damage, kind: ErrorKind::MalformedModel, place: key, words: "missing" }
}

/// A key that says that there are biases where there are none.
fn promised(files: &'static [&'static str], key: &'static str, place: &'static str) -> Damage {
    Damage { place, ..set(files, key, Value::Bool(true), ErrorKind::MalformedModel, "missing") }
}

/// A value that another key or a tensor does not go with.
fn missed(
    files: &'static [&'static str],
    key: &'static str,
    value: Value,
    place: &'static str,
    words: &'static str,
) -> Damage {
    Damage { place, ..set(files, key, value, ErrorKind::MalformedModel, words) }
}

fn tensor(
    files: &'static [&'static str],
    name: &'static str,
    change: impl Fn(&mut TensorInfo) + 'static,
    words: &'static str,
) -> Damage {
    let damage = Box::new(move |checkpoint: &mut Checkpoint| {
        change(checkpoint.tensors.iter_mut().find(|tensor| tensor.name == name).unwrap());
    });
    Damage { files, damage, kind: ErrorKind::MalformedModel, place: name, words }
}

fn integer(integer: i128) -> Value {
    Value::Integer(integer)
}

fn text(text: &str) -> Value {
    Value::Text(text.into())
}

fn damages() -> Vec<Damage> {
    use ErrorKind::{MalformedGguf, MalformedModel, UnsupportedFormat};
    vec![
        set(GGUF, "llama.attention.head_count", integer(0), MalformedModel, "0 is not between 1 and 1024"),
        set(GGUF, "llama.attention.head_count", integer(-4), MalformedGguf, "non-negative"),
        set(GGUF, "llama.attention.head_count", text("4"), MalformedGguf, "a text is there"),
        set(GGUF, "llama.attention.head_count", Value::Integers(vec![4, 4]), MalformedGguf, "an array is there"),
        set(GGUF, "llama.attention.head_count_kv", integer(0), MalformedModel, "0 is not between"),
        set(GGUF, "llama.attention.head_count_kv", integer(8), MalformedModel, "4 heads cannot share 8 key heads"),
        set(GGUF, "llama.attention.head_count_kv", integer(3), MalformedModel, "evenly"),
        set(GGUF, "llama.block_count", integer(0), MalformedModel, "0 is not between"),
        set(GGUF, "llama.block_count", integer(1 << 31), MalformedModel, "between 1 and 1024"),
        set(GGUF, "llama.block_count", integer(1 << 64), MalformedGguf, "non-negative integer"),
        set(GGUF, "llama.embedding_length", integer(1 << 40), MalformedModel, "between"),
        set(GGUF, "llama.feed_forward_length", integer(0), MalformedModel, "between"),
        set(GGUF, "llama.context_length", integer(0), MalformedModel, "between"),
        set(GGUF, "llama.attention.key_length", integer(15), MalformedModel, "15 elements cannot be rotated in pairs"),
        set(GGUF, "llama.attention.value_length", integer(32), UnsupportedFormat, "values of 32 elements"),
        set(GGUF, "llama.rope.dimension_count", integer(7), MalformedModel, "7 rotary dimensions"),
        set(GGUF, "llama.rope.dimension_count", integer(64), MalformedModel, "64 rotary dimensions in heads of 16"),
        set(GGUF, "llama.rope.freq_base", Value::Number(0.0), MalformedModel, "between"),
        set(GGUF, "llama.rope.freq_base", Value::Number(f64::NAN), MalformedModel, "NaN is not between"),
        set(GGUF, "llama.rope.scaling.type", text("yarn"), UnsupportedFormat, "\"yarn\" is not supported"),
        set(GGUF, "llama.attention.layer_norm_rms_epsilon", Value::Number(-1.0), MalformedModel, "between 0 and 1"),
        missed(GGUF, "llama.expert_count", integer(8), "llama.expert_used_count", "missing"),
        set(GGUF, "llama.attention.sliding_window", integer(4096), UnsupportedFormat, "4096 is not supported"),
        without(GGUF, "llama.block_count"),
        without(GGUF, "llama.attention.layer_norm_rms_epsilon"),
        set(HUB, "num_attention_heads", integer(0), MalformedModel, "0 is not between"),
        set(HUB, "num_key_value_heads", integer(8), MalformedModel, "evenly"),
        set(HUB, "num_hidden_layers", integer(1025), MalformedModel, "1025 is not between 1 and 1024"),
        set(HUB, "vocab_size", integer(0), MalformedModel, "0 is not between"),
        set(HUB, "rms_norm_eps", text("1e-5"), MalformedModel, "a text is there"),
        promised(HUB, "attention_bias", "model.layers.0.self_attn.q_proj.bias"),
        promised(HUB, "mlp_bias", "model.layers.0.mlp.gate_proj.bias"),
        set(HUB, "hidden_act", text("gelu"), UnsupportedFormat, "gelu is not supported"),
        set(HUB, "partial_rotary_factor", Value::Number(0.05), MalformedModel, "0 rotary dimensions in heads of 16"),
        set(HUB, "quantization_config.quant_method", text("rumour"), UnsupportedFormat, "rumour is not supported"),
        set(HUB, "rope_scaling.rope_type", text("dynamic"), UnsupportedFormat, "\"dynamic\""),
        set(HUB, "rope_scaling.high_freq_factor", Value::Number(1.0), MalformedModel, "not more than the low factor"),
        set(HUB, "rope_scaling.factor", Value::Number(0.0), MalformedModel, "between"),
        without(HUB, "rope_scaling.original_max_position_embeddings"),
        without(HUB, "num_hidden_layers"),
        set(QWEN3, "use_sliding_window", Value::Bool(true), UnsupportedFormat, "true is not supported"),
        set(
            QWEN3,
            "layer_types",
            Value::Texts(vec!["full_attention".into(), "sliding_attention".into()]),
            UnsupportedFormat,
            "sliding_attention is not supported",
        ),
        tensor(GGUF, "blk.1.attn_q.weight", |tensor| tensor.name = "blk.9.attn_q.weight".into(), "[64, 64]"),
        tensor(GGUF, "blk.0.ffn_down.weight", |tensor| tensor.shape = vec![160, 64], "[160, 64] where [64, 160]"),
        tensor(GGUF, "blk.0.attn_norm.weight", |tensor| tensor.shape = vec![1, 64], "[1, 64] where [64]"),
        tensor(GGUF, "blk.0.attn_k.weight", |tensor| tensor.size_bytes -= 18, "1134 bytes where 1152 are needed"),
        tensor(GGUF, "token_embd.weight", |tensor| tensor.name = "embedding".into(), "missing"),
        tensor(GGUF, "token_embd.weight", |tensor| tensor.shape = vec![0, 64], "shape [0, 64]"),
        tensor(HUB, "lm_head.weight", |tensor| tensor.name = "head".into(), "missing"),
        tensor(HUB, "model.norm.weight", |tensor| tensor.shape = vec![], "[] where [64]"),
        Damage {
            files: GGUF,
            damage: Box::new(|checkpoint| checkpoint.metadata.architecture = "mamba".into()),
            kind: UnsupportedFormat,
            place: "",
            words: "\"mamba\" is not supported; supported are llama, ",
        },
        Damage {
            files: GGUF,
            damage: Box::new(|checkpoint| checkpoint.metadata.small_tensors.values_mut().for_each(|f| f[3] = 0.0)),
            kind: MalformedModel,
            place: "rope_freqs.weight",
            words: "0 is no factor",
        },
        Damage {
            files: GGUF,
            damage: Box::new(|checkpoint| checkpoint.metadata.small_tensors.values_mut().for_each(|f| f.truncate(3))),
            kind: MalformedModel,
            place: "rope_freqs.weight",
            words: "3 factors for 8 pairs",
        },
        Damage {
            files: HUB,
            damage: Box::new(|checkpoint| {
                let name = "model.layers.1.input_layernorm.bias".to_owned();
                let bias = TensorInfo { name, ..checkpoint.tensors[0].clone() };
                checkpoint.tensors.push(bias);
            }),
            kind: UnsupportedFormat,
            place: "model.layers.1.input_layernorm.bias",
            words: "this bias is not supported",
        },
    ]
}

/// What is wrong about an error, if something is.
fn amiss(error: Option<Error>, kind: ErrorKind, place: &str, words: &str) -> Option<String> {
    match error {
        None => Some("no error".into()),
        Some(error) if error.kind() != kind || error.place() != place || !error.message().contains(words) => {
            Some(format!("{:?} {error}", error.kind()))
        }
        Some(_) => None,
    }
}

/// What may be wrong about experts.
fn damaged_experts() -> Vec<Damage> {
    use ErrorKind::{MalformedModel, UnsupportedFormat};
    vec![
        set(MIXTRAL, "llama.expert_used_count", integer(5), MalformedModel, "5 of 4 experts cannot be chosen"),
        set(MIXTRAL, "llama.expert_used_count", integer(0), MalformedModel, "0 is not between"),
        set(MIXTRAL, "llama.expert_count", integer(4096), MalformedModel, "4096 is not between 1 and 1024"),
        set(MIXTRAL, "llama.expert_gating_func", integer(9), UnsupportedFormat, "9 is not supported"),
        set(MIXTRAL, "llama.expert_shared_count", integer(1), UnsupportedFormat, "1 is not supported"),
        missed(MIXTRAL, "llama.expert_group_count", integer(2), "llama.expert_group_used_count", "missing"),
        missed(MIXTRAL, "llama.expert_count", integer(8), "blk.0.ffn_gate_inp.weight", "[4, 64] where [8, 64]"),
        tensor(
            MIXTRAL,
            "blk.1.ffn_up_exps.weight",
            |tensor| tensor.name = "up".into(),
            "missing; its shape would be [4, 96, 64]",
        ),
        tensor(
            MIXTRAL,
            "blk.1.ffn_down_exps.weight",
            |tensor| tensor.shape = vec![3, 64, 96],
            "[3, 64, 96] where [4, 64, 96] is needed",
        ),
        tensor(MIXTRAL, "blk.1.ffn_down_exps.weight", |tensor| tensor.size_bytes -= 18, "13806 bytes where 13824"),
        set(QWEN3MOE, "num_experts_per_tok", integer(9), MalformedModel, "9 of 8 experts cannot be chosen"),
        set(QWEN3MOE, "num_local_experts", integer(4), MalformedModel, "4, where num_experts is 8"),
        set(QWEN3MOE, "moe_intermediate_size", integer(0), MalformedModel, "0 is not between"),
        set(QWEN3MOE, "scoring_func", text("tanh"), UnsupportedFormat, "tanh is not supported"),
        set(QWEN3MOE, "topk_method", text("dice"), UnsupportedFormat, "dice is not supported"),
        set(QWEN3MOE, "n_shared_experts", integer(1), UnsupportedFormat, "1 is not supported"),
        set(QWEN3MOE, "mlp_only_layers", Value::Integers(vec![2]), MalformedModel, "layer 2 of 2"),
        set(QWEN3MOE, "decoder_sparse_step", integer(0), MalformedModel, "0 is not between"),
        missed(QWEN3MOE, "decoder_sparse_step", integer(2), "model.layers.0.mlp.gate_proj.weight", "missing"),
        missed(QWEN3MOE, "n_group", integer(2), "topk_group", "missing"),
        Damage {
            files: QWEN3MOE,
            damage: Box::new(|checkpoint| {
                checkpoint.metadata.values.extend([("n_group".into(), integer(3)), ("topk_group".into(), integer(1))]);
            }),
            kind: MalformedModel,
            place: "n_group",
            words: "8 experts do not make 3 equal groups",
        },
        tensor(
            QWEN3MOE,
            "model.layers.1.mlp.experts.5.up_proj.weight",
            |tensor| tensor.name = "model.layers.1.mlp.experts.8.up_proj.weight".into(),
            "missing; its shape would be [48, 64]",
        ),
        tensor(
            QWEN3MOE,
            "model.layers.0.mlp.experts.7.down_proj.weight",
            |tensor| tensor.shape = vec![48, 64],
            "[48, 64] where [64, 48] is needed",
        ),
        set(GPT_OSS, "swiglu_limit", Value::Number(0.0), MalformedModel, "0 is not between"),
        set(GPT_OSS, "experts_per_token", integer(3), MalformedModel, "3, where num_experts_per_tok is 2"),
        tensor(
            GPT_OSS,
            "model.layers.1.mlp.experts.gate_up_proj",
            |tensor| tensor.shape = vec![4, 128, 64],
            "[4, 128, 64] where [4, 64, 128] is needed",
        ),
        tensor(
            GPT_OSS,
            "model.layers.1.mlp.experts.gate_up_proj_bias",
            |tensor| tensor.name = "bias".into(),
            "missing; its shape would be [4, 128]",
        ),
        tensor(GPT_OSS, "model.layers.0.mlp.router.bias", |tensor| tensor.name = "bias".into(), "missing"),
        tensor(GPT_OSS, "model.layers.0.self_attn.sinks", |tensor| tensor.shape = vec![8], "[8] where [4] is needed"),
        set(LLAMA4, "moe_layers", Value::Integers(vec![4]), MalformedModel, "layer 4 of 4"),
        set(LLAMA4, "floor_scale", integer(0), MalformedModel, "0 is not between"),
        missed(
            LLAMA4,
            "interleave_moe_layer_step",
            integer(1),
            "model.layers.0.feed_forward.shared_expert.gate_proj.weight",
            "missing",
        ),
        without(LLAMA4, "intermediate_size_mlp"),
    ]
}

#[test]
fn damaged_models_are_refused_by_name() {
    let mut failures = vec![];
    for Damage { files, damage, kind, place, words } in damages().into_iter().chain(damaged_experts()) {
        let mut checkpoint = open(files);
        assert!(plan(&checkpoint).is_ok(), "{files:?}: whole");
        damage(&mut checkpoint);
        if let Some(found) = amiss(plan(&checkpoint).err(), kind, place, words) {
            failures.push(format!("{kind:?} {place}: ..{words}.. is needed, found: {found}"));
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
}

#[test]
fn tensors_that_nobody_uses_are_no_matter() {
    let mut checkpoint = open(HUB);
    let extra = TensorInfo { name: "vision_tower.weight".into(), ..checkpoint.tensors[0].clone() };
    checkpoint.tensors.push(extra);
    assert!(plan(&checkpoint).is_ok());
}

/// Weights as they arrive.
#[derive(Default)]
struct Pieces(Vec<(WeightId, usize, usize)>);

impl WeightSink for Pieces {
    fn rows(&mut self, weight: WeightId, first_row: usize, bytes: &[u8]) -> Result<()> {
        self.0.push((weight, first_row, bytes.len()));
        Ok(())
    }
}

#[test]
fn weights_arrive_whole_in_file_order_and_progress_adds_up() {
    for files in [HUB, GGUF, QWEN3] {
        let checkpoint = open(files);
        let plan = plan(&checkpoint).unwrap();
        let mut pieces = Pieces::default();
        let mut seen = vec![];
        let mut progress = |done, total| {
            seen.push((done, total));
            Ok(())
        };
        pollster::block_on(read_weights(&checkpoint, &plan, &mut pieces, &mut progress)).unwrap();
        assert_eq!(seen.first(), Some(&(0, plan.weight_bytes())), "{files:?}");
        assert_eq!(seen.last(), Some(&(plan.weight_bytes(), plan.weight_bytes())), "{files:?}");

        let mut rows = vec![0; plan.graph.weights.len()];
        for (weight, first_row, len) in &pieces.0 {
            let declared = &plan.graph.weights[weight.0];
            if declared.kind == WeightKind::Vector {
                assert_eq!(plan.formats[weight.0], FormatId::F32);
            }
            let row_bytes = plan.formats[weight.0].row_bytes(declared.cols).unwrap();
            assert_eq!((*first_row, len % row_bytes), (rows[weight.0], 0), "{}", declared.name);
            rows[weight.0] += len / row_bytes;
        }
        let declared: Vec<usize> = plan.graph.weights.iter().map(|weight| weight.rows).collect();
        assert_eq!(rows, declared, "{files:?}");
    }
}

#[test]
fn progress_can_end_the_reading() {
    let checkpoint = open(GGUF);
    let plan = plan(&checkpoint).unwrap();
    let mut pieces = Pieces::default();
    let mut progress = |done, _| match done {
        0 => Ok(()),
        _ => Err(Error::new(ErrorKind::Aborted, "enough")),
    };
    let error = pollster::block_on(read_weights(&checkpoint, &plan, &mut pieces, &mut progress)).unwrap_err();
    assert_eq!((error.kind(), pieces.0.len()), (ErrorKind::Aborted, 1));
}

#[test]
fn a_short_read_names_the_tensor() {
    let mut checkpoint = open(GGUF);
    let plan = plan(&checkpoint).unwrap();
    checkpoint.files = vec![common::source("tests/data/models/llama3/config.json")];
    let mut pieces = Pieces::default();
    let error = pollster::block_on(read_weights(&checkpoint, &plan, &mut pieces, &mut |_, _| Ok(()))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SizeMismatch);
    assert!(error.place().starts_with("output.weight"), "{error}");
}
