//! Adapters made of seeded noise, and models with the same change in their weights.

use std::collections::BTreeMap;
use std::rc::Rc;

use headwater::format::{ADAPTER_CONFIG, Checkpoint, Dialect, Metadata, TensorInfo, Value};
use headwater::quant::FormatId;
use headwater::source::MemorySource;
use pollster::block_on;
use serde_json::{Value as Json, json};

/// The same numbers on every machine, between -1 and 1.
pub(crate) fn noise(seed: u64, count: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as f32 / (1u32 << 30) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

/// One pair of matrices, and what it adds to a weight.
pub(crate) struct Pair {
    /// What the adapter's file calls the matrix.
    pub target: &'static str,
    /// The tensor of the base, its first row that is changed, and how many.
    pub tensor: &'static str,
    pub rows: std::ops::Range<usize>,
    pub cols: usize,
    pub rank: usize,
    /// Factor on `B A`, as the configuration implies it.
    pub scaling: f32,
    /// Rows of heads of so many are permuted in the base, not in the adapter.
    pub permuted: Option<usize>,
    pub dora: bool,
}

impl Pair {
    pub(crate) fn new(
        target: &'static str,
        tensor: &'static str,
        (rows, cols): (usize, usize),
        rank: usize,
        scaling: f32,
    ) -> Self {
        Self { target, tensor, rows: 0..rows, cols, rank, scaling, permuted: None, dora: false }
    }

    fn numbers(&self, format: FormatId) -> [Vec<f32>; 3] {
        let seed = self.target.bytes().fold(7, |hash: u64, byte| hash.wrapping_mul(31).wrapping_add(u64::from(byte)));
        let spread = (3.0 / (self.cols * self.rank) as f32).sqrt() / self.scaling.abs();
        let a = noise(seed, self.rank * self.cols);
        let b = noise(seed + 1, self.rows.len() * self.rank).into_iter().map(|b| b * spread);
        let magnitude = noise(seed + 2, self.rows.len()).into_iter().map(|m| 1.0 + 0.4 * m);
        [a, b.collect(), magnitude.collect()].map(|numbers| {
            let mut stored = vec![0.0; numbers.len()];
            (format.format().decode)(&format.encode_floats(&numbers).unwrap(), &mut stored);
            stored
        })
    }

    /// The rows with the adapter in them, from those of the base; `scale` is that of a request.
    fn merge(&self, rows: &mut [f32], format: FormatId, scale: f32) {
        let [a, b, magnitude] = self.numbers(format);
        for (index, weights) in rows.chunks_exact_mut(self.cols).enumerate() {
            // llama.cpp's converter: rows (2, head / 2) of a head become (head / 2, 2).
            let row = match self.permuted {
                None => index,
                Some(head) => index / head * head + index % head % 2 * (head / 2) + index % head / 2,
            };
            let mut sum = vec![0f64; self.cols];
            for rank in 0..self.rank {
                for (sum, a) in sum.iter_mut().zip(&a[rank * self.cols..]) {
                    *sum += f64::from(b[row * self.rank + rank] * self.scaling) * f64::from(*a);
                }
            }
            let mut whole: Vec<f64> = weights.iter().zip(&sum).map(|(w, sum)| f64::from(*w) + sum).collect();
            if self.dora {
                let length = whole.iter().map(|w| w * w).sum::<f64>().sqrt();
                whole.iter_mut().for_each(|w| *w *= f64::from(magnitude[row]) / length);
            }
            for (weight, whole) in weights.iter_mut().zip(&whole) {
                *weight = (f64::from(*weight) + f64::from(scale) * (whole - f64::from(*weight))) as f32;
            }
        }
    }
}

/// An adapter of these pairs as its files would be understood; `config` is added to what peft writes, or is the alpha of
/// a GGUF file.
pub(crate) fn adapter(dialect: Dialect, pairs: &[Pair], format: FormatId, config: &Json) -> Checkpoint {
    let (mut bytes, mut tensors) = (vec![], vec![]);
    for pair in pairs {
        let [a, b, magnitude] = pair.numbers(format);
        let names = match dialect {
            Dialect::Hub => ["lora_A.weight", "lora_B.weight", "lora_magnitude_vector"],
            Dialect::Gguf => ["lora_a", "lora_b", ""],
        };
        let prefix = if dialect == Dialect::Hub { "base_model.model." } else { "" };
        let shapes = [vec![pair.rank, pair.cols], vec![pair.rows.len(), pair.rank], vec![pair.rows.len()]];
        for ((name, shape), numbers) in names.into_iter().zip(shapes).zip([a, b, magnitude]) {
            if shape.len() == 1 && !pair.dora {
                continue;
            }
            let data = format.encode_floats(&numbers).unwrap();
            let (offset, size_bytes) = (bytes.len() as u64, data.len() as u64);
            let name = format!("{prefix}{}.{name}", pair.target);
            // GGUF cannot tell a matrix of one row from a vector.
            let shape = if dialect == Dialect::Gguf && shape[0] == 1 { vec![shape[1]] } else { shape };
            tensors.push(TensorInfo { name, format, shape, file: 0, offset, size_bytes });
            bytes.extend(data);
        }
    }
    let mut metadata = Metadata {
        dialect,
        architecture: String::new(),
        values: BTreeMap::new(),
        companions: BTreeMap::new(),
        small_tensors: BTreeMap::new(),
    };
    match dialect {
        Dialect::Hub => {
            let mut all = json!({ "peft_type": "LORA", "bias": "none", "base_model_name_or_path": "noise" });
            all.as_object_mut().unwrap().extend(config.as_object().unwrap().clone());
            metadata.companions.insert(ADAPTER_CONFIG.into(), all.to_string());
        }
        Dialect::Gguf => {
            metadata.architecture = "llama".into();
            let text = |text: &str| Value::Text(text.into());
            let alpha = Value::Number(config.as_f64().unwrap());
            let entries =
                [("general.type", text("adapter")), ("adapter.type", text("lora")), ("adapter.lora.alpha", alpha)];
            metadata.values.extend(entries.map(|(key, value)| (key.to_owned(), value)));
        }
    }
    Checkpoint { metadata, tensors, orders: BTreeMap::new(), files: vec![Rc::new(MemorySource::new("noise", bytes))] }
}

/// The model with so much of the adapter in its weights, which become f32.
pub(crate) fn merged(base: Checkpoint, pairs: &[Pair], format: FormatId, scale: f32) -> Checkpoint {
    let mut merged = base;
    let (file, mut bytes) = (merged.files.len(), vec![]);
    for tensor in &mut merged.tensors {
        let changes: Vec<&Pair> = pairs.iter().filter(|pair| pair.tensor == tensor.name).collect();
        if changes.is_empty() {
            continue;
        }
        let stored = block_on(merged.files[tensor.file].read(tensor.offset, tensor.size_bytes as usize)).unwrap();
        let mut numbers = vec![0.0; tensor.shape.iter().product()];
        (tensor.format.format().decode)(&stored, &mut numbers);
        for pair in changes {
            assert_eq!(tensor.shape[1], pair.cols, "{}", pair.tensor);
            let rows = &mut numbers[pair.rows.start * pair.cols..pair.rows.end * pair.cols];
            pair.merge(rows, format, scale);
        }
        let data = FormatId::F32.encode_floats(&numbers).unwrap();
        (tensor.format, tensor.file) = (FormatId::F32, file);
        (tensor.offset, tensor.size_bytes) = (bytes.len() as u64, data.len() as u64);
        bytes.extend(data);
    }
    merged.files.push(Rc::new(MemorySource::new("merged", bytes)));
    merged
}
