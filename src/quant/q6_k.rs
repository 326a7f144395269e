//! Q6_K: 256 weights as `q: [u8; 128], h: [u8; 64], s: [i8; 16], d: f16`. Each half of 128 weights has 64 bytes of `q`
//! (the low nibble of byte `i` is weight `i`, the high one weight `i + 64`) and 32 of `h` (the bits `2j, 2j + 1` of
//! byte `i` are the high bits of weight `32 * j + i`). Each 16 weights have a scale; `w = d * scale * (q - 32)`
//! (ggml `block_q6_K`).

use super::bits::{half, unpack};
use super::{Format, Planes};

pub(super) const Q6_K: Format = Format {
    name: "q6_k",
    gguf_type: Some(14),
    block_weights: 256,
    block_bytes: 210,
    decode,
    planes: Planes::split(0..208, 0),
    shader: wgsl!("quant/q6_k.wgsl"),
};

fn decode(bytes: &[u8], out: &mut [f32]) {
    for (block, weights) in bytes.as_chunks::<210>().0.iter().zip(out.as_chunks_mut::<256>().0) {
        let d = half([block[208], block[209]]);
        let (low, high) = (unpack::<256>(&block[..128], 4, 64), unpack::<256>(&block[128..192], 2, 32));
        let (low, high) = (low.as_chunks::<16>().0, high.as_chunks::<16>().0);
        let groups = weights.as_chunks_mut::<16>().0.iter_mut().zip(&block[192..208]);
        for (((weights, scale), low), high) in groups.zip(low).zip(high) {
            let scale = d * f32::from(scale.cast_signed());
            for ((weight, low), high) in weights.iter_mut().zip(low).zip(high) {
                *weight = scale * (f32::from(low | high << 4) - 32.0);
            }
        }
    }
}
