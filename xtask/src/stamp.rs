//! Stamps: a small file beside a result that says what it was made from, so that it is made again only when that changes.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// A fingerprint of inputs. A change of the hash function between compilers costs one needless rebuild, no more.
#[derive(Default)]
pub(crate) struct Stamp(DefaultHasher);

impl Stamp {
    /// Adds words: versions, options.
    pub(crate) fn words(mut self, words: &str) -> Self {
        words.hash(&mut self.0);
        self
    }

    /// Adds a file's content; a missing file counts as such.
    pub(crate) fn file(mut self, file: &Path) -> Self {
        fs::read(file).ok().hash(&mut self.0);
        self
    }

    /// Adds every file below a folder, names and contents, leaving out what is generated.
    pub(crate) fn folder(mut self, folder: &Path, skip: &[&str]) -> Self {
        let mut files = Vec::new();
        list(folder, skip, &mut files);
        files.sort();
        for file in files {
            file.hash(&mut self.0);
            self = self.file(&file);
        }
        self
    }

    /// Whether the stamp in `file` says the same.
    pub(crate) fn matches(&self, file: &Path) -> bool {
        fs::read_to_string(file).is_ok_and(|text| text == self.text())
    }

    /// Writes the stamp, when the result is complete.
    pub(crate) fn write(&self, file: &Path) -> Result<()> {
        fs::write(file, self.text()).with_context(|| format!("cannot write {}", file.display()))
    }

    fn text(&self) -> String {
        format!("{:016x}\n", self.0.finish())
    }
}

fn list(folder: &Path, skip: &[&str], files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_name().to_str().is_some_and(|name| skip.contains(&name)) {
            continue;
        }
        if path.is_dir() {
            list(&path, skip, files);
        } else {
            files.push(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_changes_with_words_contents_and_names() {
        let folder = tempfile::tempdir().unwrap();
        let stamp = folder.path().join("stamp");
        let source = folder.path().join("source");
        fs::create_dir_all(source.join("dist")).unwrap();
        fs::write(source.join("a"), "1").unwrap();
        let now = |words: &str| Stamp::default().words(words).folder(&source, &["dist"]);
        now("x").write(&stamp).unwrap();
        assert!(now("x").matches(&stamp));
        assert!(!now("y").matches(&stamp));
        fs::write(source.join("dist/generated"), "1").unwrap();
        assert!(now("x").matches(&stamp));
        fs::write(source.join("a"), "2").unwrap();
        assert!(!now("x").matches(&stamp));
        fs::write(source.join("a"), "1").unwrap();
        fs::rename(source.join("a"), source.join("b")).unwrap();
        assert!(!now("x").matches(&stamp));
    }
}
