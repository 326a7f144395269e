//! Q4_0: 32 weights as `scale: f16, q: [u8; 16]`; the low nibble of byte `i` is weight `i`, the high one weight
//! `i + 16`; `w = scale * (nibble - 8)` (ggml `block_q4_0`).

use half::f16;

use super::Format;

pub(super) const Q4_0: Format = Format { name: "q4_0", gguf_type: 2, block_weights: 32, block_bytes: 18, decode };

fn decode(bytes: &[u8], out: &mut [f32]) {
    for (block, weights) in bytes.as_chunks::<18>().0.iter().zip(out.as_chunks_mut::<32>().0) {
        let scale = f16::from_le_bytes([block[0], block[1]]).to_f32();
        let (low, high) = weights.split_at_mut(16);
        for ((byte, low), high) in block[2..].iter().zip(low).zip(high) {
            *low = scale * (f32::from(byte & 15) - 8.0);
            *high = scale * (f32::from(byte >> 4) - 8.0);
        }
    }
}
