//! Models made of seeded noise, in any shape and format: for sizes that no fixture has.

#![allow(dead_code, reason = "each test binary uses its own part")]

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
    /// Of the output matrix, where it is another.
    pub output_format: Option<FormatId>,
    pub dim: usize,
    pub n_layers: usize,
    pub n_heads: usize,
    pub n_kv_heads: usize,
    pub head_dim: usize,
    pub ffn_dim: usize,
    pub vocab: usize,
    pub context: usize,
    pub tied: bool,
    /// In place of the feed-forward block, where the architecture has such.
    pub experts: Option<Mixture>,
}

/// The experts of a model.
#[derive(Clone, Copy, Debug)]
pub struct Mixture {
    pub count: usize,
    pub used: usize,
    pub ffn_dim: usize,
    /// Whether a bias takes part in the choice.
    pub bias: bool,
    /// Further keys, after the architecture.
    pub keys: &'static [(&'static str, Value)],
}

impl Shape {
    /// The default sizes, or the least that rows of whole blocks allow.
    pub fn of(format: FormatId) -> Self {
        let shape = Self { format, ..Self::default() };
        match format.format().block_weights {
            256 => Self { dim: 256, n_layers: 1, n_heads: 16, ffn_dim: 256, ..shape },
            64 | 128 => Self { dim: 128, n_heads: 8, ffn_dim: 128, ..shape },
            _ => shape,
        }
    }
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            architecture: "qwen3",
            format: FormatId::F32,
            output_format: None,
            dim: 64,
            n_layers: 2,
            n_heads: 4,
            n_kv_heads: 2,
            head_dim: 16,
            ffn_dim: 96,
            vocab: 160,
            context: 512,
            tied: false,
            experts: None,
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

/// Where a block has its half floats, all of them factors of its weights.
fn factors(format: FormatId) -> &'static [usize] {
    match format {
        FormatId::F32 | FormatId::F16 | FormatId::Bf16 | FormatId::Q8K | FormatId::Mxfp4 | FormatId::Iq1M => &[],
        FormatId::Q8_0 | FormatId::Q4_0 | FormatId::Q5_0 | FormatId::Iq4Nl | FormatId::Iq4Xs => &[0],
        FormatId::Iq3S | FormatId::Iq3Xxs | FormatId::Iq2S | FormatId::Iq2Xs | FormatId::Iq2Xxs | FormatId::Iq1S => {
            &[0]
        }
        FormatId::Affine4G32F16 | FormatId::Affine4G64F16 | FormatId::Affine4G128F16 => &[0, 2],
        FormatId::Affine8G32F16 | FormatId::Affine8G64F16 | FormatId::Affine8G128F16 | FormatId::Zero4G32 => &[0, 2],
        FormatId::Zero4G64 | FormatId::Zero4G128 | FormatId::Zero8G32 | FormatId::Zero8G64 | FormatId::Zero8G128 => {
            &[0]
        }
        FormatId::Zero4Row | FormatId::Zero8Row => &[0],
        // Not half floats.
        FormatId::Affine4G32Bf16 | FormatId::Affine4G64Bf16 | FormatId::Affine4G128Bf16 => &[],
        FormatId::Affine8G32Bf16 | FormatId::Affine8G64Bf16 | FormatId::Affine8G128Bf16 => &[],
        FormatId::F8E4m3Tile | FormatId::F8E4m3Row | FormatId::F8E5m2Tile | FormatId::F8E5m2Row => &[],
        FormatId::Nf4 | FormatId::Nf4Nested => &[],
        FormatId::Q4_1 | FormatId::Q5_1 | FormatId::Q4K | FormatId::Q5K => &[0, 2],
        FormatId::Q2K => &[80, 82],
        FormatId::Q3K => &[108],
        FormatId::Q6K => &[208],
        FormatId::Tq1_0 => &[52],
        FormatId::Tq2_0 => &[64],
    }
}

/// Makes `size` the factor of a block's weights (for MXFP4 the power of two below it).
fn set_factor(format: FormatId, block: &mut [u8], size: f32) {
    for &at in factors(format) {
        block[at..at + 2].copy_from_slice(&f16::from_f32(size).to_le_bytes());
    }
    match format {
        FormatId::Q8K | FormatId::Nf4 => block[..4].copy_from_slice(&size.to_le_bytes()),
        FormatId::Affine4G32Bf16 | FormatId::Affine4G64Bf16 | FormatId::Affine4G128Bf16 => set_bf16(block, size),
        FormatId::Affine8G32Bf16 | FormatId::Affine8G64Bf16 | FormatId::Affine8G128Bf16 => set_bf16(block, size),
        FormatId::Mxfp4 => block[0] = (128.0 + size.log2().floor()) as u8,
        // Four bits of it at the top of each of four numbers.
        FormatId::Iq1M => {
            let bits = f16::from_f32(size).to_bits();
            for (part, high) in block[48..].chunks_exact_mut(2).zip([0, 4, 8, 12]) {
                part[1] = part[1] & 15 | (bits >> high << 4) as u8;
            }
        }
        _ => {}
    }
}

/// Scale and bias of a group.
fn set_bf16(block: &mut [u8], size: f32) {
    for at in [0, 2] {
        block[at..at + 2].copy_from_slice(&half::bf16::from_f32(size).to_le_bytes());
    }
}

/// Every shader of a weight once, by the first format that it reads.
pub fn representatives() -> Vec<FormatId> {
    let mut formats: Vec<FormatId> = headwater::quant::FORMATS.iter().map(|(format, _)| *format).collect();
    formats.dedup_by_key(|format| format.format().shader);
    formats
}

/// A block of random bits whose weights are around `scale`.
fn block(format: FormatId, scale: f32, noise: &mut Noise) -> Vec<u8> {
    let description = format.format();
    match format {
        FormatId::F32 => (noise.unit() * scale).to_le_bytes().into(),
        FormatId::F16 => f16::from_f32(noise.unit() * scale).to_le_bytes().into(),
        FormatId::Bf16 => half::bf16::from_f32(noise.unit() * scale).to_le_bytes().into(),
        // One scale for all, since blocks share it; codes around one.
        // An offset for all, a scale of half its size.
        FormatId::Nf4Nested => {
            let offset = scale / 0.6;
            let head = [offset, offset / 2.0].map(f32::to_le_bytes).concat();
            head.into_iter().chain((8..description.block_bytes).map(|_| noise.next() as u8)).collect()
        }
        FormatId::Zero4Row | FormatId::Zero8Row => {
            let (zero, size) = if format == FormatId::Zero4Row { (8, scale / 4.6) } else { (128, scale / 74.0) };
            let head = f16::from_f32(size).to_le_bytes().into_iter().chain([zero]);
            head.chain((3..description.block_bytes).map(|_| noise.next() as u8)).collect()
        }
        FormatId::F8E4m3Tile | FormatId::F8E4m3Row | FormatId::F8E5m2Tile | FormatId::F8E5m2Row => {
            let low = if matches!(format, FormatId::F8E4m3Tile | FormatId::F8E4m3Row) { 0x28 } else { 0x34 };
            let code = |noise: &mut Noise| (noise.next() as u8 & 0x8f) + low;
            scale.to_le_bytes().into_iter().chain((0..32).map(|_| code(noise))).collect()
        }
        _ => {
            let mut block: Vec<u8> = (0..description.block_bytes).map(|_| noise.next() as u8).collect();
            set_factor(format, &mut block, 1.0);
            let mut weights = vec![0.0f32; description.block_weights];
            (description.decode)(&block, &mut weights);
            let square: f32 = weights.iter().map(|weight| weight * weight).sum();
            let size = (square / weights.len() as f32).sqrt();
            set_factor(format, &mut block, scale / size * (1.0 + 0.5 * noise.unit()));
            block
        }
    }
}

/// A checkpoint of that shape, its weights in memory, named as in GGUF files.
pub fn synthetic(shape: &Shape, seed: u64) -> Checkpoint {
    let mut noise = Noise(seed);
    checkpoint(shape, &mut |_, format, dims| match dims {
        [weights] => (0..*weights).flat_map(|_| (1.0 + 0.3 * noise.unit()).to_le_bytes()).collect(),
        _ => {
            let blocks = dims.iter().product::<usize>() / format.format().block_weights;
            let scale = 1.7 / (dims[dims.len() - 1] as f32).sqrt();
            let mut made = |number: usize| {
                let mut block = block(format, scale, &mut noise);
                if format == FormatId::Nf4Nested {
                    // A scale of its own for each 256 blocks.
                    let scale = f32::from_le_bytes(block[4..8].try_into().unwrap());
                    block[4..8].copy_from_slice(&(scale * (1.0 + (number / 256 % 5) as f32)).to_le_bytes());
                    block[8] = number as u8;
                }
                block
            };
            (0..blocks).flat_map(&mut made).collect()
        }
    })
}

/// Makes the bytes of a tensor by its name, format and shape.
pub type Fill<'a> = dyn FnMut(&str, FormatId, &[usize]) -> Vec<u8> + 'a;

/// A checkpoint of that shape whose tensors are what `fill` makes of a name, a format and a shape.
pub fn checkpoint(shape: &Shape, fill: &mut Fill<'_>) -> Checkpoint {
    let mut bytes = vec![];
    let mut tensors = vec![];
    let mut add = |name: String, format: FormatId, dims: Vec<usize>| {
        let data = fill(&name, format, &dims);
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
        if shape.architecture.starts_with("qwen3") {
            add(name("attn_q_norm"), FormatId::F32, vec![shape.head_dim]);
            add(name("attn_k_norm"), FormatId::F32, vec![shape.head_dim]);
        }
        add(name("attn_output"), shape.format, vec![shape.dim, q]);
        add(name("ffn_norm"), FormatId::F32, vec![shape.dim]);
        if let Some(Mixture { count, ffn_dim, bias, .. }) = shape.experts {
            add(name("ffn_gate_inp"), FormatId::F32, vec![count, shape.dim]);
            if bias {
                add(format!("blk.{layer}.exp_probs_b.bias"), FormatId::F32, vec![count]);
            }
            add(name("ffn_gate_exps"), shape.format, vec![count, ffn_dim, shape.dim]);
            add(name("ffn_up_exps"), shape.format, vec![count, ffn_dim, shape.dim]);
            add(name("ffn_down_exps"), shape.format, vec![count, shape.dim, ffn_dim]);
        } else {
            add(name("ffn_gate"), shape.format, vec![shape.ffn_dim, shape.dim]);
            add(name("ffn_up"), shape.format, vec![shape.ffn_dim, shape.dim]);
            add(name("ffn_down"), shape.format, vec![shape.dim, shape.ffn_dim]);
        }
    }
    add("output_norm.weight".into(), FormatId::F32, vec![shape.dim]);
    if !shape.tied {
        add("output.weight".into(), shape.output_format.unwrap_or(shape.format), vec![shape.vocab, shape.dim]);
    }
    let mut values = BTreeMap::new();
    let mut counts = vec![
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
    if let Some(Mixture { count, used, ffn_dim, keys, .. }) = shape.experts {
        counts.extend([("expert_count", count), ("expert_used_count", used), ("expert_feed_forward_length", ffn_dim)]);
        values.extend(keys.iter().map(|(key, value)| (format!("{}.{key}", shape.architecture), value.clone())));
    }
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
        orders: BTreeMap::new(),
        files: vec![Rc::new(MemorySource::new("synthetic", bytes))],
    }
}
