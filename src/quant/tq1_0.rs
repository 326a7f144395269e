//! TQ1_0: 256 weights of three values as `q: [u8; 48], h: [u8; 4], d: f16`. A byte is a fraction of 256 whose digits
//! to the base of 3 are weights: multiplied by `3^n` (the overflow dropped), `3 * byte / 256` is digit `n`. The bytes
//! are taken in runs of 32, 16 (five digits) and 4 (four digits), of each run first the digits 0 of every byte;
//! `w = d * (digit - 1)` (ggml `block_tq1_0`).

use std::ops::Range;

use super::bits::half;
use super::{Format, Planes};

pub(super) const TQ1_0: Format = Format {
    name: "tq1_0",
    gguf_type: Some(34),
    block_weights: 256,
    block_bytes: 54,
    decode,
    planes: Planes::split(0..52, 0),
    shader: wgsl!("quant/tq1_0.wgsl"),
};

/// The runs of bytes, each with the powers of 3 that bring its digits forward.
const RUNS: [(Range<usize>, &[u8]); 3] =
    [(0..32, &[1, 3, 9, 27, 81]), (32..48, &[1, 3, 9, 27, 81]), (48..52, &[1, 3, 9, 27])];

/// The first digit to the base of 3 of `fraction / 256`.
fn digit(fraction: u8) -> u8 {
    (u16::from(fraction).wrapping_mul(3) >> 8) as u8
}

fn decode(bytes: &[u8], out: &mut [f32]) {
    for (block, weights) in bytes.as_chunks::<54>().0.iter().zip(out.as_chunks_mut::<256>().0) {
        let d = half([block[52], block[53]]);
        let digits = RUNS.iter().flat_map(|(run, powers)| {
            let bytes = block.get(run.clone()).unwrap_or_default();
            powers.iter().flat_map(move |power| bytes.iter().map(move |byte| digit(byte.wrapping_mul(*power))))
        });
        for (weight, digit) in weights.iter_mut().zip(digits) {
            *weight = d * (f32::from(digit) - 1.0);
        }
    }
}
