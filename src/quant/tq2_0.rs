//! TQ2_0: 256 weights of three values as `q: [u8; 64], d: f16`, two bits each as in Q2_K; `w = d * (q - 1)` (ggml
//! `block_tq2_0`).

use super::bits::{half, unpack};
use super::{Format, Planes};

pub(super) const TQ2_0: Format = Format {
    name: "tq2_0",
    gguf_type: Some(35),
    block_weights: 256,
    block_bytes: 66,
    decode,
    planes: Planes::split(0..64, 0),
    shader: wgsl!("quant/tq2_0.wgsl"),
};

fn decode(bytes: &[u8], out: &mut [f32]) {
    for (block, weights) in bytes.as_chunks::<66>().0.iter().zip(out.as_chunks_mut::<256>().0) {
        let d = half([block[64], block[65]]);
        for (weight, q) in weights.iter_mut().zip(unpack::<256>(&block[..64], 2, 32)) {
            *weight = d * (f32::from(q) - 1.0);
        }
    }
}
