//! How numbers are stored: one file per block format, and the table of all of them.
//!
//! A format is a block of `block_weights` consecutive weights of a row in `block_bytes` bytes. The CPU decodes blocks
//! to float32; a GPU shader reads *planes*, aligned arrays repacked from the blocks at load
//! (`shaders/quant/<name>.wgsl`). Neither models nor kernels know which format a matrix has.
//!
//! To add a format: a file here and one in `shaders/quant`, a line in the table, rows of golden blocks.

#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::panic
    )
)]

mod affine;
mod bits;
pub(crate) mod encode;
mod float;
mod float8;
mod grid;
mod iq1_m;
mod iq1_s;
mod iq2_s;
mod iq2_xs;
mod iq2_xxs;
mod iq3_s;
mod iq3_xxs;
mod iq4_nl;
mod iq4_xs;
mod mxfp4;
mod nf4;
mod nf4_nested;
mod q2_k;
mod q3_k;
mod q4_0;
mod q4_1;
mod q4_k;
mod q5_0;
mod q5_1;
mod q5_k;
mod q6_k;
mod q8_0;
mod q8_k;
pub(crate) mod runs;
mod shared;
mod tq1_0;
mod tq2_0;
mod zero;

use std::ops::Range;

pub use encode::{ENCODERS, Encode};
pub(crate) use headwater_cpu_kernels::float::widen;
pub(crate) use nf4::levels as nf4_levels;
pub(crate) use nf4_nested::are_magnitudes;
pub use shared::Shared;

/// One row of the table.
#[derive(Debug)]
pub struct Format {
    /// The name in options, files of ours and shaders.
    pub name: &'static str,
    /// The number of the type in GGUF files, where they have it.
    pub gguf_type: Option<u32>,
    /// Weights in one block.
    pub block_weights: usize,
    /// Bytes of one block.
    pub block_bytes: usize,
    /// Decodes whole blocks: `out.len() == bytes.len() / block_bytes * block_weights`.
    pub decode: fn(bytes: &[u8], out: &mut [f32]),
    /// Where a block's bytes lie on a GPU.
    pub planes: Planes,
    /// The text of `shaders/quant/<name>.wgsl`, which reads the planes.
    pub shader: &'static str,
}

/// How blocks are repacked for a GPU (`shaders/repack.wgsl`): one range of each block to plane 0, all other bytes, in
/// their order, to plane 1. Both planes are dense, so together they are as large as the blocks.
#[derive(Debug)]
pub struct Planes {
    /// The bytes of plane 0: whole words, so that plane 0 can be read by the word or by several.
    pub first: Range<usize>,
    /// Where not 0, plane 0 is nibbles, and each run of so many bytes holds the low nibbles of all its bytes before the
    /// high ones: they are regrouped so that each word has eight consecutive weights.
    pub nibble_span: usize,
    /// Numbers that all blocks share: binding 2, two to a word.
    pub table: &'static [u16],
    /// Which blocks have the same bytes for plane 1, so that it keeps them once.
    pub shared: Shared,
    /// Values of `override` numbers in the shader.
    pub numbers: &'static [(&'static str, f64)],
}

impl Planes {
    /// All of a block of `bytes` in plane 0.
    const fn whole(bytes: usize) -> Self {
        Self::split(0..bytes, 0)
    }

    /// These bytes of a block in plane 0, regrouped by `nibble_span` where it is not 0.
    const fn split(first: Range<usize>, nibble_span: usize) -> Self {
        Self { first, nibble_span, table: &[], shared: Shared::NOTHING, numbers: &[] }
    }

    const fn with_table(self, table: &'static [u16]) -> Self {
        Self { table, ..self }
    }

    const fn with_numbers(self, numbers: &'static [(&'static str, f64)]) -> Self {
        Self { numbers, ..self }
    }

    const fn with_shared(self, shared: Shared) -> Self {
        Self { shared, ..self }
    }
}

impl Format {
    /// Bytes that one block takes in each plane.
    pub fn plane_bytes(&self) -> [usize; 2] {
        let first = self.planes.first.len();
        [first, self.block_bytes.saturating_sub(first)]
    }
}

macro_rules! formats {
    ($($(#[doc = $doc:literal])* $id:ident => $row:path,)*) => {
        /// A format, as an index into the table.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum FormatId { $($(#[doc = $doc])* $id,)* }

        /// Every format with its description, in the order of [`FormatId`].
        pub const FORMATS: &[(FormatId, Format)] = &[$((FormatId::$id, $row),)*];
    };
}

formats! {
    /// IEEE 754 binary32.
    F32 => float::F32,
    /// IEEE 754 binary16.
    F16 => float::F16,
    /// The upper half of a binary32.
    Bf16 => float::BF16,
    /// 32 signed bytes and a scale.
    Q8_0 => q8_0::Q8_0,
    /// 32 nibbles and a scale.
    Q4_0 => q4_0::Q4_0,
    /// 32 nibbles, a scale and a minimum.
    Q4_1 => q4_1::Q4_1,
    /// 32 numbers of five bits and a scale.
    Q5_0 => q5_0::Q5_0,
    /// 32 numbers of five bits, a scale and a minimum.
    Q5_1 => q5_1::Q5_1,
    /// 256 numbers of two bits, scales and minima of 16.
    Q2K => q2_k::Q2_K,
    /// 256 numbers of three bits, scales of 16.
    Q3K => q3_k::Q3_K,
    /// 256 nibbles, scales and minima of 32.
    Q4K => q4_k::Q4_K,
    /// 256 numbers of five bits, scales and minima of 32.
    Q5K => q5_k::Q5_K,
    /// 256 numbers of six bits, scales of 16.
    Q6K => q6_k::Q6_K,
    /// 256 signed bytes and a scale.
    Q8K => q8_k::Q8_K,
    /// 32 nibbles that name uneven levels, and a scale.
    Iq4Nl => iq4_nl::IQ4_NL,
    /// 256 nibbles that name uneven levels, scales of 32.
    Iq4Xs => iq4_xs::IQ4_XS,
    /// 256 numbers of about three bits, from a table by four, scales of 32.
    Iq3S => iq3_s::IQ3_S,
    /// 256 numbers of about three bits, from a smaller table by four, scales of 32.
    Iq3Xxs => iq3_xxs::IQ3_XXS,
    /// 256 numbers of about two bits, from a table by eight, scales of 16.
    Iq2S => iq2_s::IQ2_S,
    /// 256 numbers of about two bits, from a smaller table by eight, scales of 16.
    Iq2Xs => iq2_xs::IQ2_XS,
    /// 256 numbers of about two bits, from the smallest table by eight, scales of 32.
    Iq2Xxs => iq2_xxs::IQ2_XXS,
    /// 256 of three values, from a table by eight, scales of 32.
    Iq1S => iq1_s::IQ1_S,
    /// 256 of three values, from a table by eight, scales of 16.
    Iq1M => iq1_m::IQ1_M,
    /// 32 floats of four bits and a power of two.
    Mxfp4 => mxfp4::MXFP4,
    /// 256 digits to the base of three, five to a byte, and a scale.
    Tq1_0 => tq1_0::TQ1_0,
    /// 256 digits to the base of three of two bits each, and a scale.
    Tq2_0 => tq2_0::TQ2_0,
    /// MLX: 32 nibbles, scale and bias as f16.
    Affine4G32F16 => affine::NIBBLES_32_F16,
    /// MLX: 64 nibbles, scale and bias as f16.
    Affine4G64F16 => affine::NIBBLES_64_F16,
    /// MLX: 128 nibbles, scale and bias as f16.
    Affine4G128F16 => affine::NIBBLES_128_F16,
    /// MLX: 32 nibbles, scale and bias as bf16.
    Affine4G32Bf16 => affine::NIBBLES_32_BF16,
    /// MLX: 64 nibbles, scale and bias as bf16.
    Affine4G64Bf16 => affine::NIBBLES_64_BF16,
    /// MLX: 128 nibbles, scale and bias as bf16.
    Affine4G128Bf16 => affine::NIBBLES_128_BF16,
    /// MLX: 32 bytes, scale and bias as f16.
    Affine8G32F16 => affine::BYTES_32_F16,
    /// MLX: 64 bytes, scale and bias as f16.
    Affine8G64F16 => affine::BYTES_64_F16,
    /// MLX: 128 bytes, scale and bias as f16.
    Affine8G128F16 => affine::BYTES_128_F16,
    /// MLX: 32 bytes, scale and bias as bf16.
    Affine8G32Bf16 => affine::BYTES_32_BF16,
    /// MLX: 64 bytes, scale and bias as bf16.
    Affine8G64Bf16 => affine::BYTES_64_BF16,
    /// MLX: 128 bytes, scale and bias as bf16.
    Affine8G128Bf16 => affine::BYTES_128_BF16,
    /// GPTQ and AWQ: two groups of 32 nibbles, each with a scale and a zero point.
    Zero4G32 => zero::NIBBLES_32,
    /// GPTQ and AWQ: 64 nibbles, a scale and a zero point.
    Zero4G64 => zero::NIBBLES_64,
    /// GPTQ and AWQ: 128 nibbles, a scale and a zero point.
    Zero4G128 => zero::NIBBLES_128,
    /// GPTQ: 32 bytes, a scale and a zero point.
    Zero8G32 => zero::BYTES_32,
    /// GPTQ: 64 bytes, a scale and a zero point.
    Zero8G64 => zero::BYTES_64,
    /// GPTQ: 128 bytes, a scale and a zero point.
    Zero8G128 => zero::BYTES_128,
    /// GPTQ and AWQ: 32 nibbles, the scale and the zero point of their row.
    Zero4Row => zero::NIBBLES_ROW,
    /// GPTQ: 32 bytes, the scale and the zero point of their row.
    Zero8Row => zero::BYTES_ROW,
    /// 32 floats of eight bits, four of exponent, and the scale of their tile of 128 x 128.
    F8E4m3Tile => float8::E4M3_TILE,
    /// 32 floats of eight bits, four of exponent, and the scale of their row.
    F8E4m3Row => float8::E4M3_ROW,
    /// 32 floats of eight bits, five of exponent, and the scale of their tile of 128 x 128.
    F8E5m2Tile => float8::E5M2_TILE,
    /// 32 floats of eight bits, five of exponent, and the scale of their row.
    F8E5m2Row => float8::E5M2_ROW,
    /// 64 nibbles that name levels of a normal distribution, and their largest magnitude.
    Nf4 => nf4::NF4,
    /// The same with magnitudes of eight bits: 64 nibbles, a code, and the scale and offset of many.
    Nf4Nested => nf4_nested::NF4_NESTED,
}

impl FormatId {
    /// The description.
    #[expect(clippy::indexing_slicing, reason = "enum and table are made from the same lines")]
    pub fn format(self) -> &'static Format {
        &FORMATS[self as usize].1
    }

    /// The format of a GGUF type number, where it is supported.
    pub fn from_gguf(gguf_type: u32) -> Option<Self> {
        FORMATS.iter().find(|(_, format)| format.gguf_type == Some(gguf_type)).map(|(id, _)| *id)
    }

    /// The bytes of numbers in a format of plain floats, rounded to it; `None` in every other format.
    pub fn encode_floats(self, numbers: &[f32]) -> Option<Vec<u8>> {
        match self {
            FormatId::F32 => Some(numbers.iter().flat_map(|number| number.to_le_bytes()).collect()),
            FormatId::F16 => {
                Some(numbers.iter().flat_map(|number| half::f16::from_f32(*number).to_le_bytes()).collect())
            }
            FormatId::Bf16 => {
                Some(numbers.iter().flat_map(|number| half::bf16::from_f32(*number).to_le_bytes()).collect())
            }
            _ => None,
        }
    }

    /// Bytes of a row of `cols` weights; `None` when the row is no whole number of blocks or the size overflows.
    pub fn row_bytes(self, cols: usize) -> Option<usize> {
        let format = self.format();
        (cols.checked_rem(format.block_weights)? == 0).then_some(())?;
        cols.checked_div(format.block_weights)?.checked_mul(format.block_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::FORMATS;

    #[test]
    fn planes_have_whole_words_and_all_bytes() {
        for (id, format) in FORMATS {
            let [first, rest] = format.plane_bytes();
            assert_eq!(id.format().name, format.name);
            assert!(format.planes.first.end <= format.block_bytes && rest <= first, "{}", format.name);
            assert_eq!(format.block_weights % 8 * (format.block_weights - 1), 0, "{}", format.name);
            // Rows are whole groups of 8 weights; formats of one plane are copied by the word.
            let least = if rest == 0 { 8 * format.block_bytes } else { first };
            assert_eq!(least % 4, 0, "{}", format.name);
            assert_eq!(first % format.planes.nibble_span.max(1), 0, "{}", format.name);
        }
    }
}
