//! IQ4_NL: 32 weights as `d: f16, q: [u8; 16]`, nibbles as in Q4_0; `w = d * LEVELS[nibble]` (ggml `block_iq4_nl`).

use super::bits::{half, unpack};
use super::{Format, Planes};

pub(super) const IQ4_NL: Format = Format {
    name: "iq4_nl",
    gguf_type: Some(20),
    block_weights: 32,
    block_bytes: 18,
    decode,
    planes: Planes::split(2..18, 16),
    shader: wgsl!("quant/iq4_nl.wgsl"),
};

/// Sixteen levels that lie closer together around zero.
const LEVELS: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// The level of a nibble.
pub(super) fn level(nibble: u8) -> f32 {
    LEVELS.get(usize::from(nibble)).copied().map_or(0.0, f32::from)
}

fn decode(bytes: &[u8], out: &mut [f32]) {
    for (block, weights) in bytes.as_chunks::<18>().0.iter().zip(out.as_chunks_mut::<32>().0) {
        let d = half([block[0], block[1]]);
        for (weight, q) in weights.iter_mut().zip(unpack::<32>(&block[2..], 4, 16)) {
            *weight = d * level(q);
        }
    }
}
