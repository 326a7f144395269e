//! A case: files, and what must come of opening them.

use headwater::error::ErrorKind;

/// What must happen.
pub(crate) enum Expect {
    /// The files open.
    Loads,
    /// Opening fails with this kind, in words that contain all of these.
    Fails(ErrorKind, &'static [&'static str]),
}

/// Files that are opened together.
pub(crate) struct Case {
    /// Number in the list of hostile files, and what is wrong.
    pub(crate) id: String,
    /// Names and contents.
    pub(crate) files: Vec<(String, Vec<u8>)>,
    pub(crate) expect: Expect,
    /// How long opening may take.
    pub(crate) limit_ms: u128,
}

/// Enough for every file that is small.
const LIMIT_MS: u128 = 50;

impl Case {
    pub(crate) fn new(id: impl Into<String>, files: Vec<(String, Vec<u8>)>, expect: Expect) -> Self {
        Self { id: id.into(), files, expect, limit_ms: LIMIT_MS }
    }

    /// For the few files that are large because their size is the point.
    pub(crate) fn large(self) -> Self {
        Self { limit_ms: 20 * LIMIT_MS, ..self }
    }
}

/// Files at fixed names.
pub(crate) fn files(files: &[(&str, &[u8])]) -> Vec<(String, Vec<u8>)> {
    files.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.to_vec())).collect()
}
