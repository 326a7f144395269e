//! Weights that a folder keeps in several tensors (numbers, scales, zero points) become one tensor of blocks each.
//!
//! What is given for them is a [`Source`] of its own: reading it reads the parts and puts blocks together, so that nobody
//! after this stage knows of layouts. Bytes are never more than a piece of a weight at a time, and no number is computed:
//! blocks hold what the files hold.

mod bitsandbytes;
mod columns;
mod float8;
mod mlx;
mod mxfp4;
mod order;

use std::collections::BTreeMap;
use std::rc::Rc;

use super::{Checkpoint, Metadata, TensorInfo, Value};
use crate::error::{At, Error, ErrorKind, Result};
use crate::quant::FormatId;
use crate::source::{LocalFuture, Source, check_range};

/// A tensor as a header tells it, of any number type.
#[derive(Clone, Debug)]
pub(super) struct Raw {
    pub name: String,
    /// The type's name in safetensors.
    pub dtype: &'static str,
    /// Our format, where numbers of that type are weights as they stand.
    pub format: Option<FormatId>,
    pub shape: Vec<usize>,
    pub file: usize,
    pub offset: u64,
    pub size_bytes: u64,
}

impl Raw {
    /// A part with rows of equal length, `rows` of them.
    fn part(&self, rows: usize) -> Part {
        let row_bytes = usize::try_from(self.size_bytes).unwrap_or(usize::MAX).checked_div(rows).unwrap_or(0);
        Part { name: self.name.clone(), file: self.file, offset: self.offset, row_bytes }
    }

    /// Columns, and all other dimensions together.
    fn matrix(&self) -> Option<(usize, usize)> {
        let (cols, rows) = self.shape.split_last()?;
        let rows = rows.iter().try_fold(1usize, |product, dim| product.checked_mul(*dim))?;
        (!self.shape.is_empty() && rows > 0 && *cols > 0).then_some((rows, *cols))
    }

    fn need_shape(&self, expected: &[usize]) -> Result<()> {
        match self.shape == expected {
            true => Ok(()),
            false => Err(malformed(&self.name, format!("shape {:?} where {expected:?} is needed", self.shape))),
        }
    }

    fn need_dtype(&self, expected: &[&str]) -> Result<()> {
        match expected.contains(&self.dtype) {
            true => Ok(()),
            false => Err(malformed(
                &self.name,
                format!("number type {} where {} is needed", self.dtype, expected.join(" or ")),
            )),
        }
    }
}

/// A tensor that weights are put together from.
#[derive(Clone, Debug)]
struct Part {
    name: String,
    file: usize,
    offset: u64,
    row_bytes: usize,
}

type Files = [Rc<dyn Source>];

impl Part {
    /// Whole rows.
    async fn rows(&self, files: &Files, first: usize, rows: usize) -> Result<Vec<u8>> {
        let file = files.get(self.file).ok_or_else(|| Error::new(ErrorKind::Internal, "a part without a file"))?;
        let start = (first as u64).saturating_mul(self.row_bytes as u64);
        let len = rows.saturating_mul(self.row_bytes);
        file.read(self.offset.saturating_add(start), len).await.at(|| self.name.clone())
    }
}

/// How a weight's blocks are made of its parts.
enum Layout {
    Affine(mlx::Affine),
    Columns(columns::Columns),
    Float8(float8::Float8),
    Mxfp4(mxfp4::Mxfp4),
    Nf4(bitsandbytes::Nf4),
    Order(Rc<[u32]>),
}

/// A weight in parts.
struct Weight {
    /// The name it has as one tensor.
    name: String,
    format: FormatId,
    shape: Vec<usize>,
    rows: usize,
    row_bytes: usize,
    layout: Layout,
    /// Where its most important part lies: weights are read in the order of these.
    place: (usize, u64),
    /// The order that its columns stand in, where it is one of their own, and the tensor that tells it.
    order: Option<(Rc<[u32]>, Raw)>,
}

impl Weight {
    fn new(name: String, format: FormatId, shape: Vec<usize>, from: &Raw, layout: Layout) -> Result<Self> {
        let (cols, outer) = shape.split_last().map_or((0, &[][..]), |(cols, outer)| (*cols, outer));
        let rows = outer.iter().try_fold(1usize, |product, dim| product.checked_mul(*dim));
        let row_bytes = format.row_bytes(cols);
        let (Some(rows), Some(row_bytes)) = (rows, row_bytes.filter(|row_bytes| *row_bytes > 0)) else {
            let (name, weights) = (format.format().name, format.format().block_weights);
            let problem = format!("shape {shape:?} for {name}, whose rows are multiples of {weights}");
            return Err(Error::new(ErrorKind::UnsupportedFormat, problem).at(from.name.as_str()));
        };
        Ok(Self { name, format, shape, rows, row_bytes, layout, place: (from.file, from.offset), order: None })
    }

    async fn rows(&self, files: &Files, first: usize, rows: usize) -> Result<Vec<u8>> {
        match &self.layout {
            Layout::Affine(affine) => affine.rows(files, first, rows).await,
            Layout::Columns(columns) => columns.rows(files, first, rows).await,
            Layout::Mxfp4(mxfp4) => mxfp4.rows(files, first, rows).await,
            Layout::Float8(float8) => float8.rows(files, first, rows).await,
            Layout::Nf4(nf4) => nf4.rows(files, first, rows).await,
            Layout::Order(order) => Ok(order::bytes(order)),
        }
    }
}

/// Bytes that are put together at most at once and kept: parts that lie by columns are read whole for each such window.
const WINDOW_BYTES: usize = 16 << 20;

/// The last window: the weight's number, the first row, the rows' bytes.
type Window = (usize, usize, Rc<Vec<u8>>);

/// All weights in parts, one after another.
struct Packed {
    name: String,
    files: Vec<Rc<dyn Source>>,
    /// Weights by the offset of their first byte.
    weights: Vec<(u64, Weight)>,
    size_bytes: u64,
    window: std::cell::RefCell<Option<Window>>,
}

impl Packed {
    /// The window that holds a row, and its first row.
    async fn window(&self, index: usize, weight: &Weight, row: usize) -> Result<(usize, Rc<Vec<u8>>)> {
        let most = WINDOW_BYTES.checked_div(weight.row_bytes).unwrap_or(1).max(1);
        let first = row.checked_div(most).unwrap_or(0).saturating_mul(most);
        if let Some((kept, from, bytes)) = self.window.borrow().as_ref()
            && (*kept, *from) == (index, first)
        {
            return Ok((first, Rc::clone(bytes)));
        }
        self.window.borrow_mut().take();
        let rows = most.min(weight.rows.saturating_sub(first));
        let bytes = Rc::new(weight.rows(&self.files, first, rows).await?);
        if bytes.len() != rows.saturating_mul(weight.row_bytes) {
            return Err(Error::new(ErrorKind::Internal, "blocks of another size").at(weight.name.as_str()));
        }
        *self.window.borrow_mut() = Some((index, first, Rc::clone(&bytes)));
        Ok((first, bytes))
    }
}

impl Source for Packed {
    fn name(&self) -> &str {
        &self.name
    }

    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn is_given(&self) -> bool {
        false
    }

    fn read(&self, offset: u64, len: usize) -> LocalFuture<'_, Result<Vec<u8>>> {
        Box::pin(async move {
            check_range(&self.name, self.size_bytes, offset, len)?;
            let mut bytes = Vec::with_capacity(len);
            while bytes.len() < len {
                let at = offset.saturating_add(bytes.len() as u64);
                let index = self.weights.partition_point(|(start, _)| *start <= at).saturating_sub(1);
                let Some((start, weight)) = self.weights.get(index) else { break };
                let within = usize::try_from(at.saturating_sub(*start)).unwrap_or(usize::MAX);
                let row = within.checked_div(weight.row_bytes).unwrap_or(0);
                let (first, window) = self.window(index, weight, row).await?;
                let from = within.saturating_sub(first.saturating_mul(weight.row_bytes));
                let piece = window.get(from..).unwrap_or_default();
                let piece = piece.get(..len.saturating_sub(bytes.len())).unwrap_or(piece);
                if piece.is_empty() {
                    return Err(Error::new(ErrorKind::Internal, "a weight ends early").at(weight.name.as_str()));
                }
                bytes.extend_from_slice(piece);
            }
            Ok(bytes)
        })
    }
}

/// The tensors of a folder by name, while weights are put together of them.
struct Tensors<'a> {
    raw: BTreeMap<String, Raw>,
    metadata: &'a Metadata,
    files: &'a Files,
}

impl Tensors<'_> {
    fn take(&mut self, name: &str) -> Option<Raw> {
        self.raw.remove(name)
    }

    fn need(&mut self, name: &str) -> Result<Raw> {
        self.take(name).ok_or_else(|| malformed(name, "the tensor is missing"))
    }

    /// The names with that ending, without it.
    fn stems(&self, ending: &str, belongs: impl Fn(&Raw) -> bool) -> Vec<String> {
        let found = self.raw.values().filter(|raw| belongs(raw)).filter_map(|raw| raw.name.strip_suffix(ending));
        found.map(str::to_owned).collect()
    }

    /// A count of `config.json` that must be there.
    fn count(&self, key: &str) -> Result<usize> {
        let value = self.metadata.integer(key)?.ok_or_else(|| malformed(key, "the key is missing"))?;
        usize::try_from(value).map_err(|_| malformed(key, format!("{value} is too large")))
    }
}

/// The key that says how weights were packed.
const METHOD: &str = "quantization_config.quant_method";

/// What is packed becomes tensors of one more source, behind `files`; all others stay what they are.
///
/// Fails with `MalformedModel` naming the key or the tensor where parts do not fit each other, with `UnsupportedFormat`
/// for layouts that are not read.
pub(super) async fn unpack(
    mut files: Vec<Rc<dyn Source>>,
    raw: Vec<Raw>,
    mut metadata: Metadata,
) -> Result<Checkpoint> {
    let raw = raw.into_iter().map(|raw| (raw.name.clone(), raw)).collect();
    let mut tensors = Tensors { raw, metadata: &metadata, files: &files };
    let mut weights = mlx::weights(&mut tensors)?;
    weights.extend(columns::weights(&mut tensors).await?);
    weights.extend(float8::weights(&mut tensors)?);
    weights.extend(mxfp4::weights(&mut tensors)?);
    weights.extend(bitsandbytes::weights(&mut tensors).await?);
    let orders = order::tensors(&mut weights)?;
    weights.sort_by_key(|weight| weight.place);

    let mut infos = plain(tensors.raw.into_values())?;
    if weights.is_empty() {
        return Ok(Checkpoint { metadata, tensors: infos, orders, files });
    }
    // What is understood is no longer a setting that somebody must refuse.
    metadata.values.remove(METHOD);
    let (mut placed, mut end) = (Vec::with_capacity(weights.len()), 0u64);
    for weight in weights {
        let size_bytes = (weight.rows as u64).saturating_mul(weight.row_bytes as u64);
        infos.push(TensorInfo {
            name: weight.name.clone(),
            format: weight.format,
            shape: weight.shape.clone(),
            file: files.len(),
            offset: end,
            size_bytes,
        });
        placed.push((end, weight));
        end = end.saturating_add(size_bytes);
    }
    let name = files.first().map(|file| file.name().to_owned()).unwrap_or_default();
    let parts = files.clone();
    files.push(Rc::new(Packed { name, files: parts, weights: placed, size_bytes: end, window: Default::default() }));
    Ok(Checkpoint { metadata, tensors: infos, orders, files })
}

/// The tensors that stand for themselves, in the order of their bytes.
pub(super) fn plain(raw: impl IntoIterator<Item = Raw>) -> Result<Vec<TensorInfo>> {
    let infos = raw.into_iter().filter_map(|raw| info(raw).transpose());
    let mut infos = infos.collect::<Result<Vec<_>>>()?;
    infos.sort_by_key(|info| (info.file, info.offset));
    Ok(infos)
}

/// A tensor that stands for itself. What can be no weight is left out: buffers of integers, and companions of packed
/// weights that nothing is computed from. A weight of an unsupported type is refused.
fn info(raw: Raw) -> Result<Option<TensorInfo>> {
    let Raw { name, dtype, format, shape, file, offset, size_bytes } = raw;
    if let Some(format) = format {
        return Ok(Some(TensorInfo { name, format, shape, file, offset, size_bytes }));
    }
    let buffer = matches!(dtype, "BOOL" | "I64" | "U64" | "I32" | "U32" | "I16" | "U16");
    let weight = [".weight", ".bias", ".qweight"].iter().any(|ending| name.ends_with(ending));
    if buffer && !name.ends_with(".qweight") && !(name.ends_with(".weight") && dtype == "U32") || !weight {
        return Ok(None);
    }
    let supported = super::safetensors::supported();
    let problem = format!("number type {dtype} is not supported here; supported are {supported}, and packed weights");
    Err(Error::new(ErrorKind::UnsupportedFormat, problem).at(super::shown(&name)))
}

fn malformed(place: &str, problem: impl Into<String>) -> Error {
    Error::new(ErrorKind::MalformedModel, problem).at(super::shown(place))
}

fn unsupported(place: &str, problem: impl Into<String>) -> Error {
    Error::new(ErrorKind::UnsupportedFormat, problem).at(super::shown(place))
}

/// Whether a key has that text.
fn says(metadata: &Metadata, key: &str, text: &str) -> bool {
    matches!(metadata.values.get(key), Some(Value::Text(found)) if found == text)
}
