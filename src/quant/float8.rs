//! Floats of eight bits (OCP 8-bit Floating Point 1.0) with a scale: 32 weights as `scale: f32, q: [u8; 32]`,
//! `w = scale * float(q)`.
//!
//! Files have one scale for each tile of 128 x 128 (DeepSeek-V3, arXiv 2412.19437; Qwen), for each row, or for a whole
//! tensor. Blocks repeat it; on a GPU it is kept once for 8 rows of a tile, or once a row.

use super::bits::half;
use super::{Format, Planes, Shared};

pub(super) const E4M3_TILE: Format = row("f8_e4m3_tile", decode_e4m3, TILE, &[]);
pub(super) const E4M3_ROW: Format = row("f8_e4m3_row", decode_e4m3, Shared::ROW, &[ROWWISE]);
pub(super) const E5M2_TILE: Format = row("f8_e5m2_tile", decode_e5m2, TILE, &[E5M2]);
pub(super) const E5M2_ROW: Format = row("f8_e5m2_row", decode_e5m2, Shared::ROW, &[E5M2, ROWWISE]);

const TILE: Shared = Shared { rows: true, blocks: 128 / 32, runs: false };
const E5M2: (&str, f64) = ("E5M2", 1.0);
const ROWWISE: (&str, f64) = ("ROWWISE", 1.0);

const fn row(
    name: &'static str,
    decode: fn(&[u8], &mut [f32]),
    shared: Shared,
    numbers: &'static [(&'static str, f64)],
) -> Format {
    Format {
        name,
        gguf_type: None,
        block_weights: 32,
        block_bytes: 36,
        decode,
        planes: Planes::split(4..36, 0).with_shared(shared).with_numbers(numbers),
        shader: wgsl!("quant/f8.wgsl"),
    }
}

/// A sign, four bits of exponent (bias 7) and three of mantissa, no infinities; the largest magnitude is no number.
fn e4m3(byte: u8) -> f32 {
    let magnitude = byte & 0x7f;
    if magnitude == 0x7f {
        return f32::NAN;
    }
    // The exponent's bias is 127 instead of 7; a product also makes subnormal numbers normal.
    let value = f32::from_bits(u32::from(magnitude) << 20) * f32::from_bits((127 + 127 - 7) << 23);
    if byte & 0x80 == 0 { value } else { -value }
}

/// The upper byte of a half float.
fn e5m2(byte: u8) -> f32 {
    half([0, byte])
}

fn decode(bytes: &[u8], out: &mut [f32], float: fn(u8) -> f32) {
    for (block, weights) in bytes.as_chunks::<36>().0.iter().zip(out.as_chunks_mut::<32>().0) {
        let Some((scale, q)) = block.split_first_chunk::<4>() else { continue };
        let scale = f32::from_le_bytes(*scale);
        for (weight, q) in weights.iter_mut().zip(q) {
            *weight = scale * float(*q);
        }
    }
}

fn decode_e4m3(bytes: &[u8], out: &mut [f32]) {
    decode(bytes, out, e4m3);
}

fn decode_e5m2(bytes: &[u8], out: &mut [f32]) {
    decode(bytes, out, e5m2);
}

#[cfg(test)]
mod tests {
    use super::{e4m3, e5m2};

    #[test]
    fn known_values() {
        // The tables of the specification: zero, least and largest subnormal, least normal, one, largest.
        let e4m3_values = [(0x00, 0.0), (0x01, 0.001_953_125), (0x07, 0.013_671_875), (0x08, 0.015_625), (0x38, 1.0)];
        for (byte, value) in e4m3_values.into_iter().chain([(0x7e, 448.0)]) {
            assert_eq!((e4m3(byte), e4m3(byte | 0x80)), (value, -value), "{byte:#x}");
        }
        assert!(e4m3(0x7f).is_nan() && e4m3(0xff).is_nan());
        let e5m2_values = [(0x01, 1.525_878_9e-5), (0x04, 6.103_515_6e-5), (0x3c, 1.0), (0x7b, 57_344.0)];
        for (byte, value) in e5m2_values {
            assert_eq!((e5m2(byte), e5m2(byte | 0x80)), (value, -value), "{byte:#x}");
        }
    }
}
