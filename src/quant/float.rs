//! Plain floats: f32, f16, bf16, little endian.

use headwater_cpu_kernels::float::{read_bf16, read_f16, read_f32};

use super::{Format, Planes};

pub(super) const F32: Format = Format {
    name: "f32",
    gguf_type: Some(0),
    block_weights: 1,
    block_bytes: 4,
    decode: read_f32,
    planes: Planes::whole(4),
    shader: wgsl!("quant/f32.wgsl"),
};

pub(super) const F16: Format = Format {
    name: "f16",
    gguf_type: Some(1),
    block_weights: 1,
    block_bytes: 2,
    decode: read_f16,
    planes: Planes::whole(2),
    shader: wgsl!("quant/f16.wgsl"),
};

pub(super) const BF16: Format = Format {
    name: "bf16",
    gguf_type: Some(30),
    block_weights: 1,
    block_bytes: 2,
    decode: read_bf16,
    planes: Planes::whole(2),
    shader: wgsl!("quant/bf16.wgsl"),
};
