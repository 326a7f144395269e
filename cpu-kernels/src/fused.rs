//! Products with a single token where codes go from their blocks straight into multiplications, for the commonest formats: to
//! write them down first, as [`integer`](crate::integer) does for all others and for several tokens, takes longer than to
//! multiply them. Results are the same to the last bit.

use bytemuck::cast;
use wide::{f32x4, i16x8, i32x4};

use crate::LANES;
use crate::activations::{GROUP, Panel};
use crate::widening::{signed, unsigned};

/// A product of rows, all of whose blocks are `bytes`, with one token.
pub(crate) type Product = fn(bytes: &[u8], x: &Panel<'_>, y: &mut [f32]);

/// The same position in [`LANES`] rows.
type Blocks<'a, const BYTES: usize> = [&'a [u8; BYTES]; LANES];

/// Codes of 32 weights.
type Codes = [i16x8; 4];

/// A block format, 32 weights (a part of a block) at a time.
trait Parts<const BYTES: usize> {
    /// Parts of a block.
    const PARTS: usize;
    /// Whether each 16 weights have a factor of their own.
    const HALVES: bool;
    /// What the parts' factors are made of.
    type Head: Copy;

    fn head(blocks: Blocks<'_, BYTES>) -> Self::Head;

    /// The factors of a part, or of its half, a lane a row.
    fn factors(blocks: Blocks<'_, BYTES>, head: Self::Head, part: usize, half: usize) -> f32x4;

    /// The addends of a part, where the format has them.
    fn addends(_blocks: Blocks<'_, BYTES>, _head: Self::Head, _part: usize) -> Option<f32x4> {
        None
    }

    fn codes(block: &[u8; BYTES], part: usize) -> Codes;
}

pub(crate) fn q8_0(bytes: &[u8], x: &Panel<'_>, y: &mut [f32]) {
    product::<34, Q8_0>(bytes, x, y);
}

pub(crate) fn q4_0(bytes: &[u8], x: &Panel<'_>, y: &mut [f32]) {
    product::<18, Q4_0>(bytes, x, y);
}

pub(crate) fn q4_k(bytes: &[u8], x: &Panel<'_>, y: &mut [f32]) {
    product::<144, Q4K>(bytes, x, y);
}

pub(crate) fn q6_k(bytes: &[u8], x: &Panel<'_>, y: &mut [f32]) {
    product::<210, Q6K>(bytes, x, y);
}

fn product<const BYTES: usize, F: Parts<BYTES>>(bytes: &[u8], x: &Panel<'_>, y: &mut [f32]) {
    let blocks = x.scales.len() / F::PARTS;
    let row_bytes = blocks * BYTES;
    let mut rows = bytes.chunks_exact(row_bytes);
    for y in y.chunks_mut(LANES) {
        // Rows that are not there are the last one once more.
        let mut last: &[u8] = &[];
        let tile: [&[u8]; LANES] = std::array::from_fn(|lane| {
            if lane < y.len() {
                last = rows.next().unwrap_or(last);
            }
            last
        });
        y.copy_from_slice(&tile_product::<BYTES, F>(tile.map(|row| row.as_chunks().0), x).to_array()[..y.len()]);
    }
}

#[inline(always)]
fn tile_product<const BYTES: usize, F: Parts<BYTES>>(rows: [&[[u8; BYTES]]; LANES], x: &Panel<'_>) -> f32x4 {
    let mut total = f32x4::ZERO;
    let [a, b, c, d] = rows;
    let parts = x.codes.chunks_exact(F::PARTS * GROUP / 8).zip(x.scales.chunks_exact(F::PARTS));
    let parts = parts.zip(x.sums.chunks_exact(2 * F::PARTS));
    for (((((codes, scales), sums), a), (b, c)), d) in parts.zip(a).zip(b.iter().zip(c)).zip(d) {
        let blocks = [a, b, c, d];
        let head = F::head(blocks);
        for part in 0..F::PARTS {
            let x = &codes[4 * part..][..4];
            let products = |block| {
                let codes = F::codes(block, part);
                let first = codes[0].dot(x[0]) + codes[1].dot(x[1]);
                let second = codes[2].dot(x[2]) + codes[3].dot(x[3]);
                if F::HALVES { [first, second] } else { [first + second, second] }
            };
            // One by one: where a loop is left of it, vectors pass through memory.
            let (a, b, c, d) = (products(a), products(b), products(c), products(d));
            total += across([a[0], b[0], c[0], d[0]]).round_float() * F::factors(blocks, head, part, 0) * scales[part];
            if F::HALVES {
                let sum = across([a[1], b[1], c[1], d[1]]).round_float();
                total += sum * F::factors(blocks, head, part, 1) * scales[part];
            }
            if let Some(addends) = F::addends(blocks, head, part) {
                total += addends * (sums[2 * part] + sums[2 * part + 1]);
            }
        }
    }
    total
}

/// The sum of each vector's lanes.
#[inline(always)]
pub(crate) fn across(vectors: [i32x4; LANES]) -> i32x4 {
    let [a, b, c, d] = f32x4::transpose(vectors.map(cast::<i32x4, f32x4>)).map(cast::<f32x4, i32x4>);
    (a + b) + (c + d)
}

/// [`half`](crate::float::half) of each block's number at a place.
#[inline(always)]
fn halves<const BYTES: usize>(blocks: Blocks<'_, BYTES>, at: usize) -> f32x4 {
    let bits = i32x4::new(blocks.map(|block| i32::from(u16::from_le_bytes([block[at], block[at + 1]]))));
    let magnitude = (bits & i32x4::splat(0x7fff)) << 13;
    let finite = cast::<i32x4, f32x4>(magnitude) * f32x4::splat(f32::from_bits((127 + 127 - 15) << 23));
    let exponent = i32x4::splat(0x7c00);
    let special = (bits & exponent).simd_eq(exponent) & i32x4::splat(0x7f80_0000);
    cast(cast::<f32x4, i32x4>(finite) | special | (bits & i32x4::splat(0x8000)) << 16)
}

/// Small numbers as floats.
#[inline(always)]
fn floats(numbers: [i32; LANES]) -> f32x4 {
    i32x4::new(numbers).round_float()
}

/// 32 bytes as integers of 16 bits.
#[inline(always)]
fn eights(bytes: &[u8]) -> Codes {
    let [first, second] = [0, 1].map(|part| unsigned(&bytes.as_chunks::<16>().0[part]));
    [first[0], first[1], second[0], second[1]]
}

struct Q8_0;

impl Parts<34> for Q8_0 {
    const PARTS: usize = 1;
    const HALVES: bool = false;
    type Head = ();

    #[inline(always)]
    fn head(_: Blocks<'_, 34>) {}

    #[inline(always)]
    fn factors(blocks: Blocks<'_, 34>, (): (), _: usize, _: usize) -> f32x4 {
        halves(blocks, 0)
    }

    #[inline(always)]
    fn codes(block: &[u8; 34], _: usize) -> Codes {
        let [first, second] = [0, 1].map(|part| signed(&block[2..].as_chunks::<16>().0[part]));
        [first[0], first[1], second[0], second[1]]
    }
}

struct Q4_0;

impl Parts<18> for Q4_0 {
    const PARTS: usize = 1;
    const HALVES: bool = false;
    type Head = ();

    #[inline(always)]
    fn head(_: Blocks<'_, 18>) {}

    #[inline(always)]
    fn factors(blocks: Blocks<'_, 18>, (): (), _: usize, _: usize) -> f32x4 {
        halves(blocks, 0)
    }

    #[inline(always)]
    fn codes(block: &[u8; 18], _: usize) -> Codes {
        let [first, second] = unsigned(&block[2..].as_chunks::<16>().0[0]);
        let (low, zero) = (i16x8::splat(15), i16x8::splat(8));
        [(first & low) - zero, (second & low) - zero, (first >> 4) - zero, (second >> 4) - zero]
    }
}

struct Q4K;

impl Parts<144> for Q4K {
    const PARTS: usize = 8;
    const HALVES: bool = false;
    /// The common factors of scales and of minima.
    type Head = [f32x4; 2];

    #[inline(always)]
    fn head(blocks: Blocks<'_, 144>) -> [f32x4; 2] {
        [halves(blocks, 0), halves(blocks, 2)]
    }

    #[inline(always)]
    fn factors(blocks: Blocks<'_, 144>, [d, _]: [f32x4; 2], part: usize, _: usize) -> f32x4 {
        d * floats(blocks.map(|block| {
            let (at, s) = (part % 4, &block[4..16]);
            i32::from(if part < 4 { s[at] & 63 } else { s[at + 8] & 15 | s[at] >> 6 << 4 })
        }))
    }

    #[inline(always)]
    fn addends(blocks: Blocks<'_, 144>, [_, m]: [f32x4; 2], part: usize) -> Option<f32x4> {
        let minima = floats(blocks.map(|block| {
            let (at, s) = (part % 4, &block[4..16]);
            i32::from(if part < 4 { s[at + 4] & 63 } else { s[at + 8] >> 4 | s[at + 4] >> 6 << 4 })
        }));
        Some(-(m * minima))
    }

    #[inline(always)]
    fn codes(block: &[u8; 144], part: usize) -> Codes {
        let all = eights(&block[16 + part / 2 * 32..][..32]);
        if part.is_multiple_of(2) { all.map(|codes| codes & i16x8::splat(15)) } else { all.map(|codes| codes >> 4) }
    }
}

struct Q6K;

impl Parts<210> for Q6K {
    const PARTS: usize = 8;
    const HALVES: bool = true;
    type Head = f32x4;

    #[inline(always)]
    fn head(blocks: Blocks<'_, 210>) -> f32x4 {
        halves(blocks, 208)
    }

    #[inline(always)]
    fn factors(blocks: Blocks<'_, 210>, d: f32x4, part: usize, half: usize) -> f32x4 {
        d * floats(blocks.map(|block| i32::from(block[192 + 2 * part + half].cast_signed())))
    }

    #[inline(always)]
    fn codes(block: &[u8; 210], part: usize) -> Codes {
        // Of each half of the block: four parts, nibbles of the first two low, bits of the j-th at 2 j.
        let (half, part) = (part / 4, part % 4);
        let low = eights(&block[64 * half + part % 2 * 32..][..32]);
        let high = eights(&block[128 + 32 * half..][..32]);
        std::array::from_fn(|i| {
            let low = if part < 2 { low[i] & i16x8::splat(15) } else { low[i] >> 4 };
            (low | (high[i] >> (2 * part as i32) & i16x8::splat(3)) << 4) - i16x8::splat(32)
        })
    }
}
