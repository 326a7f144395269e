//! bitsandbytes' NF4: `X.weight` of bytes with two numbers each, the first in the high nibble, all rows one after another;
//! `X.weight.absmax`, one for each 64 numbers, `X.weight.quant_map`, and the shape in the JSON of
//! `X.weight.quant_state.bitsandbytes__nf4`. The magnitudes may be packed themselves: bytes that name levels of
//! `nested_quant_map`, scaled by one of `nested_absmax` for each 256, plus `nested_offset` (bitsandbytes `functional.py`,
//! `QuantState.from_dict`, `dequantize_blockwise`).

use serde_json::Value as Json;

use super::{Files, Layout, Part, Raw, Tensors, Weight, malformed, unsupported};
use crate::error::{ErrorKind, Result};
use crate::format::json;
use crate::quant::{FormatId, are_magnitudes, nf4_levels};

const STATE: &str = ".weight.quant_state.bitsandbytes__nf4";
/// The other kind that the library writes.
const FP4_STATE: &str = ".weight.quant_state.bitsandbytes__fp4";
/// Numbers with one magnitude.
const BLOCK: usize = 64;
/// Magnitudes of a scale, where they are packed and kept so.
const NESTED: usize = 256;

/// Bytes of the JSON.
const STATE_BYTES: usize = 4096;

/// Where the magnitudes are.
enum Largest {
    Plain(Part),
    Nested(Nested),
}

/// Magnitudes that are packed themselves.
struct Nested {
    codes: Part,
    levels: Vec<f32>,
    scales: Part,
    /// Magnitudes of a scale.
    block: usize,
    offset: f32,
    /// Whether they are kept as they are.
    kept: bool,
}

/// A weight's parts.
pub(super) struct Nf4 {
    numbers: Part,
    largest: Largest,
    /// Blocks of a row.
    blocks: usize,
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<4>().0.iter().map(|raw| f32::from_le_bytes(*raw)).collect()
}

impl Nf4 {
    pub(super) async fn rows(&self, files: &Files, first: usize, rows: usize) -> Result<Vec<u8>> {
        let (begin, count) = (first.saturating_mul(self.blocks), rows.saturating_mul(self.blocks));
        let numbers = self.numbers.rows(files, first, rows).await?;
        let nested = match &self.largest {
            Largest::Plain(part) => {
                let largest = floats(&part.rows(files, begin, count).await?);
                return self.blocks(&numbers, &largest);
            }
            Largest::Nested(nested) => nested,
        };
        let codes = nested.codes.rows(files, begin, count).await?;
        let scale = |index: usize| begin.saturating_add(index).checked_div(nested.block).unwrap_or(0);
        let (low, high) = (scale(0), scale(count.saturating_sub(1)));
        let scales = floats(&nested.scales.rows(files, low, high.saturating_sub(low).saturating_add(1)).await?);
        let scale_of = |index: usize| scales.get(scale(index).checked_sub(low)?).copied();
        let value = |(index, code): (usize, &u8)| {
            Some(nested.levels.get(usize::from(*code))? * scale_of(index)? + nested.offset)
        };
        let largest: Vec<f32> = codes.iter().enumerate().map(|code| value(code).unwrap_or(f32::NAN)).collect();
        if !nested.kept {
            return self.blocks(&numbers, &largest);
        }
        self.check(&largest)?;
        let mut blocks = Vec::with_capacity(numbers.len().saturating_add(numbers.len() / 2));
        for (index, (numbers, code)) in numbers.chunks_exact(BLOCK / 2).zip(&codes).enumerate() {
            blocks.extend_from_slice(&nested.offset.to_le_bytes());
            blocks.extend_from_slice(&scale_of(index).unwrap_or(f32::NAN).to_le_bytes());
            blocks.extend([(begin.saturating_add(index) % NESTED) as u8, *code]);
            blocks.extend(numbers.iter().map(|byte| byte.rotate_left(4)));
        }
        Ok(blocks)
    }

    fn check(&self, largest: &[f32]) -> Result<()> {
        match largest.iter().find(|largest| !largest.is_finite()) {
            Some(found) => Err(malformed(&self.numbers.name, format!("{found} is no magnitude"))),
            None => Ok(()),
        }
    }

    /// Blocks with a float for each magnitude.
    fn blocks(&self, numbers: &[u8], largest: &[f32]) -> Result<Vec<u8>> {
        self.check(largest)?;
        let mut blocks = Vec::with_capacity(numbers.len().saturating_add(largest.len().saturating_mul(4)));
        for (numbers, largest) in numbers.chunks_exact(BLOCK / 2).zip(largest) {
            blocks.extend_from_slice(&largest.to_le_bytes());
            blocks.extend(numbers.iter().map(|byte| byte.rotate_left(4)));
        }
        Ok(blocks)
    }
}

pub(super) async fn weights(tensors: &mut Tensors<'_>) -> Result<Vec<Weight>> {
    if let Some(stem) = tensors.stems(FP4_STATE, |_| true).first() {
        return Err(unsupported(&format!("{stem}{FP4_STATE}"), "fp4 of bitsandbytes is not supported, nf4 is"));
    }
    let mut weights = Vec::new();
    for stem in tensors.stems(STATE, |raw| raw.dtype == "U8") {
        weights.push(weight(tensors, &stem).await?);
    }
    Ok(weights)
}

/// The whole of a small tensor.
async fn read(tensors: &Tensors<'_>, raw: &Raw) -> Result<Vec<u8>> {
    raw.part(1).rows(tensors.files, 0, 1).await
}

async fn weight(tensors: &mut Tensors<'_>, stem: &str) -> Result<Weight> {
    let state = tensors.need(&format!("{stem}{STATE}"))?;
    if state.size_bytes > STATE_BYTES as u64 {
        return Err(malformed(&state.name, format!("{} bytes of JSON", state.size_bytes)));
    }
    let text = String::from_utf8(read(tensors, &state).await?)
        .map_err(|error| malformed(&state.name, "the text is not UTF-8").caused_by(error))?;
    let settings =
        json::parse_object(&text, ErrorKind::MalformedModel).map_err(|error| error.at(state.name.as_str()))?;
    let count = |key: &str| {
        let value = settings.get(key).and_then(Json::as_u64).and_then(|value| usize::try_from(value).ok());
        value.ok_or_else(|| malformed(&state.name, format!("{key} is missing or no count")))
    };
    let block = count("blocksize")?;
    if block != BLOCK {
        return Err(unsupported(&state.name, format!("blocks of {block}; {BLOCK} are supported")));
    }
    let shape: Option<Vec<usize>> = settings
        .get("shape")
        .and_then(Json::as_array)
        .and_then(|dims| dims.iter().map(|dim| dim.as_u64().and_then(|dim| usize::try_from(dim).ok())).collect());
    let Some([rows, cols]) = shape.as_deref().and_then(|shape| shape.first_chunk::<2>().filter(|_| shape.len() == 2))
    else {
        return Err(malformed(&state.name, "shape is missing or no matrix's"));
    };
    let (rows, cols) = (*rows, *cols);
    let numbers = tensors.need(&format!("{stem}.weight"))?;
    numbers.need_dtype(&["U8"])?;
    let total = rows.saturating_mul(cols);
    if rows == 0 || cols == 0 || numbers.size_bytes != total as u64 / 2 {
        let problem = format!("{} bytes where {} are needed for {rows} x {cols}", numbers.size_bytes, total / 2);
        return Err(malformed(&numbers.name, problem));
    }
    if cols % BLOCK != 0 {
        return Err(unsupported(&numbers.name, format!("rows of {cols} are no whole blocks of {BLOCK}")));
    }
    let map = tensors.need(&format!("{stem}.weight.quant_map"))?;
    map.need_dtype(&["F32"])?;
    map.need_shape(&[16])?;
    if floats(&read(tensors, &map).await?) != nf4_levels() {
        return Err(unsupported(&map.name, "these are not the levels of nf4"));
    }
    let n_blocks = total / BLOCK;
    let largest = tensors.need(&format!("{stem}.weight.absmax"))?;
    largest.need_dtype(&["F32", "U8"])?;
    largest.need_shape(&[n_blocks])?;
    let (largest, format) = if largest.dtype == "F32" {
        (Largest::Plain(largest.part(n_blocks)), FormatId::Nf4)
    } else {
        let block = count("nested_blocksize")?;
        let Some(offset) = settings.get("nested_offset").and_then(Json::as_f64) else {
            return Err(malformed(&state.name, "nested_offset is missing or no number"));
        };
        let levels = tensors.need(&format!("{stem}.weight.nested_quant_map"))?;
        levels.need_dtype(&["F32"])?;
        levels.need_shape(&[256])?;
        let scales = tensors.need(&format!("{stem}.weight.nested_absmax"))?;
        scales.need_dtype(&["F32"])?;
        let n_scales = n_blocks.div_ceil(block.max(1));
        scales.need_shape(&[n_scales])?;
        let values = floats(&read(tensors, &levels).await?);
        let offset = offset as f32;
        let kept = block == NESTED && are_magnitudes(&values);
        let format = if kept { FormatId::Nf4Nested } else { FormatId::Nf4 };
        let (codes, scales) = (largest.part(n_blocks), scales.part(n_scales));
        (Largest::Nested(Nested { codes, levels: values, scales, block, offset, kept }), format)
    };
    let layout = Layout::Nf4(Nf4 { numbers: numbers.part(rows), largest, blocks: cols / BLOCK });
    Weight::new(format!("{stem}.weight"), format, vec![rows, cols], &numbers, layout)
}
