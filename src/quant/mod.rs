//! How numbers are stored: one file per block format, and the table of all of them.
//!
//! A format is a block of `block_weights` consecutive weights of a row in `block_bytes` bytes. The CPU decodes blocks
//! to float32; a GPU shader reads *planes*, aligned arrays repacked from the blocks at load
//! (`shaders/quant/<name>.wgsl`). Neither models nor kernels know which format a matrix has.

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

mod float;
mod q4_0;
mod q8_0;

pub(crate) use float::widen;

/// One row of the table.
#[derive(Debug)]
pub struct Format {
    /// The name in options, files of ours and shaders.
    pub name: &'static str,
    /// The number of the type in GGUF files.
    pub gguf_type: u32,
    /// Weights in one block.
    pub block_weights: usize,
    /// Bytes of one block.
    pub block_bytes: usize,
    /// Decodes whole blocks: `out.len() == bytes.len() / block_bytes * block_weights`.
    pub decode: fn(bytes: &[u8], out: &mut [f32]),
}

/// A format, as an index into the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FormatId {
    /// IEEE 754 binary32.
    F32,
    /// IEEE 754 binary16.
    F16,
    /// The upper half of a binary32.
    Bf16,
    /// 32 signed bytes and an f16 scale.
    Q8_0,
    /// 32 nibbles minus 8 and an f16 scale.
    Q4_0,
}

/// Every format with its description, in the order of [`FormatId`].
pub const FORMATS: &[(FormatId, Format)] = &[
    (FormatId::F32, float::F32),
    (FormatId::F16, float::F16),
    (FormatId::Bf16, float::BF16),
    (FormatId::Q8_0, q8_0::Q8_0),
    (FormatId::Q4_0, q4_0::Q4_0),
];

impl FormatId {
    /// The description.
    #[expect(clippy::indexing_slicing, reason = "the table has a row for every id; a test holds the two together")]
    pub fn format(self) -> &'static Format {
        &FORMATS[self as usize].1
    }

    /// The format of a GGUF type number, where it is supported.
    pub fn from_gguf(gguf_type: u32) -> Option<Self> {
        FORMATS.iter().find(|(_, format)| format.gguf_type == gguf_type).map(|(id, _)| *id)
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
    fn the_table_is_in_the_order_of_the_ids() {
        for (index, (id, format)) in FORMATS.iter().enumerate() {
            assert_eq!(*id as usize, index, "{}", format.name);
        }
    }
}
