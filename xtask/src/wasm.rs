//! The library as WebAssembly, and what a page loads beside it when it needs it: cargo, then the JavaScript side by
//! wasm-bindgen, then wasm-opt.
//!
//! cargo itself knows when a module must be compiled again; the two later steps run only when its bytes changed.

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
const RECIPE: &str = "2";

/// A module that the package has.
pub(crate) struct Module {
    /// The crate.
    package: &'static str,
    /// What cargo calls its file.
    compiled: &'static str,
    /// What the package calls its files.
    pub(crate) name: &'static str,
}

/// All of them. Each is compiled by itself, so that none carries what another one's crates ask of those they share.
pub(crate) const MODULES: [Module; 2] = [
    Module { package: "headwater", compiled: "headwater", name: "headwater" },
    Module { package: "headwater-grammar", compiled: "headwater_grammar", name: "grammar" },
];

/// How much effort goes into a module.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effort {
    /// What ships: link-time optimisation and wasm-opt.
    Full,
    /// For trying a change: a fraction of the time, a larger and slower module.
    Quick,
}

/// Makes sure of up-to-date modules with their JavaScript and types in `pkg/wasm`.
pub(crate) fn build(effort: Effort) -> Result<()> {
    let toolchain = toolchain::ensure()?;
    npm::install()?;
    let out = paths::at("pkg/wasm");
    fs::create_dir_all(&out).with_context(|| format!("cannot make {}", out.display()))?;
    MODULES.iter().try_for_each(|module| module.build(&toolchain, effort, &out))
}

impl Module {
    fn build(&self, toolchain: &Toolchain, effort: Effort, out: &Path) -> Result<()> {
        process::run(&mut cargo(toolchain, effort, "build", self))?;
        let compiled = target_folder(effort).join(TARGET).join("wasm").join(self.compiled).with_extension("wasm");
        let stamp = Stamp::default()
            .words(RECIPE)
            .words(if effort == Effort::Full { "full" } else { "quick" })
            .file(&compiled)
            .file(&paths::at("package-lock.json"));
        let stamp_file = paths::at("target/wasm").join(format!("packed-{}", self.name));
        let file = format!("{}_bg.wasm", self.name);
        if stamp.matches(&stamp_file) && out.join(&file).is_file() {
            return Ok(());
        }
        let bound = paths::at("target/wasm/bound").join(self.name);
        empty(&bound)?;
        bind(&compiled, self.name, &bound)?;
        if effort == Effort::Full {
            optimise(&bound.join(&file))?;
        }
        for entry in fs::read_dir(&bound)? {
            let entry = entry?;
            fs::copy(entry.path(), out.join(entry.file_name()))?;
        }
        stamp.write(&stamp_file)
    }
}

/// Checks the modules as they are compiled for the web, with the lints that only matter there.
pub(crate) fn clippy() -> Result<()> {
    let toolchain = toolchain::ensure()?;
    MODULES.iter().try_for_each(|module| {
        let mut cargo = cargo(&toolchain, Effort::Full, "clippy", module);
        cargo.env("CLIPPY_CONF_DIR", paths::at("xtask/clippy-wasm"));
        process::run(cargo.args(["--", "-D", "warnings"]))
    })
}

/// Flags as cargo takes them from the environment, and that paths of crates are told without the machine's own: where it
/// keeps them is nobody's business, and the same sources shall give the same module everywhere.
pub(crate) fn encoded(flags: &[&str]) -> String {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| std::env::home_dir().map(|home| home.join(".cargo")));
    let crates = home.map(|home| format!("--remap-path-prefix={}=crates", home.join("registry/src").display()));
    flags.iter().map(|flag| (*flag).to_owned()).chain(crates).collect::<Vec<_>>().join("\u{1f}")
}

/// A cargo command over a module for the web, in a target folder of its own: another compiler may be at work here than
/// on the native side.
fn cargo(toolchain: &Toolchain, effort: Effort, verb: &str, module: &Module) -> Command {
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
    cargo.args([verb, "--lib", "--package", module.package, "--profile", "wasm", "--target", TARGET]);
    cargo
}

fn target_folder(effort: Effort) -> PathBuf {
    paths::at(match effort {
        Effort::Full => "target/wasm",
        Effort::Quick => "target/wasm-quick",
    })
}

/// Writes `<name>_bg.wasm`, `<name>.js` and their types, for import as an ES module.
fn bind(module: &Path, name: &str, out: &Path) -> Result<()> {
    let mut bindgen = Bindgen::new();
    bindgen.input_path(module).out_name(name).typescript(true);
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
