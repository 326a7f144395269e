//! Plain floats: f32, f16, bf16, little endian.

use half::{bf16, f16};

use super::{Format, Planes};

pub(super) const F32: Format = Format {
    name: "f32",
    gguf_type: 0,
    block_weights: 1,
    block_bytes: 4,
    decode: decode_f32,
    planes: Planes::whole(4),
    shader: include_str!("../../shaders/quant/f32.wgsl"),
};

pub(super) const F16: Format = Format {
    name: "f16",
    gguf_type: 1,
    block_weights: 1,
    block_bytes: 2,
    decode: decode_f16,
    planes: Planes::whole(2),
    shader: include_str!("../../shaders/quant/f16.wgsl"),
};

pub(super) const BF16: Format = Format {
    name: "bf16",
    gguf_type: 30,
    block_weights: 1,
    block_bytes: 2,
    decode: decode_bf16,
    planes: Planes::whole(2),
    shader: include_str!("../../shaders/quant/bf16.wgsl"),
};

fn decode_f32(bytes: &[u8], out: &mut [f32]) {
    for (raw, weight) in bytes.as_chunks::<4>().0.iter().zip(out) {
        *weight = f32::from_le_bytes(*raw);
    }
}

fn decode_f16(bytes: &[u8], out: &mut [f32]) {
    for (raw, weight) in bytes.as_chunks::<2>().0.iter().zip(out) {
        *weight = f16::from_le_bytes(*raw).to_f32();
    }
}

fn decode_bf16(bytes: &[u8], out: &mut [f32]) {
    for (raw, weight) in bytes.as_chunks::<2>().0.iter().zip(out) {
        *weight = bf16::from_le_bytes(*raw).to_f32();
    }
}
