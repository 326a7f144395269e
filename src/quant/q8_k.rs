//! Q8_K: 256 weights as `d: f32, q: [i8; 256], sums: [i16; 16]`; `w = d * q`; the sums of 16 `q` each serve ggml's own
//! products and are not needed (ggml `block_q8_K`).

use super::{Format, Planes};

pub(super) const Q8_K: Format = Format {
    name: "q8_k",
    gguf_type: Some(15),
    block_weights: 256,
    block_bytes: 292,
    decode,
    planes: Planes::split(4..260, 0),
    shader: wgsl!("quant/q8_k.wgsl"),
};

fn decode(bytes: &[u8], out: &mut [f32]) {
    for (block, weights) in bytes.as_chunks::<292>().0.iter().zip(out.as_chunks_mut::<256>().0) {
        let d = f32::from_le_bytes([block[0], block[1], block[2], block[3]]);
        for (weight, q) in weights.iter_mut().zip(&block[4..]) {
            *weight = d * f32::from(q.cast_signed());
        }
    }
}
