//! Models that do not hold together are refused by name, before a weight byte is read; calls that make no sense are
//! refused before anything is computed.

mod common;

use common::open;
use headwater::cpu::Cpu;
use headwater::error::{Error, ErrorKind, Result};
use headwater::format::{Checkpoint, TensorInfo, Value};
use headwater::graph::{Backend, Decode, KvFormat, Row, SamplerSettings, Step, Ticket, WeightId, WeightKind};
use headwater::model::{Plan, WeightSink, plan, read_weights};
use headwater::quant::FormatId;

const HUB: &[&str] = &["tests/data/models/llama3/config.json", "tests/data/models/llama3/model.safetensors"];
const QWEN3: &[&str] = &["tests/data/models/qwen3/config.json", "tests/data/models/qwen3/model.safetensors"];
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
        set(GGUF, "llama.expert_count", integer(8), UnsupportedFormat, "8 is not supported"),
        set(GGUF, "llama.attention.sliding_window", integer(4096), UnsupportedFormat, "4096 is not supported"),
        without(GGUF, "llama.block_count"),
        without(GGUF, "llama.attention.layer_norm_rms_epsilon"),
        set(HUB, "num_attention_heads", integer(0), MalformedModel, "0 is not between"),
        set(HUB, "num_key_value_heads", integer(8), MalformedModel, "evenly"),
        set(HUB, "num_hidden_layers", integer(1025), MalformedModel, "1025 is not between 1 and 1024"),
        set(HUB, "vocab_size", integer(0), MalformedModel, "0 is not between"),
        set(HUB, "rms_norm_eps", text("1e-5"), MalformedModel, "a text is there"),
        set(HUB, "attention_bias", Value::Bool(true), UnsupportedFormat, "true is not supported"),
        set(HUB, "mlp_bias", Value::Bool(true), UnsupportedFormat, "true is not supported"),
        set(HUB, "hidden_act", text("gelu"), UnsupportedFormat, "gelu is not supported"),
        set(HUB, "partial_rotary_factor", Value::Number(0.5), UnsupportedFormat, "0.5 is not supported"),
        set(HUB, "quantization_config.quant_method", text("gptq"), UnsupportedFormat, "gptq is not supported"),
        set(HUB, "rope_scaling.rope_type", text("longrope"), UnsupportedFormat, "\"longrope\""),
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
            words: "\"mamba\" is not supported; supported are llama, qwen3",
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
                let name = "model.layers.1.self_attn.q_proj.bias".to_owned();
                let bias = TensorInfo { name, ..checkpoint.tensors[0].clone() };
                checkpoint.tensors.push(bias);
            }),
            kind: UnsupportedFormat,
            place: "model.layers.1.self_attn.q_proj.bias",
            words: "biases are not supported",
        },
        Damage {
            files: HUB,
            damage: Box::new(|checkpoint| {
                // 172 rows and columns inside the feed-forward block are no multiple of eight.
                checkpoint.metadata.values.insert("intermediate_size".into(), integer(172));
                for tensor in checkpoint.tensors.iter_mut().filter(|tensor| tensor.name.contains(".mlp.")) {
                    tensor.shape.iter_mut().filter(|len| **len == 160).for_each(|len| *len = 172);
                    tensor.size_bytes = tensor.size_bytes / 160 * 172;
                }
            }),
            kind: UnsupportedFormat,
            place: "model.layers.0.mlp.down_proj.weight",
            words: "rows of 172 weights are no multiple of 8",
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

#[test]
fn damaged_models_are_refused_by_name() {
    let mut failures = vec![];
    for Damage { files, damage, kind, place, words } in damages() {
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

fn load(checkpoint: &Checkpoint, plan: &Plan) -> Result<Cpu> {
    let mut cpu = Cpu::new(plan, KvFormat::F32, 4)?;
    pollster::block_on(read_weights(checkpoint, plan, &mut cpu, &mut |_, _| Ok(())))?;
    Ok(cpu)
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
    let error = load(&checkpoint, &plan).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::SizeMismatch);
    assert!(error.place().starts_with("output.weight"), "{error}");
}

/// Turns every weight of one tensor to NaN on its way.
struct Poison {
    cpu: Cpu,
    weight: WeightId,
}

impl WeightSink for Poison {
    fn rows(&mut self, weight: WeightId, first_row: usize, bytes: &[u8]) -> Result<()> {
        if weight == self.weight {
            return self.cpu.rows(weight, first_row, &vec![0xff; bytes.len()]);
        }
        self.cpu.rows(weight, first_row, bytes)
    }
}

fn rows(ids: &[u32]) -> Vec<Row> {
    ids.iter().zip(0..).map(|(token, position)| Row { token: *token, position, sequence: 0 }).collect()
}

#[test]
fn logits_that_are_not_numbers_are_bad_logits() {
    let checkpoint = open(HUB);
    let plan = plan(&checkpoint).unwrap();
    let weight = plan.graph.weights.iter().position(|weight| weight.name == "blk.1.ffn_up.weight").unwrap();
    let mut poison = Poison { cpu: Cpu::new(&plan, KvFormat::F16, 1).unwrap(), weight: WeightId(weight) };
    pollster::block_on(read_weights(&checkpoint, &plan, &mut poison, &mut |_, _| Ok(()))).unwrap();
    let cpu = poison.cpu;

    let rows = rows(&[1, 2, 3]);
    let step = Step { rows: &rows, pages: &[vec![0]], outputs: &[2] };
    assert_eq!(pollster::block_on(cpu.forward(&step)).unwrap_err().kind(), ErrorKind::BadLogits);
    // A chain tells it when its ids are collected, as a GPU does.
    cpu.start_reply(&SamplerSettings::default(), &[1, 2, 3]).unwrap();
    let ticket = cpu.prefill(&step).unwrap().unwrap();
    assert_eq!(pollster::block_on(cpu.collect(ticket)).unwrap_err().kind(), ErrorKind::BadLogits);
}

#[test]
fn steps_that_make_no_sense_are_invalid_arguments() {
    let checkpoint = open(HUB);
    let plan = plan(&checkpoint).unwrap();
    let cpu = load(&checkpoint, &plan).unwrap();
    let row = |token, position, sequence| Row { token, position, sequence };
    let one_page = vec![vec![0]];
    let cases = [
        (vec![], one_page.clone(), vec![], "0 rows"),
        (vec![row(0, 0, 0); cpu.max_rows() + 1], one_page.clone(), vec![], "129 rows"),
        (vec![row(640, 0, 0)], one_page.clone(), vec![], "the id 640 is not below 640"),
        (vec![row(u32::MAX, 0, 0)], one_page.clone(), vec![], "the id 4294967295"),
        (vec![row(0, 32, 0)], one_page.clone(), vec![], "position 32 is past the 1 pages"),
        (vec![row(0, u32::MAX, 0)], one_page.clone(), vec![], "position 4294967295"),
        (vec![row(0, 0, 1)], one_page.clone(), vec![], "sequence 1 of 1"),
        (vec![row(0, 0, 0)], vec![vec![4]], vec![], "page 4 of 4"),
        (vec![row(0, 3, 0), row(0, 3, 0)], one_page.clone(), vec![], "does not ascend"),
        (vec![row(0, 0, 0)], one_page.clone(), vec![1], "output 1 of 1"),
    ];
    let mut failures = vec![];
    for (rows, pages, outputs, words) in &cases {
        let step = Step { rows, pages, outputs };
        for error in [pollster::block_on(cpu.forward(&step)).err(), cpu.prefill(&step).err()] {
            failures.extend(amiss(error, ErrorKind::InvalidArgument, "step", words));
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
}

#[test]
fn replies_that_make_no_sense_are_refused() {
    let checkpoint = open(HUB);
    let plan = plan(&checkpoint).unwrap();
    let cpu = load(&checkpoint, &plan).unwrap();
    let kind = |result: Result<_>| result.map(|_: Ticket| ()).unwrap_err().kind();

    let error = cpu.start_reply(&SamplerSettings::default(), &[3, 640]).unwrap_err();
    assert_eq!((error.kind(), error.place().as_str()), (ErrorKind::InvalidArgument, "prompt"));

    cpu.start_reply(&SamplerSettings::default(), &[]).unwrap();
    let chain = Decode { token: None, position: 0, count: 1, pages: &[0], index: 0 };
    assert_eq!(kind(cpu.decode(&chain)), ErrorKind::InvalidArgument, "no id to go on from");
    assert_eq!(kind(cpu.decode(&Decode { token: Some(640), ..chain })), ErrorKind::InvalidArgument);
    assert_eq!(kind(cpu.decode(&Decode { token: Some(1), pages: &[], ..chain })), ErrorKind::InvalidArgument);
    let past = Decode { token: Some(1), position: 31, count: 2, ..chain };
    assert_eq!(kind(cpu.decode(&past)), ErrorKind::InvalidArgument, "past the pages");

    let two_outputs = Step { rows: &rows(&[1, 2]), pages: &[vec![0]], outputs: &[0, 1] };
    assert_eq!(cpu.prefill(&two_outputs).unwrap_err().kind(), ErrorKind::InvalidArgument);

    // Two tickets may be open; they are collected in order; a new reply closes what is left.
    cpu.start_reply(&SamplerSettings::default(), &[]).unwrap();
    let first = cpu.decode(&Decode { token: Some(1), ..chain }).unwrap();
    let second = cpu.decode(&Decode { position: 1, ..chain }).unwrap();
    assert_eq!(kind(cpu.decode(&Decode { position: 2, ..chain })), ErrorKind::Internal, "a third ticket");
    assert!(pollster::block_on(cpu.collect(first)).is_ok());
    cpu.start_reply(&SamplerSettings::default(), &[]).unwrap();
    assert_eq!(pollster::block_on(cpu.collect(second)).unwrap_err().kind(), ErrorKind::Internal);
}

#[test]
fn a_backend_without_its_weights_says_so() {
    let plan = plan(&open(HUB)).unwrap();
    let cpu = Cpu::new(&plan, KvFormat::F16, 1).unwrap();
    let step = Step { rows: &rows(&[1]), pages: &[vec![0]], outputs: &[0] };
    let error = pollster::block_on(cpu.forward(&step)).unwrap_err();
    assert_eq!((error.kind(), error.place().as_str()), (ErrorKind::Internal, "token_embd.weight"));
}

#[test]
fn weights_out_of_turn_are_refused() {
    let plan = plan(&open(HUB)).unwrap();
    let mut cpu = Cpu::new(&plan, KvFormat::F16, 1).unwrap();
    for (first_row, len) in [(1, 128), (0, 127), (0, 641 * 128)] {
        let error = cpu.rows(WeightId(0), first_row, &vec![0; len]).unwrap_err();
        assert_eq!((error.kind(), error.place().as_str()), (ErrorKind::Internal, "token_embd.weight"));
    }
    assert_eq!(cpu.rows(WeightId(usize::MAX), 0, &[]).unwrap_err().kind(), ErrorKind::Internal);
}

#[test]
fn more_pages_than_there_is_memory_for_are_a_limit() {
    let plan = plan(&open(HUB)).unwrap();
    for n_pages in [usize::MAX, usize::MAX / 4096] {
        let error = Cpu::new(&plan, KvFormat::F32, n_pages).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::LimitExceeded, "{n_pages}");
    }
}
