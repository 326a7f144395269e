//! How keys and values are kept: their widths, their formats, and what a head of them takes.

use super::{Graph, Op, PAGE_TOKENS};
use crate::error::{Error, ErrorKind, Result};

/// How keys and values are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum KvFormat {
    /// 16-bit floats.
    #[default]
    F16,
    /// 32-bit floats (`--exact`).
    F32,
    /// Signed bytes with a scale for each 32 (`src/quant/q8_0.rs`).
    Q8_0,
    /// Nibbles with a scale for each 32 (`src/quant/q4_0.rs`).
    Q4_0,
}

/// Blocks that a head may be cut into, the best first; all blocks of a head have one length.
const BLOCKS: [usize; 3] = [32, 16, 8];

impl KvFormat {
    /// Every format.
    pub const ALL: [Self; 4] = [Self::F16, Self::F32, Self::Q8_0, Self::Q4_0];

    /// The name in options.
    pub fn name(self) -> &'static str {
        match self {
            Self::F16 => "f16",
            Self::F32 => "f32",
            Self::Q8_0 => "q8_0",
            Self::Q4_0 => "q4_0",
        }
    }

    /// Elements with one scale in heads of `dim`: 32, or the largest part of it that divides the head. `None` where there
    /// are no blocks, or none that divide it.
    pub fn block(self, dim: usize) -> Option<usize> {
        match self {
            Self::F16 | Self::F32 => None,
            Self::Q8_0 | Self::Q4_0 => BLOCKS.into_iter().find(|block| dim.is_multiple_of(*block)),
        }
    }

    /// Words of 32 bits that a head of `dim` takes on a device: its elements, then the scales, two half floats a word.
    pub fn head_words(self, dim: usize) -> usize {
        let scales = self.block(dim).map_or(0, |block| (dim / block).div_ceil(2));
        match self {
            Self::F16 => dim.div_ceil(2),
            Self::F32 => dim,
            Self::Q8_0 => dim.div_ceil(4).saturating_add(scales),
            Self::Q4_0 => dim.div_ceil(8).saturating_add(scales),
        }
    }

    /// Fails with `UnsupportedFormat`, naming the attention, where a head cannot be cut into blocks.
    pub fn check(self, graph: &Graph) -> Result<()> {
        if matches!(self, Self::F16 | Self::F32) {
            return Ok(());
        }
        for node in &graph.nodes {
            if let Op::Attention { spec, .. } = &node.op
                && let Some(dim) = [spec.head_dim, spec.value_dim].into_iter().find(|dim| self.block(*dim).is_none())
            {
                let words = format!("heads of {dim} elements cannot be kept as {}: 8 must divide them", self.name());
                return Err(Error::new(ErrorKind::UnsupportedFormat, words).at(node.name.as_str()));
            }
        }
        Ok(())
    }
}

/// What one layer keeps of each position.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KvWidths {
    /// Heads of keys, and of values.
    pub heads: usize,
    /// Elements of a key's head.
    pub key_dim: usize,
    /// Elements of a value's head, 0 where the values are a part of the keys.
    pub value_dim: usize,
}

impl KvWidths {
    /// Elements of all keys.
    pub fn keys(self) -> usize {
        self.heads.saturating_mul(self.key_dim)
    }

    /// Elements of all values.
    pub fn values(self) -> usize {
        self.heads.saturating_mul(self.value_dim)
    }

    /// Bytes that a position takes on a device.
    pub fn position_bytes(self, format: KvFormat) -> usize {
        let words = format.head_words(self.key_dim).saturating_add(format.head_words(self.value_dim));
        self.heads.saturating_mul(words).saturating_mul(4)
    }
}

/// Fails unless `positions` positions of a page can be read or written.
pub fn check_page(page: u32, positions: usize, n_pages: usize) -> Result<()> {
    if (page as usize) < n_pages && positions <= PAGE_TOKENS {
        return Ok(());
    }
    let words = format!("{positions} positions of page {page} of {n_pages}");
    Err(Error::new(ErrorKind::InvalidArgument, words))
}

/// Fails unless `bytes` are those of so many positions.
pub fn check_page_bytes(bytes: &[u8], positions: usize, position_bytes: usize) -> Result<()> {
    if Some(bytes.len()) == positions.checked_mul(position_bytes) {
        return Ok(());
    }
    let words = format!("{} bytes for {positions} positions of {position_bytes}", bytes.len());
    Err(Error::new(ErrorKind::SizeMismatch, words))
}

#[cfg(test)]
mod tests {
    use super::KvFormat;

    #[test]
    fn heads_of_blocks_take_what_the_format_says() {
        // 34 bytes for 32 elements, 18 bytes for 32 elements.
        assert_eq!(KvFormat::Q8_0.head_words(128) * 4, 4 * 34);
        assert_eq!(KvFormat::Q4_0.head_words(128) * 4, 4 * 18);
        assert_eq!(
            (KvFormat::Q8_0.block(80), KvFormat::Q8_0.block(40), KvFormat::Q8_0.block(20)),
            (Some(16), Some(8), None)
        );
        assert_eq!((KvFormat::F16.head_words(20), KvFormat::F32.head_words(20)), (10, 20));
        assert_eq!(KvFormat::Q4_0.head_words(0), 0);
    }
}
