//! One file on its way into the store: its blocks, its log, and its hash while they come in any order.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::digest::{Hasher, block_digest};
use super::edge::Store;
use super::incoming::{Arriving, Written};
use super::journal::{self, BLOCK_BYTES, Journal, n_blocks};
use super::manifest::{Expected, RepoFile};
use super::meter::{Meter, Phase};
use crate::error::{Error, ErrorKind, Result};
use crate::format;

/// What was written is made to outlive a power cut at least so often.
const FLUSH_BYTES: u64 = 16 << 20;

/// A file that is kept whole and verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Kept {
    /// SHA-256 of its content.
    pub(super) sha256: String,
}

/// Looks whether a file is kept already: its log says that it was verified, and the file of that size is there.
pub(super) async fn kept(store: &dyn Store, blob: &str, file: &RepoFile) -> Result<Option<Kept>> {
    let Some(sha256) = journal::read(store, blob, file).await?.done else { return Ok(None) };
    let Some(data) = store.read(blob).await? else { return Ok(None) };
    let size = data.size_bytes().await;
    data.close().await?;
    // Cleared or cut behind our back: what the log says is no longer so.
    Ok((size? == file.size_bytes).then_some(Kept { sha256 }))
}

/// A file that is being written.
pub(super) struct Blob<'a> {
    store: &'a dyn Store,
    meter: &'a Meter,
    pub(super) file: &'a RepoFile,
    name: &'a str,
    written: Rc<Written>,
    /// Told what comes.
    arriving: Option<&'a Arriving>,
    journal: Journal,
    hash: RefCell<Running>,
    /// Somebody is reading blocks back to hash them.
    hashing: Cell<bool>,
    unflushed_bytes: Cell<u64>,
}

/// The hash so far: of all blocks before `next`.
struct Running {
    hasher: Option<Hasher>,
    next: u64,
}

impl Running {
    fn new(file: &RepoFile) -> Self {
        Self { hasher: Some(Hasher::new(&file.expected, file.size_bytes)), next: 0 }
    }

    fn take(&mut self, block: u64, bytes: &[u8]) -> bool {
        let fits = self.next == block;
        if fits {
            if let Some(hasher) = &mut self.hasher {
                hasher.update(bytes);
            }
            self.next = self.next.saturating_add(1);
        }
        fits
    }
}

impl<'a> Blob<'a> {
    /// Opens a file to go on where it was left: every block that the log has is read and hashed, and what is not as it was
    /// written counts as missing. Whoever opens it calls [`Blob::close`].
    pub(super) async fn open(
        store: &'a dyn Store,
        meter: &'a Meter,
        file: &'a RepoFile,
        name: &'a str,
        arriving: Option<&'a Arriving>,
    ) -> Result<Self> {
        let mut record = journal::read(store, name, file).await?;
        if record.done.is_some() {
            // It was whole once and is not any more, or nobody would open it: nothing of it is trusted.
            record = journal::Record::default();
        }
        let data = store.write(name).await?;
        let journal = match Journal::open(store, name, file, &record).await {
            Ok(journal) => journal,
            Err(error) => {
                // The first error is the one that counts.
                data.close().await.ok();
                return Err(error);
            }
        };
        let count = usize::try_from(n_blocks(file.size_bytes)).unwrap_or(usize::MAX);
        let blob = Self {
            store,
            meter,
            file,
            name,
            written: Rc::new(Written { data, have: RefCell::new(vec![false; count]), open: Cell::new(true) }),
            arriving,
            journal,
            hash: RefCell::new(Running::new(file)),
            hashing: Cell::new(false),
            unflushed_bytes: Cell::new(0),
        };
        let verified = blob.verify(&record).await;
        match (&verified, arriving) {
            (Err(_), _) => {
                blob.close().await.ok();
            }
            (Ok(()), Some(arriving)) => arriving.coming(&blob.written),
            (Ok(()), None) => {}
        }
        verified.map(|()| blob)
    }

    async fn verify(&self, record: &journal::Record) -> Result<()> {
        if record.blocks.is_empty() {
            // What an older attempt left there is not this file.
            return self.written.data.resize(0).await;
        }
        let size = self.written.data.size_bytes().await?;
        for (block, digest) in &record.blocks {
            let (offset, len) = self.place(*block);
            if offset.saturating_add(len as u64) > size {
                continue;
            }
            let bytes = self.written.data.read(offset, len).await?;
            if block_digest(&bytes) == *digest {
                self.set(*block, true);
                self.hash.borrow_mut().take(*block, &bytes);
                self.meter.loaded(len as u64);
                self.tell(Phase::Verify);
            }
        }
        Ok(())
    }

    /// Where a block lies, and how long it is.
    pub(super) fn place(&self, block: u64) -> (u64, usize) {
        let offset = block.saturating_mul(BLOCK_BYTES);
        let len = self.file.size_bytes.saturating_sub(offset).min(BLOCK_BYTES);
        (offset, usize::try_from(len).unwrap_or(usize::MAX))
    }

    pub(super) fn has(&self, block: u64) -> bool {
        usize::try_from(block).ok().and_then(|block| self.written.have.borrow().get(block).copied()).unwrap_or(false)
    }

    fn set(&self, block: u64, there: bool) {
        let mut have = self.written.have.borrow_mut();
        if let Some(slot) = usize::try_from(block).ok().and_then(|block| have.get_mut(block)) {
            *slot = there;
        }
        drop(have);
        if let Some(arriving) = self.arriving {
            arriving.grew();
        }
    }

    /// The first missing block from `from` on, with how many follow it without a gap, `most` at most.
    pub(super) fn missing(&self, from: u64, most: u64) -> Option<(u64, u64)> {
        let count = n_blocks(self.file.size_bytes);
        let first = (from..count).find(|block| !self.has(*block))?;
        let run = (first..count).take_while(|block| !self.has(*block)).take(usize::try_from(most).unwrap_or(1)).count();
        Some((first, run as u64))
    }

    /// Takes a whole block.
    pub(super) async fn put(&self, block: u64, bytes: &[u8]) -> Result<()> {
        if block == 0 {
            self.check_start(bytes)?;
        }
        let (offset, _) = self.place(block);
        self.written.data.write(offset, bytes).await?;
        self.journal.add_block(block, block_digest(bytes)).await?;
        self.set(block, true);
        self.meter.loaded(bytes.len() as u64);
        self.tell(Phase::Download);
        self.flush_sometimes(bytes.len() as u64).await?;
        self.hash.borrow_mut().take(block, bytes);
        self.catch_up().await
    }

    /// Pages of errors and the like are told by their first bytes, before anything of them is kept.
    fn check_start(&self, bytes: &[u8]) -> Result<()> {
        let path = self.file.path.to_ascii_lowercase();
        let judged = [".gguf", ".safetensors", ".json"].iter().any(|ending| path.ends_with(ending));
        match format::foreign(bytes) {
            Some(what) if judged && self.file.size_bytes > 0 => {
                Err(Error::new(ErrorKind::UnsupportedFormat, format!("the server sent {what}")))
            }
            _ => Ok(()),
        }
    }

    async fn flush_sometimes(&self, bytes: u64) -> Result<()> {
        self.unflushed_bytes.set(self.unflushed_bytes.get().saturating_add(bytes));
        if self.unflushed_bytes.get() >= FLUSH_BYTES {
            self.unflushed_bytes.set(0);
            self.written.data.flush().await?;
            self.journal.flush().await?;
        }
        Ok(())
    }

    /// Hashes what came before its turn, reading it back.
    async fn catch_up(&self) -> Result<()> {
        if self.hashing.replace(true) {
            return Ok(());
        }
        let done = self.hash_written().await;
        self.hashing.set(false);
        done
    }

    async fn hash_written(&self) -> Result<()> {
        loop {
            let next = self.hash.borrow().next;
            if !self.has(next) {
                return Ok(());
            }
            let (offset, len) = self.place(next);
            let bytes = self.written.data.read(offset, len).await?;
            self.hash.borrow_mut().take(next, &bytes);
        }
    }

    /// Checks the whole file. Only now is it kept: written out, closed, found again by its name, and then said so.
    ///
    /// Gives words where its hash is wrong; everything of it is forgotten then.
    pub(super) async fn finish(&self) -> Result<std::result::Result<Kept, String>> {
        self.catch_up().await?;
        let hasher = self.hash.borrow_mut().hasher.take();
        let (sha256, git) = hasher.map(Hasher::finish).unwrap_or_default();
        let found = match &self.file.expected {
            Expected::Sha256(wanted) if *wanted != sha256 => Some((wanted, sha256.clone())),
            Expected::GitBlob(wanted) if git.as_ref() != Some(wanted) => Some((wanted, git.unwrap_or_default())),
            _ => None,
        };
        if let Some((wanted, found)) = found {
            self.restart().await?;
            return Ok(Err(format!("it should have the hash {wanted}, it has {found}")));
        }
        self.written.data.flush().await?;
        self.written.open.set(false);
        self.written.data.close().await?;
        let data = self.store.read(self.name).await?;
        let size = match &data {
            Some(data) => data.size_bytes().await,
            None => Ok(0),
        };
        if let Some(data) = data {
            data.close().await?;
        }
        if size? != self.file.size_bytes {
            let words = "what was written is no longer there (was the site's data cleared?)";
            return Err(Error::new(ErrorKind::StorageLost, words));
        }
        self.journal.finish(&sha256).await?;
        Ok(Ok(Kept { sha256 }))
    }

    /// Forgets everything, to begin again.
    pub(super) async fn restart(&self) -> Result<()> {
        let lost = (0..n_blocks(self.file.size_bytes)).filter(|block| self.has(*block));
        self.meter.lost(lost.fold(0, |sum: u64, block| sum.saturating_add(self.place(block).1 as u64)));
        self.written.have.borrow_mut().fill(false);
        *self.hash.borrow_mut() = Running::new(self.file);
        self.journal.restart(self.file).await?;
        self.written.data.resize(0).await
    }

    /// Tells how far the file is.
    pub(super) fn tell(&self, phase: Phase) {
        let there = (0..n_blocks(self.file.size_bytes)).filter(|block| self.has(*block));
        let bytes = there.fold(0_u64, |sum, block| sum.saturating_add(self.place(block).1 as u64));
        self.meter.tell(phase, &self.file.path, bytes, self.file.size_bytes);
    }

    /// Lets go of the files, whatever happened to them.
    pub(super) async fn close(&self) -> Result<()> {
        self.written.open.set(false);
        let (data, journal) = (self.written.data.close().await, self.journal.close().await);
        data.and(journal)
    }
}
