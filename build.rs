//! Shaders without their comments, for the library to include: those are a third of the text, and every visitor would fetch
//! them. Lines keep their numbers, so that a compiler's message leads to the file in `shaders/`.

use std::path::Path;
use std::{env, fs, io};

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed=shaders");
    let out = env::var_os("OUT_DIR").ok_or_else(|| io::Error::other("cargo names no OUT_DIR"))?;
    strip(Path::new("shaders"), &Path::new(&out).join("shaders"))
}

/// Writes the shaders of a folder, and of those in it, to another.
fn strip(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let path = entry?.path();
        let target = to.join(path.file_name().unwrap_or_default());
        if path.is_dir() {
            strip(&path, &target)?;
        } else if path.extension().is_some_and(|extension| extension == "wgsl") {
            // WGSL has no strings, and these files no comments of several lines (a test says so).
            let lines = fs::read_to_string(&path)?;
            let bare: String = lines
                .lines()
                .map(|line| line.split("//").next().unwrap_or_default().trim_end().to_owned() + "\n")
                .collect();
            fs::write(target, bare)?;
        }
    }
    Ok(())
}
