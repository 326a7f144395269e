//! Receipts: what a reply was made of and by, as hashes, so that it can be shown later that a model said it.
//!
//! A receipt tells nothing of prompt and reply but their hashes. Its options are there in full, and with the prompt they are
//! enough to make the reply again: the same ids come on the same device with the same version of the engine.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::adapters::AdapterChoice;
use super::identity::{hash_ids, hash_text};
use super::info::Runtime;
use super::json::{self, invalid};
use super::loaded::Loaded;
use super::request::{GenerateRequest, Prompt};
use super::result::GenerationResult;
use crate::error::Result;

/// The form of receipts.
const VERSION: u32 = 1;
/// What makes them.
const ENGINE: &str = concat!("headwater ", env!("CARGO_PKG_VERSION"));
/// Options that a receipt has in a place of their own, or that change nothing of the ids.
const APART: &[&str] = &["prompt", "seed", "n", "adapter", "logprobs", "topLogprobs", "speculation"];

/// What a reply was made of and by. Hashes are SHA-256 in hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Receipt {
    /// The form of this receipt; 1.
    pub version: u32,
    /// The engine and its version.
    pub engine: String,
    /// `webgpu`, `gpu` or `cpu`, and the device's own name.
    pub backend: String,
    /// See [`Receipt::backend`].
    pub device: String,
    /// How keys and values were stored.
    pub kv_format: String,
    /// What activations were rounded to while decoding, where that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activations: Option<String>,
    /// Of the model: its hyperparameters, its tensors' names, formats, shapes and places, its files' hashes.
    pub model: String,
    /// Whether that covers the weights themselves, because every file's hash was verified (models from a hub).
    pub weights_hashed: bool,
    /// Of what the tokenizer is made from.
    pub tokenizer: String,
    /// Of the chat template, where there is one.
    pub template: Option<String>,
    /// The adapter, where one was used.
    pub adapter: Option<ReceiptAdapter>,
    /// Every option that was given, but prompt and seed.
    pub options: Value,
    /// Where the randomness started.
    pub seed: u32,
    /// Of the prompt's ids, four bytes each, the lowest first.
    pub prompt: String,
    /// Of the reply's ids.
    pub reply: String,
    /// Of all of the above, as JSON.
    pub digest: String,
}

/// An adapter in a receipt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ReceiptAdapter {
    /// What it was called.
    pub name: String,
    /// Of its settings and tensors, as for a model.
    pub hash: String,
    /// How much of it.
    pub scale: f64,
}

/// What came of a check.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ReceiptCheck {
    /// This model, with this tokenizer, template and adapter, made this reply to this prompt: it made it again.
    pub holds: bool,
    /// What is not as the receipt says; another version or device does no harm where the reply is the same.
    pub differences: Vec<String>,
}

impl Receipt {
    /// Of a reply that this model made.
    pub(super) fn of(
        loaded: &Loaded,
        request: &GenerateRequest,
        prompt: String,
        result: &GenerationResult,
    ) -> Result<Self> {
        let runtime = loaded.info.backend.clone();
        let activations = runtime.as_ref().and_then(Runtime::activations).map(str::to_owned);
        let (backend, device, kv_format) =
            runtime.map(|runtime| (runtime.name, runtime.device, runtime.kv_format)).unwrap_or_default();
        let identity = loaded.identity.clone();
        let mut receipt = Self {
            version: VERSION,
            engine: ENGINE.to_owned(),
            backend,
            device,
            kv_format,
            activations,
            model: identity.model,
            weights_hashed: identity.weights,
            tokenizer: identity.tokenizer,
            template: identity.template,
            adapter: request.adapter.as_ref().map(|choice| adapter(loaded, choice)).transpose()?,
            options: options(request)?,
            seed: result.seed,
            prompt,
            reply: hash_ids(&result.tokens),
            digest: String::new(),
        };
        receipt.digest = receipt.digest_of()?;
        Ok(receipt)
    }

    fn digest_of(&self) -> Result<String> {
        let bare = Self { digest: String::new(), ..self.clone() };
        serde_json::to_string(&bare)
            .map(|text| hash_text(&text))
            .map_err(|error| invalid(error.to_string()).at("receipt"))
    }

    /// The request that makes the reply again.
    pub(super) fn request(&self, prompt: Prompt) -> Result<GenerateRequest> {
        let mut given = self.options.clone();
        let Some(options) = given.as_object_mut() else { return Err(invalid("not an object").at("receipt: options")) };
        // Read with the rest, so that what is unknown is refused.
        options.insert("prompt".to_owned(), Value::String(String::new()));
        options.insert("seed".to_owned(), self.seed.into());
        let request: GenerateRequest =
            serde_json::from_value(given).map_err(|error| invalid(error.to_string()).at("receipt: options"))?;
        let adapter = self.adapter.as_ref().map(ReceiptAdapter::choice);
        Ok(GenerateRequest { prompt, adapter, ..request })
    }

    /// Holds it against one of the same request that was made just now.
    pub(super) fn check(&self, now: &Self) -> Result<ReceiptCheck> {
        let adapter = |of: &Self| of.adapter.as_ref().map(|adapter| adapter.hash.clone()).unwrap_or_default();
        let template = |of: &Self| of.template.clone().unwrap_or_default();
        let activations = |of: &Self| of.activations.clone().unwrap_or_default();
        // What is compared, and whether the receipt cannot hold where it differs.
        let compared = [
            ("digest", self.digest.clone(), self.digest_of()?, true),
            ("version", self.version.to_string(), now.version.to_string(), true),
            ("model", self.model.clone(), now.model.clone(), true),
            ("tokenizer", self.tokenizer.clone(), now.tokenizer.clone(), true),
            ("template", template(self), template(now), true),
            ("adapter", adapter(self), adapter(now), true),
            ("prompt", self.prompt.clone(), now.prompt.clone(), true),
            ("reply", self.reply.clone(), now.reply.clone(), true),
            ("engine", self.engine.clone(), now.engine.clone(), false),
            ("backend", self.backend.clone(), now.backend.clone(), false),
            ("device", self.device.clone(), now.device.clone(), false),
            ("kvFormat", self.kv_format.clone(), now.kv_format.clone(), false),
            ("activations", activations(self), activations(now), false),
        ];
        let differs: Vec<_> = compared.into_iter().filter(|(_, told, found, _)| told != found).collect();
        let shown = |text: &str| if text.is_empty() { "none".to_owned() } else { text.to_owned() };
        Ok(ReceiptCheck {
            holds: !differs.iter().any(|(.., counts)| *counts),
            differences: differs
                .iter()
                .map(|(what, told, found, _)| {
                    format!("{what}: the receipt has {}, here is {}", shown(told), shown(found))
                })
                .collect(),
        })
    }
}

impl ReceiptAdapter {
    fn choice(&self) -> AdapterChoice {
        AdapterChoice::Scaled(super::ScaledAdapter { name: self.name.clone(), scale: Some(self.scale) })
    }
}

fn adapter(loaded: &Loaded, choice: &AdapterChoice) -> Result<ReceiptAdapter> {
    let (name, scale) = choice.parts();
    Ok(ReceiptAdapter { name: name.to_owned(), hash: loaded.adapters.hash(name)?, scale })
}

/// What was given of a request, but what a receipt has elsewhere.
fn options(request: &GenerateRequest) -> Result<Value> {
    let mut all = serde_json::to_value(request).map_err(|error| invalid(error.to_string()).at("options"))?;
    if let Some(options) = all.as_object_mut() {
        options.retain(|name, value| !APART.contains(&name.as_str()) && !is_absent(value));
    }
    Ok(all)
}

/// Whether a value says what its absence does.
fn is_absent(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    }
}

impl Receipt {
    /// Reads one as the package's interface has it. `InvalidArgument` names what is unknown or wrong.
    pub fn from_json(text: &str) -> Result<Self> {
        json::options(text, &[]).map_err(|error| error.at("receipt"))
    }
}
