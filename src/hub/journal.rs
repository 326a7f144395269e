//! What is known of a file while it comes: a log beside it, one line a block, that outlives a crash at any point.
//!
//! The first line says which file it is; each next one that a block was written, with its digest, so that after a crash
//! what is really there can be told from what is not; the last one that the whole file was verified. Lines are only ever
//! added. A line that does not parse was being written when the crash came, and ends the log.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;

use serde::{Deserialize, Serialize};

use super::edge::{Store, StoredFile};
use super::manifest::RepoFile;
use crate::error::{Error, ErrorKind, Result};

/// What a file is fetched, written and hashed by. Four connections of one block each are what a crash can cost.
pub(super) const BLOCK_BYTES: u64 = 1 << 20;
/// The version of the log's form.
const VERSION: u32 = 1;
/// Longest log that is read: a line of a hundred bytes for each block of four terabytes.
const MAX_BYTES: u64 = 400 << 20;

/// A line of the log.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
enum Line {
    /// Which file it is.
    File { version: u32, size_bytes: u64, expected: String },
    /// A block that was written, and its digest.
    Block(u64, String),
    /// The SHA-256 of the whole file, which is verified and closed.
    Done(String),
}

/// What a log says.
#[derive(Debug, Default)]
pub(super) struct Record {
    /// The digest of every block that was written.
    pub(super) blocks: BTreeMap<u64, String>,
    /// SHA-256 of the whole file, once it was verified.
    pub(super) done: Option<String>,
    /// Bytes of whole lines.
    end: u64,
}

/// The name of a file's log.
pub(super) fn log_name(blob: &str) -> String {
    format!("{blob}.log")
}

/// What the log of a blob says of this file; nothing where there is none, or where it is of another content.
pub(super) async fn read(store: &dyn Store, blob: &str, file: &RepoFile) -> Result<Record> {
    let Some(log) = store.read(&log_name(blob)).await? else { return Ok(Record::default()) };
    let record = read_open(log.as_ref(), file).await;
    log.close().await?;
    record
}

async fn read_open(log: &dyn StoredFile, file: &RepoFile) -> Result<Record> {
    let size = log.size_bytes().await?;
    if size > MAX_BYTES {
        return Ok(Record::default());
    }
    let len = usize::try_from(size).map_err(|_| too_long(size))?;
    let bytes = log.read(0, len).await?;
    Ok(parse(&bytes, file))
}

fn too_long(size: u64) -> Error {
    Error::new(ErrorKind::LimitExceeded, format!("a log of {size} bytes"))
}

fn parse(bytes: &[u8], file: &RepoFile) -> Record {
    let mut record = Record::default();
    for raw in bytes.split_inclusive(|byte| *byte == b'\n') {
        let whole = raw.strip_suffix(b"\n").and_then(|line| serde_json::from_slice::<Line>(line).ok());
        match whole {
            Some(Line::File { version, size_bytes, expected }) if record.end == 0 => {
                if version != VERSION || size_bytes != file.size_bytes || expected != file.expected.to_text() {
                    return Record::default();
                }
            }
            Some(Line::Block(block, digest)) if record.end > 0 && block < n_blocks(file.size_bytes) => {
                record.blocks.insert(block, digest);
            }
            Some(Line::Done(hash)) if record.end > 0 => record.done = Some(hash),
            _ => break,
        }
        record.end = record.end.saturating_add(raw.len() as u64);
    }
    record
}

/// How many blocks a file of that size has; the last one may be short.
pub(super) fn n_blocks(size_bytes: u64) -> u64 {
    size_bytes.div_ceil(BLOCK_BYTES)
}

/// A log that is being written.
pub(super) struct Journal {
    log: Rc<dyn StoredFile>,
    end: Cell<u64>,
}

impl Journal {
    /// Opens the log of a blob to go on behind what `record` holds; an empty record begins anew.
    pub(super) async fn open(store: &dyn Store, blob: &str, file: &RepoFile, record: &Record) -> Result<Self> {
        let log = store.write(&log_name(blob)).await?;
        let journal = Self { log, end: Cell::new(record.end) };
        let begun = journal.begin(file, record.end).await;
        if begun.is_err() {
            // The first error is the one that counts.
            journal.log.close().await.ok();
        }
        begun.map(|()| journal)
    }

    async fn begin(&self, file: &RepoFile, end: u64) -> Result<()> {
        self.log.resize(end).await?;
        if end == 0 {
            let expected = file.expected.to_text();
            self.add(&Line::File { version: VERSION, size_bytes: file.size_bytes, expected }).await?;
        }
        Ok(())
    }

    /// Forgets every block.
    pub(super) async fn restart(&self, file: &RepoFile) -> Result<()> {
        self.end.set(0);
        self.begin(file, 0).await
    }

    /// Notes that a block was written.
    pub(super) async fn add_block(&self, block: u64, digest: String) -> Result<()> {
        self.add(&Line::Block(block, digest)).await
    }

    /// Notes that the whole file was verified, for good.
    pub(super) async fn finish(&self, hash: &str) -> Result<()> {
        self.add(&Line::Done(hash.to_owned())).await?;
        self.log.flush().await
    }

    async fn add(&self, line: &Line) -> Result<()> {
        let mut text = serde_json::to_vec(line).map_err(|error| Error::new(ErrorKind::Internal, error.to_string()))?;
        text.push(b'\n');
        // The place is taken before the wait: several blocks end at once.
        let place = self.end.get();
        self.end.set(place.saturating_add(text.len() as u64));
        self.log.write(place, &text).await
    }

    pub(super) async fn flush(&self) -> Result<()> {
        self.log.flush().await
    }

    pub(super) async fn close(&self) -> Result<()> {
        self.log.close().await
    }
}

#[cfg(test)]
mod tests {
    use super::{BLOCK_BYTES, Line, parse};
    use crate::hub::{Address, Expected, RepoFile};

    #[test]
    fn a_log_cut_at_any_byte_holds_the_lines_before() {
        let file = RepoFile {
            path: "m".to_owned(),
            size_bytes: 3 * BLOCK_BYTES,
            expected: Expected::Sha256("a".repeat(64)),
            address: Address::parse("https://h.example/").unwrap(),
        };
        let expected = format!("sha256:{}", "a".repeat(64));
        let lines = [
            Line::File { version: 1, size_bytes: file.size_bytes, expected },
            Line::Block(2, "two".to_owned()),
            Line::Block(0, "zero".to_owned()),
            Line::Done("all".to_owned()),
        ];
        let mut log = Vec::new();
        let mut ends = vec![0];
        for line in &lines {
            log.extend(serde_json::to_vec(line).unwrap());
            log.push(b'\n');
            ends.push(log.len());
        }
        for cut in 0..=log.len() {
            let record = parse(&log[..cut], &file);
            let whole = ends.iter().filter(|end| **end <= cut).count() - 1;
            assert_eq!(
                (record.blocks.len(), record.done.is_some()),
                (whole.saturating_sub(1).min(2), whole == 4),
                "{cut}"
            );
            assert_eq!(record.end, ends[whole] as u64);
        }
        let other = RepoFile { size_bytes: 1, ..file };
        assert_eq!(parse(&log, &other).end, 0);
    }
}
