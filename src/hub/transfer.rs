//! Brings files into the store: ranges of blocks over several connections, tried again where they fail, resumed where
//! they were left, and verified before they count.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::rc::Rc;

use super::address::Address;
use super::blob::{Blob, Kept, kept};
use super::client::{Answer, Client, Fault, Then};
use super::edge::{ByteRange, Store};
use super::incoming::{Arriving, is_weights};
use super::journal::BLOCK_BYTES;
use super::manifest::{Expected, RepoFile};
use super::meter::Meter;
use super::source::{StoredSource, open_kept};
use super::wait::{Pace, all};
use crate::error::{At, Error, ErrorKind, Result};
use crate::source::Source;

/// Blocks of one request.
const SPAN_BLOCKS: u64 = 16;
/// Connections at first, and at most. A block is in memory for each of them, and a block of each is what a crash costs.
const CONNECTIONS: usize = 4;
/// How long a connection waits before it looks whether it may go on, when a busy server made it rest.
const REST_SECS: f64 = 0.5;
/// Spans that have to go well before one connection more is used again.
const SPANS_TO_RECOVER: usize = 4;
/// Files of at most this many bytes come side by side, larger ones one after another.
const SMALL_BYTES: u64 = 4 * BLOCK_BYTES;
/// Small files that come at once.
const SMALL_AT_ONCE: usize = 4;

/// A file that has to be in the store.
pub(super) struct Job {
    /// What it is.
    pub(super) file: RepoFile,
    /// Its name in the store.
    pub(super) blob: String,
    /// Where its bytes are taken from in place of the network.
    pub(super) from: Option<Rc<dyn Source>>,
    /// Told how far it is.
    pub(super) arriving: Option<Rc<Arriving>>,
}

/// Brings files.
pub(super) struct Transfer<'a> {
    pub(super) client: &'a Client,
    pub(super) store: &'a dyn Store,
    pub(super) meter: &'a Meter,
}

impl Transfer<'_> {
    /// Brings every file, those without weights first; gives their hashes in the order of the files. What was finished
    /// stays, whatever fails later.
    pub(super) async fn run(&self, jobs: &[Job]) -> Result<Vec<Kept>> {
        let mut order: Vec<(usize, &Job)> = jobs.iter().enumerate().collect();
        order.sort_by_key(|(_, job)| is_weights(&job.file.path));
        let mut done: Vec<(usize, Kept)> = Vec::new();
        let mut rest = order.as_slice();
        while !rest.is_empty() {
            let small =
                rest.iter().take(SMALL_AT_ONCE).take_while(|(_, job)| job.file.size_bytes <= SMALL_BYTES).count();
            let (group, after) = rest.split_at(small.max(1));
            let brought: Vec<Pin<Box<dyn Future<Output = Result<Kept>> + '_>>> =
                group.iter().map(|(_, job)| Box::pin(self.bring(job)) as Pin<Box<_>>).collect();
            for ((index, _), kept) in group.iter().zip(all(brought).await) {
                done.push((*index, kept?));
            }
            rest = after;
        }
        done.sort_by_key(|(index, _)| *index);
        Ok(done.into_iter().map(|(_, kept)| kept).collect())
    }

    async fn bring(&self, job: &Job) -> Result<Kept> {
        self.bring_file(job).await.at(|| job.file.path.clone())
    }

    async fn bring_file(&self, job: &Job) -> Result<Kept> {
        if let Some(kept) = kept(self.store, &job.blob, &job.file).await? {
            self.meter.loaded(job.file.size_bytes);
            self.tell_kept(job, &kept).await?;
            return Ok(kept);
        }
        let blob = Blob::open(self.store, self.meter, &job.file, &job.blob, job.arriving.as_deref()).await?;
        let brought = self.fill(&blob, job).await;
        let closed = blob.close().await;
        let kept = brought?;
        closed?;
        self.tell_kept(job, &kept).await?;
        if is_weights(&job.file.path) && matches!(job.file.expected, Expected::Sha256(_)) {
            // What takes a token to fetch is not for everybody.
            self.store.share(&job.blob, &kept.sha256, !self.client.has_token()).await;
        }
        Ok(kept)
    }

    /// Lets a file be read that was verified.
    async fn tell_kept(&self, job: &Job, kept: &Kept) -> Result<()> {
        if let Some(arriving) = &job.arriving {
            let file = (job.file.path.as_str(), job.file.size_bytes);
            arriving.kept(open_kept(self.store, &job.blob, file, Some(&kept.sha256)).await?);
        }
        Ok(())
    }

    /// Brings what is missing; a file whose hash is wrong once is brought once more.
    async fn fill(&self, blob: &Blob<'_>, job: &Job) -> Result<Kept> {
        if let Some(kept) = self.take_shared(blob, job).await? {
            return Ok(kept);
        }
        let mut wrong = None;
        for _ in 0..2 {
            match &job.from {
                Some(source) => copy(blob, source.as_ref()).await?,
                None => self.fetch(blob).await?,
            }
            match blob.finish().await? {
                Ok(kept) => return Ok(kept),
                Err(words) => wrong = Some(words),
            }
        }
        Err(Error::new(ErrorKind::IntegrityMismatch, wrong.unwrap_or_default()))
    }

    /// Takes the file from where others shared it, if it is there and is what it should be.
    async fn take_shared(&self, blob: &Blob<'_>, job: &Job) -> Result<Option<Kept>> {
        let (None, Expected::Sha256(hash)) = (&job.from, &job.file.expected) else { return Ok(None) };
        if !is_weights(&job.file.path) {
            return Ok(None);
        }
        let Some(shared) = self.store.find_shared(hash).await else { return Ok(None) };
        let size_bytes = job.file.size_bytes;
        if shared.size_bytes().await.ok() != Some(size_bytes) {
            return Ok(None);
        }
        let copied = copy(blob, &StoredSource::new(&job.file.path, size_bytes, shared)).await;
        // What came is hashed with the rest that is fetched, if it did not come whole.
        match copied {
            Ok(()) => Ok(blob.finish().await?.ok()),
            Err(error) if matches!(error.kind(), ErrorKind::Aborted | ErrorKind::QuotaExceeded) => Err(error),
            Err(_) => Ok(None),
        }
    }

    async fn fetch(&self, blob: &Blob<'_>) -> Result<()> {
        let fetch = Fetch {
            client: self.client,
            meter: self.meter,
            blob,
            signed: RefCell::new(None),
            whole: Cell::new(false),
            alone: Cell::new(true),
            next: Cell::new(0),
            given_back: RefCell::new(Vec::new()),
            active: Cell::new(0),
            allowed: Cell::new(CONNECTIONS),
            went_well: Cell::new(0),
            failed: RefCell::new(None),
        };
        // The first block alone tells whether ranges are served, and where: not each connection has to find out.
        if let Some((first, _)) = blob.missing(0, 1) {
            fetch.span(first, 1).await?;
        }
        fetch.alone.set(false);
        if blob.missing(0, 1).is_none() {
            return Ok(());
        }
        let lanes: Vec<Pin<Box<dyn Future<Output = ()> + '_>>> =
            (0..CONNECTIONS).map(|number| Box::pin(fetch.lane(number)) as Pin<Box<_>>).collect();
        all(lanes).await;
        match fetch.failed.take() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}

/// Takes a file's blocks from a source, such as a file that the user picked.
async fn copy(blob: &Blob<'_>, source: &dyn Source) -> Result<()> {
    while let Some((block, _)) = blob.missing(0, 1) {
        let (offset, len) = blob.place(block);
        let bytes = source.read(offset, len).await?;
        blob.put(block, &bytes).await?;
    }
    Ok(())
}

/// One file being fetched.
struct Fetch<'a> {
    client: &'a Client,
    meter: &'a Meter,
    blob: &'a Blob<'a>,
    /// Where the hub sent us last: asked directly until it is refused.
    signed: RefCell<Option<Address>>,
    /// The server sends the whole file to every request, so one connection takes it all.
    whole: Cell<bool>,
    /// Only one connection is open yet.
    alone: Cell<bool>,
    /// Blocks before this one are given out.
    next: Cell<u64>,
    /// Spans that a connection gave back, because the server was busy with the others.
    given_back: RefCell<Vec<(u64, u64)>>,
    /// Connections that are at a span.
    active: Cell<usize>,
    /// Connections that a busy server leaves us.
    allowed: Cell<usize>,
    went_well: Cell<usize>,
    failed: RefCell<Option<Error>>,
}

impl Fetch<'_> {
    /// One connection: takes spans until none is left, or any connection failed.
    async fn lane(&self, number: usize) {
        while self.failed.borrow().is_none() {
            if self.whole.get() && number > 0 {
                return;
            }
            // What others give back is theirs to take again, so that nobody waits for it here.
            let unasked = self.blob.missing(self.next.get(), SPAN_BLOCKS);
            if unasked.is_none() && self.given_back.borrow().is_empty() {
                return;
            }
            if self.active.get() >= self.allowed.get() {
                if let Err(error) = self.client.patience.sleep(REST_SECS).await {
                    self.fail(error);
                }
                continue;
            }
            let given_back = self.given_back.borrow_mut().pop();
            if let (None, Some((first, count)), false) = (given_back, unasked, self.whole.get()) {
                self.next.set(first.saturating_add(count));
            }
            let Some((first, count)) = given_back.or(unasked) else { return };
            self.active.set(self.active.get().saturating_add(1));
            let brought = self.span(first, count).await;
            self.active.set(self.active.get().saturating_sub(1));
            match brought {
                Ok(true) => self.recover(),
                Ok(false) => self.given_back.borrow_mut().push((first, count)),
                Err(error) => self.fail(error),
            }
        }
    }

    fn fail(&self, error: Error) {
        self.failed.borrow_mut().get_or_insert(error);
    }

    fn recover(&self) {
        self.went_well.set(self.went_well.get().saturating_add(1));
        if self.went_well.get() >= SPANS_TO_RECOVER {
            self.went_well.set(0);
            self.allowed.set(self.allowed.get().saturating_add(1).min(CONNECTIONS));
        }
    }

    /// Brings blocks, trying again as long as every try brings at least one more. Gives `false` where the server is busy with
    /// more connections than it has for us, so that this one should rest.
    async fn span(&self, first: u64, count: u64) -> Result<bool> {
        let end = first.saturating_add(count);
        let mut tried = 0;
        loop {
            let Some((from, run)) = self.blob.missing(first, count).filter(|(from, _)| *from < end) else {
                return Ok(true);
            };
            let run = run.min(end.saturating_sub(from));
            let brought = Cell::new(0_u64);
            let Err(fault) = self.try_span(from, run, &brought).await else { continue };
            if self.failed.borrow().is_some() {
                return Err(fault.error);
            }
            if matches!(fault.then, Then::RetryAfter(_)) || fault.error.kind() == ErrorKind::HttpStatus {
                self.allowed.set(self.allowed.get().div_ceil(2).max(1));
                self.went_well.set(0);
                if self.active.get() > self.allowed.get() {
                    return Ok(false);
                }
            }
            if brought.get() > 0 {
                tried = 0;
            }
            if fault.then == Then::AskAgain {
                self.signed.replace(None);
            }
            self.client.back_off(fault, &mut tried).await?;
        }
    }

    /// One request for blocks `first ..` and what comes of it.
    async fn try_span(&self, first: u64, count: u64, brought: &Cell<u64>) -> std::result::Result<(), Fault> {
        let (offset, _) = self.blob.place(first);
        let (last_offset, last_len) = self.blob.place(first.saturating_add(count).saturating_sub(1));
        let end = last_offset.saturating_add(last_len as u64);
        let range = ByteRange { first: offset, last: end.saturating_sub(1) };
        let signed = self.signed.borrow().clone();
        let address = signed.as_ref().unwrap_or(&self.blob.file.address);
        let mut answer = self.client.try_get(address, Some(range), signed.is_some()).await?;
        if answer.address != self.blob.file.address {
            self.signed.replace(Some(answer.address.clone()));
        }
        self.check_mark(&answer)?;
        if answer.response.status == 206 {
            check_range(&answer, range, self.blob.file.size_bytes)?;
            return self.take(&mut answer, offset..end, offset, brought).await;
        }
        // The whole file came in place of a part, so it is read from its beginning. One connection takes all of it; among
        // several, each keeps to its own part.
        if self.alone.get() || self.whole.get() {
            self.whole.set(true);
            return self.take(&mut answer, 0..self.blob.file.size_bytes, 0, brought).await;
        }
        self.take(&mut answer, offset..end, 0, brought).await
    }

    /// A file that is known by its mark alone must still have it.
    fn check_mark(&self, answer: &Answer) -> Result<()> {
        let Expected::Unknown(Some(wanted)) = &self.blob.file.expected else { return Ok(()) };
        match answer.response.header("etag") {
            Some(now) if now != wanted => {
                let words = format!("the file changed on the server: its mark was {wanted}, it is {now}");
                Err(Error::new(ErrorKind::RevisionChanged, words))
            }
            _ => Ok(()),
        }
    }

    /// Puts the bytes `wanted` of the file away, block by block, out of an answer that begins at byte `at`, leaving out
    /// what is there. Bytes behind the end are not read: what they would do to the file, its hash tells.
    async fn take(
        &self,
        answer: &mut Answer,
        wanted: Range<u64>,
        mut at: u64,
        brought: &Cell<u64>,
    ) -> std::result::Result<(), Fault> {
        let end = wanted.end;
        let mut block_bytes: Vec<u8> = Vec::new();
        let mut more = false;
        let mut pace = Pace::new(&self.client.patience);
        while at < end {
            self.client.patience.check()?;
            if let Some(error) = self.failed.borrow().as_ref() {
                return Err(Error::new(error.kind(), "another connection failed").into());
            }
            let Some(part) = self.client.next(answer).await? else { break };
            self.meter.fetched(part.len() as u64);
            pace.count(part.len(), &self.client.patience).at(|| answer.address.shown())?;
            let mut part = part.as_slice();
            while !part.is_empty() && at < end {
                let block = at / BLOCK_BYTES;
                let (start, len) = self.blob.place(block);
                let lacks = start.saturating_add(len as u64).saturating_sub(at);
                let (now, later) = part.split_at(part.len().min(usize::try_from(lacks).unwrap_or(usize::MAX)));
                block_bytes.extend(now);
                at = at.saturating_add(now.len() as u64);
                part = later;
                if now.len() as u64 == lacks {
                    if start >= wanted.start && !self.blob.has(block) {
                        self.blob.put(block, &block_bytes).await?;
                        brought.set(brought.get().saturating_add(1));
                    }
                    block_bytes.clear();
                }
            }
            more = !part.is_empty();
        }
        if at < end {
            let words = format!("the answer ended at byte {at} of {end}");
            return Err(Error::new(ErrorKind::SizeMismatch, words).at(answer.address.shown()).into());
        }
        // What has no hash must at least not be longer than it should.
        if matches!(self.blob.file.expected, Expected::Unknown(_)) && end == self.blob.file.size_bytes {
            more = more || self.client.next(answer).await?.is_some_and(|part| !part.is_empty());
            if more {
                // Nobody vouches for what came, so none of it stays.
                self.blob.restart().await?;
                let words = format!("more came than the {end} bytes of the file");
                return Err(Fault { error: Error::new(ErrorKind::SizeMismatch, words), then: Then::Stop });
            }
        }
        Ok(())
    }
}

/// Fails where the server sends another part than the one that was asked for. Browsers show this header only where the
/// server lets them; what it would have told, the hash tells later.
fn check_range(answer: &Answer, range: ByteRange, size_bytes: u64) -> Result<()> {
    let Some(header) = answer.response.header("content-range") else { return Ok(()) };
    let told = header.trim().strip_prefix("bytes ").and_then(|rest| {
        let (span, total) = rest.split_once('/')?;
        let (first, last) = span.split_once('-')?;
        Some((first.trim().parse::<u64>().ok()?, last.trim().parse::<u64>().ok()?, total.trim().to_owned()))
    });
    let fits = told.as_ref().is_some_and(|(first, last, total)| {
        *first == range.first && *last <= range.last && (total == "*" || total.parse() == Ok(size_bytes))
    });
    if fits {
        return Ok(());
    }
    let words =
        format!("bytes {}-{} of {size_bytes} were asked for, the server sends {header:?}", range.first, range.last);
    Err(Error::new(ErrorKind::SizeMismatch, words).at(answer.address.shown()))
}
