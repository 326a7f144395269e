//! What the targets share.

use std::rc::Rc;

use headwater::format::Checkpoint;
use headwater::source::{MemorySource, Source};

/// A configuration with which a folder opens.
pub const CONFIG: &[u8] = br#"{"model_type":"llama"}"#;

/// The smallest weights.
pub const WEIGHTS: &[u8] = b"\x02\0\0\0\0\0\0\0{}";

/// Files of a folder that `hub_config` puts its input in, chosen by the input's first byte.
pub const TEXT_FILES: &[&str] = &[
    "config.json",
    "model.safetensors.index.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "generation_config.json",
    "chat_template.jinja",
];

/// Opens files as a model. The result does not matter here; that there is one does.
pub fn open(files: &[(&str, &[u8])]) {
    let sources =
        files.iter().map(|(name, bytes)| Rc::new(MemorySource::new(*name, bytes.to_vec())) as Rc<dyn Source>);
    drop(pollster::block_on(Checkpoint::open(sources.collect())));
}
