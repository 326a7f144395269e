//! IQ1_M: 256 weights as `q: [u8; 32], h: [u8; 16], s: [u16; 4]`. Each eight weights have a byte of `q` and, in order, a
//! nibble of `h`: three bits above the byte name eight values of the grid of IQ1_S, the last shifts them down. Each 16
//! weights have a scale of three bits, four in each number of `s`; the highest four bits of those are `d: f16`;
//! `w = d * (2 * scale + 1) * (value +- 1/8)` (ggml `block_iq1_m`).

use half::f16;

use super::bits::unpack;
use super::grid::entry;
use super::iq1_s::{GRID, write_shifted};
use super::{Format, Planes, widen};

pub(super) const IQ1_M: Format = Format {
    name: "iq1_m",
    gguf_type: Some(29),
    block_weights: 256,
    block_bytes: 56,
    decode,
    planes: Planes::split(0..48, 0).with_table(&GRID),
    shader: wgsl!("quant/iq1_m.wgsl"),
};

fn decode(bytes: &[u8], out: &mut [f32]) {
    for (block, weights) in bytes.as_chunks::<56>().0.iter().zip(out.as_chunks_mut::<256>().0) {
        let s = [[block[48], block[49]], [block[50], block[51]], [block[52], block[53]], [block[54], block[55]]];
        let s = s.map(u16::from_le_bytes);
        let d = widen(f16::from_bits(s[0] >> 12 | s[1] >> 12 << 4 | s[2] >> 12 << 8 | s[3] >> 12 << 12));
        let scales =
            s.into_iter().flat_map(|s| [s & 7, s >> 3 & 7, s >> 6 & 7, s >> 9 & 7]).flat_map(|scale| [scale; 2]);
        let codes = block[..32].iter().zip(unpack::<32>(&block[32..48], 4, 1));
        for ((weights, (low, high)), scale) in weights.as_chunks_mut::<8>().0.iter_mut().zip(codes).zip(scales) {
            let scale = d * f32::from(scale << 1 | 1);
            let shift = if high >> 3 == 0 { 0.125 } else { -0.125 };
            write_shifted(weights, scale, entry(&GRID, u16::from_le_bytes([*low, high & 7])), shift);
        }
    }
}
