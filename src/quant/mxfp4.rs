//! MXFP4: 32 weights as `e: u8, q: [u8; 16]`, nibbles as in Q4_0. A nibble is a float of a sign, two bits of exponent
//! and one of mantissa, `e` a power of two (OCP Microscaling Formats 1.0); `w = 2^(e - 128) * LEVELS[nibble]`, the
//! levels being doubled (ggml `block_mxfp4`).

use super::bits::unpack;
use super::{Format, Planes};

pub(super) const MXFP4: Format = Format {
    name: "mxfp4",
    gguf_type: Some(39),
    block_weights: 32,
    block_bytes: 17,
    decode,
    planes: Planes::split(1..17, 16),
    shader: wgsl!("quant/mxfp4.wgsl"),
};

/// Twice the values of the sixteen floats of four bits.
const LEVELS: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// `2^(e - 128)`; the two smallest are no normal numbers.
fn half_power(e: u8) -> f32 {
    f32::from_bits(match e {
        0 => 0x0020_0000,
        1 => 0x0040_0000,
        _ => u32::from(e.saturating_sub(1)) << 23,
    })
}

fn decode(bytes: &[u8], out: &mut [f32]) {
    for (block, weights) in bytes.as_chunks::<17>().0.iter().zip(out.as_chunks_mut::<32>().0) {
        let scale = half_power(block[0]);
        for (weight, q) in weights.iter_mut().zip(unpack::<32>(&block[1..], 4, 16)) {
            let level = LEVELS.get(usize::from(q)).copied().map_or(0.0, f32::from);
            *weight = scale * level;
        }
    }
}
