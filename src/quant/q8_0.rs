//! Q8_0: 32 weights as `d: f16, q: [i8; 32]`; `w = d * q` (ggml `block_q8_0`).

use super::bits::half;
use super::{Format, Planes};

pub(super) const Q8_0: Format = Format {
    name: "q8_0",
    gguf_type: Some(8),
    block_weights: 32,
    block_bytes: 34,
    decode,
    planes: Planes::split(2..34, 0),
    shader: wgsl!("quant/q8_0.wgsl"),
};

fn decode(bytes: &[u8], out: &mut [f32]) {
    for (block, weights) in bytes.as_chunks::<34>().0.iter().zip(out.as_chunks_mut::<32>().0) {
        let d = half([block[0], block[1]]);
        for (weight, q) in weights.iter_mut().zip(&block[2..]) {
            *weight = d * f32::from(q.cast_signed());
        }
    }
}
