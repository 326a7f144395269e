//! GPTQ and AWQ: numbers that lie by columns, eight (or four) of them to a 32-bit word.
//!
//! GPTQ has `X.qweight (cols / n, rows)` with n columns of a row to a word, `X.qzeros (groups, rows / n)`,
//! `X.scales (groups, rows)` and `X.g_idx (cols)`, the group of each column (AutoGPTQ `qlinear_cuda.py`). Its zero points
//! are stored less one, and `& (2^bits - 1)` after one is added back; the format "gptq_v2" stores them as they are. AWQ has
//! `X.qweight (cols, rows / 8)` with eight rows of a column to a word in the order 0, 2, 4, 6, 1, 3, 5, 7, and zero points
//! in the same order (AutoAWQ `packing_utils.py`). A group size of -1 is one group a row. Where `g_idx` has an order of its own
//! (`desc_act`), columns are put in the order of their groups (`order.rs`).

use super::{Files, Layout, METHOD, Part, Tensors, Weight, malformed, order, unsupported};
use crate::error::Result;
use crate::format::Value;
use crate::quant::FormatId;

const BITS: &str = "quantization_config.bits";
const GROUP: &str = "quantization_config.group_size";
const FORMAT: &str = "quantization_config.checkpoint_format";
const ACT_ORDER: &str = "quantization_config.desc_act";
const VERSION: &str = "quantization_config.version";

/// Bytes of the numbers that are read at once.
const SLAB_BYTES: usize = 8 << 20;

/// The row of eight that each nibble of a word of AWQ belongs to.
const AWQ_ROWS: [usize; 8] = [0, 2, 4, 6, 1, 3, 5, 7];

/// Formats by bits and group.
const FORMATS: &[(usize, usize, FormatId)] = &[
    (4, WHOLE_ROWS, FormatId::Zero4Row),
    (8, WHOLE_ROWS, FormatId::Zero8Row),
    (4, 32, FormatId::Zero4G32),
    (4, 64, FormatId::Zero4G64),
    (4, 128, FormatId::Zero4G128),
    (8, 32, FormatId::Zero8G32),
    (8, 64, FormatId::Zero8G64),
    (8, 128, FormatId::Zero8G128),
];

/// In place of the size of groups that are whole rows.
const WHOLE_ROWS: usize = 0;

/// How words are packed.
#[derive(Clone, Copy, PartialEq)]
enum Packing {
    /// What is added to a zero point.
    Gptq {
        offset: u32,
    },
    Awq,
}

/// A weight's parts.
pub(super) struct Columns {
    packing: Packing,
    bits: usize,
    group: usize,
    cols: usize,
    format: FormatId,
    qweight: Part,
    qzeros: Part,
    scales: Part,
    /// Groups that nobody has looked at.
    g_idx: Option<Part>,
    /// Where each column goes, where the columns have an order of their own.
    places: Option<Vec<usize>>,
}

fn words(bytes: &[u8]) -> impl Iterator<Item = u32> {
    bytes.as_chunks::<4>().0.iter().map(|raw| u32::from_le_bytes(*raw))
}

impl Columns {
    /// Numbers in a word.
    fn per_word(&self) -> usize {
        32usize.checked_div(self.bits).unwrap_or(1)
    }

    /// The zero point of a row, from the words of its group.
    fn zero(&self, zeros: &[u8], row: usize) -> Option<u8> {
        let per_word = self.per_word();
        let word = words(zeros.get(row.checked_div(per_word)?.checked_mul(4)?..)?).next()?;
        let place = row.checked_rem(per_word)?;
        let (place, offset) = match self.packing {
            Packing::Gptq { offset } => (place, offset),
            Packing::Awq => (AWQ_ROWS.iter().position(|of| *of == place)?, 0),
        };
        let shift = u32::try_from(place.checked_mul(self.bits)?).ok()?;
        let mask = u32::MAX.checked_shr(u32::try_from(32usize.checked_sub(self.bits)?).ok()?)?;
        u8::try_from(word.checked_shr(shift)?.wrapping_add(offset) & mask).ok()
    }

    /// Columns are in the groups that their order says.
    async fn check_groups(&self, files: &Files) -> Result<()> {
        let Some(part) = &self.g_idx else { return Ok(()) };
        let groups = self.cols.checked_div(self.group).unwrap_or(0);
        for (column, found) in words(&part.rows(files, 0, self.cols).await?).enumerate() {
            let expected = column.checked_div(self.group).unwrap_or(0);
            if found as usize >= groups {
                return Err(malformed(&part.name, format!("column {column} has the group {found} of {groups}")));
            }
            if found as usize != expected {
                let problem =
                    format!("column {column} has the group {found}, not {expected}: the order of {ACT_ORDER}");
                return Err(unsupported(&part.name, problem));
            }
        }
        Ok(())
    }

    pub(super) async fn rows(&self, files: &Files, first: usize, rows: usize) -> Result<Vec<u8>> {
        if first == 0 {
            self.check_groups(files).await?;
        }
        let block = self.format.format();
        let row_bytes = self.format.row_bytes(self.cols).unwrap_or(0);
        let mut out = vec![0u8; rows.saturating_mul(row_bytes)];
        let groups = self.cols.checked_div(self.group).unwrap_or(0);
        let zeros = self.qzeros.rows(files, 0, groups).await?;
        let scales = self.scales.rows(files, 0, groups).await?;
        let head = block.planes.first.start;
        // Groups of a block: two where each is half of it.
        let in_block = block.block_weights.checked_div(self.group).unwrap_or(1).max(1);
        for (index, row) in out.chunks_exact_mut(row_bytes.max(1)).enumerate() {
            let r = first.saturating_add(index);
            for (b, bytes) in row.chunks_exact_mut(block.block_bytes).enumerate() {
                let Some(bytes) = bytes.get_mut(..head) else { continue };
                for part in 0..in_block {
                    let column = b.saturating_mul(block.block_weights).saturating_add(part.saturating_mul(self.group));
                    let g = column.checked_div(self.group).unwrap_or(0);
                    let of_group = |bytes: &[u8], width: usize| -> Option<Vec<u8>> {
                        let start = g.checked_mul(width)?;
                        bytes.get(start..start.checked_add(width)?).map(<[u8]>::to_vec)
                    };
                    let scale = of_group(&scales, self.scales.row_bytes)
                        .and_then(|scales| scales.get(r.checked_mul(2)?..)?.first_chunk::<2>().copied());
                    let zero = of_group(&zeros, self.qzeros.row_bytes).and_then(|zeros| self.zero(&zeros, r));
                    let (Some(scale), Some(zero)) = (scale, zero) else {
                        return Err(malformed(&self.scales.name, format!("no scale for row {r} in group {g}")));
                    };
                    let (at, zeros_at) = (part.saturating_mul(2), in_block.saturating_mul(2));
                    if let Some(to) = bytes.get_mut(at..at.saturating_add(2)) {
                        to.copy_from_slice(&scale);
                    }
                    if let Some(to) = bytes.get_mut(zeros_at) {
                        *to |= zero.unbounded_shl(u32::try_from(part.saturating_mul(4)).unwrap_or(0));
                    }
                }
            }
        }
        self.numbers(files, first, rows, row_bytes, &mut out).await?;
        Ok(out)
    }

    /// Puts the numbers of rows into their blocks, reading all columns in slabs.
    async fn numbers(&self, files: &Files, first: usize, rows: usize, row_bytes: usize, out: &mut [u8]) -> Result<()> {
        let block = self.format.format();
        let head = block.planes.first.start;
        // The byte of a column in its row, and the number's first bit in it.
        let place = |column: usize| -> Option<(usize, u32)> {
            let column = match &self.places {
                Some(places) => *places.get(column)?,
                None => column,
            };
            let start = column.checked_div(block.block_weights)?.checked_mul(block.block_bytes)?;
            let inside = column.checked_rem(block.block_weights)?.checked_mul(self.bits)?;
            Some((start.checked_add(head)?.checked_add(inside / 8)?, u32::try_from(inside % 8).ok()?))
        };
        let word_bits = u32::try_from(self.bits).unwrap_or(8);
        let lines = match self.packing {
            Packing::Gptq { .. } => self.cols.checked_div(self.per_word()).unwrap_or(0),
            Packing::Awq => self.cols,
        };
        let slab = SLAB_BYTES.checked_div(self.qweight.row_bytes).unwrap_or(1).max(1);
        for start in (0..lines).step_by(slab) {
            let count = slab.min(lines.saturating_sub(start));
            let bytes = self.qweight.rows(files, start, count).await?;
            for (line, bytes) in bytes.chunks_exact(self.qweight.row_bytes.max(1)).enumerate() {
                let line = start.saturating_add(line);
                match self.packing {
                    Packing::Gptq { .. } if self.places.is_some() => {
                        let mask = u8::MAX.unbounded_shr(8u32.saturating_sub(word_bits));
                        for part in 0..self.per_word() {
                            let column = line.saturating_mul(self.per_word()).saturating_add(part);
                            let Some((at, shift)) = place(column) else { continue };
                            let from = word_bits.saturating_mul(u32::try_from(part).unwrap_or(0));
                            let words = words(bytes).skip(first).take(rows);
                            for (word, row) in words.zip(out.chunks_exact_mut(row_bytes.max(1))) {
                                if let (Some(to), [number, ..]) =
                                    (row.get_mut(at), word.unbounded_shr(from).to_le_bytes())
                                {
                                    *to |= (number & mask).unbounded_shl(shift);
                                }
                            }
                        }
                    }
                    Packing::Gptq { .. } => {
                        let Some((at, _)) = place(line.saturating_mul(self.per_word())) else { continue };
                        let words = bytes.as_chunks::<4>().0.iter().skip(first).take(rows);
                        for (word, row) in words.zip(out.chunks_exact_mut(row_bytes.max(1))) {
                            if let Some(to) = row.get_mut(at..at.saturating_add(4)) {
                                to.copy_from_slice(word);
                            }
                        }
                    }
                    Packing::Awq => {
                        let Some((at, shift)) = place(line) else { continue };
                        for (index, row) in out.chunks_exact_mut(row_bytes.max(1)).enumerate() {
                            let r = first.saturating_add(index);
                            let Some(word) = bytes.as_chunks::<4>().0.get(r / 8) else { continue };
                            let nibble = AWQ_ROWS.iter().position(|of| *of == r % 8).unwrap_or(0);
                            let byte = word.get(nibble / 2).copied().unwrap_or(0);
                            let number = if nibble % 2 == 0 { byte & 15 } else { byte >> 4 };
                            if let Some(to) = row.get_mut(at) {
                                *to |= number.unbounded_shl(shift);
                            }
                        }
                    }
                }
            }
        }
        Ok(())
    }
}

pub(super) async fn weights(tensors: &mut Tensors<'_>) -> Result<Vec<Weight>> {
    let stems = tensors.stems(".qweight", |raw| raw.dtype == "I32");
    let Some(first) = stems.first() else { return Ok(Vec::new()) };
    let packing = match tensors.metadata.text(METHOD)? {
        Some("gptq") => {
            let offset = match tensors.metadata.text(FORMAT)? {
                None | Some("gptq") => 1,
                Some("gptq_v2") => 0,
                Some(other) => return Err(unsupported(FORMAT, format!("{other} is not supported"))),
            };
            Packing::Gptq { offset }
        }
        Some("awq") => match tensors.metadata.text(VERSION)?.map(str::to_lowercase).as_deref() {
            None | Some("gemm") => Packing::Awq,
            Some(other) => return Err(unsupported(VERSION, format!("{other} is not supported"))),
        },
        Some(other) => return Err(unsupported(METHOD, format!("{other} is not supported"))),
        None => return Err(malformed(&format!("{first}.qweight"), format!("packed numbers, but {METHOD} is missing"))),
    };
    let bits = tensors.count(BITS)?;
    let group = match tensors.metadata.values.get(GROUP) {
        Some(Value::Integer(-1)) => WHOLE_ROWS,
        _ => tensors.count(GROUP)?,
    };
    let known = FORMATS.iter().find(|(b, g, _)| (*b, *g) == (bits, group));
    let known = known.filter(|_| packing != Packing::Awq || bits == 4);
    let Some((_, _, format)) = known else {
        let problem =
            format!("{bits} bits in groups of {group}; supported are 4 (GPTQ: 8 too) in groups of 32, 64, 128 and -1");
        return Err(unsupported(BITS, problem));
    };
    // Without a word on it the groups may have any order.
    let ordered = tensors.metadata.boolean(ACT_ORDER)?.unwrap_or(true);
    let mut weights = Vec::with_capacity(stems.len());
    for stem in &stems {
        weights.push(weight(tensors, stem, packing, (bits, group), *format, ordered).await?);
    }
    Ok(weights)
}

async fn weight(
    tensors: &mut Tensors<'_>,
    stem: &str,
    packing: Packing,
    (bits, group): (usize, usize),
    format: FormatId,
    ordered: bool,
) -> Result<Weight> {
    let per_word = 32usize.checked_div(bits).unwrap_or(1);
    let qweight = tensors.need(&format!("{stem}.qweight"))?;
    let qzeros = tensors.need(&format!("{stem}.qzeros"))?;
    let scales = tensors.need(&format!("{stem}.scales"))?;
    let g_idx = tensors.take(&format!("{stem}.g_idx"));
    let [lines, width] = *qweight.shape.as_slice() else {
        return Err(malformed(&qweight.name, format!("shape {:?} is no matrix", qweight.shape)));
    };
    let (rows, cols) = match packing {
        Packing::Gptq { .. } => (width, lines.saturating_mul(per_word)),
        Packing::Awq => (width.saturating_mul(per_word), lines),
    };
    let group = if group == WHOLE_ROWS { cols } else { group };
    if cols.checked_rem(group) != Some(0) || cols == 0 || rows == 0 {
        return Err(malformed(&qweight.name, format!("rows of {cols} numbers are no whole groups of {group}")));
    }
    if rows.checked_rem(per_word) != Some(0) {
        return Err(malformed(&qweight.name, format!("{rows} rows are no whole words of {per_word}")));
    }
    let groups = cols.checked_div(group).unwrap_or(0);
    qzeros.need_dtype(&["I32"])?;
    qzeros.need_shape(&[groups, rows.checked_div(per_word).unwrap_or(0)])?;
    scales.need_dtype(&["F16"])?;
    scales.need_shape(&[groups, rows])?;
    if let Some(g_idx) = &g_idx {
        g_idx.need_dtype(&["I32"])?;
        g_idx.need_shape(&[cols])?;
    }
    let mut g_idx = g_idx.map(|raw| (raw.part(cols), raw));
    let order = match g_idx.take_if(|_| ordered) {
        None => None,
        Some((part, raw)) => {
            let group_of: Vec<u32> = words(&part.rows(tensors.files, 0, cols).await?).collect();
            order::by_group(&part, &group_of, group)?.map(|order| (order, raw))
        }
    };
    let layout = Layout::Columns(Columns {
        packing,
        bits,
        group,
        cols,
        format,
        qweight: qweight.part(lines),
        qzeros: qzeros.part(groups),
        scales: scales.part(groups),
        g_idx: g_idx.map(|(part, _)| part),
        places: order.as_ref().map(|(order, _)| order::inverse(order)),
    });
    let weight = Weight::new(format!("{stem}.weight"), format, vec![rows, cols], &qweight, layout)?;
    Ok(Weight { order, ..weight })
}
