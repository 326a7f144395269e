//! npm packages and the TypeScript compiler.

use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::stamp::Stamp;
use crate::{paths, process};

/// Makes sure that the packages of the lock file are installed. Nothing of theirs is run, and no browser is downloaded.
pub(crate) fn install() -> Result<()> {
    if process::find("npm").is_none() && process::find("npm.cmd").is_none() {
        bail!("npm is missing: install Node.js 20 or newer (https://nodejs.org)");
    }
    // The workspaces' own files too: npm links them into node_modules only if they are there.
    let stamp = Stamp::default()
        .file(&paths::at("package-lock.json"))
        .file(&paths::at("pkg/package.json"))
        .file(&paths::at("tests/browser/package.json"));
    let stamp_file = paths::at("node_modules/.installed");
    if stamp.matches(&stamp_file) {
        return Ok(());
    }
    println!("npm ci");
    process::run(&mut clean_install()).context("cannot install the npm packages")?;
    stamp.write(&stamp_file)
}

/// `npm ci` that runs nothing of what it installs.
pub(crate) fn clean_install() -> Command {
    let mut npm = command();
    npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel", "error"]);
    npm
}

/// Compiles every TypeScript project of the tree, strictly.
pub(crate) fn build() -> Result<()> {
    install()?;
    process::run(&mut script("build"))
}

/// A script of the root's package.json.
pub(crate) fn script(name: &str) -> Command {
    let mut npm = command();
    npm.args(["run", "--silent", name]);
    npm
}

/// npm in the root of the project.
pub(crate) fn command() -> Command {
    let mut npm = Command::new(if cfg!(windows) { "npm.cmd" } else { "npm" });
    npm.current_dir(paths::root()).env("PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD", "1");
    npm
}
