//! The library as WebAssembly: cargo, then the JavaScript side by wasm-bindgen, then wasm-opt.
//!
//! cargo itself knows when the module must be compiled again; the two later steps run only when its bytes changed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use wasm_bindgen_cli_support::Bindgen;

use crate::stamp::Stamp;
use crate::toolchain::{self, TARGET, Toolchain};
use crate::{npm, paths, process};

/// What every compilation for the web is told: 128-bit SIMD, and randomness from the browser.
const RUSTFLAGS: &[&str] = &["-Ctarget-feature=+simd128", "--cfg", r#"getrandom_backend="wasm_js""#];
/// Raised when the steps after cargo change.
const RECIPE: &str = "1";

/// How much effort goes into a module.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effort {
    /// What ships: link-time optimisation and wasm-opt.
    Full,
    /// For trying a change: a fraction of the time, a larger and slower module.
    Quick,
}

/// Makes sure of an up-to-date module with its JavaScript and types in `pkg/wasm`.
pub(crate) fn build(effort: Effort) -> Result<()> {
    let toolchain = toolchain::ensure()?;
    npm::install()?;
    let module = compile(&toolchain, effort)?;

    let out = paths::at("pkg/wasm");
    let stamp = Stamp::default()
        .words(RECIPE)
        .words(if effort == Effort::Full { "full" } else { "quick" })
        .file(&module)
        .file(&paths::at("package-lock.json"));
    let stamp_file = paths::at("target/wasm/packed");
    if stamp.matches(&stamp_file) && out.join("headwater_bg.wasm").is_file() {
        return Ok(());
    }
    let bound = paths::at("target/wasm/bound");
    empty(&bound)?;
    bind(&module, &bound)?;
    if effort == Effort::Full {
        optimise(&bound.join("headwater_bg.wasm"))?;
    }
    empty(&out)?;
    for entry in fs::read_dir(&bound)? {
        let entry = entry?;
        fs::copy(entry.path(), out.join(entry.file_name()))?;
    }
    stamp.write(&stamp_file)
}

/// Checks the library as it is compiled for the web, with the lints that only matter there.
pub(crate) fn clippy() -> Result<()> {
    let toolchain = toolchain::ensure()?;
    let mut cargo = cargo(&toolchain, Effort::Full, "clippy");
    cargo.env("CLIPPY_CONF_DIR", paths::at("xtask/clippy-wasm"));
    process::run(cargo.args(["--", "-D", "warnings"]))
}

fn compile(toolchain: &Toolchain, effort: Effort) -> Result<PathBuf> {
    process::run(&mut cargo(toolchain, effort, "build"))?;
    Ok(target_folder(effort).join(TARGET).join("wasm/headwater.wasm"))
}

/// Flags as cargo takes them from the environment, and that paths of crates are told without the machine's own: where it
/// keeps them is nobody's business, and the same sources shall give the same module everywhere.
pub(crate) fn encoded(flags: &[&str]) -> String {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| std::env::home_dir().map(|home| home.join(".cargo")));
    let crates = home.map(|home| format!("--remap-path-prefix={}=crates", home.join("registry/src").display()));
    flags.iter().map(|flag| (*flag).to_owned()).chain(crates).collect::<Vec<_>>().join("\u{1f}")
}

/// A cargo command over the library for the web, in a target folder of its own: another compiler may be at work here than
/// on the native side.
fn cargo(toolchain: &Toolchain, effort: Effort, verb: &str) -> Command {
    let mut cargo = toolchain.cargo();
    cargo
        .current_dir(paths::root())
        .env_remove("RUSTFLAGS")
        .env("CARGO_ENCODED_RUSTFLAGS", encoded(RUSTFLAGS))
        .env("CARGO_TARGET_DIR", target_folder(effort));
    if effort == Effort::Quick {
        cargo
            .env("CARGO_PROFILE_WASM_LTO", "off")
            .env("CARGO_PROFILE_WASM_CODEGEN_UNITS", "16")
            .env("CARGO_PROFILE_WASM_INCREMENTAL", "true");
    }
    cargo.args([verb, "--lib", "--package", "headwater", "--profile", "wasm", "--target", TARGET]);
    cargo
}

fn target_folder(effort: Effort) -> PathBuf {
    paths::at(match effort {
        Effort::Full => "target/wasm",
        Effort::Quick => "target/wasm-quick",
    })
}

/// Writes `headwater_bg.wasm`, `headwater.js` and their types, for import as an ES module.
fn bind(module: &Path, out: &Path) -> Result<()> {
    let mut bindgen = Bindgen::new();
    bindgen.input_path(module).out_name("headwater").typescript(true);
    bindgen.web(true).and_then(|bindgen| bindgen.generate(out)).context("wasm-bindgen failed")
}

/// Makes the module smaller in place.
fn optimise(module: &Path) -> Result<()> {
    println!("wasm-opt (about a minute)");
    let smaller = module.with_extension("smaller");
    process::run(
        Command::new("node")
            .arg(paths::at("node_modules/binaryen/bin/wasm-opt"))
            .arg("-O3")
            .arg(module)
            .arg("-o")
            .arg(&smaller),
    )?;
    fs::rename(smaller, module)?;
    Ok(())
}

/// Makes an empty folder.
fn empty(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))
}
