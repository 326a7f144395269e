//! Which compiler builds the wasm, decided in this order:
//!
//! 1. the active rustc, where it has the standard library of wasm32;
//! 2. else, where rustup is there and `RUSTUP_AUTO_INSTALL` is not `0`: `rustup target add`;
//! 3. else the distribution's compiler, with a standard library built once into the project's own sysroot (`sysroot.rs`),
//!    its packages installed first where that is possible;
//! 4. else words that say which command to run.
//!
//! `RUSTUP_AUTO_INSTALL=0` is an owner's deliberate word that rustup must not download. It is never overridden.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

use crate::{packages, paths, process, sysroot};

/// The target that browsers run.
pub(crate) const TARGET: &str = "wasm32-unknown-unknown";

/// All that the decision looks at, so that tests can show it a machine that is not there.
pub(crate) struct Machine {
    /// The search path for programs.
    pub(crate) path: OsString,
    /// Whether rustup may download: `RUSTUP_AUTO_INSTALL` is not `0`.
    pub(crate) may_download: bool,
    /// Whether packages may be installed.
    pub(crate) is_root_user: bool,
    /// The folder where a distribution keeps its programs.
    pub(crate) packaged_bin: PathBuf,
    /// The project's own sysroot.
    pub(crate) sysroot: PathBuf,
}

/// What to do next to have a compiler for wasm32.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The active compiler does it.
    UseActive,
    /// The distribution's compiler with the project's sysroot does it.
    UseSysroot,
    /// `rustup target add`.
    AddTarget,
    /// Install the distribution's compiler.
    InstallPackages,
    /// Build the standard library for the distribution's compiler.
    BuildSysroot,
    /// Nothing can be done from here.
    GiveUp,
}

/// A compiler that builds for wasm32.
pub(crate) struct Toolchain {
    path: OsString,
    is_packaged: bool,
}

/// Makes sure of a compiler for wasm32, announcing whatever it changes on the machine.
pub(crate) fn ensure() -> Result<Toolchain> {
    let machine = Machine::this();
    let mut tried = Vec::new();
    loop {
        let step = machine.next_step(&tried);
        match step {
            Step::UseActive => return Ok(Toolchain { path: machine.path, is_packaged: false }),
            Step::UseSysroot => {
                let folders = [machine.sysroot.join("bin")].into_iter().chain(env::split_paths(&machine.path));
                return Ok(Toolchain { path: env::join_paths(folders)?, is_packaged: true });
            }
            Step::AddTarget => {
                println!("the active Rust toolchain cannot build for the web yet: rustup target add {TARGET}");
                process::run(Command::new("rustup").args(["target", "add", TARGET]))?;
            }
            Step::InstallPackages => packages::install(packages::WASM_COMPILER)?,
            Step::BuildSysroot => sysroot::build(&machine.packaged_bin, &machine.sysroot)?,
            Step::GiveUp => bail!(
                "no Rust compiler here can build for the web. Run `rustup target add {TARGET}`, or, on Debian, as root: \
                 {}",
                packages::advice(packages::WASM_COMPILER)
            ),
        }
        tried.push(step);
    }
}

impl Machine {
    /// The machine this runs on.
    fn this() -> Self {
        Self {
            path: env::var_os("PATH").unwrap_or_default(),
            may_download: env::var_os("RUSTUP_AUTO_INSTALL").is_none_or(|value| value != "0"),
            is_root_user: process::is_root_user(),
            packaged_bin: PathBuf::from("/usr/bin"),
            sysroot: paths::at(".wasm"),
        }
    }

    /// The next step, given the steps tried so far; none of them is proposed twice.
    pub(crate) fn next_step(&self, tried: &[Step]) -> Step {
        if process::find_in(&self.path, "rustc").is_some_and(|rustc| has_target(&rustc, &self.path)) {
            return Step::UseActive;
        }
        let has_rustup = process::find_in(&self.path, "rustup").is_some();
        if has_rustup && self.may_download && !tried.contains(&Step::AddTarget) {
            return Step::AddTarget;
        }
        if sysroot::has_compiler(&self.packaged_bin) {
            if sysroot::is_current(&self.packaged_bin, &self.sysroot)
                && has_target(&self.sysroot.join("bin/rustc"), &self.path)
            {
                return Step::UseSysroot;
            }
            if !tried.contains(&Step::BuildSysroot) {
                return Step::BuildSysroot;
            }
        } else if packages::can_install(&self.path, self.is_root_user) && !tried.contains(&Step::InstallPackages) {
            return Step::InstallPackages;
        }
        Step::GiveUp
    }
}

impl Toolchain {
    /// A cargo command that builds with this compiler.
    pub(crate) fn cargo(&self) -> Command {
        let Some(cargo) = process::find_in(&self.path, "cargo") else { return Command::new("cargo") };
        let mut command = Command::new(cargo);
        if self.is_packaged {
            command.env("PATH", &self.path);
            leave_rustup(&mut command);
        }
        command
    }
}

/// Takes away what rustup's cargo put into the environment of this process, which would lead the distribution's cargo to
/// rustup's compiler.
pub(crate) fn leave_rustup(command: &mut Command) {
    for name in ["CARGO", "RUSTC", "RUSTDOC", "RUSTUP_TOOLCHAIN", "RUST_RECURSION_COUNT", "LD_LIBRARY_PATH"] {
        command.env_remove(name);
    }
}

/// Whether a compiler has the standard library of wasm32. rustc names the folder whether or not it exists.
fn has_target(rustc: &Path, path: &OsStr) -> bool {
    let mut command = Command::new(rustc);
    command.env("PATH", path).args(["--print", "target-libdir", "--target", TARGET]);
    let Some(folder) = process::ask(&mut command) else { return false };
    let mut names = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.file_name());
    names.any(|name| name.to_str().is_some_and(|name| name.starts_with("libcore-") && name.ends_with(".rlib")))
}

#[cfg(test)]
#[cfg(unix)]
#[path = "toolchain_tests.rs"]
mod tests;
