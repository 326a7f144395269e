//! Products in 32-bit floats, and floats of 16 bits.

use half::{bf16, f16};
use wide::f32x4;

use crate::LANES;

/// Columns whose products are added up before they are added to the total: short sums are exact sums.
const SEGMENT: usize = 32;

/// Rows of activations in 32-bit floats: `(tokens, cols)`, one after another where there is one token, else in panels of
/// `LANES` tokens, an element of each after another.
pub struct Floats {
    tokens: usize,
    cols: usize,
    /// `(panels, cols)`, a lane a token; for a single token its elements in all lanes.
    panels: Vec<f32x4>,
}

impl Floats {
    /// Rows of `cols` elements.
    pub fn new(x: &[f32], cols: usize) -> Self {
        let tokens = x.len() / cols;
        let mut panels = vec![f32x4::ZERO; tokens.div_ceil(LANES) * cols];
        for (token, x) in x.chunks_exact(cols).enumerate() {
            let panel = &mut panels[token / LANES * cols..][..cols];
            for (to, x) in panel.iter_mut().zip(x) {
                if tokens == 1 {
                    *to = f32x4::splat(*x);
                } else {
                    to.as_mut_array()[token % LANES] = *x;
                }
            }
        }
        Self { tokens, cols, panels }
    }
}

/// `y[t, r] = sum_c w[r, c] * x[t, c]`, `y (tokens, rows)`; `row` writes row `r` of the matrix.
pub fn matmul(row: impl Fn(usize, &mut [f32]), x: &Floats, y: &mut [f32]) {
    let (rows, cols) = (y.len() / x.tokens, x.cols);
    let mut tile = vec![0.0; LANES * cols];
    for first in (0..rows).step_by(LANES) {
        let wide = (rows - first).min(LANES);
        for (lane, tile) in tile.chunks_exact_mut(cols).take(wide).enumerate() {
            row(first + lane, tile);
        }
        if x.tokens == 1 {
            y[first..first + wide].copy_from_slice(&by_one(&tile, &x.panels).to_array()[..wide]);
            continue;
        }
        let mut write = |panel: usize, sums: [f32x4; LANES]| {
            let of_tokens = y[panel * LANES * rows..].chunks_exact_mut(rows);
            for (y, sums) in of_tokens.zip(f32x4::transpose(sums)) {
                y[first..first + wide].copy_from_slice(&sums.to_array()[..wide]);
            }
        };
        let mut pairs = x.panels.chunks_exact(2 * cols);
        let mut panel = 0;
        for two in pairs.by_ref() {
            let (a, b) = two.split_at(cols);
            let [a, b] = by_panels(&tile, [a, b]);
            write(panel, a);
            write(panel + 1, b);
            panel += 2;
        }
        if !pairs.remainder().is_empty() {
            let [sums] = by_panels(&tile, [pairs.remainder()]);
            write(panel, sums);
        }
    }
}

/// The products of a tile's rows, a lane each, with one token.
#[inline(always)]
fn by_one(tile: &[f32], x: &[f32x4]) -> f32x4 {
    let cols = x.len();
    let rows: [&[f32]; LANES] = std::array::from_fn(|lane| &tile[lane * cols..][..cols]);
    let mut total = f32x4::ZERO;
    for start in (0..cols).step_by(SEGMENT) {
        let end = cols.min(start + SEGMENT);
        let mut sum = f32x4::ZERO;
        let x = x[start..end].as_chunks::<4>();
        let [a, b, c, d] = rows.map(|row| row[start..end].as_chunks::<4>());
        for ((((x, a), b), c), d) in x.0.iter().zip(a.0).zip(b.0).zip(c.0).zip(d.0) {
            let columns = f32x4::transpose([*a, *b, *c, *d].map(f32x4::new));
            for (x, column) in x.iter().zip(columns) {
                sum += column * *x;
            }
        }
        for ((((x, a), b), c), d) in x.1.iter().zip(a.1).zip(b.1).zip(c.1).zip(d.1) {
            sum += f32x4::new([*a, *b, *c, *d]) * *x;
        }
        total += sum;
    }
    total
}

/// The products of a tile's rows with the tokens of panels, a lane each: `(panels, LANES)`.
#[inline(always)]
fn by_panels<const PANELS: usize>(tile: &[f32], x: [&[f32x4]; PANELS]) -> [[f32x4; LANES]; PANELS] {
    let cols = tile.len() / LANES;
    let mut totals = [[f32x4::ZERO; LANES]; PANELS];
    for start in (0..cols).step_by(SEGMENT) {
        let len = SEGMENT.min(cols - start);
        let rows: [&[f32]; LANES] = std::array::from_fn(|lane| &tile[lane * cols + start..][..len]);
        let x = x.map(|x| &x[start..][..len]);
        let mut sums = [[f32x4::ZERO; LANES]; PANELS];
        for at in 0..len {
            let x = x.map(|x| x[at]);
            for lane in 0..LANES {
                let weight = f32x4::splat(rows[lane][at]);
                for panel in 0..PANELS {
                    sums[panel][lane] += weight * x[panel];
                }
            }
        }
        for (totals, sums) in totals.iter_mut().zip(sums) {
            totals.iter_mut().zip(sums).for_each(|(total, sum)| *total += sum);
        }
    }
    totals
}

/// The same number as f32. Without branches, so that whole rows are widened by SIMD; the conversion of the `half` crate asks the
/// processor for every number, and has no instruction to use in WebAssembly.
#[inline]
pub fn widen(number: f16) -> f32 {
    let bits = u32::from(number.to_bits());
    let magnitude = (bits & 0x7fff) << 13;
    // The exponent's bias is 127 instead of 15; a product also makes subnormal numbers normal.
    let finite = f32::from_bits(magnitude) * f32::from_bits((127 + 127 - 15) << 23);
    // Infinities and what is no number keep their exponent of ones.
    let special = 0u32.wrapping_sub(u32::from(bits & 0x7c00 == 0x7c00)) & 0x7f80_0000;
    f32::from_bits(finite.to_bits() | special | (bits & 0x8000) << 16)
}

/// A float of 16 bits, little endian.
#[inline]
pub(crate) fn half(bytes: [u8; 2]) -> f32 {
    widen(f16::from_le_bytes(bytes))
}

/// [`widen`] for as many numbers as both have.
pub fn widen_all(numbers: &[f16], out: &mut [f32]) {
    for (out, number) in out.iter_mut().zip(numbers) {
        *out = widen(*number);
    }
}

/// Numbers of 32 bits, little endian.
pub fn read_f32(bytes: &[u8], out: &mut [f32]) {
    for (raw, out) in bytes.as_chunks::<4>().0.iter().zip(out) {
        *out = f32::from_le_bytes(*raw);
    }
}

/// IEEE numbers of 16 bits, little endian.
pub fn read_f16(bytes: &[u8], out: &mut [f32]) {
    for (raw, out) in bytes.as_chunks::<2>().0.iter().zip(out) {
        *out = half(*raw);
    }
}

/// Upper halves of numbers of 32 bits, little endian.
pub fn read_bf16(bytes: &[u8], out: &mut [f32]) {
    for (raw, out) in bytes.as_chunks::<2>().0.iter().zip(out) {
        *out = bf16::from_le_bytes(*raw).to_f32();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_f16_is_widened_as_its_definition_says() {
        for bits in 0..=u16::MAX {
            let number = f16::from_bits(bits);
            let (found, expected) = (widen(number), number.to_f32());
            let same = found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan();
            assert!(same, "{bits:#06x}: {found} where {expected} is right");
        }
    }
}
