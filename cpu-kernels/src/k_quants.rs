//! ggml's formats of 256 weights with scales of 16 or 32 (`src/quant` has their layouts).

use crate::blocks::Row;
use crate::float::half;
use crate::legacy::each_block;

/// Sets each run of 32 codes to the bits `2 j, 2 j + 1` of 32 bytes, four runs to each 32 bytes.
#[inline(always)]
fn two_bits(bytes: &[u8], codes: &mut [i16; 256]) {
    for (bytes, codes) in bytes.as_chunks::<32>().0.iter().zip(codes.as_chunks_mut::<128>().0) {
        for (part, codes) in codes.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            for (code, byte) in codes.iter_mut().zip(bytes) {
                *code = i16::from(byte >> (2 * part) & 3);
            }
        }
    }
}

/// Sets each 64 codes to the low nibbles of 32 bytes, then the high ones.
#[inline(always)]
fn nibbles(bytes: &[u8], codes: &mut [i16; 256]) {
    for (bytes, codes) in bytes.as_chunks::<32>().0.iter().zip(codes.as_chunks_mut::<64>().0) {
        let (low, high) = codes.split_at_mut(32);
        for ((byte, low), high) in bytes.iter().zip(low).zip(high) {
            *low = i16::from(byte & 15);
            *high = i16::from(byte >> 4);
        }
    }
}

/// Adds to each run of 32 codes `high` where bit `j` of the run's byte is set, `j` being the run's number.
#[inline(always)]
fn one_bit(bytes: &[u8], high: i16, codes: &mut [i16; 256]) {
    for (part, codes) in codes.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        for (code, byte) in codes.iter_mut().zip(bytes) {
            *code += i16::from(byte >> part & 1) * high;
        }
    }
}

/// The factors and addends of each 32 weights of Q4_K and Q5_K, from the 16 bytes `d, m, s`.
#[inline(always)]
fn six_bit_scales(head: &[u8], index: usize, row: &mut Row<'_>) {
    let (d, m) = (half([head[0], head[1]]), half([head[2], head[3]]));
    let (s0, s1, s2) = (&head[4..8], &head[8..12], &head[12..16]);
    let (factors, addends) = (&mut row.factors[8 * index..][..8], &mut row.addends[8 * index..][..8]);
    for i in 0..4 {
        factors[i] = d * f32::from(s0[i] & 63);
        addends[i] = -(m * f32::from(s1[i] & 63));
        factors[i + 4] = d * f32::from(s2[i] & 15 | s0[i] >> 6 << 4);
        addends[i + 4] = -(m * f32::from(s2[i] >> 4 | s1[i] >> 6 << 4));
    }
}

/// Calls `work` with each block, its codes, its index, and the row.
fn each<const BYTES: usize>(
    bytes: &[u8],
    row: &mut Row<'_>,
    mut work: impl FnMut(&[u8; BYTES], &mut [i16; 256], usize, &mut Row<'_>),
) {
    let Row { codes, factors, addends } = row;
    let rest = &mut Row { codes: &mut [], factors, addends };
    each_block(bytes, codes, |block, codes, index| work(block, codes, index, rest));
}

pub(crate) fn q2_k(bytes: &[u8], row: &mut Row<'_>) {
    each::<84>(bytes, row, |block, codes, index, row| {
        let (d, m) = (half([block[80], block[81]]), half([block[82], block[83]]));
        for (i, s) in block[..16].iter().enumerate() {
            row.factors[16 * index + i] = d * f32::from(s & 15);
            row.addends[16 * index + i] = -(m * f32::from(s >> 4));
        }
        two_bits(&block[16..80], codes);
    });
}

pub(crate) fn q3_k(bytes: &[u8], row: &mut Row<'_>) {
    each::<110>(bytes, row, |block, codes, index, row| {
        let d = half([block[108], block[109]]);
        for i in 0..16 {
            let low = block[96 + i % 8] >> (i / 8 * 4) & 15;
            let high = block[104 + i % 4] >> (i / 4 * 2) & 3;
            row.factors[16 * index + i] = d * (f32::from(low | high << 4) - 32.0);
        }
        two_bits(&block[32..96], codes);
        one_bit(&block[..32], 4, codes);
        codes.iter_mut().for_each(|code| *code -= 4);
    });
}

pub(crate) fn q4_k(bytes: &[u8], row: &mut Row<'_>) {
    each::<144>(bytes, row, |block, codes, index, row| {
        six_bit_scales(&block[..16], index, row);
        nibbles(&block[16..], codes);
    });
}

pub(crate) fn q5_k(bytes: &[u8], row: &mut Row<'_>) {
    each::<176>(bytes, row, |block, codes, index, row| {
        six_bit_scales(&block[..16], index, row);
        nibbles(&block[48..], codes);
        one_bit(&block[16..48], 16, codes);
    });
}

pub(crate) fn q6_k(bytes: &[u8], row: &mut Row<'_>) {
    each::<210>(bytes, row, |block, codes, index, row| {
        let d = half([block[208], block[209]]);
        for (factor, scale) in row.factors[16 * index..].iter_mut().zip(&block[192..208]) {
            *factor = d * f32::from(scale.cast_signed());
        }
        two_bits(&block[128..192], codes);
        for (bytes, codes) in block[..128].as_chunks::<64>().0.iter().zip(codes.as_chunks_mut::<128>().0) {
            let (first, last) = codes.split_at_mut(64);
            for ((byte, first), last) in bytes.iter().zip(first).zip(last) {
                *first = (*first << 4 | i16::from(byte & 15)) - 32;
                *last = (*last << 4 | i16::from(byte >> 4)) - 32;
            }
        }
    });
}

pub(crate) fn q8_k(bytes: &[u8], row: &mut Row<'_>) {
    each::<292>(bytes, row, |block, codes, index, row| {
        row.factors[8 * index..][..8].fill(f32::from_le_bytes([block[0], block[1], block[2], block[3]]));
        for (code, q) in codes.iter_mut().zip(&block[4..260]) {
            *code = i16::from(q.cast_signed());
        }
    });
}
