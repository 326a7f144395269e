//! A standard library for wasm32, built once with the distribution's compiler into a sysroot of the project's own.
//!
//! The distribution ships the library's source but not the library. `-Zbuild-std` in every build would compile it again
//! for each profile; a sysroot makes plain `cargo build`, `test`, `clippy` and `doc` work instead. Its `bin` folder holds
//! wrappers that lead the compiler to it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::UNIX_EPOCH;

use anyhow::{Context, Result};

use crate::stamp::Stamp;
use crate::toolchain::{TARGET, leave_rustup};
use crate::wasm::encoded;
use crate::{paths, process};

/// What the distribution's compiler consists of here.
const PROGRAMS: &[&str] =
    &["rustc", "rustdoc", "cargo", "cargo-clippy", "clippy-driver", "cargo-fmt", "rustfmt", "rust-lld"];
/// Raised when the recipe below changes, so that sysroots built by an older one are built again.
const RECIPE: &str = "3";

/// Whether the distribution's compiler, the source of its standard library and a linker are installed.
pub(crate) fn has_compiler(packaged_bin: &Path) -> bool {
    PROGRAMS.iter().all(|program| process::is_program(&packaged_bin.join(program)))
        && compiler_root(packaged_bin)
            .is_some_and(|root| root.join("lib/rustlib/src/rust/library/std/Cargo.toml").is_file())
}

/// Whether the sysroot was built by the compiler that is installed now.
pub(crate) fn is_current(packaged_bin: &Path, sysroot: &Path) -> bool {
    stamp(packaged_bin).matches(&sysroot.join("stamp"))
}

/// Builds the sysroot: about two minutes of one core. It appears whole or not at all.
pub(crate) fn build(packaged_bin: &Path, sysroot: &Path) -> Result<()> {
    println!("building the standard library for {TARGET}, once (about a minute)");
    let seed = paths::at("target/sysroot-seed");
    let rlibs = build_std(packaged_bin, &seed)?;

    let fresh = sysroot.with_extension(format!("new-{}", std::process::id()));
    let root = compiler_root(packaged_bin).context("the distribution's rustc does not say where it lives")?;
    let library = fresh.join("lib/rustlib").join(TARGET).join("lib");
    fs::create_dir_all(&library)?;
    for rlib in rlibs {
        let name = rlib.file_name().context("a library without a name")?;
        fs::copy(&rlib, library.join(name))?;
    }
    // The host's own libraries (for build scripts and macros) stay where they are.
    for entry in fs::read_dir(root.join("lib/rustlib"))? {
        let entry = entry?;
        if entry.file_name() != TARGET {
            link(&entry.path(), &fresh.join("lib/rustlib").join(entry.file_name()))?;
        }
    }
    write_programs(packaged_bin, &fresh.join("bin"))?;
    stamp(packaged_bin).write(&fresh.join("stamp"))?;

    // What was compiled against an older library cannot be linked to this one, and cargo does not notice.
    for stale in [sysroot.to_owned(), paths::at("target/wasm"), paths::at("target/wasm-quick")] {
        if stale.exists() {
            fs::remove_dir_all(&stale)?;
        }
    }
    fs::rename(&fresh, sysroot)?;
    fs::remove_dir_all(seed)?;
    Ok(())
}

/// Compiles the standard library by way of an empty crate; gives the libraries it is made of.
fn build_std(packaged_bin: &Path, seed: &Path) -> Result<Vec<PathBuf>> {
    fs::create_dir_all(seed.join("src"))?;
    fs::write(seed.join("Cargo.toml"), "[package]\nname = \"seed\"\nedition = \"2024\"\n\n[workspace]\n")?;
    fs::write(seed.join("src/lib.rs"), "#![no_std]\n")?;
    let mut cargo = Command::new(packaged_bin.join("cargo"));
    leave_rustup(&mut cargo);
    cargo
        .current_dir(seed)
        .env("RUSTC", packaged_bin.join("rustc"))
        .env("RUSTDOC", packaged_bin.join("rustdoc"))
        .env("CARGO_TARGET_DIR", seed.join("target"))
        // Building std is an unstable feature; this is the switch the compiler itself is built with.
        .env("RUSTC_BOOTSTRAP", "1")
        // Bitcode lets link-time optimisation reach into std; the mark keeps std's private crates from clashing with ours.
        .env_remove("RUSTFLAGS")
        .env("CARGO_ENCODED_RUSTFLAGS", encoded(&["-Cembed-bitcode=yes", "-Zforce-unstable-if-unmarked"]))
        .args(["build", "--quiet", "--release", "--target", TARGET])
        // `test` is there so that tests link.
        .arg("-Zbuild-std=std,panic_abort,panic_unwind,test,proc_macro")
        // The module holds hundreds of instances of sorts; the small ones cost nothing that is measurable here.
        .arg("-Zbuild-std-features=panic-unwind,optimize_for_size");
    process::run(&mut cargo)?;
    let mut rlibs = Vec::new();
    for entry in fs::read_dir(seed.join("target").join(TARGET).join("release/deps"))? {
        let path = entry?.path();
        let is_seed = path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with("libseed-"));
        if path.extension().is_some_and(|extension| extension == "rlib") && !is_seed {
            rlibs.push(path);
        }
    }
    Ok(rlibs)
}

/// Fills the `bin` folder. The wrappers find the sysroot from their own place, so that the folder can be moved or copied.
fn write_programs(packaged_bin: &Path, bin: &Path) -> Result<()> {
    fs::create_dir_all(bin)?;
    let real = |program: &str| packaged_bin.join(program).display().to_string();
    for program in ["rustc", "rustdoc"] {
        write_wrapper(&bin.join(program), &format!("exec {} --sysroot \"$d\" \"$@\"", real(program)))?;
    }
    // clippy-driver is called as `clippy-driver rustc ...`: a flag in front would be taken for a file.
    write_wrapper(&bin.join("clippy-driver"), &format!("SYSROOT=\"$d\" exec {} \"$@\"", real("clippy-driver")))?;
    // A copy, not a link: it looks for clippy-driver beside its resolved self.
    fs::copy(packaged_bin.join("cargo-clippy"), bin.join("cargo-clippy"))?;
    for program in ["cargo", "cargo-fmt", "rustfmt"] {
        link(&packaged_bin.join(program), &bin.join(program))?;
    }
    Ok(())
}

fn write_wrapper(file: &Path, body: &str) -> Result<()> {
    fs::write(file, format!("#!/bin/sh\nd=$(cd \"$(dirname \"$0\")/..\" && pwd)\n{body}\n"))?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(file, fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}

fn link(to: &Path, at: &Path) -> Result<()> {
    #[cfg(unix)]
    std::os::unix::fs::symlink(to, at)?;
    #[cfg(not(unix))]
    anyhow::bail!("{} cannot be linked to {} on this system", to.display(), at.display());
    #[cfg(unix)]
    Ok(())
}

/// The folder above the distribution's `lib/rustlib`.
fn compiler_root(packaged_bin: &Path) -> Option<PathBuf> {
    let mut rustc = Command::new(packaged_bin.join("rustc"));
    process::ask(rustc.args(["--print", "sysroot"])).map(PathBuf::from)
}

/// What the sysroot depends on: the compiler's version, and when its package was built.
pub(crate) fn stamp(packaged_bin: &Path) -> Stamp {
    let rustc = packaged_bin.join("rustc");
    let version = process::ask(Command::new(&rustc).arg("-vV")).unwrap_or_default();
    let changed =
        rustc.metadata().and_then(|data| data.modified()).ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    Stamp::default().words(RECIPE).words(&version).words(&format!("{:?}", changed.map(|age| age.as_secs())))
}
