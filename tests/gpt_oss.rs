//! gpt-oss as it is published, its experts in parts of MXFP4, computes what the same numbers do as plain floats.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests say what they expect by failing")]

mod common;

use std::collections::BTreeMap;

use common::{Tensor, nmse, open_folder, root};
use headwater::cpu::Cpu;
use headwater::error::{Error, ErrorKind};
use headwater::format::Checkpoint;
use headwater::gpu::{Device, Gpu};
use headwater::graph::{Backend, KvFormat, Row, Step};
use headwater::model::{Plan, WeightSink, plan, read_weights};
use pollster::block_on;
use safetensors::SafeTensors;
use serde_json::{Value as Json, json};

/// The floats of four bits.
const LEVELS: [f32; 8] = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];

#[derive(Clone)]
struct Folder {
    config: Json,
    tensors: BTreeMap<String, Tensor>,
}

fn file(name: &str) -> Vec<u8> {
    std::fs::read(root().join("tests/data/models/gpt-oss").join(name)).unwrap()
}

impl Folder {
    fn open(&self) -> Result<Checkpoint, Error> {
        open_folder(&self.config, &self.tensors)
    }

    fn logits<B: Backend + WeightSink>(&self, make: impl FnOnce(&Plan) -> B) -> Vec<f32> {
        let checkpoint = self.open().unwrap();
        let plan = plan(&checkpoint).unwrap();
        let mut backend = make(&plan);
        block_on(read_weights(&checkpoint, &plan, &mut backend, &mut |_, _| Ok(()))).unwrap();
        let row = |position: u32| Row { token: (position * 37 + 11) % 640, position, sequence: 0, segment: 0 };
        let rows: Vec<Row> = (0..20).map(row).collect();
        let outputs: Vec<u32> = (0..20).collect();
        block_on(backend.forward(&Step { rows: &rows, pages: &[vec![0]], outputs: &outputs, states: &[] })).unwrap()
    }
}

/// A power of two and sixteen bytes for 32 numbers, and what they stand for.
fn quantised(numbers: &[f32]) -> (u8, [u8; 16], Vec<f32>) {
    let largest = numbers.iter().fold(1e-9f32, |largest, number| largest.max(number.abs()));
    let exponent = (largest / 6.0).log2().ceil() as i32;
    let scale = (exponent as f32).exp2();
    let nearest = |number: &f32| {
        let distance = |level: &f32| (level * scale - number.abs()).abs();
        let level = (0..8).min_by(|a, b| distance(&LEVELS[*a]).total_cmp(&distance(&LEVELS[*b]))).unwrap();
        (level as u8 | u8::from(*number < 0.0) << 3, (LEVELS[level] * scale).copysign(*number))
    };
    let (codes, values): (Vec<u8>, Vec<f32>) = numbers.iter().map(nearest).unzip();
    let mut bytes = [0; 16];
    for (byte, pair) in bytes.iter_mut().zip(codes.as_chunks::<2>().0) {
        *byte = pair[0] | pair[1] << 4;
    }
    ((exponent + 127) as u8, bytes, values)
}

/// The model as it is published, and the same numbers as plain floats.
fn folders() -> (Folder, Folder) {
    let bytes = file("model.safetensors");
    let stored = SafeTensors::deserialize(&bytes).unwrap();
    let config: Json = serde_json::from_slice(&file("config.json")).unwrap();
    let (mut packed, mut plain) = (BTreeMap::new(), BTreeMap::new());
    for (name, tensor) in stored.iter() {
        let same = (tensor.dtype().to_string(), tensor.shape().to_vec(), tensor.data().to_vec());
        if !name.ends_with("experts.gate_up_proj") && !name.ends_with("experts.down_proj") {
            packed.insert(name.to_owned(), same.clone());
            plain.insert(name.to_owned(), same);
            continue;
        }
        // Plain tensors are (experts, cols, rows), the blocks (experts, rows, cols / 32, 16).
        let [experts, cols, rows] = *tensor.shape() else { panic!("{name}") };
        let numbers: Vec<f32> =
            tensor.data().as_chunks::<2>().0.iter().map(|raw| half::bf16::from_le_bytes(*raw).to_f32()).collect();
        let (mut blocks, mut scales, mut values) = (vec![], vec![], vec![0f32; numbers.len()]);
        for row in 0..experts * rows {
            let at = |col: usize| (row / rows * cols + col) * rows + row % rows;
            for first in (0..cols).step_by(32) {
                let run: Vec<f32> = (first..first + 32).map(|col| numbers[at(col)]).collect();
                let (scale, bytes, run) = quantised(&run);
                scales.push(scale);
                blocks.extend(bytes);
                (first..).zip(run).for_each(|(col, value)| values[at(col)] = value);
            }
        }
        let values = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        plain.insert(name.to_owned(), ("F32".into(), tensor.shape().to_vec(), values));
        packed.insert(format!("{name}_blocks"), ("U8".into(), vec![experts, rows, cols / 32, 16], blocks));
        packed.insert(format!("{name}_scales"), ("U8".into(), vec![experts, rows, cols / 32], scales));
    }
    let mut published = config.clone();
    published["quantization_config"] =
        json!({ "quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn", "lm_head"] });
    (Folder { config: published, tensors: packed }, Folder { config, tensors: plain })
}

#[test]
fn the_published_form_computes_what_plain_floats_do() {
    let (packed, plain) = folders();
    let formats = plan(&packed.open().unwrap()).unwrap();
    let experts =
        formats.graph.weights.iter().zip(&formats.formats).filter(|(weight, _)| weight.name.contains("exps.w"));
    assert!(experts.clone().count() == 6 && experts.clone().all(|(_, format)| format.format().name == "mxfp4"));
    let cpu = |folder: &Folder| folder.logits(|plan| Cpu::new(plan, KvFormat::F32, 1).unwrap());
    let expected = cpu(&plain);
    assert_eq!(cpu(&packed), expected);
    let device = block_on(Device::of_thread()).expect("an adapter; software Vulkan will do");
    let found = packed.logits(|plan| block_on(Gpu::new(&device, plan, KvFormat::F32, 1)).unwrap());
    let error = nmse(&found, &expected);
    println!("NMSE {error:.1e}");
    assert!(error <= 1e-10, "{error:.1e}");
}

#[test]
fn damaged_parts_are_refused_by_name() {
    const DOWN: &str = "model.layers.0.mlp.experts.down_proj";
    let whole = folders().0;
    let damaged = |damage: &dyn Fn(&mut Folder)| {
        let mut folder = whole.clone();
        damage(&mut folder);
        folder.open().err().unwrap()
    };
    let part = |folder: &mut Folder, ending: &str, change: &dyn Fn(&mut Tensor)| {
        change(folder.tensors.get_mut(&format!("{DOWN}{ending}")).unwrap());
    };
    for (error, place, words) in [
        (
            damaged(&|folder| drop(folder.tensors.remove(&format!("{DOWN}_scales")))),
            format!("{DOWN}_scales"),
            "the tensor is missing",
        ),
        (
            damaged(&|folder| part(folder, "_scales", &|scales| scales.1 = vec![4, 128, 1])),
            format!("{DOWN}_scales"),
            "shape [4, 128, 1] where [4, 64, 2] is needed",
        ),
        (
            damaged(&|folder| part(folder, "_blocks", &|blocks| blocks.1 = vec![4, 64, 4, 8])),
            format!("{DOWN}_blocks"),
            "shape [4, 64, 4, 8] where blocks of 16 bytes are needed",
        ),
    ] {
        assert_eq!((error.kind(), error.place()), (ErrorKind::MalformedModel, place), "{error}");
        assert!(error.message().contains(words), "{error}");
    }
    let mut folder = whole.clone();
    part(&mut folder, "_scales", &|scales| scales.2[3] = 0xff);
    let checkpoint = folder.open().unwrap();
    let tensor = checkpoint.tensor(DOWN).unwrap();
    let error = block_on(checkpoint.files[tensor.file].read(tensor.offset, tensor.size_bytes as usize)).unwrap_err();
    assert!(error.place() == format!("{DOWN}_scales") && error.message().contains("row 1 has"), "{error}");
}
