//! Plain floats: f32, f16, bf16, little endian.

use half::{bf16, f16};

use super::{Format, Planes};

pub(super) const F32: Format = Format {
    name: "f32",
    gguf_type: Some(0),
    block_weights: 1,
    block_bytes: 4,
    decode: decode_f32,
    planes: Planes::whole(4),
    shader: include_str!("../../shaders/quant/f32.wgsl"),
};

pub(super) const F16: Format = Format {
    name: "f16",
    gguf_type: Some(1),
    block_weights: 1,
    block_bytes: 2,
    decode: decode_f16,
    planes: Planes::whole(2),
    shader: include_str!("../../shaders/quant/f16.wgsl"),
};

pub(super) const BF16: Format = Format {
    name: "bf16",
    gguf_type: Some(30),
    block_weights: 1,
    block_bytes: 2,
    decode: decode_bf16,
    planes: Planes::whole(2),
    shader: include_str!("../../shaders/quant/bf16.wgsl"),
};

fn decode_f32(bytes: &[u8], out: &mut [f32]) {
    for (raw, weight) in bytes.as_chunks::<4>().0.iter().zip(out) {
        *weight = f32::from_le_bytes(*raw);
    }
}

fn decode_f16(bytes: &[u8], out: &mut [f32]) {
    for (raw, weight) in bytes.as_chunks::<2>().0.iter().zip(out) {
        *weight = widen(f16::from_le_bytes(*raw));
    }
}

/// The same number as f32. Without branches, so that whole rows are widened by SIMD; the conversion of `half` asks the
/// processor for every number, and has no instruction to use in WebAssembly.
#[inline]
pub(crate) fn widen(number: f16) -> f32 {
    let bits = u32::from(number.to_bits());
    let magnitude = (bits & 0x7fff) << 13;
    // The exponent's bias is 127 instead of 15; a product also makes subnormal numbers normal.
    let finite = f32::from_bits(magnitude) * f32::from_bits((127 + 127 - 15) << 23);
    // Infinities and what is no number keep their exponent of ones.
    let special = 0u32.wrapping_sub(u32::from(bits & 0x7c00 == 0x7c00)) & 0x7f80_0000;
    f32::from_bits(finite.to_bits() | special | (bits & 0x8000) << 16)
}

fn decode_bf16(bytes: &[u8], out: &mut [f32]) {
    for (raw, weight) in bytes.as_chunks::<2>().0.iter().zip(out) {
        *weight = bf16::from_le_bytes(*raw).to_f32();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_f16_is_widened_as_its_definition_says() {
        for bits in 0..=u16::MAX {
            let number = f16::from_bits(bits);
            let (found, expected) = (widen(number), number.to_f32());
            let same = found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan();
            assert!(same, "{bits:#06x}: {found} where {expected} is right");
        }
    }
}
