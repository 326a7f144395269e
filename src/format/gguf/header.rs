//! The header: counts, key-value pairs, the table of tensors. A pure function of the file's first bytes.

use std::collections::{BTreeMap, HashSet};

use super::super::limits::{
    self, GGUF_ALIGNMENT, GGUF_ARRAY_ITEMS, GGUF_ARRAY_NESTING, GGUF_DIMENSION, GGUF_DIMENSIONS, GGUF_KEY_BYTES,
    GGUF_KEYS, GGUF_METADATA_BYTES, GGUF_TENSOR_NAME_BYTES, GGUF_TENSORS, GGUF_TOTAL_ARRAY_ITEMS,
};
use super::super::{TensorInfo, Value, past_the_end, shown};
use super::reader::{Reader, Step, at};
use super::{MAGIC, malformed, types};
use crate::error::{Error, ErrorKind, Result};
use crate::quant::FormatId;

/// The versions of the format that are read; they differ in nothing that is read here.
const VERSIONS: &[u32] = &[2, 3];
/// Alignment where the file does not say.
const DEFAULT_ALIGNMENT: u64 = 32;
const ALIGNMENT_KEY: &str = "general.alignment";
/// The fewest bytes of a pair: length of the key, a letter, type, a boolean.
const PAIR_BYTES: u64 = 8 + 1 + 4 + 1;
/// The fewest bytes of a tensor's entry: length of the name, a letter, dimensions and one of them, type, offset.
const ENTRY_BYTES: u64 = 8 + 1 + 4 + 8 + 4 + 8;

/// The type of arrays.
pub(super) const ARRAY_TYPE: u32 = value_type::ARRAY;

/// What the header says.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) values: BTreeMap<String, Value>,
    /// In the order of their bytes; `file` is 0.
    pub(super) tensors: Vec<TensorInfo>,
}

/// Value types of the format.
mod value_type {
    pub(super) const U8: u32 = 0;
    pub(super) const I8: u32 = 1;
    pub(super) const U16: u32 = 2;
    pub(super) const I16: u32 = 3;
    pub(super) const U32: u32 = 4;
    pub(super) const I32: u32 = 5;
    pub(super) const F32: u32 = 6;
    pub(super) const BOOL: u32 = 7;
    pub(super) const TEXT: u32 = 8;
    pub(super) const ARRAY: u32 = 9;
    pub(super) const U64: u32 = 10;
    pub(super) const I64: u32 = 11;
    pub(super) const F64: u32 = 12;
}

/// Parses a header from the first bytes of a file of `file_size` bytes, of which `skipped` were left out.
pub(super) fn parse(prefix: &[u8], file_size: u64, skipped: u64) -> Step<Header> {
    let mut reader = Reader::new(prefix, file_size);
    if reader.take(MAGIC.len() as u64)? != MAGIC {
        return Err(Error::new(ErrorKind::UnsupportedFormat, "the file does not begin with GGUF").into());
    }
    check_version(reader.u32()?)?;
    let n_tensors = count(&mut reader, "tensors", GGUF_TENSORS)?;
    let n_keys = count(&mut reader, "key-value pairs", GGUF_KEYS)?;

    reader.claim(n_keys, PAIR_BYTES)?;
    let mut pairs = Pairs { values: BTreeMap::new(), alignment: DEFAULT_ALIGNMENT, items: 0 };
    for index in 0..n_keys {
        at(pairs.read(&mut reader), || format!("key-value pair {index}"))?;
        if reader.position() > GGUF_METADATA_BYTES {
            return Err(limits::exceeded("bytes of metadata", reader.position(), GGUF_METADATA_BYTES).into());
        }
    }

    reader.claim(n_tensors, ENTRY_BYTES)?;
    let mut entries = Vec::new();
    for index in 0..n_tensors {
        entries.push(at(entry(&mut reader, pairs.alignment), || format!("tensor {index}"))?);
    }
    let data = reader
        .position()
        .saturating_add(skipped)
        .checked_next_multiple_of(pairs.alignment)
        .ok_or_else(|| malformed("the start of the tensors' bytes overflows"))?;
    Ok(Header { values: pairs.values, tensors: place(entries, data, file_size)? })
}

fn check_version(version: u32) -> Result<()> {
    if VERSIONS.contains(&version) {
        return Ok(());
    }
    let found = if VERSIONS.contains(&version.swap_bytes()) {
        format!("GGUF version {} in big-endian byte order", version.swap_bytes())
    } else {
        format!("GGUF version {version}")
    };
    Err(Error::new(ErrorKind::UnsupportedFormat, format!("{found} is not supported; supported are 2 and 3")))
}

fn count(reader: &mut Reader<'_>, what: &str, limit: u64) -> Step<u64> {
    let count = reader.u64()?;
    if count > limit {
        return Err(limits::exceeded(&format!("number of {what}"), count, limit).into());
    }
    Ok(count)
}

/// The key-value pairs read so far.
struct Pairs {
    values: BTreeMap<String, Value>,
    alignment: u64,
    /// Items of all arrays.
    items: u64,
}

impl Pairs {
    fn read(&mut self, reader: &mut Reader<'_>) -> Step<()> {
        let key = reader.text("a key", GGUF_KEY_BYTES)?;
        if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(malformed(format!("a key must be printable ASCII, {} is there", shown(key))).into());
        }
        at(self.read_value(reader, key), || shown(key))
    }

    fn read_value(&mut self, reader: &mut Reader<'_>, key: &str) -> Step<()> {
        if self.values.contains_key(key) {
            return Err(malformed("the key is there twice").into());
        }
        let value_type = reader.u32()?;
        let value = if value_type == value_type::ARRAY { self.array(reader, 1)? } else { scalar(reader, value_type)? };
        if key == ALIGNMENT_KEY {
            self.alignment = alignment(value_type, &value)?;
        }
        self.values.insert(key.to_owned(), value);
        Ok(())
    }

    /// An array at nesting `depth`; arrays inside it are laid end to end.
    fn array(&mut self, reader: &mut Reader<'_>, depth: u32) -> Step<Value> {
        if depth > GGUF_ARRAY_NESTING {
            return Err(limits::exceeded("arrays inside arrays", depth, GGUF_ARRAY_NESTING).into());
        }
        let item_type = reader.u32()?;
        let n_items = count(reader, "items of an array", GGUF_ARRAY_ITEMS)?;
        self.items = self.items.saturating_add(n_items);
        if self.items > GGUF_TOTAL_ARRAY_ITEMS {
            return Err(limits::exceeded("items of all arrays", self.items, GGUF_TOTAL_ARRAY_ITEMS).into());
        }
        match item_type {
            value_type::U8 => integers(reader, n_items, 1, |reader| reader.u8().map(i64::from)),
            value_type::I8 => integers(reader, n_items, 1, |reader| reader.i8().map(i64::from)),
            value_type::U16 => integers(reader, n_items, 2, |reader| reader.u16().map(i64::from)),
            value_type::I16 => integers(reader, n_items, 2, |reader| reader.i16().map(i64::from)),
            value_type::U32 => integers(reader, n_items, 4, |reader| reader.u32().map(i64::from)),
            value_type::I32 => integers(reader, n_items, 4, |reader| reader.i32().map(i64::from)),
            value_type::U64 => integers(reader, n_items, 8, |reader| narrowed(reader.u64()?)),
            value_type::I64 => integers(reader, n_items, 8, Reader::i64),
            value_type::F32 => items(reader, n_items, 4, Reader::f32).map(Value::Numbers),
            value_type::F64 => {
                items(reader, n_items, 8, |reader| reader.f64().map(|wide| wide as f32)).map(Value::Numbers)
            }
            value_type::BOOL => items(reader, n_items, 1, Reader::bool).map(Value::Bools),
            value_type::TEXT => items(reader, n_items, 8, Reader::string).map(Value::Texts),
            value_type::ARRAY => self.nested(reader, n_items, depth),
            other => Err(unknown_type(other).into()),
        }
    }

    fn nested(&mut self, reader: &mut Reader<'_>, n_items: u64, depth: u32) -> Step<Value> {
        // An inner array has at least its type and its length.
        reader.claim(n_items, 12)?;
        let mut all: Option<Value> = None;
        for _ in 0..n_items {
            let inner = self.array(reader, depth.saturating_add(1))?;
            match &mut all {
                None => all = Some(inner),
                Some(all) => append(all, inner)?,
            }
        }
        Ok(all.unwrap_or(Value::Integers(Vec::new())))
    }
}

/// Joins arrays of one type.
fn append(all: &mut Value, more: Value) -> Result<()> {
    match (all, more) {
        (Value::Integers(all), Value::Integers(more)) => all.extend(more),
        (Value::Numbers(all), Value::Numbers(more)) => all.extend(more),
        (Value::Bools(all), Value::Bools(more)) => all.extend(more),
        (Value::Texts(all), Value::Texts(more)) => all.extend(more),
        _ => return Err(malformed("the arrays of an array are of different types")),
    }
    Ok(())
}

fn integers<'a>(
    reader: &mut Reader<'a>,
    n_items: u64,
    item_bytes: u64,
    read: impl FnMut(&mut Reader<'a>) -> Step<i64>,
) -> Step<Value> {
    items(reader, n_items, item_bytes, read).map(Value::Integers)
}

/// `n_items` items of at least `item_bytes` each; the vector grows with what is there, not with what is claimed.
fn items<'a, T>(
    reader: &mut Reader<'a>,
    n_items: u64,
    item_bytes: u64,
    mut read: impl FnMut(&mut Reader<'a>) -> Step<T>,
) -> Step<Vec<T>> {
    reader.claim(n_items, item_bytes)?;
    let mut items = Vec::new();
    for index in 0..n_items {
        items.push(at(read(reader), || format!("item {index}"))?);
    }
    Ok(items)
}

fn narrowed(wide: u64) -> Step<i64> {
    i64::try_from(wide).map_err(|_| malformed(format!("the integer {wide} of an array does not fit in 63 bits")).into())
}

/// The bytes of a value, where all values of its type have as many.
pub(super) fn scalar_bytes(value_type: u32) -> Option<u64> {
    match value_type {
        value_type::U8 | value_type::I8 | value_type::BOOL => Some(1),
        value_type::U16 | value_type::I16 => Some(2),
        value_type::U32 | value_type::I32 | value_type::F32 => Some(4),
        value_type::U64 | value_type::I64 | value_type::F64 => Some(8),
        _ => None,
    }
}

pub(super) fn scalar(reader: &mut Reader<'_>, value_type: u32) -> Step<Value> {
    Ok(match value_type {
        value_type::U8 => Value::Integer(reader.u8()?.into()),
        value_type::I8 => Value::Integer(reader.i8()?.into()),
        value_type::U16 => Value::Integer(reader.u16()?.into()),
        value_type::I16 => Value::Integer(reader.i16()?.into()),
        value_type::U32 => Value::Integer(reader.u32()?.into()),
        value_type::I32 => Value::Integer(reader.i32()?.into()),
        value_type::U64 => Value::Integer(reader.u64()?.into()),
        value_type::I64 => Value::Integer(reader.i64()?.into()),
        value_type::F32 => Value::Number(reader.f32()?.into()),
        value_type::F64 => Value::Number(reader.f64()?),
        value_type::BOOL => Value::Bool(reader.bool()?),
        value_type::TEXT => Value::Text(reader.string()?),
        other => return Err(unknown_type(other).into()),
    })
}

fn unknown_type(value_type: u32) -> Error {
    malformed(format!("value type {value_type} does not exist (0 to 12 do)"))
}

/// The alignment, which must be a `u32`, as ggml wants it.
fn alignment(value_type: u32, value: &Value) -> Result<u64> {
    let alignment = match value {
        Value::Integer(integer) if value_type == value_type::U32 => u64::try_from(*integer).ok(),
        _ => None,
    }
    .ok_or_else(|| malformed("the alignment must be a 32-bit unsigned integer"))?;
    if alignment > GGUF_ALIGNMENT {
        return Err(limits::exceeded("alignment", alignment, GGUF_ALIGNMENT));
    }
    if !alignment.is_power_of_two() {
        return Err(malformed(format!("the alignment {alignment} is not a power of two")));
    }
    Ok(alignment)
}

/// An entry of the table of tensors; `offset` counts from the start of the tensors' bytes.
fn entry(reader: &mut Reader<'_>, alignment: u64) -> Step<TensorInfo> {
    let name = reader.text("a tensor's name", GGUF_TENSOR_NAME_BYTES)?;
    if name.is_empty() || name.chars().any(char::is_control) {
        return Err(malformed(format!("{} is no name for a tensor", shown(name))).into());
    }
    at(described(reader, name, alignment), || shown(name))
}

fn described(reader: &mut Reader<'_>, name: &str, alignment: u64) -> Step<TensorInfo> {
    let n_dims = reader.u32()?;
    if n_dims > GGUF_DIMENSIONS {
        return Err(limits::exceeded("dimensions", n_dims, GGUF_DIMENSIONS).into());
    }
    let mut shape = Vec::new();
    for _ in 0..n_dims {
        let dim = reader.u64()?;
        if dim > GGUF_DIMENSION {
            return Err(limits::exceeded("size of a dimension", dim, GGUF_DIMENSION).into());
        }
        if dim == 0 {
            return Err(malformed("a dimension is 0").into());
        }
        shape.push(usize::try_from(dim).map_err(|_| limits::exceeded("size of a dimension", dim, usize::MAX))?);
    }
    // ggml counts the contracted dimension first and may write dimensions of 1 behind the last that matters.
    while shape.len() > 1 && shape.last() == Some(&1) {
        shape.pop();
    }
    shape.reverse();
    let gguf_type = reader.u32()?;
    let format = FormatId::from_gguf(gguf_type).ok_or_else(|| types::unsupported(gguf_type))?;
    let size_bytes = size_bytes(format, &shape)?;
    let offset = reader.u64()?;
    // The alignment is a power of two and so never 0.
    if offset.checked_rem(alignment) != Some(0) {
        return Err(malformed(format!("the offset {offset} is no multiple of the alignment {alignment}")).into());
    }
    Ok(TensorInfo { name: name.to_owned(), format, shape, file: 0, offset, size_bytes })
}

/// Bytes of a tensor: whole blocks in every row.
fn size_bytes(format: FormatId, shape: &[usize]) -> Result<u64> {
    let (Some(cols), rows) = (shape.last(), shape.iter().rev().skip(1)) else {
        return Err(malformed("a tensor without dimensions"));
    };
    let block = format.format();
    if cols.checked_rem(block.block_weights) != Some(0) {
        return Err(malformed(format!(
            "a row of {cols} is no multiple of the {} weights in a block of {}",
            block.block_weights, block.name
        )));
    }
    let row_bytes = format.row_bytes(*cols).and_then(|bytes| u64::try_from(bytes).ok());
    rows.fold(row_bytes, |bytes, dim| bytes?.checked_mul(u64::try_from(*dim).ok()?))
        .ok_or_else(|| malformed(format!("the size of {shape:?} overflows")))
}

/// Turns offsets into absolute ones, and refuses what lies outside of the file or in the bytes of another tensor.
fn place(mut tensors: Vec<TensorInfo>, data: u64, file_size: u64) -> Result<Vec<TensorInfo>> {
    {
        let mut names = HashSet::new();
        if let Some(twice) = tensors.iter().find(|tensor| !names.insert(tensor.name.as_str())) {
            return Err(malformed("the tensor is there twice").at(shown(&twice.name)));
        }
    }
    tensors.sort_by_key(|tensor| tensor.offset);
    let mut taken = data;
    for tensor in &mut tensors {
        let place =
            data.checked_add(tensor.offset).and_then(|start| Some((start, start.checked_add(tensor.size_bytes)?)));
        let (start, end) = place.filter(|(_, end)| *end <= file_size).ok_or_else(|| {
            malformed(past_the_end(tensor.size_bytes, data, tensor.offset, file_size)).at(shown(&tensor.name))
        })?;
        if start < taken {
            return Err(malformed(format!("its bytes at {start} overlap another tensor's, which end at {taken}"))
                .at(shown(&tensor.name)));
        }
        tensor.offset = start;
        taken = end;
    }
    Ok(tensors)
}

#[cfg(test)]
mod tests {
    use super::super::reader::Stop;
    use super::parse;

    #[test]
    fn a_prefix_that_is_too_short_asks_for_more_and_a_file_that_is_fails() {
        let bytes = b"GGUF\x03\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
        for len in 0..bytes.len() {
            assert!(matches!(parse(&bytes[..len], 24, 0), Err(Stop::Short { .. })), "{len}");
            assert!(matches!(parse(&bytes[..len], len as u64, 0), Err(Stop::Failed(_))), "{len}");
        }
        assert!(parse(bytes, 24, 0).unwrap().tensors.is_empty());
    }
}
