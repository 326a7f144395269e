//! NF4 of bitsandbytes (QLoRA, arXiv 2305.14314): 64 weights as `m: f32, q: [u8; 32]`, two to a byte, the low nibble
//! first; `w = LEVELS[q] * m`, the levels being quantiles of a normal distribution. `src/format/packed` puts the blocks
//! together.

use super::{Format, Planes};

pub(super) const NF4: Format = Format {
    name: "nf4",
    gguf_type: None,
    block_weights: 64,
    block_bytes: 36,
    decode,
    planes: Planes::split(4..36, 0).with_table(&TABLE),
    shader: wgsl!("quant/nf4.wgsl"),
};

/// The bits of the sixteen levels, the low half of each first.
pub(super) const TABLE: [u16; 32] = [
    0x0000, 0xbf80, 0x39b1, 0xbf32, 0x6b30, 0xbf06, 0x32a0, 0xbeca, 0xa24d, 0xbe91, 0x353f, 0xbe3d, 0x7871, 0xbdba,
    0x0000, 0x0000, 0xfaff, 0x3da2, 0xcae3, 0x3e24, 0x04dd, 0x3e7c, 0x033a, 0x3ead, 0xa4b8, 0x3ee1, 0x07ab, 0x3f10,
    0x13b3, 0x3f39, 0x0000, 0x3f80,
];

/// The sixteen levels, ascending.
pub fn levels() -> [f32; 16] {
    let mut levels = [0.0; 16];
    for (level, [low, high]) in levels.iter_mut().zip(TABLE.as_chunks::<2>().0) {
        *level = f32::from_bits(u32::from(*low) | u32::from(*high) << 16);
    }
    levels
}

fn decode(bytes: &[u8], out: &mut [f32]) {
    let levels = levels();
    let level = |nibble: u8| levels.get(usize::from(nibble)).copied().unwrap_or(0.0);
    for (block, weights) in bytes.as_chunks::<36>().0.iter().zip(out.as_chunks_mut::<64>().0) {
        let Some((largest, q)) = block.split_first_chunk::<4>() else { continue };
        let largest = f32::from_le_bytes(*largest);
        for ([low, high], q) in weights.as_chunks_mut::<2>().0.iter_mut().zip(q) {
            *low = level(q & 15) * largest;
            *high = level(q >> 4) * largest;
        }
    }
}
