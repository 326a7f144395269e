//! `cargo xtask pkg`: the npm package, whole, and its size held to the budget.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::Value;

use crate::wasm::Effort;
use crate::{browser, npm, paths, process, serve, split, wasm};

/// What is fetched when, and what it may weigh on the wire, brotli at its best: so that nothing grows unseen.
struct Share {
    what: &'static str,
    budget_bytes: u64,
    /// How the names of its files in `pkg/wasm` begin.
    names: &'static [&'static str],
}

/// The first that has a file's name has the file; what no other has is the first share.
const SHARES: [Share; 3] = [
    Share { what: "before the model: all that chats run (the aim is 700000)", budget_bytes: 870_000, names: &[] },
    Share { what: "beside the model: what chats do not run", budget_bytes: 600_000, names: &["headwater_deferred"] },
    Share { what: "for constrained replies, when one is asked for", budget_bytes: 400_000, names: &["grammar"] },
];
/// Files without which the package does not work, and the licences it must carry.
const MUST_SHIP: &[&str] = &[
    "package.json",
    "dist/index.js",
    "dist/index.d.ts",
    "dist/worker.js",
    "dist/LICENSE-MIT",
    "dist/LICENSE-APACHE",
    "wasm/headwater.js",
    "wasm/headwater_bg.wasm",
    "wasm/headwater_deferred_bg.wasm",
    "wasm/grammar.js",
    "wasm/grammar_bg.wasm",
    "models/tiny-assistant-q8_0.gguf",
    "models/tiny-assistant.md",
];
/// Where the files lie that chat needs; what has an entry point of its own (`headwater/openai`, ...) is fetched by who imports it.
const RUNTIME_FOLDERS: &[&str] = &["pkg/wasm", "pkg/dist", "pkg/dist/hub", "pkg/dist/shared"];
/// Everything else that ships lies below these folders, or is a file of this name.
const MAY_SHIP: &[&str] = &["dist/", "wasm/", "models/", "package.json", "README.md"];

#[derive(Args)]
pub(crate) struct Options {
    /// Build without optimisation, for trying a change; the size is reported but not held to the budget
    #[arg(long)]
    quick: bool,
    /// Find out, in a headless Chromium, which functions chats run, and list all others in xtask/deferred.txt: they are
    /// fetched beside the model, or when one is called
    #[arg(long, conflicts_with = "quick")]
    record: bool,
}

impl Options {
    fn effort(&self) -> Effort {
        if self.quick { Effort::Quick } else { Effort::Full }
    }
}

pub(crate) fn main(options: &Options) -> Result<()> {
    if options.record {
        record()?;
    }
    build(options.effort())?;
    check_files()?;
    let size = report_size()?;
    if options.quick { Ok(()) } else { check_budget(size) }
}

/// Writes the list of what is deferred: the functions that ran in none of the recorded chats.
fn record() -> Result<()> {
    build(Effort::Recording)?;
    let chromium = browser::ensure()?;
    let address = serve::start(0, serve::test_site())?;
    let marks = paths::at("target/wasm/marks.json");
    process::run(
        npm::command()
            .args(["exec", "--", "playwright", "test", "--config", "tests/browser/record.config.ts"])
            .env("HEADWATER_CHROMIUM", chromium)
            .env("HEADWATER_RECORD", &marks)
            .env("HEADWATER_URL", format!("http://{address}/")),
    )?;
    let marks: BTreeMap<String, bool> =
        serde_json::from_str(&fs::read_to_string(marks)?).context("the recording did not write JSON")?;
    let mut list = String::from(
        "# Functions that no recorded chat ran (`cargo xtask pkg --record`), by the hash of their paths.\n",
    );
    for (name, _) in marks.iter().filter(|(_, ran)| !**ran) {
        list.push_str(name.strip_prefix(split::RAN).with_context(|| format!("a mark is called {name}"))?);
        list.push('\n');
    }
    println!("{} of {} functions ran", marks.values().filter(|ran| **ran).count(), marks.len());
    fs::write(paths::at("xtask/deferred.txt"), list).context("cannot write the list")
}

/// Makes sure of an up-to-date package in `pkg/`.
pub(crate) fn build(effort: Effort) -> Result<()> {
    wasm::build(effort)?;
    npm::build()?;
    for licence in ["LICENSE-MIT", "LICENSE-APACHE"] {
        fs::copy(paths::at(licence), paths::at("pkg/dist").join(licence)).context("cannot copy the licences")?;
    }
    Ok(())
}

/// Checks that what npm would publish is what is meant to ship.
pub(crate) fn check_files() -> Result<()> {
    let listing =
        process::output(npm::command().args(["pack", "--dry-run", "--json", "--loglevel", "error", "-w", "pkg"]))?;
    let listing: Value = serde_json::from_str(&listing).context("npm pack did not print JSON")?;
    let files: Vec<(&str, u64)> = listing[0]["files"]
        .as_array()
        .context("npm pack printed no list of files")?
        .iter()
        .filter_map(|file| Some((file["path"].as_str()?, file["size"].as_u64()?)))
        .collect();
    println!("the package's files, uncompressed:");
    for (path, size) in &files {
        println!("  {size:>10}  {path}");
    }
    let missing: Vec<_> = MUST_SHIP.iter().filter(|must| !files.iter().any(|(path, _)| path == *must)).collect();
    if !missing.is_empty() {
        bail!("the package lacks {missing:?}");
    }
    let stray: Vec<_> = files.iter().map(|(path, _)| path).filter(|path| !may_ship(path)).collect();
    if !stray.is_empty() {
        bail!("the package holds files that should not ship: {stray:?}");
    }
    Ok(())
}

fn may_ship(path: &str) -> bool {
    let is_expected = MAY_SHIP.iter().any(|may| if may.ends_with('/') { path.starts_with(may) } else { path == *may });
    is_expected && !path.ends_with(".tsbuildinfo")
}

/// Prints what the runtime files weigh compressed, and gives it for each share.
pub(crate) fn report_size() -> Result<[u64; SHARES.len()]> {
    let mut files = Vec::new();
    for folder in RUNTIME_FOLDERS {
        files.extend(runtime_files(&paths::at(folder))?);
    }
    let report = process::output(Command::new("node").arg(paths::at("xtask/weigh.mjs")).args(&files))?;
    let report: Value = serde_json::from_str(&report).context("the weighing did not print JSON")?;
    let mut weights = [0; SHARES.len()];
    println!("what a visitor's browser fetches, in bytes:");
    println!("  {:>10} {:>10}  file", "raw", "brotli");
    for (file, row) in files.iter().zip(report.as_array().into_iter().flatten()) {
        let (raw, brotli) = (row["raw"].as_u64().unwrap_or(0), row["brotli"].as_u64().unwrap_or(0));
        weights[share_of(file)] += brotli;
        println!("  {raw:>10} {brotli:>10}  {}", file.strip_prefix(paths::root()).unwrap_or(file).display());
    }
    for (Share { what, budget_bytes, .. }, weight) in SHARES.iter().zip(weights) {
        println!("  {:>10} {weight:>10}  {what}; the budget is {budget_bytes}", "");
    }
    Ok(weights)
}

fn share_of(file: &Path) -> usize {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let is_module = file.starts_with(paths::at("pkg/wasm"));
    SHARES.iter().position(|share| is_module && share.names.iter().any(|begin| name.starts_with(begin))).unwrap_or(0)
}

/// Fails above a budget.
pub(crate) fn check_budget(weights: [u64; SHARES.len()]) -> Result<()> {
    for (Share { what, budget_bytes, .. }, weight) in SHARES.iter().zip(weights) {
        if weight > *budget_bytes {
            bail!("what is fetched {what} weighs {weight} bytes compressed, above its budget of {budget_bytes}");
        }
    }
    Ok(())
}

fn runtime_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .with_context(|| format!("cannot read {}", folder.display()))?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "js" || extension == "wasm"))
        .collect();
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_runs_may_ship() {
        for path in ["dist/index.js", "wasm/headwater_bg.wasm", "package.json", "README.md"] {
            assert!(may_ship(path), "{path}");
        }
        for path in ["src/index.ts", "package.json.bak", "dist/.tsbuildinfo", "distant.js"] {
            assert!(!may_ship(path), "{path}");
        }
    }

    #[test]
    fn the_budgets_are_limits() {
        let budgets = SHARES.each_ref().map(|share| share.budget_bytes);
        assert!(check_budget(budgets).is_ok());
        for share in 0..SHARES.len() {
            let mut weights = budgets;
            weights[share] += 1;
            assert!(check_budget(weights).is_err());
        }
    }

    #[test]
    fn a_file_counts_once() {
        let share = |path: &str| share_of(&paths::at(path));
        assert_eq!(share("pkg/wasm/headwater_bg.wasm"), 0);
        assert_eq!(share("pkg/wasm/headwater_deferred_bg.wasm"), 1);
        assert_eq!(share("pkg/wasm/grammar.js"), 2);
        assert_eq!(share("pkg/dist/grammar.js"), 0, "the script that fetches it is always there");
    }
}
