//! Q5_K: 256 weights as `d: f16, m: f16, s: [u8; 12], h: [u8; 32], q: [u8; 128]`; scales and nibbles as in Q4_K, and
//! bit `j` of byte `i` of `h` is the fifth bit of weight `32 * j + i`; `w = d * scale * q - m * minimum` (ggml
//! `block_q5_K`).

use super::bits::unpack;
use super::q4_k::scales;
use super::{Format, Planes};

pub(super) const Q5_K: Format = Format {
    name: "q5_k",
    gguf_type: Some(13),
    block_weights: 256,
    block_bytes: 176,
    decode,
    planes: Planes::split(48..176, 32),
    shader: wgsl!("quant/q5_k.wgsl"),
};

fn decode(bytes: &[u8], out: &mut [f32]) {
    for (block, weights) in bytes.as_chunks::<176>().0.iter().zip(out.as_chunks_mut::<256>().0) {
        let Some(head) = block.first_chunk() else { continue };
        let (high, low) = (unpack::<256>(&block[16..48], 1, 32), unpack::<256>(&block[48..], 4, 32));
        let (high, low) = (high.as_chunks::<32>().0, low.as_chunks::<32>().0);
        let groups = weights.as_chunks_mut::<32>().0.iter_mut().zip(scales(head));
        for (((weights, (scale, minimum)), low), high) in groups.zip(low).zip(high) {
            for ((weight, low), high) in weights.iter_mut().zip(low).zip(high) {
                *weight = scale * f32::from(low | high << 4) - minimum;
            }
        }
    }
}
