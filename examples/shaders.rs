//! Prints every joined shader as a JSON object from name to source, for tests that compile them with another compiler.

use std::collections::BTreeMap;

use headwater::gpu::shader::{Dialect, all_sources};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let subgroups = Dialect { subgroups: true, subgroups_directive: true };
    let sources: BTreeMap<String, String> = all_sources(&[Dialect::default(), subgroups]).into_iter().collect();
    serde_json::to_writer(std::io::stdout().lock(), &sources)?;
    Ok(())
}
