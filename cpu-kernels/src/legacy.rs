//! The formats of 32 weights: `q8_0`, `q4_0`, `q4_1`, `q5_0`, `q5_1` (`src/quant` has their layouts).

use crate::blocks::Row;
use crate::float::half;

/// Calls `work` with each block, its codes and its index.
pub(crate) fn each_block<const BYTES: usize, const WEIGHTS: usize>(
    bytes: &[u8],
    codes: &mut [i16],
    mut work: impl FnMut(&[u8; BYTES], &mut [i16; WEIGHTS], usize),
) {
    let blocks = bytes.as_chunks::<BYTES>().0.iter().zip(codes.as_chunks_mut::<WEIGHTS>().0);
    for (index, (block, codes)) in blocks.enumerate() {
        work(block, codes, index);
    }
}

/// 32 nibbles less `zero`: the low ones of 16 bytes, then the high ones.
#[inline(always)]
pub(crate) fn nibbles(q: &[u8], zero: i16, codes: &mut [i16; 32]) {
    let (low, high) = codes.split_at_mut(16);
    for ((q, low), high) in q[..16].iter().zip(low).zip(high) {
        *low = i16::from(q & 15) - zero;
        *high = i16::from(q >> 4) - zero;
    }
}

/// Adds the fifth bit of each of 32 codes.
#[inline(never)]
fn fifth_bits(bits: [u8; 4], codes: &mut [i16; 32]) {
    for (bits, codes) in bits.into_iter().zip(codes.as_chunks_mut::<8>().0) {
        for (bit, code) in codes.iter_mut().enumerate() {
            *code += i16::from(bits >> bit & 1) << 4;
        }
    }
}

pub(crate) fn q8_0(bytes: &[u8], row: &mut Row<'_>) {
    each_block::<34, 32>(bytes, row.codes, |block, codes, index| {
        row.factors[index] = half([block[0], block[1]]);
        for (code, q) in codes.iter_mut().zip(&block[2..]) {
            *code = i16::from(q.cast_signed());
        }
    });
}

pub(crate) fn q4_0(bytes: &[u8], row: &mut Row<'_>) {
    each_block::<18, 32>(bytes, row.codes, |block, codes, index| {
        row.factors[index] = half([block[0], block[1]]);
        nibbles(&block[2..], 8, codes);
    });
}

pub(crate) fn q4_1(bytes: &[u8], row: &mut Row<'_>) {
    each_block::<20, 32>(bytes, row.codes, |block, codes, index| {
        row.factors[index] = half([block[0], block[1]]);
        row.addends[index] = half([block[2], block[3]]);
        nibbles(&block[4..], 0, codes);
    });
}

pub(crate) fn q5_0(bytes: &[u8], row: &mut Row<'_>) {
    each_block::<22, 32>(bytes, row.codes, |block, codes, index| {
        row.factors[index] = half([block[0], block[1]]);
        nibbles(&block[6..], 16, codes);
        fifth_bits([block[2], block[3], block[4], block[5]], codes);
    });
}

pub(crate) fn q5_1(bytes: &[u8], row: &mut Row<'_>) {
    each_block::<24, 32>(bytes, row.codes, |block, codes, index| {
        row.factors[index] = half([block[0], block[1]]);
        row.addends[index] = half([block[2], block[3]]);
        nibbles(&block[8..], 0, codes);
        fifth_bits([block[4], block[5], block[6], block[7]], codes);
    });
}
