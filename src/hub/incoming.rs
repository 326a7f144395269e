//! A model's files while they come, so that a load need not wait for the last of them.
//!
//! Nothing unverified is used. A read waits until its file was verified whole, but for headers: before [`Incoming::seal`]
//! the beginnings of weight files may be read as they come (or, where a file's turn has not come, from the network), to plan
//! and to make room by. What was read so is read again after the file was verified, and the work begins anew where it is not
//! the same.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::edge::StoredFile;
use super::journal::BLOCK_BYTES;
use super::manifest::RepoFile;
use super::source::StoredSource;
use super::wait::Bell;
use crate::digest::sha256_hex;
use crate::error::{Error, ErrorKind, Result};
use crate::source::{LocalFuture, Source, check_range};

/// Endings of files that hold weights: they come last, and their headers may be read early.
const WEIGHTS: &[&str] = &[".gguf", ".safetensors"];

/// Whether a file holds weights.
pub(super) fn is_weights(path: &str) -> bool {
    let path = path.to_ascii_lowercase();
    WEIGHTS.iter().any(|ending| path.ends_with(ending))
}

/// A file that is being written, for its writer and for early readers.
pub(super) struct Written {
    pub(super) data: Rc<dyn StoredFile>,
    /// Which blocks are written.
    pub(super) have: RefCell<Vec<bool>>,
    /// The writer has not let go of it.
    pub(super) open: Cell<bool>,
}

impl Written {
    /// Whether every block of a range is there to be read.
    fn has(&self, offset: u64, len: usize) -> bool {
        let end = offset.saturating_add(len as u64);
        let place = |at: u64| usize::try_from(at / BLOCK_BYTES).unwrap_or(usize::MAX);
        let have = self.have.borrow();
        self.open.get()
            && (len == 0
                || have
                    .get(place(offset)..=place(end.saturating_sub(1)))
                    .is_some_and(|part| part.iter().all(|there| *there)))
    }
}

/// A file that is to come, with a way to read it over the network.
pub(super) type Announced = (RepoFile, Option<Rc<dyn Source>>);

/// How far a file is.
enum Stage {
    /// Its turn has not come. Over the network it can be read all the same.
    Waiting(Option<Rc<dyn Source>>),
    Coming(Rc<Written>),
    Kept(Rc<dyn Source>),
    /// It will not come: the transfer failed.
    Lost,
}

/// A part that was read before its file was verified.
struct Early {
    offset: u64,
    len: usize,
    hash: String,
}

/// One file.
pub(super) struct Arriving {
    path: String,
    size_bytes: u64,
    stage: RefCell<Stage>,
    early: RefCell<Vec<Early>>,
    sealed: Rc<Cell<bool>>,
    bell: Rc<Bell>,
}

impl Arriving {
    fn set(&self, stage: Stage) {
        self.stage.replace(stage);
        self.bell.ring();
    }

    /// Its writer has begun.
    pub(super) fn coming(&self, written: &Rc<Written>) {
        self.set(Stage::Coming(Rc::clone(written)));
    }

    /// More of it is there.
    pub(super) fn grew(&self) {
        self.bell.ring();
    }

    /// It was verified.
    pub(super) fn kept(&self, source: Rc<dyn Source>) {
        self.set(Stage::Kept(source));
    }

    async fn read_when_there(&self, offset: u64, len: usize) -> Result<Vec<u8>> {
        check_range(&self.path, self.size_bytes, offset, len)?;
        loop {
            let early = !self.sealed.get() && is_weights(&self.path);
            let source = match &*self.stage.borrow() {
                Stage::Kept(source) => Some((Rc::clone(source), true)),
                Stage::Lost => return Err(Error::new(ErrorKind::StorageLost, "the file did not come")),
                Stage::Waiting(Some(source)) if early => Some((Rc::clone(source), false)),
                Stage::Waiting(_) => None,
                Stage::Coming(written) if early && written.has(offset, len) => {
                    let source = StoredSource::new(&self.path, self.size_bytes, Rc::clone(&written.data));
                    Some((Rc::new(source) as Rc<dyn Source>, false))
                }
                Stage::Coming(_) => None,
            };
            let Some((source, verified)) = source else {
                self.bell.wait().await;
                continue;
            };
            let bytes = source.read(offset, len).await?;
            if !verified {
                self.early.borrow_mut().push(Early { offset, len, hash: sha256_hex(&bytes) });
            }
            return Ok(bytes);
        }
    }

    /// Whether what was read early is what was verified.
    async fn proves_right(&self) -> Result<bool> {
        let early = self.early.take();
        let source = match &*self.stage.borrow() {
            Stage::Kept(source) => Rc::clone(source),
            _ => return Ok(early.is_empty()),
        };
        for Early { offset, len, hash } in early {
            if sha256_hex(&source.read(offset, len).await?) != hash {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl Source for Arriving {
    fn name(&self) -> &str {
        &self.path
    }

    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn sha256(&self) -> Option<String> {
        match &*self.stage.borrow() {
            Stage::Kept(source) => source.sha256(),
            _ => None,
        }
    }

    fn read(&self, offset: u64, len: usize) -> LocalFuture<'_, Result<Vec<u8>>> {
        Box::pin(self.read_when_there(offset, len))
    }
}

/// The files of a model that is being fetched, or that was kept already.
#[derive(Default)]
pub struct Incoming {
    files: RefCell<Vec<Rc<Arriving>>>,
    sources: RefCell<Option<Vec<Rc<dyn Source>>>>,
    sealed: Rc<Cell<bool>>,
    bell: Rc<Bell>,
    complete: Cell<bool>,
}

impl Incoming {
    /// Its files: once it is known which they are and that they may be fetched.
    pub async fn sources(&self) -> Result<Vec<Rc<dyn Source>>> {
        loop {
            if let Some(sources) = &*self.sources.borrow() {
                return Ok(sources.clone());
            }
            if self.complete.get() {
                return Err(Error::new(ErrorKind::StorageLost, "the files did not come"));
            }
            self.bell.wait().await;
        }
    }

    /// From here on every read waits until its file was verified.
    pub fn seal(&self) {
        self.sealed.set(true);
    }

    /// Whether nothing is being fetched any more.
    pub fn is_complete(&self) -> bool {
        self.complete.get()
    }

    /// Whether work that failed now may have done so over bytes that nobody had verified.
    pub(super) fn failed_early(&self) -> bool {
        !self.sealed.get() && !self.files.borrow().is_empty()
    }

    /// Announces files, each with a way to read it over the network.
    pub(super) fn announce(&self, files: &[Announced]) -> Vec<Rc<Arriving>> {
        // The first of them begins at once: what of it is asked for comes anyway.
        let first = files.iter().position(|(file, _)| is_weights(&file.path));
        let arriving = |(index, (file, remote)): (usize, &Announced)| {
            let remote = remote.clone().filter(|_| Some(index) != first);
            Rc::new(Arriving {
                path: file.path.clone(),
                size_bytes: file.size_bytes,
                stage: RefCell::new(Stage::Waiting(remote)),
                early: RefCell::default(),
                sealed: Rc::clone(&self.sealed),
                bell: Rc::clone(&self.bell),
            })
        };
        let files: Vec<Rc<Arriving>> = files.iter().enumerate().map(arriving).collect();
        self.sources.replace(Some(files.iter().map(|file| Rc::clone(file) as Rc<dyn Source>).collect()));
        self.files.replace(files.clone());
        self.bell.ring();
        files
    }

    /// All is there, or nothing more comes.
    pub(super) fn end(&self, sources: Option<&[Rc<dyn Source>]>) {
        match sources {
            Some(sources) if self.files.borrow().is_empty() => {
                self.sources.replace(Some(sources.to_vec()));
            }
            Some(sources) => {
                for (file, source) in self.files.borrow().iter().zip(sources) {
                    file.kept(Rc::clone(source));
                }
            }
            None => self.files.borrow().iter().for_each(|file| file.set(Stage::Lost)),
        }
        self.complete.set(true);
        self.bell.ring();
    }

    /// Whether everything that was read early is what was verified.
    pub(super) async fn proves_right(&self) -> Result<bool> {
        let files = self.files.borrow().clone();
        for file in files {
            if !file.proves_right().await? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
