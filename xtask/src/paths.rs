//! Where everything lies in the project's tree.

use std::env;
use std::path::{Path, PathBuf};

/// The root of the project: the first folder above the current one that holds this crate; else the place where this
/// program was compiled. A copy of the program thus works on the tree it is called in.
pub(crate) fn root() -> PathBuf {
    let current = env::current_dir().unwrap_or_default();
    let holds_xtask = |folder: &&Path| folder.join("xtask/Cargo.toml").is_file();
    if let Some(root) = current.ancestors().find(holds_xtask) {
        return root.to_path_buf();
    }
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_path_buf()
}

/// A place in the tree, from its path relative to the root.
pub(crate) fn at(relative: &str) -> PathBuf {
    root().join(relative)
}
