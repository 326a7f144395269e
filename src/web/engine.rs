//! The exported class: each method is one verb of the engine, with JSON on both sides.
//!
//! Every method takes `&self`: calls overlap (a generation and a tokenisation, a generation and its abort), and a
//! mutable borrow held over an await would make the second one fail.

use std::rc::Rc;

use js_sys::{Float32Array, Function, Uint8Array};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use wasm_bindgen::JsValue;
use wasm_bindgen::prelude::wasm_bindgen;
use web_sys::AbortSignal;

use super::source::{JsFile, JsSource, check_aborted, is_aborted};
use super::{environment, fault};
use crate::engine::{
    self, AdapterChoice, AdapterInfo, BenchRequest, DeviceLimits, EmbedRequest, Engine, GenerateRequest, LoadOptions,
    Piece, Progress, Prompt, Receipt, RerankRequest, ScoreRequest,
};
use crate::error::{Error, ErrorKind, Result};
use crate::format::Checkpoint;
use crate::hub::Found;
use crate::source::Source;

type JsResult<T> = std::result::Result<T, JsValue>;

/// A loaded model, and the JSON of where it came from, if that was a hub.
#[wasm_bindgen]
pub struct WebEngine(Engine, Option<String>);

/// Options of `tokenize`.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct TokenizeOptions {
    add_special: bool,
    parse_special: bool,
}

/// Options of `logits`.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct LogitsOptions {
    adapter: Option<AdapterChoice>,
}

/// Options of `loadAdapter`.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct AdapterOptions {
    /// What replies call it.
    pub(super) name: Option<String>,
}

#[wasm_bindgen]
impl WebEngine {
    /// Loads a model from its files. `options` is the JSON of [`LoadOptions`]; `on_progress` gets that of [`Progress`].
    pub async fn load(
        files: Vec<JsFile>,
        options: String,
        on_progress: Function,
        signal: Option<AbortSignal>,
    ) -> JsResult<WebEngine> {
        let loaded = load(files, &options, &on_progress, signal).await;
        loaded.map(|engine| WebEngine(engine, None)).map_err(|error| fault::to_js(&error))
    }

    /// What the files of a model say that it is, and with `limits` (the JSON of [`DeviceLimits`]) whether it fits; nothing
    /// is loaded. `options` as for `load`.
    #[wasm_bindgen(js_name = inspectFiles)]
    pub async fn inspect_files(
        files: Vec<JsFile>,
        options: String,
        limits: Option<String>,
        signal: Option<AbortSignal>,
    ) -> JsResult<String> {
        let inspected = async {
            let checkpoint = Checkpoint::look(sources(files, &signal)?).await?;
            to_json(&inspect(&checkpoint, &options, limits.as_deref().map(|limits| (limits, None)))?)
        };
        inspected.await.map_err(|error| fault::to_js(&error))
    }

    /// Where the model came from, as JSON; nothing for files that the caller brought.
    pub fn origin(&self) -> Option<String> {
        self.1.clone()
    }

    /// What the model is and what runs it.
    pub fn info(&self) -> JsResult<String> {
        give(&self.0.info())
    }

    /// Counts since the model was loaded.
    pub fn stats(&self) -> JsResult<String> {
        give(&self.0.stats())
    }

    /// Makes a reply. `request` is the JSON of [`GenerateRequest`]; `on_piece` gets that of every [`Piece`].
    pub async fn generate(&self, request: String, on_piece: Function, signal: Option<AbortSignal>) -> JsResult<String> {
        let request = GenerateRequest::from_json(&request).map_err(|error| fault::to_js(&error))?;
        let mut refused = None;
        let result = self
            .0
            .generate(&request, &|| is_aborted(signal.as_ref()), &mut |piece: &Piece| {
                refused = refused.take().or(tell(&on_piece, piece).err());
            })
            .await
            .map_err(|error| fault::to_js(&error))?;
        match refused {
            Some(error) => Err(fault::to_js(&error)),
            None => give(&result),
        }
    }

    /// The vectors of texts, one after another. `request` is the JSON of [`EmbedRequest`].
    pub async fn embed(&self, request: String, signal: Option<AbortSignal>) -> JsResult<Float32Array> {
        let request = EmbedRequest::from_json(&request).map_err(|error| fault::to_js(&error))?;
        let made = self.0.embed(&request, &|| is_aborted(signal.as_ref())).await;
        Ok(Float32Array::from(made.map_err(|error| fault::to_js(&error))?.values.as_slice()))
    }

    /// Documents by how well they answer a query. `request` is the JSON of [`RerankRequest`].
    pub async fn rerank(&self, request: String, signal: Option<AbortSignal>) -> JsResult<String> {
        let request = RerankRequest::from_json(&request).map_err(|error| fault::to_js(&error))?;
        let ranking = self.0.rerank(&request, &|| is_aborted(signal.as_ref())).await;
        give(&ranking.map_err(|error| fault::to_js(&error))?.results)
    }

    /// How likely the model finds continuations. `request` is the JSON of [`ScoreRequest`].
    pub async fn score(&self, request: String, signal: Option<AbortSignal>) -> JsResult<String> {
        let request = ScoreRequest::from_json(&request).map_err(|error| fault::to_js(&error))?;
        let scores = self.0.score(&request, &|| is_aborted(signal.as_ref())).await;
        give(&scores.map_err(|error| fault::to_js(&error))?)
    }

    /// Makes the reply of a receipt again. `receipt` is the JSON of [`Receipt`], `prompt` of [`Prompt`].
    #[wasm_bindgen(js_name = checkReceipt)]
    pub async fn check_receipt(
        &self,
        receipt: String,
        prompt: String,
        signal: Option<AbortSignal>,
    ) -> JsResult<String> {
        let read = Receipt::from_json(&receipt).and_then(|receipt| Ok((receipt, Prompt::from_json(&prompt)?)));
        let (receipt, prompt) = read.map_err(|error| fault::to_js(&error))?;
        let check = self.0.check_receipt(&receipt, prompt, &|| is_aborted(signal.as_ref())).await;
        give(&check.map_err(|error| fault::to_js(&error))?)
    }

    /// Token ids of a text, as a JSON list.
    pub fn tokenize(&self, text: &str, options: &str) -> JsResult<String> {
        let options: TokenizeOptions = take("options", options)?;
        let ids = self.0.tokenize(text, options.add_special, options.parse_special);
        give(&ids.map_err(|error| fault::to_js(&error))?)
    }

    /// The text of a JSON list of token ids.
    pub fn detokenize(&self, ids: &str) -> JsResult<String> {
        let ids: Vec<u32> = take("ids", ids)?;
        self.0.detokenize(&ids).map_err(|error| fault::to_js(&error))
    }

    /// Tokens that a prompt (its JSON) takes.
    #[wasm_bindgen(js_name = countTokens)]
    pub fn count_tokens(&self, prompt: &str) -> JsResult<String> {
        let prompt = Prompt::from_json(prompt).map_err(|error| fault::to_js(&error))?;
        give(&self.0.count_tokens(&prompt).map_err(|error| fault::to_js(&error))?)
    }

    /// Logits after every id of a JSON list, `(tokens, vocab)`.
    pub async fn logits(&self, ids: String, options: String) -> JsResult<Float32Array> {
        let ids: Vec<u32> = take("ids", &ids)?;
        let options: LogitsOptions = take("options", &options)?;
        let logits = self.0.logits_with(&ids, options.adapter.as_ref()).await;
        let logits = logits.map_err(|error| fault::to_js(&error))?;
        Ok(Float32Array::from(logits.as_slice()))
    }

    /// Loads an adapter from its files beside the model, and tells what it is.
    #[wasm_bindgen(js_name = loadAdapter)]
    pub async fn load_adapter(
        &self,
        files: Vec<JsFile>,
        options: String,
        signal: Option<AbortSignal>,
    ) -> JsResult<String> {
        let options: AdapterOptions = take("options", &options)?;
        let sources = sources(files, &signal).map_err(|error| fault::to_js(&error))?;
        let loaded = self.add_adapter(sources, options, signal.as_ref()).await;
        give(&loaded.map_err(|error| fault::to_js(&error))?)
    }

    /// Frees an adapter.
    #[wasm_bindgen(js_name = unloadAdapter)]
    pub async fn unload_adapter(&self, name: String) -> JsResult<()> {
        self.0.unload_adapter(&name).await.map_err(|error| fault::to_js(&error))
    }

    /// The adapters that are there.
    pub fn adapters(&self) -> JsResult<String> {
        give(&self.0.adapters().map_err(|error| fault::to_js(&error))?)
    }

    /// Times a prefill and a decode. `request` is the JSON of [`BenchRequest`].
    pub async fn bench(&self, request: String) -> JsResult<String> {
        let request = BenchRequest::from_json(&request).map_err(|error| fault::to_js(&error))?;
        give(&self.0.bench(&request).await.map_err(|error| fault::to_js(&error))?)
    }

    /// Gives the keys and values that are kept of a request's prompt to `on_bytes`, piece by piece, and then how many tokens
    /// those are. `request` is the JSON of [`GenerateRequest`].
    pub async fn save(&self, request: String, on_bytes: Function, signal: Option<AbortSignal>) -> JsResult<f64> {
        let request = GenerateRequest::from_json(&request).map_err(|error| fault::to_js(&error))?;
        let mut sink = |bytes: &[u8]| {
            check_aborted(signal.as_ref())?;
            let told = on_bytes.call1(&JsValue::NULL, &Uint8Array::from(bytes));
            told.map(drop).map_err(|thrown| fault::from_js(&thrown, ErrorKind::Internal))
        };
        let saved = self.0.save(&request, &mut sink).await;
        saved.map(|tokens| tokens as f64).map_err(|error| fault::to_js(&error))
    }

    /// Brings what `save` gave back, and tells what came of it.
    pub async fn restore(&self, file: JsFile, signal: Option<AbortSignal>) -> JsResult<String> {
        let source = JsSource::new(file, signal).map_err(|error| fault::to_js(&error))?;
        give(&self.0.restore(&source).await.map_err(|error| fault::to_js(&error))?)
    }

    /// Frees what the model holds on the device. Later calls fail with `Disposed`.
    pub fn dispose(&self) {
        self.0.dispose();
    }
}

impl WebEngine {
    /// Loads an adapter from its files, wherever they are.
    pub(super) async fn add_adapter(
        &self,
        sources: Vec<Rc<dyn Source>>,
        options: AdapterOptions,
        signal: Option<&AbortSignal>,
    ) -> Result<AdapterInfo> {
        let adapter = Checkpoint::open_adapter(sources).await?;
        self.0.load_adapter(&adapter, options.name.as_deref(), &|| is_aborted(signal)).await
    }

    /// A model that came from a hub.
    pub(super) fn with_origin(engine: Engine, origin: String) -> Self {
        Self(engine, Some(origin))
    }
}

async fn load(
    files: Vec<JsFile>,
    options: &str,
    on_progress: &Function,
    signal: Option<AbortSignal>,
) -> Result<Engine> {
    let checkpoint = Checkpoint::open(sources(files, &signal)?).await?;
    load_checkpoint(checkpoint, options, signal.as_ref(), &|progress| tell(on_progress, progress)).await
}

/// Loads a model from its files, wherever they are.
pub(super) async fn load_checkpoint(
    checkpoint: Checkpoint,
    options: &str,
    signal: Option<&AbortSignal>,
    on_progress: &dyn Fn(&Progress) -> Result<()>,
) -> Result<Engine> {
    let options = LoadOptions::from_json(options)?;
    let mut progress = |progress: Progress| {
        check_aborted(signal)?;
        on_progress(&progress)
    };
    Engine::load(checkpoint, &options, environment::browser(), &mut progress).await
}

/// Files of JavaScript as sources.
pub(super) fn sources(files: Vec<JsFile>, signal: &Option<AbortSignal>) -> Result<Vec<Rc<dyn Source>>> {
    files.into_iter().map(|file| Ok(Rc::new(JsSource::new(file, signal.clone())?) as Rc<dyn Source>)).collect()
}

/// What a model is, with `fit` beside it where limits are given: of what was found at a hub, other files of the same model too.
pub(super) fn inspect(checkpoint: &Checkpoint, options: &str, limits: Option<(&str, Option<&Found>)>) -> Result<Value> {
    let options = LoadOptions::from_json(options)?;
    let internal = |error: serde_json::Error| Error::new(ErrorKind::Internal, error.to_string());
    let mut told = serde_json::to_value(engine::look(checkpoint, &options)?).map_err(internal)?;
    if let Some((limits, found)) = limits {
        let limits: DeviceLimits = serde_json::from_str(limits)
            .map_err(|error| Error::new(ErrorKind::InvalidArgument, error.to_string()).at("limits"))?;
        let mut report = engine::fit(checkpoint, &options, limits)?;
        if let Some(found) = found {
            report.consider(found.size_bytes(), found.others());
        }
        told["fit"] = serde_json::to_value(report).map_err(internal)?;
    }
    Ok(told)
}

/// Calls a listener with the JSON of a value.
pub(super) fn tell(listener: &Function, value: &impl Serialize) -> Result<()> {
    let json = to_json(value)?;
    let answer = listener.call1(&JsValue::NULL, &json.into());
    answer.map(drop).map_err(|thrown| fault::from_js(&thrown, ErrorKind::Internal))
}

/// Reads an argument; what it has too much or wrong is named.
pub(super) fn take<T: DeserializeOwned>(name: &str, json: &str) -> JsResult<T> {
    serde_json::from_str(json)
        .map_err(|error| fault::to_js(&Error::new(ErrorKind::InvalidArgument, error.to_string()).at(name)))
}

/// Gives a result from a method that throws.
pub(super) fn give(value: &impl Serialize) -> JsResult<String> {
    to_json(value).map_err(|error| fault::to_js(&error))
}

pub(super) fn to_json(value: &impl Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|error| Error::new(ErrorKind::Internal, error.to_string()))
}
