//! safetensors: a length, a JSON header, the tensors' bytes end to end.
//!
//! The rules are the reference's (the `safetensors` crate): the header starts with `{`, tensors cover the rest of the
//! file without hole or overlap, sizes fit types and shapes. Stricter: no key twice, and the limits of `limits.rs`.

use std::collections::HashSet;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use super::json::{check_depth, words};
use super::limits::{
    self, SAFETENSORS_DIMENSIONS, SAFETENSORS_HEADER_BYTES, SAFETENSORS_NAME_BYTES, SAFETENSORS_TENSORS,
};
use super::packed::Raw;
use super::sniff::{Kind, SNIFF_BYTES, sniff};
use super::{past_the_end, shown};
use crate::error::{At, Error, ErrorKind, Result};
use crate::quant::FormatId;
use crate::source::Source;

/// Bytes of the length that a file begins with.
const LENGTH_BYTES: u64 = 8;
const METADATA_KEY: &str = "__metadata__";

/// A number type of the format.
struct Dtype {
    name: &'static str,
    bits: u64,
    format: Option<FormatId>,
}

const fn dtype(name: &'static str, bits: u64, format: Option<FormatId>) -> Dtype {
    Dtype { name, bits, format }
}

/// All number types of the format; those with a format are weights as they stand.
const DTYPES: &[Dtype] = &[
    dtype("F32", 32, Some(FormatId::F32)),
    dtype("F16", 16, Some(FormatId::F16)),
    dtype("BF16", 16, Some(FormatId::Bf16)),
    dtype("BOOL", 8, None),
    dtype("F4", 4, None),
    dtype("F6_E2M3", 6, None),
    dtype("F6_E3M2", 6, None),
    dtype("U8", 8, None),
    dtype("I8", 8, None),
    dtype("F8_E5M2", 8, None),
    dtype("F8_E4M3", 8, None),
    dtype("F8_E8M0", 8, None),
    dtype("F8_E4M3FNUZ", 8, None),
    dtype("F8_E5M2FNUZ", 8, None),
    dtype("I16", 16, None),
    dtype("U16", 16, None),
    dtype("I32", 32, None),
    dtype("U32", 32, None),
    dtype("C64", 64, None),
    dtype("F64", 64, None),
    dtype("I64", 64, None),
    dtype("U64", 64, None),
];

/// Names of the types that are weights as they stand.
pub(super) fn supported() -> String {
    let names: Vec<_> = DTYPES.iter().filter(|dtype| dtype.format.is_some()).map(|dtype| dtype.name).collect();
    names.join(", ")
}

fn malformed(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::MalformedSafetensors, message)
}

/// Reads and checks the header; the tensors come in the order of their bytes, with `file` as their file.
pub(super) async fn read_header(source: &dyn Source, file: usize) -> Result<Vec<Raw>> {
    let file_size = source.size_bytes();
    let start = source.read(0, usize::try_from(file_size.min(SNIFF_BYTES)).unwrap_or_default()).await?;
    if let Kind::Foreign(what) = sniff(&start) {
        return Err(Error::new(ErrorKind::UnsupportedFormat, format!("this is {what}")));
    }
    let Some(length) = start.first_chunk().map(|raw| u64::from_le_bytes(*raw)) else {
        return Err(malformed(format!("the file has {file_size} bytes and cannot hold the length of its header")));
    };
    if length > SAFETENSORS_HEADER_BYTES {
        return Err(limits::exceeded("bytes of the header", length, SAFETENSORS_HEADER_BYTES));
    }
    let data = length.saturating_add(LENGTH_BYTES);
    if data > file_size {
        return Err(malformed(format!("a header of {length} bytes does not fit in a file of {file_size} bytes")));
    }
    let len = usize::try_from(length).map_err(|_| limits::exceeded("bytes of the header", length, usize::MAX))?;
    let header = source.read(LENGTH_BYTES, len).await?;
    let mut tensors = parse(&header, data, file_size)?;
    for tensor in &mut tensors {
        tensor.file = file;
    }
    Ok(tensors)
}

/// Parses a header whose tensors' bytes lie from `data` to the end of the file.
fn parse(header: &[u8], data: u64, file_size: u64) -> Result<Vec<Raw>> {
    if header.first() != Some(&b'{') {
        return Err(malformed("the header does not start with {"));
    }
    check_depth(header).at(|| "header".to_owned())?;
    let text = std::str::from_utf8(header)
        .map_err(|error| malformed(format!("the header is not UTF-8 (byte {})", error.valid_up_to())))?;
    let Header { mut entries, too_many } =
        serde_json::from_str(text).map_err(|error| malformed(format!("the header: {}", words(&error))))?;
    if too_many {
        return Err(limits::passed("tensors", SAFETENSORS_TENSORS));
    }
    {
        let mut names = HashSet::new();
        if let Some((twice, _)) = entries.iter().find(|(name, _)| !names.insert(name.as_str())) {
            return Err(malformed("the tensor is there twice").at(shown(twice)));
        }
    }
    entries.sort_by_key(|(_, entry)| entry.data_offsets);
    let mut tensors = Vec::new();
    let mut taken = 0;
    for (name, entry) in entries {
        let place = shown(&name);
        let tensor = check(name, entry, taken, data, file_size).at(|| place)?;
        taken = taken.saturating_add(tensor.size_bytes);
        tensors.push(tensor);
    }
    if data.checked_add(taken) != Some(file_size) {
        let rest = file_size.saturating_sub(data);
        return Err(malformed(format!("the tensors have {taken} bytes, the file has {rest} behind its header")));
    }
    Ok(tensors)
}

/// Checks one tensor, which has to begin where the last one ended (`taken` bytes behind `data`).
fn check(name: String, entry: Entry, taken: u64, data: u64, file_size: u64) -> Result<Raw> {
    if name.len() > SAFETENSORS_NAME_BYTES {
        return Err(limits::exceeded("bytes of a tensor's name", name.len(), SAFETENSORS_NAME_BYTES));
    }
    if name.is_empty() || name.chars().any(char::is_control) {
        return Err(malformed("this is no name for a tensor"));
    }
    let (begin, end) = entry.data_offsets;
    if begin != taken {
        let what = if begin < taken { "an overlap" } else { "a hole" };
        return Err(malformed(format!("its bytes begin at {begin}, those before it end at {taken}: {what}")));
    }
    let size_bytes =
        end.checked_sub(begin).ok_or_else(|| malformed(format!("its bytes end at {end} and begin at {begin}")))?;
    if entry.shape.len() > SAFETENSORS_DIMENSIONS {
        return Err(limits::exceeded(
            "dimensions",
            format!("more than {SAFETENSORS_DIMENSIONS}"),
            SAFETENSORS_DIMENSIONS,
        ));
    }
    let unsupported = |dtype: &str, known: &str| {
        let supported = supported();
        Error::new(ErrorKind::UnsupportedFormat, format!("number type {dtype} is {known}; supported are {supported}"))
    };
    let dtype = DTYPES
        .iter()
        .find(|dtype| dtype.name == entry.dtype)
        .ok_or_else(|| unsupported(&shown(&entry.dtype), "unknown"))?;
    let bits = entry
        .shape
        .iter()
        .try_fold(1_u64, |product, dim| product.checked_mul(*dim))
        .and_then(|numbers| numbers.checked_mul(dtype.bits))
        .ok_or_else(|| malformed(format!("the size of {:?} overflows", entry.shape)))?;
    if !bits.is_multiple_of(8) {
        return Err(malformed(format!("{:?} of {} do not end on a whole byte", entry.shape, dtype.name)));
    }
    let fitting = bits / 8;
    if fitting != size_bytes {
        return Err(malformed(format!(
            "{size_bytes} bytes are given, {:?} of {} has {fitting}",
            entry.shape, dtype.name
        )));
    }
    let offset = data
        .checked_add(begin)
        .filter(|start| start.checked_add(size_bytes).is_some_and(|end| end <= file_size))
        .ok_or_else(|| malformed(past_the_end(size_bytes, data, begin, file_size)))?;
    let shape = entry.shape.iter().map(|dim| usize::try_from(*dim)).collect::<std::result::Result<_, _>>();
    let shape = shape.map_err(|_| limits::exceeded("size of a dimension", format!("{:?}", entry.shape), usize::MAX))?;
    Ok(Raw { name, dtype: dtype.name, format: dtype.format, shape, file: 0, offset, size_bytes })
}

/// What the header says of a tensor.
#[derive(Deserialize)]
struct Entry {
    dtype: String,
    #[serde(deserialize_with = "shape")]
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

/// A shape, of which one dimension more than the limit is kept: enough to see that there are too many.
fn shape<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Vec<u64>, D::Error> {
    struct Dimensions;
    impl<'de> Visitor<'de> for Dimensions {
        type Value = Vec<u64>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a shape")
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> std::result::Result<Vec<u64>, A::Error> {
            let mut shape = Vec::new();
            while let Some(dimension) = sequence.next_element()? {
                if shape.len() <= SAFETENSORS_DIMENSIONS {
                    shape.push(dimension);
                }
            }
            Ok(shape)
        }
    }
    deserializer.deserialize_seq(Dimensions)
}

/// The header as it stands, every entry kept even if its name comes twice.
struct Header {
    entries: Vec<(String, Entry)>,
    too_many: bool,
}

/// `__metadata__`: texts under texts. They say nothing that a model is computed from, so only their form is checked.
struct Texts;

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Texts;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("texts under texts in __metadata__")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Texts, A::Error> {
                while map.next_entry::<String, String>()?.is_some() {}
                Ok(Texts)
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Header;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with one entry for each tensor")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Header, A::Error> {
                let mut header = Header { entries: Vec::new(), too_many: false };
                let mut metadata = None;
                while let Some(name) = map.next_key::<String>()? {
                    if name == METADATA_KEY {
                        if metadata.replace(map.next_value::<Texts>()?).is_some() {
                            return Err(A::Error::custom("__metadata__ is there twice"));
                        }
                    } else if header.entries.len() < SAFETENSORS_TENSORS {
                        let entry = map
                            .next_value::<Entry>()
                            .map_err(|error| A::Error::custom(format_args!("tensor {}: {error}", shown(&name))))?;
                        header.entries.push((name, entry));
                    } else {
                        // Its kind of error cannot pass through the parser, so the flag carries it.
                        header.too_many = true;
                        map.next_value::<serde::de::IgnoredAny>()?;
                    }
                }
                Ok(header)
            }
        }
        deserializer.deserialize_map(Entries)
    }
}
