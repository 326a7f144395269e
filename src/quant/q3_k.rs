//! Q3_K: 256 weights as `h: [u8; 32], q: [u8; 64], s: [u8; 12], d: f16`. Two bits of each weight lie in `q` as in
//! Q2_K, the third is bit `j` of byte `i` of `h` for weight `32 * j + i`. Each 16 weights have a scale of six bits:
//! four in the nibbles of `s[..8]` (scale `i`, then `i + 8`), two in `s[8..]` (scales `i`, `i + 4`, ...);
//! `w = d * (scale - 32) * (q + 4 * bit - 4)` (ggml `block_q3_K`).

use super::bits::{half, unpack};
use super::{Format, Planes};

pub(super) const Q3_K: Format = Format {
    name: "q3_k",
    gguf_type: Some(11),
    block_weights: 256,
    block_bytes: 110,
    decode,
    planes: Planes::split(0..96, 0),
    shader: wgsl!("quant/q3_k.wgsl"),
};

fn decode(bytes: &[u8], out: &mut [f32]) {
    for (block, weights) in bytes.as_chunks::<110>().0.iter().zip(out.as_chunks_mut::<256>().0) {
        let d = half([block[108], block[109]]);
        let (high, low) = (unpack::<256>(&block[..32], 1, 32), unpack::<256>(&block[32..96], 2, 32));
        let (high, low) = (high.as_chunks::<16>().0, low.as_chunks::<16>().0);
        let scales = unpack::<16>(&block[96..104], 4, 8).into_iter().zip(unpack::<16>(&block[104..108], 2, 4));
        for (((weights, scale), low), high) in weights.as_chunks_mut::<16>().0.iter_mut().zip(scales).zip(low).zip(high)
        {
            let scale = d * (f32::from(scale.0 | scale.1 << 4) - 32.0);
            for ((weight, low), high) in weights.iter_mut().zip(low).zip(high) {
                *weight = scale * (f32::from(low | high << 2) - 4.0);
            }
        }
    }
}
