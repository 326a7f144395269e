//! Q4_0: 32 weights as `d: f16, q: [u8; 16]`; the low nibble of byte `i` is weight `i`, the high one weight `i + 16`;
//! `w = d * (nibble - 8)` (ggml `block_q4_0`).

use super::bits::{half, unpack};
use super::{Format, Planes};

pub(super) const Q4_0: Format = Format {
    name: "q4_0",
    gguf_type: Some(2),
    block_weights: 32,
    block_bytes: 18,
    decode,
    planes: Planes::split(2..18, 16),
    shader: wgsl!("quant/q4_0.wgsl"),
};

fn decode(bytes: &[u8], out: &mut [f32]) {
    for (block, weights) in bytes.as_chunks::<18>().0.iter().zip(out.as_chunks_mut::<32>().0) {
        let d = half([block[0], block[1]]);
        for (weight, q) in weights.iter_mut().zip(unpack::<32>(&block[2..], 4, 16)) {
            *weight = d * (f32::from(q) - 8.0);
        }
    }
}
