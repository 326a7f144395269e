//! Floats of eight bits: `X.weight` with `X.weight_scale_inv`, a scale for each tile of 128 x 128 (DeepSeek-V3's
//! `kernel.py`, `weight_dequant`), or `X.weight_scale`, one for the tensor, each row or each tile (compressed-tensors).
//! Both are factors. Scales of activations are not used: activations stay floats.

use super::{Files, Layout, METHOD, Part, Raw, Tensors, Weight, malformed, says, unsupported};
use crate::error::Result;
use crate::format::Value;
use crate::quant::FormatId;

/// Rows and columns of a tile.
const TILE: usize = 128;
/// Weights of a block, and its bytes.
const BLOCK: usize = 32;
/// The key of the tiles' shape.
const TILES: &str = "quantization_config.weight_block_size";

/// What a scale is for.
#[derive(Clone, Copy, PartialEq)]
enum Per {
    Tensor,
    Row,
    Tile,
}

/// A weight's parts.
pub(super) struct Float8 {
    weight: Part,
    scales: Option<(Part, FormatId)>,
    per: Per,
    /// Scales of one row of weights.
    scales_per_row: usize,
    /// Whether the type has four bits of exponent.
    e4m3: bool,
}

impl Float8 {
    pub(super) async fn rows(&self, files: &Files, first: usize, rows: usize) -> Result<Vec<u8>> {
        let numbers = self.weight.rows(files, first, rows).await?;
        let is_number = |byte: &u8| if self.e4m3 { byte & 0x7f != 0x7f } else { byte & 0x7c != 0x7c };
        if let Some(at) = numbers.iter().position(|byte| !is_number(byte)) {
            let row = at.checked_div(self.weight.row_bytes).unwrap_or(0).saturating_add(first);
            return Err(malformed(&self.weight.name, format!("row {row} has what is no number")));
        }
        // Rows of the scales that these rows of weights need.
        let (begin, end) = match self.per {
            Per::Tensor => (0, 1),
            Per::Row => (first, first.saturating_add(rows)),
            Per::Tile => (first / TILE, first.saturating_add(rows).div_ceil(TILE)),
        };
        let scales = match &self.scales {
            None => vec![1.0],
            Some((part, format)) => {
                let bytes = part.rows(files, begin, end.saturating_sub(begin)).await?;
                let mut scales = vec![0.0; end.saturating_sub(begin).saturating_mul(self.scales_per_row)];
                (format.format().decode)(&bytes, &mut scales);
                if let Some(scale) = scales.iter().find(|scale| !scale.is_finite()) {
                    return Err(malformed(&part.name, format!("{scale} is no scale")));
                }
                scales
            }
        };
        let mut blocks = Vec::with_capacity(numbers.len().saturating_add(numbers.len() / 8));
        for (row, numbers) in numbers.chunks_exact(self.weight.row_bytes.max(1)).enumerate() {
            let scale_row = match self.per {
                Per::Tensor => 0,
                Per::Row => row,
                Per::Tile => (first.saturating_add(row) / TILE).saturating_sub(begin),
            };
            let start = scale_row.saturating_mul(self.scales_per_row);
            for (block, numbers) in numbers.chunks_exact(BLOCK).enumerate() {
                let column = if self.per == Per::Tile { block.saturating_mul(BLOCK) / TILE } else { 0 };
                let scale = scales.get(start.saturating_add(column)).copied().unwrap_or(f32::NAN);
                blocks.extend_from_slice(&scale.to_le_bytes());
                blocks.extend_from_slice(numbers);
            }
        }
        Ok(blocks)
    }
}

pub(super) fn weights(tensors: &mut Tensors<'_>) -> Result<Vec<Weight>> {
    let packed = tensors.stems(".weight", |raw| matches!(raw.dtype, "F8_E4M3" | "F8_E5M2"));
    packed.iter().map(|stem| weight(tensors, stem)).collect()
}

/// What the scales are for, by their shape.
fn per(tensors: &Tensors<'_>, scales: &Raw, (rows, cols): (usize, usize), inverse: bool) -> Result<Per> {
    let tiles = [rows.div_ceil(TILE), cols.div_ceil(TILE)];
    let numbers = scales.shape.iter().fold(1usize, |product, dim| product.saturating_mul(*dim));
    if let Some(shape) = tensors.metadata.values.get(TILES)
        && *shape != Value::Integers(vec![TILE as i64, TILE as i64])
    {
        return Err(unsupported(TILES, format!("tiles other than {TILE} x {TILE} are not supported")));
    }
    // A matrix of one tile has one scale however it is read.
    if numbers == 1 && scales.shape.len() <= 2 {
        return Ok(Per::Tensor);
    }
    if !inverse && (scales.shape == [rows, 1] || scales.shape == [rows]) {
        return Ok(Per::Row);
    }
    if scales.shape == tiles {
        return Ok(Per::Tile);
    }
    let expected = if inverse { format!("{tiles:?}") } else { format!("[1], [{rows}, 1] or {tiles:?}") };
    Err(malformed(&scales.name, format!("shape {:?} where {expected} is needed", scales.shape)))
}

fn weight(tensors: &mut Tensors<'_>, stem: &str) -> Result<Weight> {
    let numbers = tensors.need(&format!("{stem}.weight"))?;
    let [rows, cols] = *numbers.shape.as_slice() else {
        return Err(unsupported(&numbers.name, format!("shape {:?} is no matrix", numbers.shape)));
    };
    let inverse = tensors.take(&format!("{stem}.weight_scale_inv"));
    let is_inverse = inverse.is_some();
    let scales = inverse.or_else(|| tensors.take(&format!("{stem}.weight_scale")));
    let promised =
        ["fp8", "compressed-tensors", "fbgemm_fp8"].iter().any(|method| says(tensors.metadata, METHOD, method));
    let (per, scales) = match scales {
        Some(scales) => {
            scales.need_dtype(&["F32", "BF16", "F16"])?;
            let per = per(tensors, &scales, (rows, cols), is_inverse)?;
            let scale_rows = match per {
                Per::Tensor => 1,
                Per::Row => rows,
                Per::Tile => rows.div_ceil(TILE),
            };
            (per, scales.format.map(|format| (scales.part(scale_rows), format)))
        }
        None if promised => {
            let name = format!("{stem}.weight_scale_inv");
            return Err(malformed(&name, "the scales are missing, and so is weight_scale"));
        }
        None => (Per::Tensor, None),
    };
    let e4m3 = numbers.dtype == "F8_E4M3";
    let format = match (e4m3, per) {
        (true, Per::Tile) => FormatId::F8E4m3Tile,
        (true, _) => FormatId::F8E4m3Row,
        (false, Per::Tile) => FormatId::F8E5m2Tile,
        (false, _) => FormatId::F8E5m2Row,
    };
    let scales_per_row = if per == Per::Tile { cols.div_ceil(TILE) } else { 1 };
    let layout = Layout::Float8(Float8 { weight: numbers.part(rows), scales, per, scales_per_row, e4m3 });
    Weight::new(numbers.name.clone(), format, vec![rows, cols], &numbers, layout)
}
