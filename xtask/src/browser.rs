//! A browser and a software graphics device, found or brought.

use std::env;
use std::path::{Path, PathBuf};
use std::{fs, io};

use anyhow::{Result, bail};

use crate::{packages, process};

/// Names under which Chromium and its kin are installed.
const NAMES: &[&str] = &["chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome"];
/// Where macOS keeps it.
const APPLICATIONS: &[&str] = &[
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
];
/// Where playwright keeps it, below a folder `chromium-<build>` of its cache.
const IN_CACHE: &[&str] =
    &["chrome-linux/chrome", "chrome-linux64/chrome", "chrome-mac/Chromium.app/Contents/MacOS/Chromium"];

/// Makes sure of Chromium; gives its path.
pub(crate) fn ensure() -> Result<PathBuf> {
    if let Some(found) = find() {
        return Ok(found);
    }
    let path = env::var_os("PATH").unwrap_or_default();
    if packages::can_install(&path, process::is_root_user()) {
        packages::install(packages::BROWSER)?;
        if let Some(found) = find() {
            return Ok(found);
        }
    }
    bail!("no Chromium here: install it ({}), or name its file in CHROMIUM", packages::advice(packages::BROWSER))
}

fn find() -> Option<PathBuf> {
    if let Some(named) = env::var_os("CHROMIUM").filter(|named| !named.is_empty()) {
        return Some(PathBuf::from(named));
    }
    let installed = NAMES.iter().find_map(|name| process::find(name));
    let application = || APPLICATIONS.iter().map(PathBuf::from).find(|file| process::is_program(file));
    installed.or_else(application).or_else(find_in_cache)
}

fn find_in_cache() -> Option<PathBuf> {
    let home = PathBuf::from(env::var_os("HOME")?);
    let caches = [".cache/ms-playwright", "Library/Caches/ms-playwright"].map(|cache| home.join(cache));
    let mut builds: Vec<PathBuf> = caches.iter().flat_map(|cache| folder(cache).unwrap_or_default()).collect();
    builds.sort();
    // The newest build last.
    let browsers = builds.iter().rev().flat_map(|build| IN_CACHE.iter().map(move |inside| build.join(inside)));
    browsers.into_iter().find(|file| process::is_program(file))
}

/// The environment in which wgpu finds a device: nothing to add where there is a graphics card or where the caller named
/// a driver; else Mesa's software Vulkan, brought first where it is missing.
pub(crate) fn graphics() -> Result<Vec<(&'static str, PathBuf)>> {
    let is_named = ["VK_DRIVER_FILES", "VK_ICD_FILENAMES"].iter().any(|name| env::var_os(name).is_some());
    if is_named || !cfg!(target_os = "linux") || has_graphics_card() {
        return Ok(Vec::new());
    }
    let path = env::var_os("PATH").unwrap_or_default();
    if find_software_driver().is_none() && packages::can_install(&path, process::is_root_user()) {
        packages::install(packages::SOFTWARE_GPU)?;
    }
    match find_software_driver() {
        // Older Vulkan loaders know the second name, newer ones the first.
        // Without the third, Mesa's windowing part complains once for every device that is opened.
        Some(driver) => Ok(vec![
            ("VK_DRIVER_FILES", driver.clone()),
            ("VK_ICD_FILENAMES", driver),
            ("XDG_RUNTIME_DIR", env::var_os("XDG_RUNTIME_DIR").map_or_else(env::temp_dir, PathBuf::from)),
        ]),
        None => bail!(
            "no graphics device for the tests: install Mesa's software Vulkan ({})",
            packages::advice(packages::SOFTWARE_GPU)
        ),
    }
}

fn has_graphics_card() -> bool {
    let is_render_node = |path: &PathBuf| path.to_string_lossy().contains("renderD");
    folder(Path::new("/dev/dri")).is_ok_and(|nodes| nodes.iter().any(is_render_node))
        || Path::new("/dev/nvidia0").exists()
}

fn find_software_driver() -> Option<PathBuf> {
    let drivers = folder(Path::new("/usr/share/vulkan/icd.d")).ok()?;
    drivers.into_iter().find(|file| file.file_name().is_some_and(|name| name.to_string_lossy().starts_with("lvp_icd")))
}

fn folder(path: &Path) -> io::Result<Vec<PathBuf>> {
    fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect()
}
