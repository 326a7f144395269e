//! Packages of a Debian-like distribution, for machines where this process may install them.

use std::ffi::OsStr;
use std::process::Command;

use anyhow::{Context, Result};

use crate::process;

/// A compiler that builds for wasm32, the source of its standard library, and a linker. The newer compiler that the
/// distribution keeps for its browsers: the plain one is too old for this project.
pub(crate) const WASM_COMPILER: &[&str] =
    &["rustc-web", "cargo-web", "rust-web-src", "rust-web-llvm", "rust-web-clippy", "rustfmt-web", "lld-22"];
/// A browser.
pub(crate) const BROWSER: &[&str] = &["chromium"];
/// A Vulkan device in software, for tests on machines without a graphics card.
pub(crate) const SOFTWARE_GPU: &[&str] = &["mesa-vulkan-drivers", "libvulkan1"];

/// Whether `install` can work: there is apt-get on the search path, and this process may use it.
pub(crate) fn can_install(path: &OsStr, is_root_user: bool) -> bool {
    is_root_user && process::find_in(path, "apt-get").is_some()
}

/// The command a person would type to install packages.
pub(crate) fn advice(packages: &[&str]) -> String {
    format!("apt-get install {}", packages.join(" "))
}

/// Installs packages, announced. Package lists are fetched only where the first attempt shows that they are missing.
pub(crate) fn install(packages: &[&str]) -> Result<()> {
    println!("installing packages: {}", advice(packages));
    if process::run(&mut apt_get(packages)).is_err() {
        process::run(Command::new("apt-get").args(["-qq", "update"]))?;
        process::run(&mut apt_get(packages)).with_context(|| format!("cannot install {}", packages.join(", ")))?;
    }
    Ok(())
}

fn apt_get(packages: &[&str]) -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive");
    command.args(["-qq", "install", "--yes", "--no-install-recommends"]).args(packages);
    command
}
