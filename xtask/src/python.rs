//! Python environments with packages from PyPI, each apart from the machine's own.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::stamp::Stamp;
use crate::{paths, process};

/// The interpreter of the environment in `folder`, which has what the file `requirements` lists: installed once, and again
/// when the list changes.
pub(crate) fn environment(folder: &Path, requirements: &str) -> Result<PathBuf> {
    let list = paths::at(requirements);
    let stamp = Stamp::default().file(&list);
    let installed = folder.join("installed");
    let programs = folder.join(if cfg!(windows) { "Scripts" } else { "bin" });
    if !stamp.matches(&installed) {
        let Some(python) = ["python3", "python"].into_iter().find_map(process::find) else {
            bail!("python is missing: install Python 3.10 or newer");
        };
        println!("pip install -r {requirements}");
        process::run(Command::new(python).args(["-m", "venv", "--clear"]).arg(folder))?;
        process::run(
            Command::new(programs.join("pip")).args(["install", "--quiet", "--no-cache-dir", "-r"]).arg(&list),
        )
        .with_context(|| format!("cannot install what {requirements} lists"))?;
        stamp.write(&installed)?;
    }
    Ok(programs.join("python"))
}
