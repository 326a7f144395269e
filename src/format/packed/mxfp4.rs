//! MXFP4 as gpt-oss is published: `X_blocks (.., rows, cols / 32, 16)`, bytes of two numbers each, the first in the low
//! nibble, and `X_scales (.., rows, cols / 32)`, powers of two (transformers `integrations/mxfp4.py`,
//! `convert_moe_packed_tensors`). Our blocks have their first sixteen numbers in the low nibbles.

use super::{Files, Layout, Part, Tensors, Weight, malformed};
use crate::error::Result;
use crate::quant::FormatId;

const BLOCKS: &str = "_blocks";
const SCALES: &str = "_scales";
/// Weights of a block, and bytes of their numbers.
const BLOCK: usize = 32;
const BLOCK_BYTES: usize = 16;
/// The one scale that is no number (OCP Microscaling Formats 1.0, E8M0).
const NOT_A_SCALE: u8 = 0xff;

/// A weight's parts.
pub(super) struct Mxfp4 {
    blocks: Part,
    scales: Part,
}

impl Mxfp4 {
    pub(super) async fn rows(&self, files: &Files, first: usize, rows: usize) -> Result<Vec<u8>> {
        let numbers = self.blocks.rows(files, first, rows).await?;
        let scales = self.scales.rows(files, first, rows).await?;
        if let Some(at) = scales.iter().position(|scale| *scale == NOT_A_SCALE) {
            let row = at.checked_div(self.scales.row_bytes).unwrap_or(0).saturating_add(first);
            return Err(malformed(&self.scales.name, format!("row {row} has a scale that is no number")));
        }
        let mut blocks = Vec::with_capacity(numbers.len().saturating_add(scales.len()));
        for (numbers, scale) in numbers.as_chunks::<BLOCK_BYTES>().0.iter().zip(scales) {
            blocks.push(scale);
            blocks.extend(regrouped(numbers));
        }
        Ok(blocks)
    }
}

/// From neighbours in one byte to numbers `i` and `i + 16` in byte `i`.
fn regrouped(numbers: &[u8; BLOCK_BYTES]) -> impl Iterator<Item = u8> {
    let (low, high) = numbers.split_at(BLOCK_BYTES / 2);
    let nibbles = |bytes: &[u8]| bytes.iter().flat_map(|byte| [byte & 15, byte >> 4]).collect::<Vec<u8>>();
    nibbles(low).into_iter().zip(nibbles(high)).map(|(low, high)| low | high << 4)
}

pub(super) fn weights(tensors: &mut Tensors<'_>) -> Result<Vec<Weight>> {
    let packed = tensors.stems(BLOCKS, |raw| raw.dtype == "U8");
    packed.iter().map(|stem| weight(tensors, stem)).collect()
}

fn weight(tensors: &mut Tensors<'_>, stem: &str) -> Result<Weight> {
    let numbers = tensors.need(&format!("{stem}{BLOCKS}"))?;
    let scales = tensors.need(&format!("{stem}{SCALES}"))?;
    let [outer @ .., blocks, BLOCK_BYTES] = numbers.shape.as_slice() else {
        let problem = format!("shape {:?} where blocks of {BLOCK_BYTES} bytes are needed", numbers.shape);
        return Err(malformed(&numbers.name, problem));
    };
    scales.need_dtype(&["U8"])?;
    scales.need_shape(&[outer, &[*blocks]].concat())?;
    let rows = outer.iter().fold(1usize, |product, dim| product.saturating_mul(*dim));
    let shape = [outer, &[blocks.saturating_mul(BLOCK)]].concat();
    let layout = Layout::Mxfp4(Mxfp4 { blocks: numbers.part(rows), scales: scales.part(rows) });
    Weight::new(stem.to_owned(), FormatId::Mxfp4, shape, &numbers, layout)
}
