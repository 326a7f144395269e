//! MLX's affine groups: `X.weight (rows, cols * bits / 32)` of 32-bit words with the first numbers in the lowest bits,
//! `X.scales` and `X.biases (rows, cols / group)` (mlx `ops.cpp`, `affine_quantize`; mlx-lm `utils.py`).

use super::{Files, Layout, Part, Tensors, Weight, malformed, unsupported};
use crate::error::Result;
use crate::quant::FormatId;

/// Formats by bits, group and type of the scales.
const FORMATS: &[(usize, usize, &str, FormatId)] = &[
    (4, 32, "F16", FormatId::Affine4G32F16),
    (4, 64, "F16", FormatId::Affine4G64F16),
    (4, 128, "F16", FormatId::Affine4G128F16),
    (4, 32, "BF16", FormatId::Affine4G32Bf16),
    (4, 64, "BF16", FormatId::Affine4G64Bf16),
    (4, 128, "BF16", FormatId::Affine4G128Bf16),
    (8, 32, "F16", FormatId::Affine8G32F16),
    (8, 64, "F16", FormatId::Affine8G64F16),
    (8, 128, "F16", FormatId::Affine8G128F16),
    (8, 32, "BF16", FormatId::Affine8G32Bf16),
    (8, 64, "BF16", FormatId::Affine8G64Bf16),
    (8, 128, "BF16", FormatId::Affine8G128Bf16),
];

/// Where the settings are; the second is a copy for other readers.
const SETTINGS: [&str; 2] = ["quantization", "quantization_config"];

/// A weight's parts.
pub(super) struct Affine {
    weight: Part,
    scales: Part,
    biases: Part,
    /// Bytes of the numbers of one group.
    group_bytes: usize,
}

impl Affine {
    pub(super) async fn rows(&self, files: &Files, first: usize, rows: usize) -> Result<Vec<u8>> {
        let numbers = self.weight.rows(files, first, rows).await?;
        let scales = self.scales.rows(files, first, rows).await?;
        let biases = self.biases.rows(files, first, rows).await?;
        let mut blocks = Vec::with_capacity(numbers.len().saturating_add(scales.len()).saturating_add(biases.len()));
        let heads = scales.as_chunks::<2>().0.iter().zip(biases.as_chunks::<2>().0);
        for (numbers, (scale, bias)) in numbers.chunks_exact(self.group_bytes.max(1)).zip(heads) {
            blocks.extend_from_slice(scale);
            blocks.extend_from_slice(bias);
            blocks.extend_from_slice(numbers);
        }
        Ok(blocks)
    }
}

/// A setting of one weight, or of all.
fn setting(tensors: &Tensors<'_>, stem: &str, name: &str) -> Result<usize> {
    let keys = SETTINGS.iter().flat_map(|group| [format!("{group}.{stem}.{name}"), format!("{group}.{name}")]);
    let mut keys = keys.filter(|key| tensors.metadata.values.contains_key(key));
    tensors.count(&keys.next().unwrap_or_else(|| format!("{}.{name}", SETTINGS[0])))
}

pub(super) fn weights(tensors: &mut Tensors<'_>) -> Result<Vec<Weight>> {
    let packed = tensors.stems(".weight", |raw| raw.dtype == "U32");
    packed.iter().map(|stem| weight(tensors, stem)).collect()
}

fn weight(tensors: &mut Tensors<'_>, stem: &str) -> Result<Weight> {
    let numbers = tensors.need(&format!("{stem}.weight"))?;
    let (bits, group) = (setting(tensors, stem, "bits")?, setting(tensors, stem, "group_size")?);
    for mode in SETTINGS.map(|group| format!("{group}.mode")) {
        if let Some(other) = tensors.metadata.text(&mode)?.filter(|mode| *mode != "affine") {
            return Err(unsupported(&mode, format!("{other} is not supported")));
        }
    }
    let scales = tensors.need(&format!("{stem}.scales"))?;
    let biases = tensors.need(&format!("{stem}.biases"))?;
    let known = |found: &&(usize, usize, &str, FormatId)| (found.0, found.1) == (bits, group);
    if !FORMATS.iter().any(|found| known(&found)) {
        let problem = format!("{bits} bits in groups of {group}; supported are 4 and 8 in groups of 32, 64 and 128");
        return Err(unsupported(&numbers.name, problem));
    }
    scales.need_dtype(&["F16", "BF16"])?;
    biases.need_dtype(&[scales.dtype])?;
    let found = FORMATS.iter().filter(known).find(|(_, _, dtype, _)| *dtype == scales.dtype);
    let Some((_, _, _, format)) = found else { return Err(unsupported(&scales.name, "scales of this type")) };
    let Some((rows, words)) = numbers.matrix() else {
        return Err(malformed(&numbers.name, format!("shape {:?} is no matrix", numbers.shape)));
    };
    let cols = words.saturating_mul(32).checked_div(bits).unwrap_or(0);
    let with_cols = |cols: usize| {
        let mut shape = numbers.shape.clone();
        shape.pop();
        shape.push(cols);
        shape
    };
    if cols.checked_rem(group) != Some(0) {
        let problem = format!("rows of {cols} numbers are no whole groups of {group}");
        return Err(malformed(&numbers.name, problem));
    }
    let heads = with_cols(cols.checked_div(group).unwrap_or(0));
    scales.need_shape(&heads)?;
    biases.need_shape(&heads)?;
    let layout = Layout::Affine(Affine {
        weight: numbers.part(rows),
        scales: scales.part(rows),
        biases: biases.part(rows),
        group_bytes: group.saturating_mul(bits) / 8,
    });
    Weight::new(format!("{stem}.weight"), *format, with_cols(cols), &numbers, layout)
}
