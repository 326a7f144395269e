//! Which model it is: hashes of what a checkpoint is made of, for receipts.

use sha2::{Digest, Sha256};

use crate::chat::Template;
use crate::digest::{hex, sha256_hex};
use crate::error::Result;
use crate::format::{Checkpoint, Metadata, Value};

/// Hashes of a model's parts, SHA-256 in hexadecimal digits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Identity {
    /// Of its hyperparameters, of names, formats, shapes and places of all tensors, and of the files' own hashes.
    pub(super) model: String,
    /// Whether `model` covers every weight: where a file came without a hash that was verified, its weights are not read
    /// again for one.
    pub(super) weights: bool,
    /// Of everything that the tokenizer is made from.
    pub(super) tokenizer: String,
    /// Of the chat template's text.
    pub(super) template: Option<String>,
}

/// Takes parts with their lengths, so that no two lists of parts give the same bytes.
#[derive(Default)]
struct Parts(Sha256);

impl Parts {
    fn add(&mut self, part: impl AsRef<[u8]>) {
        let part = part.as_ref();
        self.0.update((part.len() as u64).to_le_bytes());
        self.0.update(part);
    }

    /// Vocabularies are large: nothing is written out for them.
    fn add_value(&mut self, value: &Value) {
        match value {
            Value::Integer(integer) => self.add(integer.to_le_bytes()),
            Value::Number(number) => self.add(number.to_le_bytes()),
            Value::Bool(boolean) => self.add([u8::from(*boolean)]),
            Value::Text(text) => self.add(text),
            Value::Integers(items) => self.add_items(items, |parts, item| parts.0.update(item.to_le_bytes())),
            Value::Numbers(items) => self.add_items(items, |parts, item| parts.0.update(item.to_le_bytes())),
            Value::Bools(items) => self.add_items(items, |parts, item| parts.0.update([u8::from(*item)])),
            Value::Texts(items) => self.add_items(items, |parts, item| parts.add(item)),
        }
    }

    fn add_items<T>(&mut self, items: &[T], add: impl Fn(&mut Self, &T)) {
        self.0.update((items.len() as u64).to_le_bytes());
        items.iter().for_each(|item| add(self, item));
    }

    fn hex(self) -> String {
        hex(&self.0.finalize())
    }
}

/// The hash of a text.
pub(super) fn hash_text(text: &str) -> String {
    sha256_hex(text.as_bytes())
}

/// The hash of ids, each as four bytes, the lowest first.
pub(super) fn hash_ids(ids: &[u32]) -> String {
    let mut hash = Sha256::new();
    ids.iter().for_each(|id| hash.update(id.to_le_bytes()));
    hex(&hash.finalize())
}

/// Whether a key or a companion file belongs to the tokenizer rather than to the mathematics.
fn is_tokenizers(name: &str) -> bool {
    ["tokenizer", "special_tokens", "added_tokens", "vocab.", "merges."].iter().any(|start| name.starts_with(start))
}

impl Identity {
    /// Of a checkpoint that is loaded with this template.
    pub(super) fn of(checkpoint: &Checkpoint) -> Result<Self> {
        let (mut model, mut tokenizer, mut weights) = (Parts::default(), Parts::default(), true);
        let Metadata { architecture, values, companions, .. } = &checkpoint.metadata;
        model.add(architecture);
        let counts = |name: &&String| !name.contains("chat_template");
        for name in values.keys().chain(companions.keys()).filter(counts) {
            let to = if is_tokenizers(name) { &mut tokenizer } else { &mut model };
            to.add(name);
            if let Some(value) = values.get(name) {
                to.add_value(value);
            }
            if let Some(text) = companions.get(name) {
                to.add(text);
            }
        }
        for file in checkpoint.files.iter().filter(|file| file.is_given()) {
            model.add(file.size_bytes().to_le_bytes());
            weights &= file.sha256().is_some();
            model.add(file.sha256().unwrap_or_default());
        }
        for tensor in &checkpoint.tensors {
            model.add(&tensor.name);
            model.add(format!("{:?} {:?} {} {}", tensor.format, tensor.shape, tensor.offset, tensor.size_bytes));
        }
        let template = Template::text(&checkpoint.metadata)?.map(|text| hash_text(&text));
        Ok(Self { model: model.hex(), weights, tokenizer: tokenizer.hex(), template })
    }
}
