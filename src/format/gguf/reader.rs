//! A cursor over the known prefix of a GGUF file.
//!
//! It tells three things apart: the bytes are here, the file has them further on, the file ends before them.

use super::super::limits::{self, GGUF_STRING_BYTES};
use super::malformed;
use crate::error::Error;

/// Why parsing stopped.
#[derive(Debug)]
pub(super) enum Stop {
    /// The prefix has to reach `needed` bytes into the file.
    Short { needed: u64 },
    /// The file is wrong.
    Failed(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Stop::Failed(error)
    }
}

/// The result of a parsing step.
pub(super) type Step<T> = Result<T, Stop>;

/// Adds a place to a failure.
pub(super) fn at<T>(step: Step<T>, place: impl FnOnce() -> String) -> Step<T> {
    step.map_err(|stop| match stop {
        Stop::Failed(error) => Stop::Failed(error.at(place())),
        short @ Stop::Short { .. } => short,
    })
}

/// The cursor.
pub(super) struct Reader<'a> {
    prefix: &'a [u8],
    file_size: u64,
    position: usize,
}

macro_rules! numbers {
    ($($name:ident: $type:ident,)*) => {$(
        /// One little-endian number.
        pub(super) fn $name(&mut self) -> Step<$type> {
            self.array().map($type::from_le_bytes)
        }
    )*};
}

impl<'a> Reader<'a> {
    pub(super) fn new(prefix: &'a [u8], file_size: u64) -> Self {
        Self { prefix, file_size, position: 0 }
    }

    /// Bytes from the start of the file to the cursor.
    pub(super) fn position(&self) -> u64 {
        self.position as u64
    }

    /// Fails when `count` items of at least `item_bytes` cannot lie between here and the end of the file.
    ///
    /// What passes may still lie beyond the prefix.
    pub(super) fn claim(&self, count: u64, item_bytes: u64) -> Step<()> {
        let left = self.file_size.saturating_sub(self.position());
        match count.checked_mul(item_bytes) {
            Some(bytes) if bytes <= left => Ok(()),
            _ => Err(malformed(format!(
                "{count} items of at least {item_bytes} bytes at {} do not fit in the {left} bytes that are left",
                self.position
            ))
            .into()),
        }
    }

    /// The next `len` bytes.
    pub(super) fn take(&mut self, len: u64) -> Step<&'a [u8]> {
        let end = self.position().checked_add(len).filter(|end| *end <= self.file_size).ok_or_else(|| {
            malformed(format!("{len} bytes are needed at {}, the file ends at {}", self.position, self.file_size))
        })?;
        let bytes = usize::try_from(end).ok().and_then(|end| self.prefix.get(self.position..end));
        match bytes {
            Some(bytes) => {
                self.position = self.position.saturating_add(bytes.len());
                Ok(bytes)
            }
            None => Err(Stop::Short { needed: end }),
        }
    }

    fn array<const N: usize>(&mut self) -> Step<[u8; N]> {
        let bytes = self.take(N as u64)?;
        // `take` gives exactly N bytes; the error only serves the types.
        bytes.try_into().map_err(|_| malformed("a number is cut short").into())
    }

    numbers! { u8: u8, i8: i8, u16: u16, i16: i16, u32: u32, i32: i32, u64: u64, i64: i64, f32: f32, f64: f64, }

    /// A boolean, which must be 0 or 1.
    pub(super) fn bool(&mut self) -> Step<bool> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(malformed(format!("a boolean must be 0 or 1, {other} is there")).into()),
        }
    }

    /// UTF-8 text with its length before it; `limit` bounds the length.
    pub(super) fn text(&mut self, what: &str, limit: u64) -> Step<&'a str> {
        let len = self.u64()?;
        if len > limit {
            return Err(limits::exceeded(&format!("bytes of {what}"), len, limit).into());
        }
        let start = self.position;
        let bytes = self.take(len)?;
        std::str::from_utf8(bytes).map_err(|error| {
            let place = start.saturating_add(error.valid_up_to());
            malformed(format!("{what} at {start} is not UTF-8 (byte {place})")).into()
        })
    }

    /// A text value.
    pub(super) fn string(&mut self) -> Step<String> {
        self.text("a text", GGUF_STRING_BYTES).map(str::to_owned)
    }
}
