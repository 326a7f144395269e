//! The order of decisions, shown machines made of shell scripts.

use std::os::unix::fs::PermissionsExt;
use std::sync::{Mutex, MutexGuard};

use tempfile::TempDir;

use super::*;

/// One test at a time: a script that is being written while another thread starts a process cannot be run by either.
static ALONE: Mutex<()> = Mutex::new(());

/// A machine in a temporary folder: `path/` is on the search path, `packaged/` is where the distribution's programs lie.
struct Fake {
    _alone: MutexGuard<'static, ()>,
    folder: TempDir,
    machine: Machine,
}

impl Fake {
    /// A bare machine: nothing installed, an ordinary user.
    fn new() -> Self {
        let alone = ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let folder = tempfile::tempdir().unwrap();
        for name in ["path", "packaged"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        let machine = Machine {
            // Only the fake folder: the scripts name their shell and use nothing but what is built into it.
            path: folder.path().join("path").into_os_string(),
            may_download: false,
            is_root_user: false,
            packaged_bin: folder.path().join("packaged"),
            sysroot: folder.path().join("sysroot"),
        };
        Self { _alone: alone, folder, machine }
    }

    /// Adds a program that notes its call and then does what `body` says.
    fn program(&self, name: &str, body: &str) {
        let file = self.folder.path().join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        let calls = self.folder.path().join("calls");
        fs::write(&file, format!("#!/bin/sh\necho {name} \"$@\" >>{}\n{body}\n", calls.display())).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Adds a rustc whose libraries lie in the folder `root`, with the standard library of wasm32 or without.
    fn rustc(&self, name: &str, root: &str, has_wasm: bool) {
        let root = self.folder.path().join(root);
        let library = root.join("lib/rustlib").join(TARGET).join("lib");
        if has_wasm {
            fs::create_dir_all(&library).unwrap();
            fs::write(library.join("libcore-0123456789abcdef.rlib"), "").unwrap();
        }
        let body = format!(
            "case \"$2\" in target-libdir) echo {};; sysroot) echo {};; *) echo 'rustc 1.96.0';; esac",
            library.display(),
            root.display()
        );
        self.program(name, &body);
    }

    /// Adds the distribution's compiler, complete with its source.
    fn packaged_compiler(&self) {
        self.rustc("packaged/rustc", "packaged-root", false);
        for name in ["rustdoc", "cargo", "cargo-clippy", "clippy-driver", "cargo-fmt", "rustfmt", "rust-lld"] {
            self.program(&format!("packaged/{name}"), "");
        }
        let std = self.folder.path().join("packaged-root/lib/rustlib/src/rust/library/std");
        fs::create_dir_all(&std).unwrap();
        fs::write(std.join("Cargo.toml"), "").unwrap();
    }

    /// Adds a sysroot as `sysroot::build` leaves it, for the compiler that is installed now.
    fn built_sysroot(&self) {
        self.rustc("sysroot/bin/rustc", "sysroot", true);
        sysroot::stamp(&self.machine.packaged_bin).write(&self.machine.sysroot.join("stamp")).unwrap();
    }

    /// Every program call so far, one a line.
    fn calls(&self) -> String {
        fs::read_to_string(self.folder.path().join("calls")).unwrap_or_default()
    }
}

#[test]
fn an_active_compiler_with_the_target_is_used_whatever_else_is_there() {
    let mut fake = Fake::new();
    fake.rustc("path/rustc", "active", true);
    fake.program("path/rustup", "");
    fake.packaged_compiler();
    fake.machine.may_download = true;
    assert_eq!(fake.machine.next_step(&[]), Step::UseActive);
}

#[test]
fn rustup_adds_the_target_where_it_may_download() {
    let mut fake = Fake::new();
    fake.rustc("path/rustc", "active", false);
    fake.program("path/rustup", "");
    fake.packaged_compiler();
    fake.machine.may_download = true;
    assert_eq!(fake.machine.next_step(&[]), Step::AddTarget);
    // Added, but not to the compiler that is active: the distribution's comes next, not the same again.
    assert_eq!(fake.machine.next_step(&[Step::AddTarget]), Step::BuildSysroot);
}

#[test]
fn rustup_is_left_alone_where_it_must_not_download() {
    let fake = Fake::new();
    fake.rustc("path/rustc", "active", false);
    fake.program("path/rustup", "");
    fake.packaged_compiler();
    assert_eq!(fake.machine.next_step(&[]), Step::BuildSysroot);
    assert!(!fake.calls().contains("rustup"), "{}", fake.calls());
}

#[test]
fn packages_are_installed_only_by_root_and_only_once() {
    let mut fake = Fake::new();
    fake.rustc("path/rustc", "active", false);
    fake.program("path/apt-get", "");
    assert_eq!(fake.machine.next_step(&[]), Step::GiveUp);
    fake.machine.is_root_user = true;
    assert_eq!(fake.machine.next_step(&[]), Step::InstallPackages);
    assert_eq!(fake.machine.next_step(&[Step::InstallPackages]), Step::GiveUp);
    fake.packaged_compiler();
    assert_eq!(fake.machine.next_step(&[Step::InstallPackages]), Step::BuildSysroot);
    assert!(!fake.calls().contains("apt-get"), "{}", fake.calls());
}

#[test]
fn an_incomplete_packaged_compiler_is_completed_first() {
    let mut fake = Fake::new();
    fake.packaged_compiler();
    fs::remove_file(fake.machine.packaged_bin.join("rust-lld")).unwrap();
    fake.program("path/apt-get", "");
    fake.machine.is_root_user = true;
    assert_eq!(fake.machine.next_step(&[]), Step::InstallPackages);
}

#[test]
fn the_sysroot_is_built_once_and_again_when_the_compiler_changes() {
    let fake = Fake::new();
    fake.packaged_compiler();
    assert_eq!(fake.machine.next_step(&[]), Step::BuildSysroot);
    fake.built_sysroot();
    assert_eq!(fake.machine.next_step(&[]), Step::UseSysroot);
    let newer = fs::read_to_string(fake.machine.packaged_bin.join("rustc")).unwrap().replace("1.96.0", "1.97.0");
    fs::write(fake.machine.packaged_bin.join("rustc"), newer).unwrap();
    assert_eq!(fake.machine.next_step(&[]), Step::BuildSysroot);
}

#[test]
fn a_sysroot_that_was_emptied_is_built_again() {
    let fake = Fake::new();
    fake.packaged_compiler();
    fake.built_sysroot();
    fs::remove_dir_all(fake.machine.sysroot.join("lib")).unwrap();
    assert_eq!(fake.machine.next_step(&[]), Step::BuildSysroot);
    assert_eq!(fake.machine.next_step(&[Step::BuildSysroot]), Step::GiveUp);
}

#[test]
fn a_bare_machine_is_told_what_to_run() {
    let fake = Fake::new();
    assert_eq!(fake.machine.next_step(&[]), Step::GiveUp);
}
