//! Hashes of files: SHA-256, and git's own for what git keeps itself; and digests of blocks.

use sha1::Sha1;
use sha2::{Digest, Sha256};
use twox_hash::XxHash64;

use super::manifest::Expected;
use crate::digest::hex;

/// Hashes a file as it comes, from its first byte to its last.
pub(super) struct Hasher {
    sha256: Sha256,
    /// Where git's hash is the one that is known.
    git: Option<Sha1>,
}

impl Hasher {
    /// Begins a file of `size_bytes`.
    pub(super) fn new(expected: &Expected, size_bytes: u64) -> Self {
        let git =
            matches!(expected, Expected::GitBlob(_)).then(|| Sha1::new_with_prefix(format!("blob {size_bytes}\0")));
        Self { sha256: Sha256::new(), git }
    }

    /// Takes the next bytes.
    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.sha256.update(bytes);
        if let Some(git) = &mut self.git {
            git.update(bytes);
        }
    }

    /// The hashes of all bytes: SHA-256, and git's where it was asked for.
    pub(super) fn finish(self) -> (String, Option<String>) {
        (hex(&self.sha256.finalize()), self.git.map(|git| hex(&git.finalize())))
    }
}

/// The digest of a block: XXH64 (<https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md>) in hexadecimal digits. It
/// tells a block that a crash tore from one that was written whole. It stands for nobody's word: what makes a file the one that
/// the hub promised is its SHA-256, of every byte, also of those that were found again.
pub(super) fn block_digest(bytes: &[u8]) -> String {
    format!("{:016x}", XxHash64::oneshot(0, bytes))
}

#[cfg(test)]
mod tests {
    use super::{Expected, Hasher, block_digest};

    #[test]
    fn digests_are_those_of_xxhsum() {
        // `printf 'Nobody inspects the spammish repetition' | xxhsum -H1`, and of nothing.
        assert_eq!(block_digest(b"Nobody inspects the spammish repetition"), "fbcea83c8a378bf1");
        assert_eq!(block_digest(b""), "ef46db3751d8e999");
    }

    #[test]
    fn hashes_are_those_of_sha256sum_and_git() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        // `printf 'hello\n' | git hash-object --stdin`
        let mut hasher = Hasher::new(&Expected::GitBlob(String::new()), 6);
        hasher.update(b"hel");
        hasher.update(b"lo\n");
        let (sha256, git) = hasher.finish();
        assert_eq!(sha256, "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03");
        assert_eq!(git.as_deref(), Some("ce013625030ba8dba906f756967f9e9ca394464a"));
        assert_eq!(Hasher::new(&Expected::Unknown(None), 0).finish(), (empty.to_owned(), None));
    }
}
