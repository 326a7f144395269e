//! Where bytes come from: ranged reads, asynchronous, without saying whether from memory, a file, a `Blob` or a server.

use std::future::Future;
use std::pin::Pin;

use crate::error::{Error, ErrorKind, Result};

/// A future that stays on its thread; the engine runs on one thread and its edges choose the executor.
pub type LocalFuture<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// A file that is read in ranges.
pub trait Source {
    /// The name shown in errors and progress.
    fn name(&self) -> &str;

    /// Total size.
    fn size_bytes(&self) -> u64;

    /// Whether this is a file as it was given; false for what is put together of others.
    fn is_given(&self) -> bool {
        true
    }

    /// Whether every read costs a request.
    fn is_far(&self) -> bool {
        false
    }

    /// SHA-256 of the whole file in hexadecimal digits, where that was verified.
    fn sha256(&self) -> Option<String> {
        None
    }

    /// Exactly `len` bytes from `offset`. Fails with `SizeMismatch` when they are not all there.
    fn read(&self, offset: u64, len: usize) -> LocalFuture<'_, Result<Vec<u8>>>;
}

/// Fails unless `offset .. offset + len` lies inside `size_bytes`.
pub fn check_range(name: &str, size_bytes: u64, offset: u64, len: usize) -> Result<()> {
    let end = u64::try_from(len).ok().and_then(|len| offset.checked_add(len));
    match end {
        Some(end) if end <= size_bytes => Ok(()),
        _ => Err(Error::new(
            ErrorKind::SizeMismatch,
            format!("{len} bytes at {offset} reach past the end of the file ({size_bytes} bytes)"),
        )
        .at(name)),
    }
}

/// A source over bytes in memory.
pub struct MemorySource {
    name: String,
    bytes: Vec<u8>,
}

impl MemorySource {
    /// Takes the bytes under a name.
    pub fn new(name: impl Into<String>, bytes: Vec<u8>) -> Self {
        Self { name: name.into(), bytes }
    }
}

impl Source for MemorySource {
    fn name(&self) -> &str {
        &self.name
    }

    fn size_bytes(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read(&self, offset: u64, len: usize) -> LocalFuture<'_, Result<Vec<u8>>> {
        Box::pin(async move {
            check_range(&self.name, self.size_bytes(), offset, len)?;
            let start = usize::try_from(offset).unwrap_or(usize::MAX);
            let range = self.bytes.get(start..).and_then(|rest| rest.get(..len));
            Ok(range.unwrap_or_default().to_vec())
        })
    }
}
