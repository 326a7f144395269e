//! lm-evaluation-harness, from PyPI, on its own models and on `headwater`: both must give the same numbers.

use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::stamp::Stamp;
use crate::{paths, process};

/// Runs the harness over the tasks of `tests/lm_eval`. Its packages (torch among them, some gigabytes) are installed once,
/// into an environment of their own.
pub(crate) fn run() -> Result<()> {
    let environment = paths::at("target/lm-eval");
    let requirements = paths::at("tests/lm_eval/requirements.txt");
    let stamp = Stamp::default().file(&requirements);
    let installed = environment.join("installed");
    let programs = environment.join(if cfg!(windows) { "Scripts" } else { "bin" });
    if !stamp.matches(&installed) {
        let Some(python) = ["python3", "python"].into_iter().find_map(process::find) else {
            bail!("python is missing: install Python 3.10 or newer");
        };
        println!("pip install -r tests/lm_eval/requirements.txt");
        process::run(Command::new(python).args(["-m", "venv", "--clear"]).arg(&environment))?;
        process::run(
            Command::new(programs.join("pip")).args(["install", "--quiet", "--no-cache-dir", "-r"]).arg(&requirements),
        )
        .context("cannot install lm-evaluation-harness")?;
        stamp.write(&installed)?;
    }
    process::run(Command::new("cargo").current_dir(paths::root()).args(["build", "--quiet", "--bin", "headwater"]))?;
    let binary = paths::at("target/debug").join(format!("headwater{}", std::env::consts::EXE_SUFFIX));
    process::run(
        Command::new(programs.join("python"))
            .arg(paths::at("tests/lm_eval/compare.py"))
            .arg("--binary")
            .arg(binary)
            .env("TQDM_DISABLE", "1"),
    )
}
