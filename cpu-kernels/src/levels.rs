//! Formats whose nibbles name one of sixteen levels: `iq4_nl`, `iq4_xs`, `mxfp4` (`src/quant` has their layouts).

use crate::blocks::Row;
use crate::float::half;
use crate::legacy::each_block;

/// Of `iq4_nl` and `iq4_xs`.
const UNEVEN: [i16; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// Twice the floats of four bits.
const FLOATS: [i16; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

#[inline(always)]
fn named(levels: &[i16; 16], q: &[u8], codes: &mut [i16; 32]) {
    let (low, high) = codes.split_at_mut(16);
    for ((q, low), high) in q[..16].iter().zip(low).zip(high) {
        *low = levels[usize::from(q & 15)];
        *high = levels[usize::from(q >> 4)];
    }
}

pub(crate) fn iq4_nl(bytes: &[u8], row: &mut Row<'_>) {
    each_block::<18, 32>(bytes, row.codes, |block, codes, index| {
        row.factors[index] = half([block[0], block[1]]);
        named(&UNEVEN, &block[2..], codes);
    });
}

pub(crate) fn iq4_xs(bytes: &[u8], row: &mut Row<'_>) {
    each_block::<136, 256>(bytes, row.codes, |block, codes, index| {
        let d = half([block[0], block[1]]);
        for (part, codes) in codes.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            let low = block[4 + part / 2] >> (part % 2 * 4) & 15;
            let high = block[2 + part / 4] >> (part % 4 * 2) & 3;
            row.factors[8 * index + part] = d * (f32::from(low | high << 4) - 32.0);
            named(&UNEVEN, &block[8 + 16 * part..], codes);
        }
    });
}

pub(crate) fn mxfp4(bytes: &[u8], row: &mut Row<'_>) {
    each_block::<17, 32>(bytes, row.codes, |block, codes, index| {
        // 2^(e - 128); the two smallest are no normal numbers.
        row.factors[index] = f32::from_bits(match block[0] {
            0 => 0x0020_0000,
            1 => 0x0040_0000,
            e => u32::from(e - 1) << 23,
        });
        named(&FLOATS, &block[1..], codes);
    });
}
