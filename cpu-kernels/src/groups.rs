//! Groups with a bias (MLX's `affine`) or a zero point (`zero` of GPTQ and AWQ), 32 to 128 weights each (`src/quant` has their
//! layouts). What a group of more than 32 has is repeated for each 32.

use half::bf16;

use crate::blocks::Row;
use crate::float::half;

/// Nibbles less `zero`, two to a byte, the low one first.
#[inline(always)]
fn nibbles(q: &[u8], zero: i16, codes: &mut [i16]) {
    for ([low, high], q) in codes.as_chunks_mut::<2>().0.iter_mut().zip(q) {
        *low = i16::from(q & 15) - zero;
        *high = i16::from(q >> 4) - zero;
    }
}

#[inline(always)]
fn bytes(q: &[u8], zero: i16, codes: &mut [i16]) {
    for (code, q) in codes.iter_mut().zip(q) {
        *code = i16::from(*q) - zero;
    }
}

#[inline(always)]
fn affine<const GROUP: usize, const BF16: bool>(
    raw: &[u8],
    block_bytes: usize,
    row: &mut Row<'_>,
    read: impl Fn(&[u8], i16, &mut [i16]),
) {
    let float = |raw: [u8; 2]| if BF16 { bf16::from_le_bytes(raw).to_f32() } else { half(raw) };
    for (index, (block, codes)) in raw.chunks_exact(block_bytes).zip(row.codes.chunks_exact_mut(GROUP)).enumerate() {
        let parts = index * (GROUP / 32)..(index + 1) * (GROUP / 32);
        row.factors[parts.clone()].fill(float([block[0], block[1]]));
        row.addends[parts].fill(float([block[2], block[3]]));
        read(&block[4..], 0, codes);
    }
}

pub(crate) fn affine4<const GROUP: usize, const BF16: bool>(raw: &[u8], row: &mut Row<'_>) {
    affine::<GROUP, BF16>(raw, 4 + GROUP / 2, row, nibbles);
}

pub(crate) fn affine8<const GROUP: usize, const BF16: bool>(raw: &[u8], row: &mut Row<'_>) {
    affine::<GROUP, BF16>(raw, 4 + GROUP, row, bytes);
}

#[inline(always)]
fn zero<const GROUP: usize>(raw: &[u8], block_bytes: usize, row: &mut Row<'_>, read: impl Fn(&[u8], i16, &mut [i16])) {
    for (index, (block, codes)) in raw.chunks_exact(block_bytes).zip(row.codes.chunks_exact_mut(GROUP)).enumerate() {
        row.factors[index * (GROUP / 32)..(index + 1) * (GROUP / 32)].fill(half([block[0], block[1]]));
        read(&block[3..], i16::from(block[2]), codes);
    }
}

pub(crate) fn zero4<const GROUP: usize>(raw: &[u8], row: &mut Row<'_>) {
    zero::<GROUP>(raw, 3 + GROUP / 2, row, nibbles);
}

pub(crate) fn zero8<const GROUP: usize>(raw: &[u8], row: &mut Row<'_>) {
    zero::<GROUP>(raw, 3 + GROUP, row, bytes);
}

pub(crate) fn zero4_pairs(raw: &[u8], row: &mut Row<'_>) {
    for (index, (block, codes)) in raw.as_chunks::<37>().0.iter().zip(row.codes.as_chunks_mut::<64>().0).enumerate() {
        let (first, second) = codes.split_at_mut(32);
        row.factors[2 * index] = half([block[0], block[1]]);
        row.factors[2 * index + 1] = half([block[2], block[3]]);
        nibbles(&block[5..21], i16::from(block[4] & 15), first);
        nibbles(&block[21..], i16::from(block[4] >> 4), second);
    }
}
