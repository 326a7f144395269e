//! The store as a folder of this machine.

use std::cell::RefCell;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use headwater::error::{Error, ErrorKind, Result};
use headwater::hub::edge::{Guard, Store, StoredFile};
use headwater::source::LocalFuture;

/// What a file is called until it is whole.
const UNFINISHED: &str = ".unfinished";
/// Where locks are: apart, so that nobody takes them for models.
const LOCKS: &str = "locks";

/// A folder.
pub(super) struct Disk(PathBuf);

impl Disk {
    pub(super) fn new(folder: PathBuf) -> Self {
        Self(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        name.split('/').fold(self.0.clone(), |path, part| path.join(part))
    }

    fn open_to_write(&self, name: &str) -> io::Result<File> {
        let path = self.path(name);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)
    }

    fn put(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        // Of this process alone: several may write the same record at once.
        let unfinished = format!("{name}.{}{UNFINISHED}", std::process::id());
        let mut file = self.open_to_write(&unfinished)?;
        file.set_len(0)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        drop(file);
        fs::rename(self.path(&unfinished), self.path(name))
    }

    fn lock(&self, name: &str) -> io::Result<Option<File>> {
        let file = self.open_to_write(&format!("{LOCKS}/{}", name.replace('/', "_-")))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

/// Every file below a folder, by its name in the store.
fn walk(folder: &Path, name: &str, names: &mut Vec<String>) -> io::Result<()> {
    let entries = match folder.read_dir() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let Ok(own) = entry.file_name().into_string() else { continue };
        let name = if name.is_empty() { own } else { format!("{name}/{own}") };
        if entry.file_type()?.is_dir() {
            walk(&entry.path(), &name, names)?;
        } else if !name.ends_with(UNFINISHED) {
            names.push(name);
        }
    }
    Ok(())
}

fn failed(path: &Path, error: io::Error) -> Error {
    let kind = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            ErrorKind::QuotaExceeded
        }
        io::ErrorKind::UnexpectedEof => ErrorKind::SizeMismatch,
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => ErrorKind::StorageUnavailable,
        _ => ErrorKind::Io,
    };
    Error::new(kind, error.to_string()).at(path.display().to_string()).caused_by(error)
}

/// An open file, until it is closed.
struct OpenFile {
    path: PathBuf,
    file: RefCell<Option<File>>,
}

impl OpenFile {
    fn with<T>(&self, work: impl FnOnce(&mut File) -> io::Result<T>) -> Result<T> {
        let mut file = self.file.borrow_mut();
        let closed = || Error::new(ErrorKind::Internal, "the file is closed").at(self.path.display().to_string());
        work(file.as_mut().ok_or_else(closed)?).map_err(|error| failed(&self.path, error))
    }
}

impl StoredFile for OpenFile {
    fn size_bytes(&self) -> LocalFuture<'_, Result<u64>> {
        Box::pin(async { self.with(|file| Ok(file.metadata()?.len())) })
    }

    fn read(&self, offset: u64, len: usize) -> LocalFuture<'_, Result<Vec<u8>>> {
        Box::pin(async move {
            self.with(|file| {
                let mut bytes = vec![0; len];
                file.seek(SeekFrom::Start(offset))?;
                file.read_exact(&mut bytes)?;
                Ok(bytes)
            })
        })
    }

    fn write<'a>(&'a self, offset: u64, bytes: &'a [u8]) -> LocalFuture<'a, Result<()>> {
        Box::pin(async move {
            self.with(|file| {
                file.seek(SeekFrom::Start(offset))?;
                file.write_all(bytes)
            })
        })
    }

    fn resize(&self, size_bytes: u64) -> LocalFuture<'_, Result<()>> {
        Box::pin(async move { self.with(|file| file.set_len(size_bytes)) })
    }

    fn flush(&self) -> LocalFuture<'_, Result<()>> {
        Box::pin(async { self.with(|file| file.sync_data()) })
    }

    fn close(&self) -> LocalFuture<'_, Result<()>> {
        Box::pin(async {
            self.file.borrow_mut().take();
            Ok(())
        })
    }
}

/// A lock of the file system, which lets go with its file, also when the process dies.
struct Locked {
    _file: File,
}

impl Guard for Locked {}

impl Store for Disk {
    fn read<'a>(&'a self, name: &'a str) -> LocalFuture<'a, Result<Option<Rc<dyn StoredFile>>>> {
        Box::pin(async move {
            let path = self.path(name);
            match File::open(&path) {
                Ok(file) => Ok(Some(Rc::new(OpenFile { path, file: RefCell::new(Some(file)) }) as Rc<dyn StoredFile>)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(failed(&path, error)),
            }
        })
    }

    fn write<'a>(&'a self, name: &'a str) -> LocalFuture<'a, Result<Rc<dyn StoredFile>>> {
        Box::pin(async move {
            let path = self.path(name);
            let file = self.open_to_write(name).map_err(|error| failed(&path, error))?;
            Ok(Rc::new(OpenFile { path, file: RefCell::new(Some(file)) }) as Rc<dyn StoredFile>)
        })
    }

    fn replace<'a>(&'a self, name: &'a str, bytes: &'a [u8]) -> LocalFuture<'a, Result<()>> {
        Box::pin(async move { self.put(name, bytes).map_err(|error| failed(&self.path(name), error)) })
    }

    fn list<'a>(&'a self, prefix: &'a str) -> LocalFuture<'a, Result<Vec<String>>> {
        Box::pin(async move {
            let folder = prefix.rsplit_once('/').map_or("", |(folder, _)| folder);
            let root = if folder.is_empty() { self.0.clone() } else { self.path(folder) };
            let mut names = Vec::new();
            walk(&root, folder, &mut names).map_err(|error| failed(&root, error))?;
            names.retain(|name| name.starts_with(prefix) && !name.starts_with(LOCKS));
            Ok(names)
        })
    }

    fn remove<'a>(&'a self, name: &'a str) -> LocalFuture<'a, Result<()>> {
        Box::pin(async move {
            let path = self.path(name);
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(&path, error)),
                _ => Ok(()),
            }
        })
    }

    /// Fails with `QuotaExceeded`, in figures, where the file system has less room; where it does not tell, a full one is
    /// told when it is met, and what came stays.
    fn check_room(&self, bytes: u64) -> LocalFuture<'_, Result<()>> {
        Box::pin(async move {
            let there = self.0.ancestors().find(|folder| folder.exists());
            match there.map(fs4::available_space) {
                Some(Ok(free_bytes)) if free_bytes < bytes => {
                    let words = format!("{bytes} bytes have to be kept, and there are {free_bytes} free");
                    Err(Error::new(ErrorKind::QuotaExceeded, words).at(self.0.display().to_string()))
                }
                _ => Ok(()),
            }
        })
    }

    fn try_lock<'a>(&'a self, name: &'a str) -> LocalFuture<'a, Result<Option<Box<dyn Guard>>>> {
        Box::pin(async move {
            let locked = self.lock(name).map_err(|error| failed(&self.0, error))?;
            Ok(locked.map(|file| Box::new(Locked { _file: file }) as Box<dyn Guard>))
        })
    }
}
