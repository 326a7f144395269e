//! Q5_1: 32 weights as `d: f16, m: f16, h: u32, q: [u8; 16]`; nibbles as in Q4_0, bit `i` of `h` is the fifth bit of
//! weight `i`; `w = d * (nibble + 16 * bit) + m` (ggml `block_q5_1`).

use super::bits::{half, unpack};
use super::{Format, Planes};

pub(super) const Q5_1: Format = Format {
    name: "q5_1",
    gguf_type: Some(7),
    block_weights: 32,
    block_bytes: 24,
    decode,
    planes: Planes::split(8..24, 16),
    shader: wgsl!("quant/q5_1.wgsl"),
};

fn decode(bytes: &[u8], out: &mut [f32]) {
    for (block, weights) in bytes.as_chunks::<24>().0.iter().zip(out.as_chunks_mut::<32>().0) {
        let (d, m) = (half([block[0], block[1]]), half([block[2], block[3]]));
        let high = unpack::<32>(&block[4..8], 1, 1);
        for ((weight, q), high) in weights.iter_mut().zip(unpack::<32>(&block[8..], 4, 16)).zip(high) {
            *weight = d * f32::from(q | high << 4) + m;
        }
    }
}
