//! Weights in parts (MLX, GPTQ, AWQ, fp8, nf4) are what an independent writer says they are (`tests/packed/write.py`), to the
//! last bit; models of them compute what their float32 twins do; damaged ones are refused by name.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests say what they expect by failing")]

mod common;
mod text;

use std::collections::BTreeMap;
use std::io::Read;
use std::rc::Rc;

use common::{Tensor, nmse, open_folder, root};
use headwater::cpu::Cpu;
use headwater::error::{Error, ErrorKind};
use headwater::format::Checkpoint;
use headwater::gpu::{Device, Gpu};
use headwater::graph::{Backend, KvFormat, Row, Step};
use headwater::model::{WeightSink, plan, read_weights};
use headwater::source::{MemorySource, Source};
use pollster::block_on;
use safetensors::SafeTensors;
use serde_json::{Value as Json, json};

const LAYOUTS: &[&str] = &[
    "mlx",
    "mlx-g64",
    "gptq",
    "gptq-8",
    "gptq-g64",
    "gptq-order",
    "gptq-8-order",
    "gptq-rows",
    "gptq-8-rows",
    "awq",
    "fp8",
    "fp8-rows",
    "nf4",
];

/// A packed model, taken apart so that it can be damaged.
struct Folder {
    config: Json,
    tensors: BTreeMap<String, Tensor>,
}

fn file(path: &str) -> Vec<u8> {
    let path = root().join("tests/data/packed").join(path);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn tensors(bytes: &[u8]) -> BTreeMap<String, Tensor> {
    let file = SafeTensors::deserialize(bytes).unwrap();
    let tensor = |tensor: safetensors::tensor::TensorView<'_>| {
        (tensor.dtype().to_string(), tensor.shape().to_vec(), tensor.data().to_vec())
    };
    file.iter().map(|(name, found)| (name.to_owned(), tensor(found))).collect()
}

fn twin(layout: &str) -> BTreeMap<String, Tensor> {
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(&*file(&format!("{layout}/twin.safetensors.gz"))).read_to_end(&mut bytes).unwrap();
    tensors(&bytes)
}

impl Folder {
    fn read(layout: &str) -> Self {
        let config = serde_json::from_slice(&file(&format!("{layout}/config.json"))).unwrap();
        Self { config, tensors: tensors(&file(&format!("{layout}/packed.safetensors"))) }
    }

    /// The same model with float32 weights.
    fn twin(layout: &str) -> Self {
        let Self { mut config, .. } = Self::read(layout);
        config.as_object_mut().unwrap().retain(|key, _| !key.starts_with("quantization"));
        Self { config, tensors: twin(layout) }
    }

    fn open(&self) -> Result<Checkpoint, Error> {
        let mut all = tensors(&file("base.safetensors"));
        all.extend(self.tensors.clone());
        open_folder(&self.config, &all)
    }
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<4>().0.iter().map(|raw| f32::from_le_bytes(*raw)).collect()
}

/// The order that a matrix's columns have in the library, where the file has one.
fn order_of(checkpoint: &Checkpoint, matrix: &str) -> Option<Vec<usize>> {
    let tensor = checkpoint.tensor(checkpoint.orders.get(matrix)?).unwrap();
    let bytes = block_on(checkpoint.files[tensor.file].read(tensor.offset, tensor.size_bytes as usize)).unwrap();
    Some(floats(&bytes).into_iter().map(|column| column as usize).collect())
}

/// Numbers that stand in an order, where they were.
fn in_place(row: &[f32], order: &[usize]) -> Vec<f32> {
    let mut placed = vec![f32::NAN; row.len()];
    row.iter().zip(order).for_each(|(number, column)| placed[*column] = *number);
    placed
}

#[test]
fn every_weight_is_its_twins_to_the_last_bit() {
    let (mut compared, mut ordered) = (0, 0);
    for layout in LAYOUTS {
        let files = ["config.json", "model.safetensors.index.json", "packed.safetensors"]
            .map(|name| Rc::new(MemorySource::new(name, file(&format!("{layout}/{name}")))) as Rc<dyn Source>);
        let base: Rc<dyn Source> = Rc::new(MemorySource::new("base.safetensors", file("base.safetensors")));
        let checkpoint = block_on(Checkpoint::open(files.into_iter().chain([base]).collect())).unwrap();
        for (name, (dtype, shape, bytes)) in twin(layout) {
            let tensor = checkpoint.tensor(&name).unwrap_or_else(|| panic!("{layout}: {name}"));
            assert_eq!(tensor.shape, shape, "{layout}: {name}");
            if dtype != "F32" {
                continue;
            }
            let format = tensor.format.format();
            let source = &checkpoint.files[tensor.file];
            let stored = block_on(source.read(tensor.offset, tensor.size_bytes as usize)).unwrap();
            let mut found = vec![f32::NAN; shape.iter().product()];
            (format.decode)(&stored, &mut found);
            if let Some(order) = order_of(&checkpoint, &name) {
                found = found.chunks(order.len()).flat_map(|row| in_place(row, &order)).collect();
                ordered += 1;
            }
            for (index, (found, expected)) in found.iter().zip(floats(&bytes)).enumerate() {
                let place = format!("{layout}: {name} ({}) {index}", format.name);
                assert_eq!(found.to_bits(), expected.to_bits(), "{place}: {found} {expected}");
            }
            // Any range of bytes is what it is of the whole.
            let (at, len) = (stored.len() / 3 + 1, stored.len() / 2);
            assert_eq!(block_on(source.read(tensor.offset + at as u64, len)).unwrap(), stored[at..at + len]);
            compared += 1;
        }
    }
    assert!(compared >= 80 && ordered >= 12, "{compared} weights, {ordered} of them in orders of their own");
}

/// The logits of some ids.
fn logits<B: Backend + WeightSink>(folder: &Folder, make: impl FnOnce(&headwater::model::Plan) -> B) -> Vec<f32> {
    let checkpoint = folder.open().unwrap();
    let plan = plan(&checkpoint).unwrap();
    let mut backend = make(&plan);
    block_on(read_weights(&checkpoint, &plan, &mut backend, &mut |_, _| Ok(()))).unwrap();
    let row = |position: u32| Row { token: (position * 37 + 11) % 640, position, sequence: 0, segment: 0 };
    let rows: Vec<Row> = (0..20).map(row).collect();
    let outputs: Vec<u32> = (0..20).collect();
    block_on(backend.forward(&Step { rows: &rows, pages: &[vec![0]], outputs: &outputs, states: &[] })).unwrap()
}

#[test]
fn nested_magnitudes_stay_what_they_are() {
    use headwater::quant::FormatId;
    let folder = Folder::read("nf4-nested");
    let checkpoint = folder.open().unwrap();
    let twin = twin("nf4-nested");
    for name in ["wide", "narrow", "odd"] {
        let tensor = checkpoint.tensor(&format!("{name}.weight")).unwrap();
        assert_eq!(tensor.format, FormatId::Nf4Nested);
        let stored = block_on(checkpoint.files[tensor.file].read(tensor.offset, tensor.size_bytes as usize)).unwrap();
        let (_, shape, bytes) = &twin[&tensor.name];
        assert_eq!(tensor.shape, *shape);
        let mut found = vec![f32::NAN; shape.iter().product()];
        (tensor.format.format().decode)(&stored, &mut found);
        assert_eq!(found, floats(bytes), "{name}");
    }
    // Levels that are not the library's are multiplied in.
    let mut folder = Folder::read("nf4-nested");
    let levels = &mut folder.tensors.get_mut("wide.weight.nested_quant_map").unwrap().2;
    levels[..4].copy_from_slice(&(-0.5f32).to_le_bytes());
    assert_eq!(folder.open().unwrap().tensor("wide.weight").unwrap().format, FormatId::Nf4);
}

#[test]
fn models_compute_what_their_twins_do() {
    let device = block_on(Device::of_thread()).expect("an adapter; software Vulkan will do");
    for layout in LAYOUTS {
        let cpu = |folder: &Folder| logits(folder, |plan| Cpu::new(plan, KvFormat::F32, 1).unwrap());
        let expected = cpu(&Folder::twin(layout));
        let packed = Folder::read(layout);
        if layout.ends_with("order") {
            // Sums of the same products in another order.
            let error = nmse(&cpu(&packed), &expected);
            assert!(error <= 1e-12, "{layout}: {error:.1e}");
        } else {
            assert_eq!(cpu(&packed), expected, "{layout}");
        }
        let found = logits(&packed, |plan| block_on(Gpu::new(&device, plan, KvFormat::F32, 1)).unwrap());
        let error = nmse(&found, &expected);
        println!("{layout}: {error:.1e}");
        assert!(error <= 1e-10, "{layout}: {error:.1e}");
    }
}

/// What is done to a folder, and the error that must come of it.
struct Damage {
    layout: &'static str,
    damage: Box<dyn Fn(&mut Folder)>,
    kind: ErrorKind,
    place: &'static str,
    words: &'static str,
}

const Q: &str = "model.layers.0.self_attn.q_proj";

fn remove(name: &'static str) -> Box<dyn Fn(&mut Folder)> {
    Box::new(move |folder| assert!(folder.tensors.remove(&format!("{Q}{name}")).is_some(), "{name}"))
}

/// Cuts a tensor to the first `rows` of its rows.
fn cut(name: &'static str, rows: usize) -> Box<dyn Fn(&mut Folder)> {
    Box::new(move |folder| {
        let (_, shape, data) = folder.tensors.get_mut(&format!("{Q}{name}")).unwrap();
        data.truncate(data.len() / shape[0] * rows);
        shape[0] = rows;
    })
}

fn set(keys: &'static [&'static str], value: Json) -> Box<dyn Fn(&mut Folder)> {
    Box::new(move |folder| {
        let place = keys.iter().fold(&mut folder.config, |place, key| &mut place[*key]);
        *place = value.clone();
    })
}

fn change(name: &'static str, change: fn(&mut Tensor)) -> Box<dyn Fn(&mut Folder)> {
    Box::new(move |folder| change(folder.tensors.get_mut(&format!("{Q}{name}")).unwrap()))
}

fn damages() -> Vec<Damage> {
    use ErrorKind::{MalformedModel, UnsupportedFormat};
    let damage = |layout, damage, kind, place, words| Damage { layout, damage, kind, place, words };
    // Weights are put together in the order of their names.
    const GATE: &str = "model.layers.0.mlp.gate_proj.weight";
    const GATE_SCALES: &str = "model.layers.0.mlp.gate_proj.scales";
    const METHOD: &[&str] = &["quantization_config", "quant_method"];
    vec![
        damage("mlx", remove(".scales"), MalformedModel, ".scales", "the tensor is missing"),
        damage("mlx", remove(".biases"), MalformedModel, ".biases", "the tensor is missing"),
        damage("mlx", cut(".weight", 32), MalformedModel, ".scales", "shape [64, 2] where [32, 2] is needed"),
        damage("mlx", cut(".biases", 63), MalformedModel, ".biases", "shape [63, 2] where [64, 2] is needed"),
        damage("mlx", set(&["quantization", "group_size"], json!(64)), MalformedModel, GATE_SCALES, "where [160, 1]"),
        damage("mlx", set(&["quantization", "group_size"], json!(48)), UnsupportedFormat, GATE, "groups of 48"),
        damage("mlx", set(&["quantization", "bits"], json!(3)), UnsupportedFormat, GATE, "3 bits"),
        damage("mlx", set(&["quantization"], json!({})), MalformedModel, "quantization.bits", "the key is missing"),
        damage("mlx", set(&["quantization", "mode"], json!("mxfp4")), UnsupportedFormat, "quantization.mode", "mxfp4"),
        damage("mlx", change(".scales", |tensor| tensor.0 = "I16".into()), MalformedModel, ".scales", "type I16"),
        damage("gptq", remove(".qzeros"), MalformedModel, ".qzeros", "the tensor is missing"),
        damage("gptq", cut(".qweight", 4), MalformedModel, ".qzeros", "shape [2, 8] where [1, 8] is needed"),
        damage("gptq", cut(".qweight", 7), MalformedModel, ".qweight", "rows of 56 numbers are no whole groups of 32"),
        damage("gptq", cut(".scales", 1), MalformedModel, ".scales", "shape [1, 64] where [2, 64] is needed"),
        damage(
            "gptq",
            set(&["quantization_config", "group_size"], json!(64)),
            MalformedModel,
            "model.layers.0.mlp.gate_proj.qzeros",
            "shape [2, 20] where [1, 20]",
        ),
        damage(
            "gptq",
            set(&["quantization_config", "group_size"], json!(-1)),
            MalformedModel,
            "model.layers.0.mlp.gate_proj.qzeros",
            "shape [2, 20] where [1, 20]",
        ),
        damage(
            "gptq",
            set(&["quantization_config", "group_size"], json!(-2)),
            MalformedModel,
            "quantization_config.group_size",
            "non-negative",
        ),
        damage(
            "gptq-order",
            change(".g_idx", |tensor| tensor.2[..4].copy_from_slice(&9u32.to_le_bytes())),
            MalformedModel,
            ".g_idx",
            "column 0 has the group 9 of 2",
        ),
        damage(
            "gptq-order",
            change(".g_idx", |tensor| tensor.2.fill(0)),
            UnsupportedFormat,
            ".g_idx",
            "the group 1 has not 32 columns",
        ),
        damage(
            "gptq",
            set(&["quantization_config", "bits"], json!(3)),
            UnsupportedFormat,
            "quantization_config.bits",
            "3",
        ),
        damage("gptq", set(METHOD, json!("rumour")), UnsupportedFormat, "quantization_config.quant_method", "rumour"),
        damage("gptq", set(METHOD, Json::Null), MalformedModel, "model.layers.0.mlp.gate_proj.qweight", "is missing"),
        damage("awq", cut(".qweight", 32), MalformedModel, ".qzeros", "shape [2, 8] where [1, 8] is needed"),
        damage(
            "awq",
            set(&["quantization_config", "version"], json!("gemv")),
            UnsupportedFormat,
            "quantization_config.version",
            "gemv",
        ),
        damage("fp8", remove(".weight_scale_inv"), MalformedModel, ".weight_scale_inv", "the scales are missing"),
        damage(
            "fp8",
            change(".weight_scale_inv", |tensor| *tensor = ("F32".into(), vec![2, 2], vec![0; 16])),
            MalformedModel,
            ".weight_scale_inv",
            "shape [2, 2] where [1, 1] is needed",
        ),
        damage(
            "fp8",
            set(&["quantization_config", "weight_block_size"], json!([64, 64])),
            UnsupportedFormat,
            "quantization_config.weight_block_size",
            "128 x 128",
        ),
        damage("fp8-rows", cut(".weight_scale", 63), MalformedModel, ".weight_scale", "shape [63, 1] where"),
        damage("nf4", remove(".weight.absmax"), MalformedModel, ".weight.absmax", "the tensor is missing"),
        damage("nf4", cut(".weight.absmax", 63), MalformedModel, ".weight.absmax", "shape [63] where [64] is needed"),
        damage("nf4", cut(".weight", 2047), MalformedModel, ".weight", "2047 bytes where 2048 are needed for 64 x 64"),
        damage(
            "nf4",
            change(".weight.quant_map", |tensor| tensor.2[0] = 1),
            UnsupportedFormat,
            ".weight.quant_map",
            "nf4",
        ),
        damage("nf4", remove(".weight.quant_state.bitsandbytes__nf4"), UnsupportedFormat, ".weight", "U8"),
        damage(
            "nf4",
            change(".weight.quant_state.bitsandbytes__nf4", |tensor| tensor.2[0] = b'x'),
            MalformedModel,
            ".weight.quant_state.bitsandbytes__nf4",
            "not JSON",
        ),
        damage(
            "fp8",
            change(".weight", |tensor| tensor.0 = "I8".into()),
            UnsupportedFormat,
            ".weight",
            "number type I8",
        ),
    ]
}

fn check(failures: &mut Vec<String>, damage: &Damage, error: Option<Error>) {
    let Damage { layout, kind, place, words, .. } = damage;
    let place = if place.starts_with('.') { format!("{Q}{place}") } else { (*place).to_owned() };
    match error {
        Some(error) if error.kind() == *kind && error.place() == place && error.message().contains(words) => {}
        other => {
            let found = other.map_or("no error".into(), |error| format!("{:?} {error}", error.kind()));
            failures.push(format!("{layout}: {kind:?} {place}: ..{words}.. is needed, found: {found}"));
        }
    }
}

#[test]
fn damaged_parts_are_refused_by_name() {
    let mut failures = vec![];
    for damage in damages() {
        let mut folder = Folder::read(damage.layout);
        (damage.damage)(&mut folder);
        check(&mut failures, &damage, folder.open().err());
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn what_is_wrong_inside_parts_is_refused_when_it_is_read() {
    let mut failures = vec![];
    let cases = [
        Damage {
            layout: "gptq",
            damage: change(".g_idx", |tensor| tensor.2[4..8].copy_from_slice(&7u32.to_le_bytes())),
            kind: ErrorKind::MalformedModel,
            place: ".g_idx",
            words: "column 1 has the group 7 of 2",
        },
        Damage {
            layout: "gptq",
            damage: change(".g_idx", |tensor| tensor.2[4..8].copy_from_slice(&1u32.to_le_bytes())),
            kind: ErrorKind::UnsupportedFormat,
            place: ".g_idx",
            words: "column 1 has the group 1, not 0",
        },
        Damage {
            layout: "fp8",
            damage: change(".weight", |tensor| tensor.2[65] = 0xff),
            kind: ErrorKind::MalformedModel,
            place: ".weight",
            words: "row 1 has what is no number",
        },
        Damage {
            layout: "fp8-rows",
            damage: change(".weight_scale", |tensor| tensor.2[2..4].copy_from_slice(&[0xc0, 0x7f])),
            kind: ErrorKind::MalformedModel,
            place: ".weight_scale",
            words: "NaN is no scale",
        },
        Damage {
            layout: "nf4",
            damage: change(".weight.absmax", |tensor| tensor.2[..4].copy_from_slice(&f32::INFINITY.to_le_bytes())),
            kind: ErrorKind::MalformedModel,
            place: ".weight",
            words: "inf is no magnitude",
        },
    ];
    for damage in cases {
        let mut folder = Folder::read(damage.layout);
        (damage.damage)(&mut folder);
        let checkpoint = folder.open().unwrap();
        let tensor = checkpoint.tensor(&format!("{Q}.weight")).unwrap();
        let read = block_on(checkpoint.files[tensor.file].read(tensor.offset, tensor.size_bytes as usize));
        check(&mut failures, &damage, read.err());
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
