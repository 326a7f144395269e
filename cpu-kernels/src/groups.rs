//! Groups with a bias (MLX's `affine`) or a zero point (`zero` of GPTQ and AWQ), 32 to 128 weights each (`src/quant` has their
//! layouts). What a group of more than 32 has is repeated for each 32.

use half::bf16;

use crate::blocks::Row;
use crate::float::half;

/// Nibbles less `zero`, two to a byte, the low one first.
fn nibbles(q: &[u8], zero: i16, codes: &mut [i16]) {
    for ([low, high], q) in codes.as_chunks_mut::<2>().0.iter_mut().zip(q) {
        *low = i16::from(q & 15) - zero;
        *high = i16::from(q >> 4) - zero;
    }
}

/// Nibbles, or bytes, less `zero`.
fn less(q: &[u8], zero: i16, codes: &mut [i16]) {
    if q.len() < codes.len() {
        return nibbles(q, zero, codes);
    }
    for (code, q) in codes.iter_mut().zip(q) {
        *code = i16::from(*q) - zero;
    }
}

/// Blocks of `group` codes behind `head` bytes, with the parts that have their factors.
fn each<'a>(
    raw: &'a [u8],
    codes: &'a mut [i16],
    (head, group, bits): (usize, usize, usize),
) -> impl Iterator<Item = (&'a [u8], &'a [u8], &'a mut [i16], std::ops::Range<usize>)> {
    let blocks = raw.chunks_exact(head + group * bits / 8).zip(codes.chunks_exact_mut(group));
    let each = group / 32;
    blocks.enumerate().map(move |(index, (block, codes))| {
        let (head, q) = block.split_at(head);
        (head, q, codes, index * each..(index + 1) * each)
    })
}

// Only the numbers are compiled for each format, not the loops: there are many, and none is common.

#[inline(never)]
fn affine(raw: &[u8], row: &mut Row<'_>, (group, bits): (usize, usize), float: fn([u8; 2]) -> f32) {
    for (head, q, codes, parts) in each(raw, row.codes, (4, group, bits)) {
        row.factors[parts.clone()].fill(float([head[0], head[1]]));
        row.addends[parts].fill(float([head[2], head[3]]));
        less(q, 0, codes);
    }
}

/// MLX's groups with half floats.
pub(crate) fn affine_f16<const GROUP: usize, const BITS: usize>(raw: &[u8], row: &mut Row<'_>) {
    affine(raw, row, (GROUP, BITS), half);
}

/// MLX's groups with brain floats.
pub(crate) fn affine_bf16<const GROUP: usize, const BITS: usize>(raw: &[u8], row: &mut Row<'_>) {
    affine(raw, row, (GROUP, BITS), |raw| bf16::from_le_bytes(raw).to_f32());
}

#[inline(never)]
fn zero_points(raw: &[u8], row: &mut Row<'_>, (group, bits): (usize, usize)) {
    for (head, q, codes, parts) in each(raw, row.codes, (3, group, bits)) {
        row.factors[parts].fill(half([head[0], head[1]]));
        less(q, i16::from(head[2]), codes);
    }
}

/// Groups with a zero point of a byte.
pub(crate) fn zero<const GROUP: usize, const BITS: usize>(raw: &[u8], row: &mut Row<'_>) {
    zero_points(raw, row, (GROUP, BITS));
}

/// Two groups of 32 nibbles with a nibble each for their zero points.
pub(crate) fn zero4_pairs(raw: &[u8], row: &mut Row<'_>) {
    for (index, (block, codes)) in raw.as_chunks::<37>().0.iter().zip(row.codes.as_chunks_mut::<64>().0).enumerate() {
        let (first, second) = codes.split_at_mut(32);
        row.factors[2 * index] = half([block[0], block[1]]);
        row.factors[2 * index + 1] = half([block[2], block[3]]);
        nibbles(&block[5..21], i16::from(block[4] & 15), first);
        nibbles(&block[21..], i16::from(block[4] >> 4), second);
    }
}
