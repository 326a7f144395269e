//! Files of this machine as sources.

use std::cell::RefCell;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use headwater::error::{At, Error, ErrorKind, Result};
use headwater::source::{LocalFuture, Source, check_range};

/// The file that a module of a model for embeddings has in a folder of its own.
const MODULE: &str = "config.json";

/// Endings of the files of a model folder: configurations, weights, templates.
const ENDINGS: &[&str] = &["json", "safetensors", "jinja"];

/// A file that is read in ranges.
struct FileSource {
    name: String,
    size_bytes: u64,
    file: RefCell<File>,
}

impl FileSource {
    fn open(name: String, path: &Path) -> Result<Self> {
        let io = |error| failed(path, error);
        let file = File::open(path).map_err(io)?;
        Ok(Self { name, size_bytes: file.metadata().map_err(io)?.len(), file: RefCell::new(file) })
    }
}

impl Source for FileSource {
    fn name(&self) -> &str {
        &self.name
    }

    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn read(&self, offset: u64, len: usize) -> LocalFuture<'_, Result<Vec<u8>>> {
        Box::pin(async move {
            check_range(&self.name, self.size_bytes, offset, len)?;
            let mut bytes = vec![0; len];
            let mut file = self.file.borrow_mut();
            file.seek(SeekFrom::Start(offset))
                .and_then(|_| file.read_exact(&mut bytes))
                .map_err(|error| failed(Path::new(&self.name), error))?;
            Ok(bytes)
        })
    }
}

/// The files of a model: one file, or those of a folder that a model has.
pub(crate) fn open(model: &str) -> Result<Vec<Rc<dyn Source>>> {
    let path = Path::new(model);
    let paths = match path.metadata().map_err(|error| failed(path, error))?.is_dir() {
        true => folder(path)?,
        false => vec![(file_name(path), path.to_owned())],
    };
    let mut sources: Vec<Rc<dyn Source>> = Vec::new();
    for (name, path) in paths {
        sources.push(Rc::new(FileSource::open(name, &path)?));
    }
    Ok(sources)
}

/// The last part of a path.
fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

/// The files of a model folder by their names in it, with those of its modules.
fn folder(path: &Path) -> Result<Vec<(String, PathBuf)>> {
    let io = |error| failed(path, error);
    let entries = path.read_dir().map_err(io)?.collect::<std::io::Result<Vec<_>>>().map_err(io)?;
    let belongs = |path: &Path| {
        path.is_file() && path.extension().is_some_and(|ending| ENDINGS.iter().any(|known| ending == *known))
    };
    let mut files = Vec::new();
    for path in entries.into_iter().map(|entry| entry.path()) {
        let module = path.join(MODULE);
        if belongs(&path) {
            files.push((file_name(&path), path));
        } else if module.is_file() {
            files.push((format!("{}/{MODULE}", file_name(&path)), module));
        }
    }
    files.sort();
    if files.is_empty() {
        return Err(Error::new(ErrorKind::NotFound, "the folder holds no model")).at(|| path.display().to_string());
    }
    Ok(files)
}

/// The given files, and all files below the given folders by their paths in them.
pub(crate) fn all_below(paths: &[PathBuf]) -> Result<Vec<Rc<dyn Source>>> {
    let mut sources = Vec::new();
    for path in paths {
        let is_folder = path.metadata().map_err(|error| failed(path, error))?.is_dir();
        add(path, if is_folder { String::new() } else { file_name(path) }, &mut sources)?;
    }
    Ok(sources)
}

fn add(path: &Path, name: String, sources: &mut Vec<Rc<dyn Source>>) -> Result<()> {
    let io = |error| failed(path, error);
    if !path.metadata().map_err(io)?.is_dir() {
        sources.push(Rc::new(FileSource::open(name, path)?));
        return Ok(());
    }
    for entry in path.read_dir().map_err(io)? {
        let below = entry.map_err(io)?.path();
        let folder = if name.is_empty() { String::new() } else { format!("{name}/") };
        add(&below, folder + &file_name(&below), sources)?;
    }
    Ok(())
}

/// An error of the file system.
pub(crate) fn failed(path: &Path, error: std::io::Error) -> Error {
    let kind = match error.kind() {
        std::io::ErrorKind::NotFound => ErrorKind::NotFound,
        _ => ErrorKind::Io,
    };
    Error::new(kind, error.to_string()).at(path.display().to_string()).caused_by(error)
}
