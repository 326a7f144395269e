//! Q2_K: 256 weights as `s: [u8; 16], q: [u8; 64], d: f16, m: f16`. Each half of 128 weights has 32 bytes of `q`; the
//! bits `2j, 2j + 1` of byte `i` are weight `32 * j + i` of the half. Each 16 weights have a byte of `s`, a scale low
//! and a minimum high; `w = d * scale * q - m * minimum` (ggml `block_q2_K`).

use super::bits::{half, unpack};
use super::{Format, Planes};

pub(super) const Q2_K: Format = Format {
    name: "q2_k",
    gguf_type: Some(10),
    block_weights: 256,
    block_bytes: 84,
    decode,
    planes: Planes::split(16..80, 0),
    shader: wgsl!("quant/q2_k.wgsl"),
};

fn decode(bytes: &[u8], out: &mut [f32]) {
    for (block, weights) in bytes.as_chunks::<84>().0.iter().zip(out.as_chunks_mut::<256>().0) {
        let (d, m) = (half([block[80], block[81]]), half([block[82], block[83]]));
        let q = unpack::<256>(&block[16..80], 2, 32);
        for ((weights, q), s) in weights.as_chunks_mut::<16>().0.iter_mut().zip(q.as_chunks::<16>().0).zip(block) {
            let (scale, minimum) = (d * f32::from(s & 15), m * f32::from(s >> 4));
            for (weight, q) in weights.iter_mut().zip(q) {
                *weight = scale * f32::from(*q) - minimum;
            }
        }
    }
}
