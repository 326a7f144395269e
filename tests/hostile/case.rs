//! A case: files, and what must come of opening them.

use headwater::error::ErrorKind;

/// What must happen.
pub enum Expect {
    /// The files open.
    Loads,
    /// Opening fails with this kind, in words that contain all of these.
    Fails(ErrorKind, &'static [&'static str]),
}

/// Files that are opened together.
pub struct Case {
    /// Number in the list of hostile files, and what is wrong.
    pub id: String,
    /// Names and contents.
    pub files: Vec<(String, Vec<u8>)>,
    pub expect: Expect,
    /// How long opening may take.
    pub limit_ms: u128,
}

/// Enough for every file that is small.
const LIMIT_MS: u128 = 50;

impl Case {
    pub fn new(id: impl Into<String>, files: Vec<(String, Vec<u8>)>, expect: Expect) -> Self {
        Self { id: id.into(), files, expect, limit_ms: LIMIT_MS }
    }

    /// For the few files that are large because their size is the point.
    pub fn large(self) -> Self {
        Self { limit_ms: 20 * LIMIT_MS, ..self }
    }
}

/// Files at fixed names.
pub fn files(files: &[(&str, &[u8])]) -> Vec<(String, Vec<u8>)> {
    files.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.to_vec())).collect()
}
