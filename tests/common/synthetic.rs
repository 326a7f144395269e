//! Models made of seeded noise, in any shape and format: for sizes that no fixture has.

use std::collections::BTreeMap;
use std::rc::Rc;

use half::f16;
use headwater::format::{Checkpoint, Dialect, Metadata, TensorInfo, Value};
use headwater::quant::FormatId;
use headwater::source::MemorySource;

/// The shape of a model.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub architecture: &'static str,
    pub format: FormatId,
    pub dim: usize,
    pub n_layers: usize,
    pub n_heads: usize,
    pub n_kv_heads: usize,
    pub head_dim: usize,
    pub ffn_dim: usize,
    pub vocab: usize,
    pub context: usize,
    pub tied: bool,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            architecture: "qwen3",
            format: FormatId::F32,
            dim: 64,
            n_layers: 2,
            n_heads: 4,
            n_kv_heads: 2,
            head_dim: 16,
            ffn_dim: 96,
            vocab: 160,
            context: 512,
            tied: false,
        }
    }
}

/// A small linear congruential generator: the same noise on every machine.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as u32
    }

    /// Between -1 and 1.
    fn unit(&mut self) -> f32 {
        self.next() as f32 / (1u32 << 30) as f32 - 1.0
    }
}

/// Blocks of a format whose weights are around `scale`.
fn blocks(format: FormatId, weights: usize, scale: f32, noise: &mut Noise) -> Vec<u8> {
    let mut bytes = vec![];
    let description = format.format();
    for _ in 0..weights / description.block_weights {
        match format {
            FormatId::F32 => bytes.extend((noise.unit() * scale).to_le_bytes()),
            FormatId::F16 => bytes.extend(f16::from_f32(noise.unit() * scale).to_le_bytes()),
            FormatId::Bf16 => bytes.extend(half::bf16::from_f32(noise.unit() * scale).to_le_bytes()),
            FormatId::Q8_0 | FormatId::Q4_0 => {
                let codes = if format == FormatId::Q8_0 { 127.0 } else { 8.0 };
                bytes.extend(f16::from_f32(scale / codes * (1.5 + noise.unit())).to_le_bytes());
                bytes.extend((0..description.block_bytes - 2).map(|_| noise.next() as u8));
            }
        }
    }
    bytes
}

/// A checkpoint of that shape, its weights in memory, named as in GGUF files.
pub fn synthetic(shape: &Shape, seed: u64) -> Checkpoint {
    let mut noise = Noise(seed);
    let mut bytes = vec![];
    let mut tensors = vec![];
    let mut add = |name: String, format: FormatId, dims: Vec<usize>| {
        let weights: usize = dims.iter().product();
        let data = match dims.len() {
            1 => (0..weights).flat_map(|_| (1.0 + 0.3 * noise.unit()).to_le_bytes()).collect(),
            _ => blocks(format, weights, 1.7 / (dims[1] as f32).sqrt(), &mut noise),
        };
        let (offset, size_bytes) = (bytes.len() as u64, data.len() as u64);
        bytes.extend(data);
        tensors.push(TensorInfo { name, format, shape: dims, file: 0, offset, size_bytes });
    };
    let (q, kv) = (shape.n_heads * shape.head_dim, shape.n_kv_heads * shape.head_dim);
    add("token_embd.weight".into(), shape.format, vec![shape.vocab, shape.dim]);
    for layer in 0..shape.n_layers {
        let name = |part: &str| format!("blk.{layer}.{part}.weight");
        add(name("attn_norm"), FormatId::F32, vec![shape.dim]);
        add(name("attn_q"), shape.format, vec![q, shape.dim]);
        add(name("attn_k"), shape.format, vec![kv, shape.dim]);
        add(name("attn_v"), shape.format, vec![kv, shape.dim]);
        if shape.architecture == "qwen3" {
            add(name("attn_q_norm"), FormatId::F32, vec![shape.head_dim]);
            add(name("attn_k_norm"), FormatId::F32, vec![shape.head_dim]);
        }
        add(name("attn_output"), shape.format, vec![shape.dim, q]);
        add(name("ffn_norm"), FormatId::F32, vec![shape.dim]);
        add(name("ffn_gate"), shape.format, vec![shape.ffn_dim, shape.dim]);
        add(name("ffn_up"), shape.format, vec![shape.ffn_dim, shape.dim]);
        add(name("ffn_down"), shape.format, vec![shape.dim, shape.ffn_dim]);
    }
    add("output_norm.weight".into(), FormatId::F32, vec![shape.dim]);
    if !shape.tied {
        add("output.weight".into(), shape.format, vec![shape.vocab, shape.dim]);
    }
    let mut values = BTreeMap::new();
    let counts = [
        ("embedding_length", shape.dim),
        ("block_count", shape.n_layers),
        ("attention.head_count", shape.n_heads),
        ("attention.head_count_kv", shape.n_kv_heads),
        ("attention.key_length", shape.head_dim),
        ("attention.value_length", shape.head_dim),
        ("rope.dimension_count", shape.head_dim),
        ("feed_forward_length", shape.ffn_dim),
        ("context_length", shape.context),
    ];
    for (key, value) in counts {
        values.insert(format!("{}.{key}", shape.architecture), Value::Integer(value as i128));
    }
    let numbers = [("attention.layer_norm_rms_epsilon", 1e-6), ("rope.freq_base", 10_000.0)];
    for (key, value) in numbers {
        values.insert(format!("{}.{key}", shape.architecture), Value::Number(value));
    }
    Checkpoint {
        metadata: Metadata {
            dialect: Dialect::Gguf,
            architecture: shape.architecture.into(),
            values,
            companions: BTreeMap::new(),
            small_tensors: BTreeMap::new(),
        },
        tensors,
        files: vec![Rc::new(MemorySource::new("synthetic", bytes))],
    }
}
