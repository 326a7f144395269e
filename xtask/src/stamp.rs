//! Stamps: a small file beside a result that says what it was made from, so that it is made again only when that changes.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_changes_with_words_and_contents() {
        let folder = tempfile::tempdir().unwrap();
        let stamp = folder.path().join("stamp");
        let source = folder.path().join("source");
        let now = |words: &str| Stamp::default().words(words).file(&source);
        now("x").write(&stamp).unwrap();
        assert!(now("x").matches(&stamp));
        assert!(!now("y").matches(&stamp));
        fs::write(&source, "").unwrap();
        assert!(!now("x").matches(&stamp), "an empty file is not a missing one");
        now("x").write(&stamp).unwrap();
        fs::write(&source, "2").unwrap();
        assert!(!now("x").matches(&stamp));
    }
}
