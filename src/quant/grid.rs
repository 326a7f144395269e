//! What the formats share whose codes name several weights at once in a table.

use super::bits::unpack;

/// An entry of a table that has one for every index.
pub(super) fn entry(table: &[u16], index: u16) -> u16 {
    table.get(usize::from(index)).copied().unwrap_or(0)
}

/// The eight magnitudes of an entry with two bits each.
pub(super) fn levels2(entry: u16) -> [f32; 8] {
    unpack::<8>(&entry.to_le_bytes(), 2, 1).map(|code| match code {
        0 => 8.0,
        1 => 25.0,
        _ => 43.0,
    })
}

/// The four numbers of three bits of an entry.
pub(super) fn codes3(entry: u16) -> [u8; 4] {
    [entry, entry >> 3, entry >> 6, entry >> 9].map(|bits| (bits & 7) as u8)
}

/// The four numbers of seven bits that signs are made of.
pub(super) fn seven_bits(word: u32) -> [u16; 4] {
    [word, word >> 7, word >> 14, word >> 21].map(|bits| (bits & 127) as u16)
}

/// Eight signs of which an even number is set: seven are given, the eighth follows.
pub(super) fn even_signs(seven: u16) -> u8 {
    (seven & 127) as u8 | ((seven & 127).count_ones() as u8 & 1) << 7
}

/// Eight weights: `scale * magnitude`, negative where the bit of `signs` is set.
pub(super) fn write(weights: &mut [f32; 8], scale: f32, magnitudes: impl AsRef<[f32]>, signs: u8) {
    let signs = unpack::<8>(&[signs], 1, 1);
    for ((weight, magnitude), sign) in weights.iter_mut().zip(magnitudes.as_ref()).zip(signs) {
        *weight = if sign == 0 { scale * magnitude } else { -scale * magnitude };
    }
}
