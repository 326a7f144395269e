//! The library as WebAssembly, and what a page loads beside it when it needs it: cargo, then the JavaScript side by
//! wasm-bindgen, then wasm-opt.
//!
//! cargo itself knows when a module must be compiled again; the two later steps run only when its bytes changed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use wasm_bindgen_cli_support::Bindgen;

use crate::stamp::Stamp;
use crate::toolchain::{self, TARGET, Toolchain};
use crate::{npm, paths, process, split};

/// What every compilation for the web is told: 128-bit SIMD, and randomness from the browser.
/// And names that tell instances of one generic function apart, for the list of what is deferred.
const RUSTFLAGS: &[&str] =
    &["-Ctarget-feature=+simd128", "-Csymbol-mangling-version=v0", "--cfg", r#"getrandom_backend="wasm_js""#];
/// Raised when the steps after cargo change.
const RECIPE: &str = "4";

/// A module that the package has.
pub(crate) struct Module {
    /// The crate.
    package: &'static str,
    /// What cargo calls its file.
    compiled: &'static str,
    /// What the package calls its files.
    pub(crate) name: &'static str,
    /// The list of functions, in the tree, that are fetched when they are first called.
    deferred: Option<&'static str>,
}

/// All of them. Each is compiled by itself, so that none carries what another one's crates ask of those they share.
pub(crate) const MODULES: [Module; 2] = [
    Module { package: "headwater", compiled: "headwater", name: "headwater", deferred: Some("xtask/deferred.txt") },
    Module { package: "headwater-grammar", compiled: "headwater_grammar", name: "grammar", deferred: None },
];

/// What is made of a module.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effort {
    /// What ships: link-time optimisation, wasm-opt, and in two parts where a list says so.
    Full,
    /// The same, whole, with marks that tell which functions ran.
    Recording,
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
        let bound = paths::at("target/wasm/bound").join(self.name);
        let mut stamp = Stamp::default()
            .words(RECIPE)
            .words(if effort == Effort::Quick { "quick" } else { "full" })
            .file(&compiled)
            .file(&paths::at("package-lock.json"));
        let stamp_file = paths::at("target/wasm").join(format!("bound-{}", self.name));
        let file = format!("{}_bg.wasm", self.name);
        if !(stamp.matches(&stamp_file) && bound.join(&file).is_file()) {
            empty(&bound)?;
            bind(&compiled, self.name, &bound)?;
            match (effort, self.deferred) {
                (Effort::Quick, _) => {}
                (_, Some(_)) => optimise_apart(&bound.join(&file))?,
                (_, None) => optimise(&bound.join(&file))?,
            }
            stamp.write(&stamp_file)?;
        }
        let list = self.deferred.filter(|_| effort != Effort::Quick).map(paths::at);
        if let Some(list) = &list {
            stamp = stamp.words(if effort == Effort::Full { "split" } else { "recording" }).file(list);
        }
        let stamp_file = paths::at("target/wasm").join(format!("packed-{}", self.name));
        if stamp.matches(&stamp_file) && out.join(&file).is_file() {
            return Ok(());
        }
        for entry in fs::read_dir(&bound)? {
            let entry = entry?;
            fs::copy(entry.path(), out.join(entry.file_name()))?;
        }
        if let Some(list) = &list {
            self.finish(&bound.join(&file), list, effort, out)?;
        }
        stamp.write(&stamp_file)
    }

    /// Writes the parts of a module that is split, or one that records.
    fn finish(&self, whole: &Path, list: &Path, effort: Effort, out: &Path) -> Result<()> {
        let wasm = fs::read(whole)?;
        let first = out.join(format!("{}_bg.wasm", self.name));
        let glue = out.join(format!("{}.js", self.name));
        let script = fs::read_to_string(&glue)?;
        if effort == Effort::Recording {
            fs::write(first, split::recording(&wasm)?)?;
            let shown = replace_once(
                &script,
                "wasm = instance.exports;",
                "wasm = globalThis.headwaterExports = instance.exports;",
            )?;
            return Ok(fs::write(&glue, shown)?);
        }
        let list = fs::read_to_string(list).with_context(|| format!("cannot read {}", list.display()))?;
        let halves = split::split(&wasm, &list.lines().map(str::to_owned).collect())?;
        let second = out.join(format!("{}_deferred_bg.wasm", self.name));
        for (half, wasm) in [(first, halves.first), (second, halves.second)] {
            fs::write(&half, wasm)?;
            optimise(&half)?;
        }
        fs::write(&glue, with_loader(&script, self.name)?)?;
        Ok(())
    }
}

/// wasm-bindgen's script, which also gives the module what loads its second part.
fn with_loader(script: &str, name: &str) -> Result<String> {
    let own = format!("\"./{name}_bg.js\": import0,");
    let (module, function) = split::LOADER;
    let with = format!("{own}\n        \"{module}\": {{ {function}: loadDeferred }},");
    Ok(format!("import {{ loadDeferred }} from \"../dist/deferred.js\";\n{}", replace_once(script, &own, &with)?))
}

/// wasm-bindgen's script with one place changed.
fn replace_once(script: &str, from: &str, to: &str) -> Result<String> {
    if script.matches(from).count() != 1 {
        bail!("wasm-bindgen writes its script otherwise than it did: `{from}` is not there once");
    }
    Ok(script.replace(from, to))
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
        Effort::Full | Effort::Recording => "target/wasm",
        Effort::Quick => "target/wasm-quick",
    })
}

/// Writes `<name>_bg.wasm`, `<name>.js` and their types, for import as an ES module.
fn bind(module: &Path, name: &str, out: &Path) -> Result<()> {
    let mut bindgen = Bindgen::new();
    bindgen.input_path(module).out_name(name).typescript(true).demangle(false);
    bindgen.web(true).and_then(|bindgen| bindgen.generate(out)).context("wasm-bindgen failed")
}

/// Makes a module smaller in place.
fn optimise(module: &Path) -> Result<()> {
    wasm_opt(module, &["-O3"])
}

/// Makes a module smaller in place that is to be split: functions keep their names and stay by themselves, so that what
/// is called may be told from what is not.
fn optimise_apart(module: &Path) -> Result<()> {
    wasm_opt(module, &["--no-inline=*", "-O3", "--debuginfo"])
}

fn wasm_opt(module: &Path, options: &[&str]) -> Result<()> {
    println!("wasm-opt (about a minute)");
    let smaller = module.with_extension("smaller");
    process::run(
        Command::new("node")
            .arg(paths::at("node_modules/binaryen/bin/wasm-opt"))
            .args(options)
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
