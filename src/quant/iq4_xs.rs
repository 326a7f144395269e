//! IQ4_XS: 256 weights as `d: f16, h: u16, s: [u8; 4], q: [u8; 128]`. Each 32 weights have 16 bytes of `q`, nibbles as
//! in Q4_0, and a scale of six bits: four in the nibbles of `s`, two in `h`, both in order;
//! `w = d * (scale - 32) * LEVELS[nibble]` with the levels of IQ4_NL (ggml `block_iq4_xs`).

use super::bits::{half, unpack};
use super::iq4_nl::level;
use super::{Format, Planes};

pub(super) const IQ4_XS: Format = Format {
    name: "iq4_xs",
    gguf_type: Some(23),
    block_weights: 256,
    block_bytes: 136,
    decode,
    planes: Planes::split(8..136, 16),
    shader: wgsl!("quant/iq4_xs.wgsl"),
};

fn decode(bytes: &[u8], out: &mut [f32]) {
    for (block, weights) in bytes.as_chunks::<136>().0.iter().zip(out.as_chunks_mut::<256>().0) {
        let d = half([block[0], block[1]]);
        let scales = unpack::<8>(&block[4..8], 4, 1).into_iter().zip(unpack::<8>(&block[2..4], 2, 1));
        let q = unpack::<256>(&block[8..], 4, 16);
        for ((weights, q), scale) in weights.as_chunks_mut::<32>().0.iter_mut().zip(q.as_chunks::<32>().0).zip(scales) {
            let scale = d * (f32::from(scale.0 | scale.1 << 4) - 32.0);
            for (weight, q) in weights.iter_mut().zip(q) {
                *weight = scale * level(*q);
            }
        }
    }
}
