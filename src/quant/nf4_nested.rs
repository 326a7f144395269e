//! NF4 whose magnitudes are numbers of eight bits themselves (QLoRA's double quantisation, arXiv 2305.14314): 64 weights as
//! `offset: f32, scale: f32, place: u8, code: u8, q: [u8; 32]`, two of q to a byte, the low nibble first;
//! `w = LEVELS[q] * (MAGNITUDES[code] * scale + offset)`.
//!
//! Files have one offset a tensor and one scale for 256 blocks, all rows one after another; `place` is the block's number
//! among those of its scale. So scales are kept once for each run ([`super::runs`]). `src/format/packed` puts the blocks
//! together.

use super::nf4::{self, TABLE};
use super::{Format, Planes, Shared};

pub(super) const NF4_NESTED: Format = Format {
    name: "nf4_nested",
    gguf_type: None,
    block_weights: GROUP,
    block_bytes: HEAD + 1 + GROUP / 2,
    decode,
    planes: Planes::split(HEAD + 1..HEAD + 1 + GROUP / 2, 0).with_table(&TABLES).with_shared(Shared::RUNS),
    shader: wgsl!("quant/nf4_nested.wgsl"),
};

/// Bytes of the offset, of the scale and of the place.
const HEAD: usize = super::runs::HEAD;
/// Weights of a code.
const GROUP: usize = 64;

/// The magnitude of a code, as bitsandbytes makes its signed map (`functional.py`, `create_dynamic_map`): with n = 2^i, the
/// middles of n equal parts of 0.1 .. 1, times 10^(i - 6), for i from 0 to 6, with both signs; and 0 and 1.
const fn magnitude(code: usize) -> f32 {
    const TENS: [f64; 7] = [1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0];
    const ZERO: usize = 127;
    if code >= 255 {
        return 1.0;
    }
    if code == ZERO {
        return 0.0;
    }
    let number = code.abs_diff(ZERO);
    let exponent = number.ilog2() as usize;
    let parts = 1usize << exponent;
    let middle = 0.1 + 0.9 * (number.saturating_sub(parts) as f64 + 0.5) / parts as f64;
    #[expect(clippy::indexing_slicing, reason = "a number of seven bits has an exponent below seven")]
    let value = (middle * TENS[exponent]) as f32;
    if code < ZERO { -value } else { value }
}

const CODES: usize = 256;

/// The sixteen levels, then the magnitudes of all codes; the low half of each first.
static TABLES: [u16; 2 * (16 + CODES)] = {
    let mut tables = [0u16; 2 * (16 + CODES)];
    let mut at = 0;
    #[expect(clippy::indexing_slicing, reason = "a constant, checked when it is built")]
    while at < tables.len() {
        tables[at] = if at < TABLE.len() {
            TABLE[at]
        } else {
            let bits = magnitude((at - TABLE.len()) / 2).to_bits();
            if at % 2 == 0 { bits as u16 } else { (bits >> 16) as u16 }
        };
        at += 1;
    }
    tables
};

/// Whether a file's magnitudes are these, up to their rounding: the library makes them of float32 numbers.
pub fn are_magnitudes(values: &[f32]) -> bool {
    let same = |(code, value): (usize, &f32)| (magnitude(code) - value).abs() <= 1e-6 * value.abs();
    values.len() == CODES && values.iter().enumerate().all(same)
}

fn decode(bytes: &[u8], out: &mut [f32]) {
    let levels = nf4::levels();
    let level = |nibble: u8| levels.get(usize::from(nibble)).copied().unwrap_or(0.0);
    let blocks = bytes.as_chunks::<{ NF4_NESTED.block_bytes }>().0.iter();
    for (block, weights) in blocks.zip(out.as_chunks_mut::<GROUP>().0) {
        let [o0, o1, o2, o3, s0, s1, s2, s3, _, code, q @ ..] = block;
        let (offset, scale) = (f32::from_le_bytes([*o0, *o1, *o2, *o3]), f32::from_le_bytes([*s0, *s1, *s2, *s3]));
        let largest = magnitude(usize::from(*code)) * scale + offset;
        for ([low, high], q) in weights.as_chunks_mut::<2>().0.iter_mut().zip(q) {
            *low = level(q & 15) * largest;
            *high = level(q >> 4) * largest;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::magnitude;

    #[test]
    fn magnitudes_are_those_of_the_library() {
        let all: Vec<f32> = (0..256).map(magnitude).collect();
        assert!(all.is_sorted_by(|a, b| a < b));
        // create_dynamic_map()[..2], [126..130], [253..].
        let ends = [all[0], all[1], all[126], all[127], all[128], all[129], all[253], all[254], all[255]];
        let expected: [f64; 9] =
            [-0.992_968_75, -0.978_906_25, -5.5e-7, 0.0, 5.5e-7, 3.25e-6, 0.978_906_25, 0.992_968_75, 1.0];
        assert_eq!(ends, expected.map(|level| level as f32));
    }
}
