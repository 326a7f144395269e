//! GGUF, versions 2 and 3, little endian: one file, or the shards of a split model.
//!
//! The specification is ggml's `docs/gguf.md`; where it is loose, the checks are those of ggml's own reader or
//! stricter.

mod header;
mod reader;
mod skim;
mod split;
mod types;

use std::collections::BTreeMap;
use std::rc::Rc;

use super::limits::{self, GGUF_HEADER_BYTES, SMALL_TENSOR_NUMBERS};
use super::open::Extent;
use super::{Checkpoint, Dialect, Metadata, TensorInfo, Value};
use crate::error::{At, Error, ErrorKind, Result};
use crate::source::Source;

use header::Header;
use reader::Stop;

pub(super) use split::open_all;

/// How every GGUF file begins.
pub(super) const MAGIC: &[u8] = b"GGUF";

const ARCHITECTURE_KEY: &str = "general.architecture";

/// The first read; enough for the header of a model without a vocabulary.
const FIRST_READ_BYTES: u64 = 256 << 10;
/// What is read at first behind the pairs: the table of a thousand tensors.
const TABLE_BYTES: u64 = 64 << 10;
/// Each next read makes the known prefix this many times as long, so that little is parsed twice.
const GROWTH: u64 = 4;

/// Tensors that parametrise the computation and that a graph is built from.
const SMALL_TENSORS: &[&str] = &["rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"];

fn malformed(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::MalformedGguf, message)
}

/// Reads ever longer prefixes of the file until the header is complete. A look at a file that is far away leaves long lists
/// out, whose keys are then missing.
///
/// Nothing is read past `GGUF_HEADER_BYTES`, and a header that claims more than the file holds fails before anything
/// is allocated for it.
async fn read_header(source: &dyn Source, extent: Extent) -> Result<Header> {
    let file_size = source.size_bytes();
    let most = file_size.min(GGUF_HEADER_BYTES);
    let skimmed = if extent == Extent::Look && source.is_far() { skim::skim(source).await? } else { None };
    let skim::Skimmed { bytes: mut prefix, skipped, keys } = skimmed.unwrap_or_default();
    let more = if prefix.is_empty() { FIRST_READ_BYTES } else { TABLE_BYTES };
    let mut wanted = more.saturating_add(prefix.len() as u64).min(most.saturating_sub(skipped));
    loop {
        let known = prefix.len() as u64;
        let len = usize::try_from(wanted.saturating_sub(known))
            .map_err(|_| limits::exceeded("bytes of the header", wanted, usize::MAX))?;
        prefix.extend(source.read(known.saturating_add(skipped), len).await?);
        match header::parse(&prefix, file_size, skipped) {
            Ok(mut header) => {
                keys.iter().for_each(|key| drop(header.values.remove(key)));
                return Ok(header);
            }
            Err(Stop::Failed(error)) => return Err(error),
            Err(Stop::Short { needed }) if needed > GGUF_HEADER_BYTES || wanted >= most.saturating_sub(skipped) => {
                return Err(limits::exceeded("bytes of the header", needed, GGUF_HEADER_BYTES));
            }
            Err(Stop::Short { needed }) => {
                wanted = wanted.saturating_mul(GROWTH).max(needed).min(most.saturating_sub(skipped));
            }
        }
    }
}

/// The values of a small tensor.
async fn read_small(source: &dyn Source, tensor: &TensorInfo) -> Result<Vec<f32>> {
    let numbers = tensor.shape.iter().try_fold(1_usize, |product, dim| product.checked_mul(*dim));
    let (Some(numbers), Ok(len)) =
        (numbers.filter(|numbers| *numbers <= SMALL_TENSOR_NUMBERS), usize::try_from(tensor.size_bytes))
    else {
        return Err(limits::exceeded("numbers", format!("{:?}", tensor.shape), SMALL_TENSOR_NUMBERS));
    };
    let bytes = source.read(tensor.offset, len).await?;
    let mut values = vec![0.0; numbers];
    (tensor.format.format().decode)(&bytes, &mut values);
    Ok(values)
}

/// What one or several files say together becomes a checkpoint.
async fn assemble(
    files: Vec<Rc<dyn Source>>,
    values: BTreeMap<String, Value>,
    tensors: Vec<TensorInfo>,
) -> Result<Checkpoint> {
    let mut metadata = Metadata {
        dialect: Dialect::Gguf,
        architecture: String::new(),
        values,
        companions: BTreeMap::new(),
        small_tensors: BTreeMap::new(),
    };
    let first = || files.first().map(|file| file.name().to_owned()).unwrap_or_default();
    let architecture = metadata.text(ARCHITECTURE_KEY).at(first)?;
    let missing = || malformed("the key is missing").at(ARCHITECTURE_KEY).at(first());
    metadata.architecture = architecture.ok_or_else(missing)?.to_owned();
    for tensor in tensors.iter().filter(|tensor| SMALL_TENSORS.contains(&tensor.name.as_str())) {
        if let Some(source) = files.get(tensor.file) {
            let values = read_small(source.as_ref(), tensor).await;
            let values = values.at(|| tensor.name.clone()).at(|| source.name().to_owned())?;
            metadata.small_tensors.insert(tensor.name.clone(), values);
        }
    }
    Ok(Checkpoint { metadata, tensors, orders: BTreeMap::new(), files })
}
