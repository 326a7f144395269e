//! The exported hub: find, fetch and keep models, and load them, with JSON on both sides.

use std::rc::Rc;

use js_sys::{Function, Promise};
use serde::Deserialize;
use serde_json::{Value, json};
use wasm_bindgen::prelude::wasm_bindgen;
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;
use web_sys::AbortSignal;

use super::engine::{self, AdapterOptions, WebEngine, load_checkpoint, sources, take, tell, to_json};
use super::fault;
use super::hub_edge::{JsStore, JsTransport, WebEdge, WebStore, WebTransport};
use super::source::{JsFile, is_aborted};
use crate::error::{Error, ErrorKind, Result};
use crate::format::Checkpoint;
use crate::hub::{Call, Consent, Found, Hub, Incoming, License, Lock, Policy, Pulled, Reference, Token};

type JsResult<T> = std::result::Result<T, JsValue>;

/// What the package passes beside a reference.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Options {
    endpoint: Option<String>,
    revision: Option<String>,
    token: Option<String>,
    policy: Option<Value>,
    lock: Option<Value>,
    offline: bool,
    refresh: bool,
}

/// The hub over the browser's network and files.
#[wasm_bindgen]
pub struct WebHub(Hub);

#[wasm_bindgen]
impl WebHub {
    /// A hub over the package's transport and store.
    #[wasm_bindgen(constructor)]
    pub fn new(transport: JsTransport, store: JsStore) -> WebHub {
        let edge = Rc::new(WebEdge(transport.clone()));
        WebHub(Hub::new(Rc::new(WebTransport(transport)), Rc::new(WebStore(store)), edge))
    }

    /// Loads a model from the store, or fetches it first. `consent` gets a licence's JSON and a reason, and says whether.
    pub async fn load(
        &self,
        reference: String,
        options: String,
        engine_options: String,
        on_progress: Function,
        consent: Option<Function>,
        signal: Option<AbortSignal>,
    ) -> JsResult<WebEngine> {
        told(load(&self.0, &reference, &options, &engine_options, on_progress, consent, signal)).await
    }

    /// Loads an adapter of a hub beside a model, fetched first where it is not kept; tells what it is, where it came from, and
    /// whether it says that it was made for this model (`madeFor`; null where nobody tells).
    #[wasm_bindgen(js_name = loadAdapter)]
    #[expect(clippy::too_many_arguments, reason = "what one call of the package is made of")]
    pub async fn load_adapter(
        &self,
        engine: &WebEngine,
        reference: String,
        options: String,
        adapter_options: String,
        on_progress: Function,
        consent: Option<Function>,
        signal: Option<AbortSignal>,
    ) -> JsResult<String> {
        let adapter_options: AdapterOptions = take("options", &adapter_options)?;
        told(async {
            let (reference, call) = call(&reference, &options, Some(on_progress), consent, signal.clone())?;
            let pulled = self.0.pull(&reference, &call).await?;
            let info = engine.add_adapter(pulled.sources.clone(), adapter_options, signal.as_ref()).await?;
            let mut told = serde_json::to_value(info).unwrap_or_default();
            told["madeFor"] = json!(made_for(&pulled.license, engine));
            told["origin"] = origin(&pulled);
            to_json(&told)
        })
        .await
    }

    /// Fetches a model into the store, and tells what it is.
    pub async fn pull(
        &self,
        reference: String,
        options: String,
        on_progress: Function,
        consent: Option<Function>,
        signal: Option<AbortSignal>,
    ) -> JsResult<String> {
        told(async {
            let (reference, call) = call(&reference, &options, Some(on_progress), consent, signal)?;
            let pulled = self.0.pull(&reference, &call).await?;
            to_json(&origin(&pulled))
        })
        .await
    }

    /// Tells what a model is from its headers, with `limits` whether it fits, and keeps nothing. See
    /// [`WebEngine::inspect_files`]. Of a model that is not kept `noRoom` says why the store would not take it, null where
    /// it would.
    pub async fn inspect(
        &self,
        reference: String,
        options: String,
        engine_options: String,
        limits: Option<String>,
        signal: Option<AbortSignal>,
    ) -> JsResult<String> {
        told(async {
            let (reference, call) = call(&reference, &options, None, None, signal)?;
            let (checkpoint, origin, found) = open(&self.0, &reference, &call).await?;
            let limits = limits.as_deref().map(|limits| (limits, found.as_ref()));
            let mut told = engine::inspect(&checkpoint, &engine_options, limits)?;
            told["origin"] = origin;
            if let (Some(_), Some(found)) = (limits, &found) {
                told["noRoom"] = match self.0.check_room_for(found).await {
                    Ok(()) => Value::Null,
                    Err(error) if error.kind() == ErrorKind::QuotaExceeded => json!(error.message()),
                    Err(error) => return Err(error),
                };
            }
            to_json(&told)
        })
        .await
    }

    /// Takes a model's files from those given, verified.
    #[wasm_bindgen(js_name = importFiles)]
    pub async fn import_files(
        &self,
        reference: String,
        files: Vec<JsFile>,
        options: String,
        on_progress: Function,
        consent: Option<Function>,
        signal: Option<AbortSignal>,
    ) -> JsResult<String> {
        told(async {
            let from = sources(files, &signal)?;
            let (reference, call) = call(&reference, &options, Some(on_progress), consent, signal)?;
            to_json(&origin(&self.0.import(&reference, &from, &call).await?))
        })
        .await
    }

    /// The files of a kept model: `[{ path, sizeBytes, name }]`, by their names in the store.
    #[wasm_bindgen(js_name = keptFiles)]
    pub async fn kept_files(&self, reference: String, options: String) -> JsResult<String> {
        told(async {
            let (reference, call) = call(&reference, &options, None, None, None)?;
            let pulled = self.0.pull(&reference, &Call { offline: true, ..call }).await?;
            let files = pulled.model.files.iter().zip(pulled.stored_names());
            let files =
                files.map(|(file, name)| json!({ "path": file.path, "sizeBytes": file.size_bytes, "name": name }));
            to_json(&files.collect::<Vec<_>>())
        })
        .await
    }

    /// Everything that is kept.
    pub async fn list(&self) -> JsResult<String> {
        told(async { to_json(&self.0.shelf.list().await?) }).await
    }

    /// The room that is taken.
    pub async fn usage(&self) -> JsResult<String> {
        told(async { to_json(&self.0.shelf.usage().await?) }).await
    }

    /// Frees what a reference has kept; gives the bytes.
    pub async fn remove(&self, reference: String, endpoint: Option<String>) -> JsResult<f64> {
        told(async { Ok(self.0.remove(&reference, endpoint.as_deref()).await? as f64) }).await
    }

    /// Removes everything.
    pub async fn clear(&self) -> JsResult<()> {
        told(self.0.shelf.clear()).await
    }

    /// A lock file of everything that is kept.
    pub async fn lock(&self) -> JsResult<String> {
        told(async { self.0.lock().await?.to_json() }).await
    }
}

/// What became of a call, an error as JavaScript has it.
async fn told<T>(work: impl Future<Output = Result<T>>) -> JsResult<T> {
    work.await.map_err(|error| fault::to_js(&error))
}

/// The reference with the options' revision, and what the options ask for.
fn call(
    reference: &str,
    options: &str,
    on_progress: Option<Function>,
    consent: Option<Function>,
    signal: Option<AbortSignal>,
) -> Result<(String, Call)> {
    let options: Options = serde_json::from_str(options)
        .map_err(|error| Error::new(ErrorKind::InvalidArgument, error.to_string()).at("options"))?;
    let mut parsed = Reference::parse(reference)?;
    if let Some(wanted) = options.revision {
        match &mut parsed {
            Reference::Repo { revision: own @ None, .. } => *own = Some(wanted),
            _ => {
                let words = "only a reference to a repository takes one, and only once";
                return Err(Error::new(ErrorKind::InvalidArgument, words).at("revision"));
            }
        }
    }
    let reference = match &parsed {
        Reference::Repo { .. } => parsed.to_text(),
        // The query of an address is not told, but it is needed.
        Reference::Folder(_) | Reference::File(_) => reference.to_owned(),
    };
    let call = Call {
        endpoint: options.endpoint,
        token: options.token.map(Token::new).transpose()?,
        policy: options.policy.map(|policy| Policy::from_json(&policy.to_string())).transpose()?.unwrap_or_default(),
        lock: options.lock.map(|lock| Lock::from_json(&lock.to_string())).transpose()?,
        offline: options.offline,
        refresh: options.refresh,
        consent: consent.map(ask),
        on_progress: match on_progress {
            // A listener that throws is the caller's affair; the transfer goes on.
            Some(listener) => Rc::new(move |progress| {
                tell(&listener, progress).ok();
            }),
            None => Rc::new(|_| {}),
        },
        aborted: Rc::new(move || is_aborted(signal.as_ref())),
    };
    Ok((reference, call))
}

/// The consent hook as the logic asks it.
fn ask(hook: Function) -> Consent {
    Rc::new(move |license: License, why: String| {
        let hook = hook.clone();
        Box::pin(async move {
            let refused = |thrown: JsValue| fault::from_js(&thrown, ErrorKind::Internal);
            let license = to_json(&license)?;
            let answer = hook.call2(&JsValue::NULL, &license.into(), &why.into()).map_err(refused)?;
            let answer = match answer.dyn_into::<Promise>() {
                Ok(promise) => JsFuture::from(promise).await.map_err(refused)?,
                Err(answer) => answer,
            };
            Ok(answer.is_truthy())
        })
    })
}

/// Whether an adapter's card names the model, if that came from a hub too.
fn made_for(adapter: &License, engine: &WebEngine) -> Option<bool> {
    let origin: Value = serde_json::from_str(&engine.origin()?).ok()?;
    let of = |list: &Value, name: fn(&Value) -> &Value| -> Vec<String> {
        let items = list.as_array().into_iter().flatten();
        items.filter_map(|item| name(item).as_str().map(str::to_owned)).collect()
    };
    let license = &origin["license"];
    let mut repos = of(&license["baseModels"], |name| name);
    repos.extend(of(&license["bases"], |base| &base["repo"]));
    repos.push(origin["repo"].as_str()?.to_owned());
    adapter.is_made_for(&repos.iter().map(String::as_str).collect::<Vec<_>>())
}

/// What a kept model is and where it came from.
fn origin(pulled: &Pulled) -> Value {
    let license = serde_json::to_value(&pulled.license).unwrap_or_default();
    let mut told = serde_json::to_value(&pulled.model).unwrap_or_default();
    told["license"] = license;
    told["hosts"] = json!(pulled.hosts);
    told["fetchedBytes"] = json!(pulled.fetched_bytes);
    told
}

async fn load(
    hub: &Hub,
    reference: &str,
    options: &str,
    engine_options: &str,
    on_progress: Function,
    consent: Option<Function>,
    signal: Option<AbortSignal>,
) -> Result<WebEngine> {
    let (reference, call) = call(reference, options, Some(on_progress.clone()), consent, signal.clone())?;
    let (on_progress, signal) = (&on_progress, &signal);
    let loading = |incoming: Rc<Incoming>| async move {
        let checkpoint = Checkpoint::open(incoming.sources().await?).await?;
        incoming.seal();
        load_checkpoint(checkpoint, engine_options, signal.as_ref(), &|progress| match incoming.is_complete() {
            true => tell(on_progress, progress),
            // How far the download is says more.
            false => Ok(()),
        })
        .await
    };
    let (mut pulled, loaded) = hub.pull_while(&reference, &call, loading).await?;
    let template = loaded.info().template.map(|template| template.hash);
    if let Err(error) = hub.note_template(&mut pulled, template.as_deref(), &call).await {
        loaded.dispose();
        return Err(error);
    }
    Ok(WebEngine::with_origin(loaded, to_json(&origin(&pulled))?))
}

/// The headers of a model and where it is: of what is kept, else of what the hub has, which is given too. `kept` says which.
async fn open(hub: &Hub, reference: &str, call: &Call) -> Result<(Checkpoint, Value, Option<Found>)> {
    match hub.pull(reference, &Call { offline: true, ..call.clone() }).await {
        Ok(pulled) => {
            let mut origin = origin(&pulled);
            origin["kept"] = json!(true);
            Ok((Checkpoint::open(pulled.sources.clone()).await?, origin, None))
        }
        Err(error) if error.kind() == ErrorKind::NotFound && !call.offline => {
            let found = hub.find(reference, call).await?;
            let checkpoint = Checkpoint::look(found.sources.clone()).await?;
            let files = found.files.iter().map(
                |file| json!({ "path": file.path, "sizeBytes": file.size_bytes, "expected": file.expected.to_text() }),
            );
            let origin = json!({
                "hub": found.manifest.hub, "repo": found.manifest.repo, "revision": found.manifest.revision,
                "commit": found.manifest.commit, "files": files.collect::<Vec<_>>(), "license": found.license,
                "hosts": found.hosts(), "kept": false,
            });
            Ok((checkpoint, origin, Some(found)))
        }
        Err(error) => Err(error),
    }
}
