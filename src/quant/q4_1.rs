//! Q4_1: 32 weights as `d: f16, m: f16, q: [u8; 16]`; the low nibble of byte `i` is weight `i`, the high one weight
//! `i + 16`; `w = d * nibble + m` (ggml `block_q4_1`).

use super::bits::{half, unpack};
use super::{Format, Planes};

pub(super) const Q4_1: Format = Format {
    name: "q4_1",
    gguf_type: Some(3),
    block_weights: 32,
    block_bytes: 20,
    decode,
    planes: Planes::split(4..20, 16),
    shader: wgsl!("quant/q4_1.wgsl"),
};

fn decode(bytes: &[u8], out: &mut [f32]) {
    for (block, weights) in bytes.as_chunks::<20>().0.iter().zip(out.as_chunks_mut::<32>().0) {
        let (d, m) = (half([block[0], block[1]]), half([block[2], block[3]]));
        for (weight, q) in weights.iter_mut().zip(unpack::<32>(&block[4..], 4, 16)) {
            *weight = d * f32::from(q) + m;
        }
    }
}
