//! Files of this machine as sources.

use std::cell::RefCell;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use headwater::error::{At, Error, ErrorKind, Result};
use headwater::source::{LocalFuture, Source, check_range};

/// Endings of the files of a model folder: configurations, weights, templates.
const ENDINGS: &[&str] = &["json", "safetensors", "jinja"];

/// A file that is read in ranges.
struct FileSource {
    name: String,
    size_bytes: u64,
    file: RefCell<File>,
}

impl FileSource {
    fn open(path: &Path) -> Result<Self> {
        let io = |error| failed(path, error);
        let file = File::open(path).map_err(io)?;
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
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
    if model.starts_with("hf:") || model.contains("://") {
        let message = "models are opened from this machine's files; fetching them is not supported yet";
        return Err(Error::new(ErrorKind::InvalidArgument, message).at(model));
    }
    let path = Path::new(model);
    let paths = match path.metadata().map_err(|error| failed(path, error))?.is_dir() {
        true => folder(path)?,
        false => vec![path.to_owned()],
    };
    paths.iter().map(|path| Ok(Rc::new(FileSource::open(path)?) as Rc<dyn Source>)).collect()
}

fn folder(path: &Path) -> Result<Vec<PathBuf>> {
    let io = |error| failed(path, error);
    let entries = path.read_dir().map_err(io)?.collect::<std::io::Result<Vec<_>>>().map_err(io)?;
    let belongs = |path: &PathBuf| {
        path.is_file() && path.extension().is_some_and(|ending| ENDINGS.iter().any(|known| ending == *known))
    };
    let mut files: Vec<PathBuf> = entries.into_iter().map(|entry| entry.path()).filter(belongs).collect();
    files.sort();
    if files.is_empty() {
        return Err(Error::new(ErrorKind::NotFound, "the folder holds no model")).at(|| path.display().to_string());
    }
    Ok(files)
}

/// An error of the file system.
pub(crate) fn failed(path: &Path, error: std::io::Error) -> Error {
    let kind = match error.kind() {
        std::io::ErrorKind::NotFound => ErrorKind::NotFound,
        _ => ErrorKind::Io,
    };
    Error::new(kind, error.to_string()).at(path.display().to_string()).caused_by(error)
}
