//! lm-evaluation-harness, from PyPI, on its own models and on `headwater`: both must give the same numbers.

use std::process::Command;

use anyhow::Result;

use crate::{paths, process, python};

/// Runs the harness over the tasks of `tests/lm_eval`. Its packages (torch among them, some gigabytes) are installed once.
pub(crate) fn run() -> Result<()> {
    let python = python::environment(&paths::at("target/lm-eval"), "tests/lm_eval/requirements.txt")?;
    process::run(Command::new("cargo").current_dir(paths::root()).args(["build", "--quiet", "--bin", "headwater"]))?;
    let binary = paths::at("target/debug").join(format!("headwater{}", std::env::consts::EXE_SUFFIX));
    process::run(
        Command::new(python)
            .arg(paths::at("tests/lm_eval/compare.py"))
            .arg("--binary")
            .arg(binary)
            .env("TQDM_DISABLE", "1"),
    )
}
