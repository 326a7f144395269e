//! A source that counts what is read from it, and may be far larger than the bytes it has.

use std::cell::Cell;

use headwater::error::Result;
use headwater::source::{LocalFuture, Source, check_range};

/// Bytes, then zeros up to a size.
pub(crate) struct Recorder {
    name: &'static str,
    bytes: Vec<u8>,
    size_bytes: u64,
    bytes_read: Cell<u64>,
}

impl Recorder {
    pub(crate) fn new(name: &'static str, bytes: Vec<u8>, size_bytes: u64) -> Self {
        Self { name, bytes, size_bytes, bytes_read: Cell::new(0) }
    }

    /// Bytes of all reads together.
    pub(crate) fn bytes_read(&self) -> u64 {
        self.bytes_read.get()
    }
}

impl Source for Recorder {
    fn name(&self) -> &str {
        self.name
    }

    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn read(&self, offset: u64, len: usize) -> LocalFuture<'_, Result<Vec<u8>>> {
        Box::pin(async move {
            check_range(self.name, self.size_bytes, offset, len)?;
            self.bytes_read.set(self.bytes_read.get() + len as u64);
            let start = usize::try_from(offset).unwrap_or(usize::MAX).min(self.bytes.len());
            let mut bytes: Vec<u8> = self.bytes[start..].iter().take(len).copied().collect();
            bytes.resize(len, 0);
            Ok(bytes)
        })
    }
}
