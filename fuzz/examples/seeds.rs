//! Writes the files of `tests/hostile` as seeds into `corpus/<target>`.

#[allow(dead_code, reason = "the tests use more of it")]
#[path = "../../tests/hostile/case.rs"]
mod case;
#[allow(dead_code, reason = "the tests use more of it")]
#[path = "../../tests/hostile/gguf.rs"]
mod gguf;
#[path = "../../tests/hostile/gguf_cases.rs"]
mod gguf_cases;
#[path = "../../tests/hostile/hub_cases.rs"]
mod hub_cases;

use std::path::Path;

use headwater_fuzz::TEXT_FILES;

/// Seeds are small: a fuzzer tries them all again and again.
const MOST_BYTES: usize = 64 << 10;

fn main() -> std::io::Result<()> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let mut written = 0;
    for case in gguf_cases::cases().into_iter().chain(hub_cases::cases()) {
        for (name, bytes) in case.files.iter().filter(|(_, bytes)| bytes.len() <= MOST_BYTES) {
            let (target, seed) = match TEXT_FILES.iter().position(|file| name.ends_with(file)) {
                Some(index) => ("hub_config", [&[index as u8], &bytes[..]].concat()),
                None if name.ends_with(".safetensors") => ("safetensors", bytes.clone()),
                None => ("gguf", bytes.clone()),
            };
            let folder = corpus.join(target);
            std::fs::create_dir_all(&folder)?;
            std::fs::write(folder.join(format!("{written:03}")), seed)?;
            written += 1;
        }
    }
    println!("{written} seeds in {}", corpus.display());
    Ok(())
}
