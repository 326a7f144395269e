//! DeepSeek's factors of keys and values where files keep them together: as published, in tiles of eight bits
//! (`tests/packed/write.py`), and in GGUF files from before the factors were divided. Those of the keys lie the other way round,
//! so their blocks become f16; the rest stays as it is stored.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests say what they expect by failing")]

mod common;

use std::io::Read;
use std::rc::Rc;

use common::{nmse, open};
use half::f16;
use headwater::cpu::Cpu;
use headwater::format::{Checkpoint, TensorInfo, Value};
use headwater::gpu::{Device, Gpu};
use headwater::graph::{Backend, KvFormat, Row, Step, WeightId};
use headwater::model::{Plan, WeightSink, plan, read_weight, read_weights};
use headwater::quant::FormatId;
use headwater::source::{MemorySource, Source};
use pollster::block_on;
use safetensors::SafeTensors;

/// What f16 rounds of one of a layer's matrices, squared and relative: measured 8e-8 at most.
const HALF_NMSE: f64 = 3e-7;

fn logits<B: Backend + WeightSink>(checkpoint: &Checkpoint, make: impl FnOnce(&Plan) -> B) -> Vec<f32> {
    let plan = plan(checkpoint).unwrap();
    let mut backend = make(&plan);
    block_on(read_weights(checkpoint, &plan, &mut backend, &mut |_, _| Ok(()))).unwrap();
    let row = |position: u32| Row { token: (position * 37 + 11) % 640, position, sequence: 0, segment: 0 };
    let rows: Vec<Row> = (0..20).map(row).collect();
    let outputs: Vec<u32> = (0..20).collect();
    block_on(backend.forward(&Step { rows: &rows, pages: &[vec![0]], outputs: &outputs, states: &[] })).unwrap()
}

fn on_cpu(checkpoint: &Checkpoint) -> Vec<f32> {
    logits(checkpoint, |plan| Cpu::new(plan, KvFormat::F32, 1).unwrap())
}

fn on_gpu(checkpoint: &Checkpoint) -> Vec<f32> {
    let device = block_on(Device::of_thread()).expect("an adapter; software Vulkan will do");
    logits(checkpoint, |plan| block_on(Gpu::new(&device, plan, KvFormat::F32, 1)).unwrap())
}

/// A weight by its name: its format, and its numbers.
fn weight(checkpoint: &Checkpoint, name: &str) -> (FormatId, Vec<f32>) {
    let plan = plan(checkpoint).unwrap();
    let id = plan.graph.weights.iter().position(|weight| weight.name == name).unwrap();
    let (format, declared) = (plan.formats[id], &plan.graph.weights[id]);
    let mut numbers = vec![f32::NAN; declared.rows * declared.cols];
    block_on(read_weight(&checkpoint.files, &plan, WeightId(id), &mut |first, bytes| {
        let rows = bytes.len() / format.row_bytes(declared.cols).unwrap();
        (format.format().decode)(bytes, &mut numbers[first * declared.cols..][..rows * declared.cols]);
        Ok(())
    }))
    .unwrap();
    (format, numbers)
}

/// Factors of keys and values apart, as the model multiplies them, from those of `heads` heads together.
fn divided(together: &[f32], heads: usize, [plain, value, rank]: [usize; 3]) -> [Vec<f32>; 2] {
    let at = |head: usize, row: usize, col: usize| together[(head * (plain + value) + row) * rank + col];
    let keys = (0..heads).flat_map(|head| (0..rank).map(move |r| (head, r)));
    let keys = keys.flat_map(|(head, r)| (0..plain).map(move |c| at(head, c, r)));
    let values = (0..heads).flat_map(|head| (0..value).map(move |r| (head, r)));
    let values = values.flat_map(|(head, r)| (0..rank).map(move |c| at(head, plain + r, c)));
    [keys.collect(), values.collect()]
}

const K_B: &str = "blk.0.attn_k_b.weight";
const V_B: &str = "blk.0.attn_v_b.weight";

fn file(name: &str) -> Vec<u8> {
    let path = common::root().join("tests/data/packed/deepseek-fp8").join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The published model's twin: what its tiles hold, as float32.
fn twin() -> (Checkpoint, Vec<u8>) {
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(&*file("twin.safetensors.gz")).read_to_end(&mut bytes).unwrap();
    let weights = file("model.safetensors");
    let (packed, floats) = (SafeTensors::deserialize(&weights).unwrap(), SafeTensors::deserialize(&bytes).unwrap());
    let plain = packed.iter().filter(|(name, _)| floats.tensor(name).is_err() && !name.ends_with("_scale_inv"));
    let all: Vec<_> = plain.chain(floats.iter()).collect();
    let model = safetensors::serialize(all, None).unwrap();
    let mut config: serde_json::Value = serde_json::from_slice(&file("config.json")).unwrap();
    config.as_object_mut().unwrap().remove("quantization_config").unwrap();
    let files: [(&str, Vec<u8>); 2] = [("config.json", config.to_string().into()), ("model.safetensors", model)];
    let files = files.map(|(name, bytes)| Rc::new(MemorySource::new(name, bytes)) as Rc<dyn Source>);
    (block_on(Checkpoint::open(files.into())).unwrap(), bytes)
}

#[test]
fn what_is_published_in_tiles_computes_what_its_twin_does() {
    let folder = "tests/data/packed/deepseek-fp8";
    let published = open(&[&format!("{folder}/config.json"), &format!("{folder}/model.safetensors")]);
    let (twin, floats) = twin();
    let floats = SafeTensors::deserialize(&floats).unwrap();
    let together = floats.tensor("model.layers.0.self_attn.kv_b_proj.weight").unwrap();
    assert_eq!(together.shape(), [256, 32]);
    let together: Vec<f32> = together.data().as_chunks::<4>().0.iter().map(|raw| f32::from_le_bytes(*raw)).collect();
    let [keys, values] = divided(&together, 8, [16, 16, 32]);
    let rounded: Vec<f32> = keys.iter().map(|number| f16::from_f32(*number).to_f32()).collect();
    assert_eq!(weight(&published, K_B), (FormatId::F16, rounded));
    assert_eq!(weight(&published, V_B), (FormatId::F8E4m3Tile, values.clone()));
    assert_eq!([K_B, V_B].map(|name| weight(&twin, name)), [(FormatId::F32, keys), (FormatId::F32, values)]);

    let (expected, found) = (on_cpu(&twin), on_cpu(&published));
    let (rounding, device) = (nmse(&found, &expected), nmse(&on_gpu(&published), &found));
    println!("f16 for the keys' factors: {rounding:.1e}; the GPU beside the interpreter: {device:.1e}");
    assert!(rounding > 0.0 && rounding < HALF_NMSE, "{rounding:.1e}");
    assert!(device < 1e-10, "{device:.1e}");
}

const GGUF: &str = "tests/data/gguf/deepseek-v3-Q4_0.gguf";

/// The model of the file with the factors of keys and values together, as `encode` stores their rows, under the keys that
/// such files have.
fn undivided(format: FormatId, encode: &dyn Fn(&[f32]) -> Vec<u8>) -> Checkpoint {
    let mut model = open(&[GGUF]);
    let (heads, plain, value, rank) = (4, 16, 16, 32);
    let mut bytes = vec![];
    for layer in 0..2 {
        let name = |part: &str| format!("blk.{layer}.attn_{part}.weight");
        let [(_, keys), (_, values)] = ["k_b", "v_b"].map(|part| weight(&open(&[GGUF]), &name(part)));
        let offset = bytes.len() as u64;
        for head in 0..heads {
            for c in 0..plain {
                let row: Vec<f32> = (0..rank).map(|r| keys[(head * rank + r) * plain + c]).collect();
                bytes.extend(encode(&row));
            }
            for row in values.chunks_exact(rank).skip(head * value).take(value) {
                bytes.extend(encode(row));
            }
        }
        model.tensors.retain(|tensor| ![name("k_b"), name("v_b")].contains(&tensor.name));
        model.tensors.push(TensorInfo {
            name: name("kv_b"),
            format,
            shape: vec![heads * (plain + value), rank],
            file: model.files.len(),
            offset,
            size_bytes: bytes.len() as u64 - offset,
        });
    }
    model.files.push(Rc::new(MemorySource::new("together", bytes)));
    for key in ["key_length_mla", "value_length_mla"] {
        model.metadata.values.remove(&format!("deepseek2.attention.{key}")).unwrap();
    }
    for (key, number) in [("key_length", 24), ("value_length", 16), ("head_count_kv", 4)] {
        model.metadata.values.insert(format!("deepseek2.attention.{key}"), Value::Integer(number));
    }
    model
}

#[test]
fn undivided_factors_of_gguf_files_are_divided() {
    let floats = |row: &[f32]| row.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<u8>>();
    let expected = on_cpu(&open(&[GGUF]));
    let plain = undivided(FormatId::F32, &floats);
    assert_eq!(on_cpu(&plain), expected);
    assert!(nmse(&on_gpu(&plain), &expected) < 1e-10);

    let encode = FormatId::Q8_0.encoder().unwrap();
    let blocks = |row: &[f32]| {
        let mut blocks = vec![];
        encode(row, &mut blocks);
        blocks
    };
    let rounded = |row: &[f32]| {
        let mut numbers = vec![0.0; row.len()];
        (FormatId::Q8_0.format().decode)(&blocks(row), &mut numbers);
        floats(&numbers)
    };
    let packed = undivided(FormatId::Q8_0, &blocks);
    assert_eq!([K_B, V_B].map(|name| weight(&packed, name).0), [FormatId::F16, FormatId::Q8_0]);
    let found = on_cpu(&packed);
    let rounding = nmse(&found, &on_cpu(&undivided(FormatId::F32, &rounded)));
    println!("f16 for the keys' factors of Q8_0: {rounding:.1e}");
    assert!(rounding > 0.0 && rounding < HALF_NMSE, "{rounding:.1e}");
    assert!(nmse(&on_gpu(&packed), &found) < 1e-10);
}
