//! `cargo xtask bench --peers`: other engines from their own packages beside this one, on models of one shape, in turns.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::bench::{page_of, program};
use crate::stamp::Stamp;
use crate::{npm, paths, process, python, serve};

/// What is compared natively and what in a page: rows of one table, each with its `edge`.
pub(crate) fn reports(model: &Path) -> Result<Vec<Value>> {
    let node_modules = packages()?;
    let python = python::environment(&paths::at("target/peers"), "tests/peers/requirements.txt")?;
    let as_onnx = onnx(&python, model)?;
    let mut site = serve::test_site();
    site.mount("/peers/", as_onnx);
    let site = site.with_peers(&node_modules);
    let mut reports = read(&page_of(&paths::at("tests/peers/page.mjs"), site, model)?)?;
    let mut native = Command::new(python);
    native.arg(paths::at("tests/peers/native.py")).arg(program()?).arg(model);
    reports.extend(read(&process::output(&mut native)?)?);
    Ok(reports)
}

fn read(printed: &str) -> Result<Vec<Value>> {
    serde_json::from_str(printed).context("the comparison did not print JSON")
}

/// The other engines of the page, installed once; nothing of theirs is run by that.
pub(crate) fn packages() -> Result<PathBuf> {
    let folder = paths::at("tests/peers");
    let node_modules = folder.join("node_modules");
    let stamp = Stamp::default().file(&folder.join("package-lock.json"));
    let installed = node_modules.join(".installed");
    if !stamp.matches(&installed) {
        println!("npm ci in tests/peers");
        process::run(npm::clean_install().current_dir(&folder)).context("cannot install the other engines")?;
        stamp.write(&installed)?;
    }
    Ok(node_modules)
}

/// A folder whose `noise` is the model's shape as ONNX, written once.
fn onnx(python: &Path, model: &Path) -> Result<PathBuf> {
    let script = paths::at("tests/peers/onnx_model.py");
    let folder = paths::at("target/peers-onnx");
    let stamp = Stamp::default().file(&script).words(&model.to_string_lossy());
    let written = folder.join("written");
    if !stamp.matches(&written) {
        process::run(Command::new(python).arg(script).arg(model).arg(folder.join("noise")))?;
        stamp.write(&written)?;
    }
    Ok(folder)
}
