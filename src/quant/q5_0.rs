//! Q5_0: 32 weights as `d: f16, h: u32, q: [u8; 16]`; nibbles as in Q4_0, bit `i` of `h` is the fifth bit of weight
//! `i`; `w = d * (nibble + 16 * bit - 16)` (ggml `block_q5_0`).

use super::bits::{half, unpack};
use super::{Format, Planes};

pub(super) const Q5_0: Format = Format {
    name: "q5_0",
    gguf_type: Some(6),
    block_weights: 32,
    block_bytes: 22,
    decode,
    planes: Planes::split(6..22, 16),
    shader: wgsl!("quant/q5_0.wgsl"),
};

fn decode(bytes: &[u8], out: &mut [f32]) {
    for (block, weights) in bytes.as_chunks::<22>().0.iter().zip(out.as_chunks_mut::<32>().0) {
        let d = half([block[0], block[1]]);
        let high = unpack::<32>(&block[2..6], 1, 1);
        for ((weight, q), high) in weights.iter_mut().zip(unpack::<32>(&block[6..], 4, 16)).zip(high) {
            *weight = d * (f32::from(q | high << 4) - 16.0);
        }
    }
}
