//! A store in memory, of several processes or tabs, and power cuts.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use headwater::error::{Error, ErrorKind, Result};
use headwater::hub::edge::{Guard, Store, StoredFile};
use headwater::source::LocalFuture;

use super::{Breaker, yield_once};

/// A file in memory: what was flushed outlives a power cut, the rest may not.
#[derive(Clone, Default)]
struct Content {
    bytes: Vec<u8>,
    flushed: Vec<u8>,
}

/// Files by their hash, and whether everybody may have them.
type SharedFiles = BTreeMap<String, (Vec<u8>, bool)>;

/// A store in memory.
#[derive(Default)]
pub(crate) struct Memory {
    files: RefCell<BTreeMap<String, Content>>,
    locks: Rc<RefCell<BTreeSet<String>>>,
    /// Handles that were opened for writing and not closed.
    open: Rc<Cell<usize>>,
    pub(crate) breaker: Breaker,
    pub(crate) room: Cell<Option<u64>>,
    /// What sites share, by its hash, and whether everybody may have it; nothing of the kind where it is `None`.
    pub(crate) shared: RefCell<Option<SharedFiles>>,
}

impl Memory {
    fn check(&self) -> Result<()> {
        match self.breaker.breaks() {
            true => Err(Error::new(ErrorKind::Io, "broken on purpose")),
            false => Ok(()),
        }
    }

    pub(crate) fn bytes(&self, name: &str) -> Option<Vec<u8>> {
        self.files.borrow().get(name).map(|content| content.bytes.clone())
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.files.borrow().keys().cloned().collect()
    }

    pub(crate) fn set(&self, name: &str, bytes: Vec<u8>) {
        self.files.borrow_mut().insert(name.to_owned(), Content { flushed: bytes.clone(), bytes });
    }

    pub(crate) fn take(&self, name: &str) {
        self.files.borrow_mut().remove(name);
    }

    /// Everything of the process ends: locks and handles go.
    pub(crate) fn kill(&self) {
        self.locks.borrow_mut().clear();
        self.open.set(0);
    }

    /// The power goes: of what was not flushed, every third byte is lost.
    pub(crate) fn power_cut(&self) {
        self.kill();
        for content in self.files.borrow_mut().values_mut() {
            for place in 0..content.bytes.len() {
                if content.flushed.get(place) != Some(&content.bytes[place]) && place % 3 == 0 {
                    content.bytes[place] = 0;
                }
            }
            content.flushed = content.bytes.clone();
        }
    }

    pub(crate) fn leaks(&self) -> (usize, usize) {
        (self.locks.borrow().len(), self.open.get())
    }

    pub(crate) fn hold(&self, name: &str) {
        self.locks.borrow_mut().insert(name.to_owned());
    }

    fn used(&self) -> u64 {
        self.files.borrow().values().map(|content| content.bytes.len() as u64).sum()
    }
}

/// The store of one process or tab.
#[derive(Clone)]
pub(crate) struct Disk(pub(crate) Rc<Memory>);

struct Handle {
    memory: Rc<Memory>,
    name: String,
    writes: bool,
    closed: Cell<bool>,
}

impl Handle {
    fn with<T>(&self, change: impl FnOnce(&mut Content) -> Result<T>) -> Result<T> {
        self.memory.check()?;
        if self.closed.get() {
            return Err(Error::new(ErrorKind::Io, "the file is closed"));
        }
        match self.memory.files.borrow_mut().get_mut(&self.name) {
            Some(content) => change(content),
            None => Err(Error::new(ErrorKind::Io, "the file is gone")),
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        assert!(self.closed.get() || std::thread::panicking() || !self.writes, "{} was not closed", self.name);
    }
}

impl StoredFile for Handle {
    fn size_bytes(&self) -> LocalFuture<'_, Result<u64>> {
        Box::pin(async { self.with(|content| Ok(content.bytes.len() as u64)) })
    }

    fn read(&self, offset: u64, len: usize) -> LocalFuture<'_, Result<Vec<u8>>> {
        Box::pin(async move {
            self.with(|content| {
                let part = content.bytes.get(offset as usize..offset as usize + len);
                part.map(<[u8]>::to_vec).ok_or_else(|| Error::new(ErrorKind::SizeMismatch, "past the end"))
            })
        })
    }

    fn write<'a>(&'a self, offset: u64, bytes: &'a [u8]) -> LocalFuture<'a, Result<()>> {
        Box::pin(async move {
            assert!(self.writes, "{} is open for reading", self.name);
            yield_once().await;
            if self.memory.room.get().is_some_and(|room| self.memory.used() + bytes.len() as u64 > room) {
                return Err(Error::new(ErrorKind::QuotaExceeded, "no room"));
            }
            self.with(|content| {
                let end = offset as usize + bytes.len();
                content.bytes.resize(content.bytes.len().max(end), 0);
                content.bytes[offset as usize..end].copy_from_slice(bytes);
                Ok(())
            })
        })
    }

    fn resize(&self, size_bytes: u64) -> LocalFuture<'_, Result<()>> {
        Box::pin(async move {
            self.with(|content| {
                content.bytes.resize(size_bytes as usize, 0);
                Ok(())
            })
        })
    }

    fn flush(&self) -> LocalFuture<'_, Result<()>> {
        Box::pin(async {
            self.with(|content| {
                content.flushed = content.bytes.clone();
                Ok(())
            })
        })
    }

    fn close(&self) -> LocalFuture<'_, Result<()>> {
        Box::pin(async {
            // A handle goes even where closing fails.
            if !self.closed.replace(true) && self.writes {
                self.memory.open.set(self.memory.open.get().saturating_sub(1));
            }
            Ok(())
        })
    }
}

struct Held(Rc<RefCell<BTreeSet<String>>>, String);

impl Guard for Held {}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.borrow_mut().remove(&self.1);
    }
}

impl Disk {
    fn handle(&self, name: &str, writes: bool) -> Rc<dyn StoredFile> {
        if writes {
            self.0.open.set(self.0.open.get() + 1);
        }
        Rc::new(Handle { memory: Rc::clone(&self.0), name: name.to_owned(), writes, closed: Cell::new(false) })
    }
}

impl Store for Disk {
    fn read<'a>(&'a self, name: &'a str) -> LocalFuture<'a, Result<Option<Rc<dyn StoredFile>>>> {
        Box::pin(async move {
            self.0.check()?;
            Ok(self.0.files.borrow().contains_key(name).then(|| self.handle(name, false)))
        })
    }

    fn write<'a>(&'a self, name: &'a str) -> LocalFuture<'a, Result<Rc<dyn StoredFile>>> {
        Box::pin(async move {
            self.0.check()?;
            assert!(
                name.split('/').all(|part| {
                    !part.is_empty()
                        && !part.starts_with('.')
                        && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
                }),
                "{name}"
            );
            self.0.files.borrow_mut().entry(name.to_owned()).or_default();
            Ok(self.handle(name, true))
        })
    }

    fn replace<'a>(&'a self, name: &'a str, bytes: &'a [u8]) -> LocalFuture<'a, Result<()>> {
        Box::pin(async move {
            if self.0.breaker.breaks() {
                // Torn: half of it is there.
                self.0.set(name, bytes[..bytes.len() / 2].to_vec());
                return Err(Error::new(ErrorKind::Io, "broken on purpose"));
            }
            self.0.set(name, bytes.to_vec());
            Ok(())
        })
    }

    fn list<'a>(&'a self, prefix: &'a str) -> LocalFuture<'a, Result<Vec<String>>> {
        Box::pin(async move {
            self.0.check()?;
            Ok(self.0.names().into_iter().filter(|name| name.starts_with(prefix)).collect())
        })
    }

    fn remove<'a>(&'a self, name: &'a str) -> LocalFuture<'a, Result<()>> {
        Box::pin(async move {
            self.0.check()?;
            self.0.take(name);
            Ok(())
        })
    }

    fn check_room(&self, bytes: u64) -> LocalFuture<'_, Result<()>> {
        Box::pin(async move {
            self.0.check()?;
            match self.0.room.get() {
                Some(room) if self.0.used() + bytes > room => {
                    Err(Error::new(ErrorKind::QuotaExceeded, format!("{bytes} bytes are needed, {room} is the quota")))
                }
                _ => Ok(()),
            }
        })
    }

    fn find_shared<'a>(&'a self, sha256: &'a str) -> LocalFuture<'a, Option<Rc<dyn StoredFile>>> {
        Box::pin(async move {
            let bytes = self.0.shared.borrow().as_ref()?.get(sha256)?.0.clone();
            let name = format!("shared-{sha256}");
            self.0.set(&name, bytes);
            Some(self.handle(&name, false))
        })
    }

    fn share<'a>(&'a self, name: &'a str, sha256: &'a str, is_public: bool) -> LocalFuture<'a, ()> {
        Box::pin(async move {
            let bytes = self.0.bytes(name).unwrap_or_default();
            if let Some(shared) = self.0.shared.borrow_mut().as_mut() {
                shared.entry(sha256.to_owned()).or_insert((bytes, is_public));
            }
        })
    }

    fn try_lock<'a>(&'a self, name: &'a str) -> LocalFuture<'a, Result<Option<Box<dyn Guard>>>> {
        Box::pin(async move {
            self.0.check()?;
            let free = self.0.locks.borrow_mut().insert(name.to_owned());
            Ok(free.then(|| Box::new(Held(Rc::clone(&self.0.locks), name.to_owned())) as Box<dyn Guard>))
        })
    }
}
