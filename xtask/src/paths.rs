//! Where everything lies in the project's tree.

use std::path::{Path, PathBuf};

/// The root of the project: the folder above this crate.
pub(crate) fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_path_buf()
}

/// A place in the tree, from its path relative to the root.
pub(crate) fn at(relative: &str) -> PathBuf {
    root().join(relative)
}
