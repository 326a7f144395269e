//! Adapters in GGUF files, as llama.cpp's `convert_lora_to_gguf.py` writes them: `X.lora_a` and `X.lora_b` beside the
//! name X of a tensor of the model.

use super::{AdapterFile, Pairing, Role, malformed, unsupported};
use crate::error::Result;
use crate::format::{Checkpoint, Dialect};
use crate::model::Architecture;

const TYPE: &str = "general.type";
const ADAPTER_TYPE: &str = "adapter.type";
const ALPHA: &str = "adapter.lora.alpha";
const ARCHITECTURE: &str = "general.architecture";
const BASE_MODEL: &str = "general.base_model.0.name";
/// Tokens after which an adapter begins to work (activated LoRA, arXiv 2504.12397).
const INVOCATION: &str = "adapter.alora.invocation_tokens";

pub(super) fn read(adapter: &Checkpoint, architecture: &Architecture) -> Result<AdapterFile> {
    let metadata = &adapter.metadata;
    for (key, expected) in [(TYPE, "adapter"), (ADAPTER_TYPE, "lora")] {
        match metadata.text(key)? {
            Some(found) if found == expected => {}
            found => {
                let found = found.map_or("nothing".to_owned(), |found| format!("{found:?}"));
                return Err(unsupported(format!("{expected:?} is needed, {found} is there")).at(key));
            }
        }
    }
    if metadata.values.contains_key(INVOCATION) {
        return Err(unsupported("adapters that begin to work after certain tokens are not supported").at(INVOCATION));
    }
    // Files of some families call themselves llama.
    let expected = architecture.name(Dialect::Gguf).unwrap_or("llama");
    if metadata.architecture != expected {
        let problem =
            format!("{expected:?} is needed, {:?} is there: an adapter of another base", metadata.architecture);
        return Err(malformed(problem).at(ARCHITECTURE));
    }
    // llama.cpp applies what says nothing, or 0, as it is.
    let alpha = metadata.number(ALPHA)?.filter(|alpha| *alpha != 0.0);
    if let Some(alpha) = alpha.filter(|alpha| !alpha.is_finite()) {
        return Err(malformed(format!("{alpha} is no factor")).at(ALPHA));
    }
    let mut pairing = Pairing::new();
    for tensor in &adapter.tensors {
        let (target, role) = match tensor.name.rsplit_once('.') {
            Some((target, "lora_a")) => (target, Role::A),
            Some((target, "lora_b")) => (target, Role::B),
            _ => return Err(unsupported("only lora_a and lora_b are supported").at(tensor.name.as_str())),
        };
        pairing.add(target, role, tensor)?;
    }
    let scaling = |_: &str, rank: usize| Ok(alpha.map_or(1.0, |alpha| (alpha / rank as f64) as f32));
    let alone = |target: String, _: &_, _: &_| (target, 1);
    let modules = pairing.modules(alone, scaling, |target, letter| format!("{target}.lora_{}", letter.to_lowercase()));
    Ok(AdapterFile {
        name: metadata.text("general.name")?.map(str::to_owned),
        base_model: metadata.text(BASE_MODEL)?.map(str::to_owned),
        modules: modules?,
    })
}
