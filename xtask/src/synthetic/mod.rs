//! Models of noise in the true shapes of published ones: what loading and stepping them costs does not depend on what
//! the weights say.

mod blocks;
mod gguf;
mod shapes;
mod tokenizer;

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::paths;
use shapes::SHAPES;

/// Where the files lie; git does not look into it.
const FOLDER: &str = "target/synthetic";

/// The file of the model that is called `name`, written where it is not there.
pub(crate) fn file(name: &str) -> Result<PathBuf> {
    let Some(shape) = SHAPES.iter().find(|shape| shape.name.eq_ignore_ascii_case(name)) else {
        let names: Vec<&str> = SHAPES.iter().map(|shape| shape.name).collect();
        bail!("no shape is called {name}; there are {}", names.join(", "));
    };
    let folder = paths::at(FOLDER);
    std::fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    let path = folder.join(format!("{}-{}.gguf", shape.name, if shape.bytes { "Q8_0" } else { "Q4_K_M" }));
    if !path.exists() {
        eprintln!("writing {}; delete it when it is no longer needed", path.display());
        gguf::write(&path, shape)?;
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_names_are_told_with_the_known_ones() {
        let error = file("GPT-5").unwrap_err().to_string();
        assert!(
            error.contains(
                "Qwen3-33M, Qwen3-33M-bytes, Qwen3-0.6B, Llama-3.2-1B, Qwen3-4B, Llama-3.1-8B, Qwen3-30B-A3B"
            ),
            "{error}"
        );
    }
}
