//! Q8_0: 32 weights as `scale: f16, q: [i8; 32]`; `w = scale * q` (ggml `block_q8_0`).

use half::f16;

use super::Format;

pub(super) const Q8_0: Format = Format { name: "q8_0", gguf_type: 8, block_weights: 32, block_bytes: 34, decode };

fn decode(bytes: &[u8], out: &mut [f32]) {
    for (block, weights) in bytes.as_chunks::<34>().0.iter().zip(out.as_chunks_mut::<32>().0) {
        let scale = f16::from_le_bytes([block[0], block[1]]).to_f32();
        for (weight, quant) in weights.iter_mut().zip(&block[2..]) {
            *weight = scale * f32::from(quant.cast_signed());
        }
    }
}
