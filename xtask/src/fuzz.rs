//! `cargo xtask fuzz`: the targets of `fuzz/`, run by cargo-fuzz where it is installed.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::{paths, process};

/// Long enough for every structure of a file; a lying length must not cost memory or time.
const LIMITS: &[&str] = &["-max_len=65536", "-rss_limit_mb=512", "-timeout=5"];

#[derive(Args)]
pub(crate) struct Options {
    /// The target to run; without it, every target in turn
    target: Option<String>,
    /// How long to run each target
    #[arg(long, default_value_t = 60)]
    seconds: u64,
}

pub(crate) fn main(options: &Options) -> Result<()> {
    let targets = targets()?;
    let chosen: Vec<&String> = match &options.target {
        None => targets.iter().collect(),
        Some(name) => targets.iter().filter(|target| *target == name).collect(),
    };
    if chosen.is_empty() {
        bail!("no fuzz target of that name; there are {}", targets.join(", "));
    }
    if process::find("cargo-fuzz").is_none() {
        bail!(
            "cargo-fuzz is missing: `cargo install cargo-fuzz`, and a nightly toolchain for it. Without it, \
             `cargo test` runs the same code over the kept hostile files"
        );
    }
    // Each target begins with the hostile files that the everyday tests keep.
    let mut seeds = Command::new("cargo");
    seeds.args(["run", "--quiet", "--manifest-path", "fuzz/Cargo.toml", "--example", "seeds"]);
    process::run(seeds.current_dir(paths::root()))?;
    let limit = format!("-max_total_time={}", options.seconds);
    for target in chosen {
        let mut fuzz = Command::new("cargo");
        fuzz.current_dir(paths::root()).args(["+nightly", "fuzz", "run", target, "--", &limit]).args(LIMITS);
        process::run(&mut fuzz)?;
    }
    Ok(())
}

/// The names of the targets: one file each.
fn targets() -> Result<Vec<String>> {
    let folder = paths::at("fuzz/fuzz_targets");
    let entries = fs::read_dir(&folder).with_context(|| format!("no fuzz targets in {}", folder.display()))?;
    let files = entries.flatten().map(|entry| entry.path());
    let mut names: Vec<String> =
        files.filter_map(|file| file.file_stem().and_then(|stem| stem.to_str()).map(str::to_owned)).collect();
    names.sort();
    Ok(names)
}
