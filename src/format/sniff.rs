//! What a file is, by its first bytes. Its name is not asked: pages of errors are saved under any name.

/// As many bytes as the recognition looks at.
pub(super) const SNIFF_BYTES: u64 = 512;

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A GGUF file.
    Gguf,
    /// Probably a safetensors file.
    Safetensors,
    /// Something that no model is read from, in words.
    Foreign(&'static str),
    /// Nothing that is recognised.
    Unknown,
}

/// A test of a file's first bytes, and what the file is when they pass.
type Sign = (fn(&[u8]) -> bool, &'static str);

/// Files that people take for models, in the order of the tests.
const FOREIGN: &[Sign] = &[
    (<[u8]>::is_empty, "an empty file"),
    (|bytes| bytes.starts_with(b"version https://git-lfs"), "a Git LFS pointer, not the file that it stands for"),
    (is_html, "an HTML page (perhaps an error or sign-in page saved in place of the file)"),
    (is_zipped_pickle, "a pickle in a ZIP archive (PyTorch); pickle can run code and is never read"),
    (is_zip, "a ZIP archive (perhaps a PyTorch pickle)"),
    (is_pickle, "a pickle (PyTorch); pickle can run code and is never read"),
    (|bytes| bytes.starts_with(b"\x1f\x8b"), "a gzip archive"),
    (|bytes| bytes.starts_with(b"\x28\xb5\x2f\xfd"), "a Zstandard archive"),
    (|bytes| bytes.starts_with(b"\xfd7zXZ\0"), "an xz archive"),
    (|bytes| bytes.starts_with(b"7z\xbc\xaf"), "a 7z archive"),
    (|bytes| bytes.starts_with(b"BZh"), "a bzip2 archive"),
    (|bytes| bytes.starts_with(b"\x89HDF"), "an HDF5 file (Keras)"),
    (|bytes| bytes.get(4..8) == Some(b"TFL3"), "a TensorFlow Lite model"),
    (|bytes| OLD_GGML.iter().any(|magic| bytes.starts_with(magic)), "a GGML file from before GGUF"),
    (is_onnx, "an ONNX model"),
];

/// `ggml`, `ggmf`, `ggjt`, `ggla` as little-endian numbers.
const OLD_GGML: &[&[u8]] = &[b"lmgg", b"fmgg", b"tjgg", b"algg"];

/// Recognises a file by at most its first [`SNIFF_BYTES`] bytes.
pub(super) fn sniff(bytes: &[u8]) -> Kind {
    if bytes.starts_with(super::gguf::MAGIC) {
        return Kind::Gguf;
    }
    // Before the others, because a length may look like the sign of an archive.
    if is_safetensors(bytes) {
        return Kind::Safetensors;
    }
    let foreign = FOREIGN.iter().find(|(is, _)| is(bytes));
    foreign.map_or(Kind::Unknown, |(_, name)| Kind::Foreign(name))
}

/// A length of less than 2^32, and the start of JSON.
fn is_safetensors(bytes: &[u8]) -> bool {
    bytes.get(4..9) == Some(b"\0\0\0\0{")
}

fn is_html(bytes: &[u8]) -> bool {
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes).trim_ascii_start();
    let tags: [&[u8]; 2] = [b"<!doctype html", b"<html"];
    tags.iter().any(|tag| text.get(..tag.len()).is_some_and(|start| start.eq_ignore_ascii_case(tag)))
}

fn is_zipped_pickle(bytes: &[u8]) -> bool {
    is_zip(bytes) && bytes.windows(4).any(|part| part == b".pkl")
}

fn is_zip(bytes: &[u8]) -> bool {
    bytes.starts_with(b"PK\x03\x04") || bytes.starts_with(b"PK\x05\x06")
}

/// Protocols 2 to 5 begin with their number; its next opcode tells a pickle from other bytes.
fn is_pickle(bytes: &[u8]) -> bool {
    matches!(bytes, [0x80, 2..=5, b'\x8a' | b'\x95' | b'}' | b']' | b'(' | b'c' | b'X' | b'\x8c', ..])
}

/// A protobuf whose first field is a small `ir_version`, followed by the name of the producer, a domain or the graph.
fn is_onnx(bytes: &[u8]) -> bool {
    matches!(bytes, [0x08, 1..=20, 0x12 | 0x1a | 0x22 | 0x3a | 0x42, ..])
}
