//! Files of an adapter: a folder as peft writes it (`adapter_config.json`, `adapter_model.safetensors`) or a GGUF file.
//!
//! An adapter is a [`Checkpoint`] of a kind: metadata and tensors. What they mean is for `model` to say.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::hub::read_text;
use super::limits::CONFIG_BYTES;
use super::open::Extent;
use super::sniff::{Kind, SNIFF_BYTES, sniff};
use super::{Checkpoint, Dialect, Metadata, base_name, gguf, json, packed, safetensors};
use crate::error::{At, Error, ErrorKind, Result};
use crate::source::Source;

/// What peft calls its configuration; a companion of the checkpoint.
pub const ADAPTER_CONFIG: &str = "adapter_config.json";
const ADAPTER_WEIGHTS: &str = "adapter_model.safetensors";
/// What peft wrote before; a pickle, which can run code.
const ADAPTER_PICKLE: &str = "adapter_model.bin";

impl Checkpoint {
    /// Opens an adapter: one GGUF file, or the two files that peft writes, among others or alone. Reads headers and the
    /// configuration.
    ///
    /// Errors are those of [`Checkpoint::open`], `NotFound` for the one file of the two that is missing.
    pub async fn open_adapter(files: Vec<Rc<dyn Source>>) -> Result<Checkpoint> {
        if let [only] = files.as_slice() {
            let len = usize::try_from(only.size_bytes().min(SNIFF_BYTES)).unwrap_or_default();
            match sniff(&only.read(0, len).await?) {
                Kind::Gguf => return gguf::open_all(files, Extent::Whole).await,
                Kind::Foreign(what) => {
                    let problem = format!("this is {what}");
                    return Err(Error::new(ErrorKind::UnsupportedFormat, problem).at(only.name()));
                }
                Kind::Safetensors | Kind::Unknown => {}
            }
        }
        let find = |name: &str| files.iter().find(|file| base_name(file.name()) == name);
        let missing = |name: &str| Error::new(ErrorKind::NotFound, format!("{name} is not among the files"));
        let config = find(ADAPTER_CONFIG).ok_or_else(|| missing(ADAPTER_CONFIG))?;
        let weights = match (find(ADAPTER_WEIGHTS), find(ADAPTER_PICKLE)) {
            (Some(weights), _) => weights,
            (None, Some(pickle)) => {
                let problem = format!("this is a pickle, which can run code; {ADAPTER_WEIGHTS} is needed");
                return Err(Error::new(ErrorKind::UnsupportedFormat, problem).at(pickle.name()));
            }
            (None, None) => return Err(missing(ADAPTER_WEIGHTS)),
        };
        let text = read_text(config.as_ref(), CONFIG_BYTES, ErrorKind::MalformedModel).await;
        let text = text.at(|| config.name().to_owned())?;
        json::check_depth(text.as_bytes()).at(|| config.name().to_owned())?;
        let tensors = safetensors::read_header(weights.as_ref(), 0).await.and_then(packed::plain);
        let tensors = tensors.at(|| weights.name().to_owned())?;
        let metadata = Metadata {
            dialect: Dialect::Hub,
            architecture: String::new(),
            values: BTreeMap::new(),
            companions: BTreeMap::from([(ADAPTER_CONFIG.to_owned(), text)]),
            small_tensors: BTreeMap::new(),
        };
        Ok(Checkpoint { metadata, tensors, orders: BTreeMap::new(), files: vec![Rc::clone(weights)] })
    }
}
