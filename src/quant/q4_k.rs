//! Q4_K: 256 weights as `d: f16, m: f16, s: [u8; 12], q: [u8; 128]`. Each 64 weights have 32 bytes of `q`: the low
//! nibble of byte `i` is weight `i`, the high one weight `i + 32`. Each 32 weights have a scale and a minimum of six
//! bits in `s` (see [`scales`]); `w = d * scale * q - m * minimum` (ggml `block_q4_K`).

use super::bits::{half, unpack};
use super::{Format, Planes};

pub(super) const Q4_K: Format = Format {
    name: "q4_k",
    gguf_type: Some(12),
    block_weights: 256,
    block_bytes: 144,
    decode,
    planes: Planes::split(16..144, 32),
    shader: wgsl!("quant/q4_k.wgsl"),
};

/// `(d * scale, m * minimum)` of each 32 weights, from the 16 bytes `d, m, s`. With `s` in three runs of four bytes,
/// the first four scales are the low six bits of run 0 and their minima those of run 1; the last four have their low
/// bits in the nibbles of run 2 and their two high bits at the top of runs 0 and 1.
pub(super) fn scales(head: &[u8; 16]) -> [(f32, f32); 8] {
    let (d, m) = (half([head[0], head[1]]), half([head[2], head[3]]));
    let (s0, s1, s2) = (&head[4..8], &head[8..12], &head[12..16]);
    let mut scales = [(0.0, 0.0); 8];
    let (first, last) = scales.split_at_mut(4);
    for ((((s0, s1), s2), first), last) in s0.iter().zip(s1).zip(s2).zip(first).zip(last) {
        *first = (d * f32::from(s0 & 63), m * f32::from(s1 & 63));
        *last = (d * f32::from(s2 & 15 | s0 >> 6 << 4), m * f32::from(s2 >> 4 | s1 >> 6 << 4));
    }
    scales
}

fn decode(bytes: &[u8], out: &mut [f32]) {
    for (block, weights) in bytes.as_chunks::<144>().0.iter().zip(out.as_chunks_mut::<256>().0) {
        let Some(head) = block.first_chunk() else { continue };
        let q = unpack::<256>(&block[16..], 4, 32);
        let groups = weights.as_chunks_mut::<32>().0.iter_mut().zip(q.as_chunks::<32>().0);
        for ((weights, q), (scale, minimum)) in groups.zip(scales(head)) {
            for (weight, q) in weights.iter_mut().zip(q) {
                *weight = scale * f32::from(*q) - minimum;
            }
        }
    }
}
