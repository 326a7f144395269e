//! A model out of the flags, and the world that its engine lives in.

use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{SystemTime, UNIX_EPOCH};

use headwater::engine::{self, AdapterChoice, BackendChoice, Engine, Environment, LoadOptions, ScaledAdapter};
use headwater::error::{ErrorKind, Result};
use headwater::format::Checkpoint;
use headwater::gpu::Kept;
use headwater::hub::{Call, Found, Hub, Incoming, License, Pulled};
use headwater::source::LocalFuture;
use serde_json::{Value, json};

use crate::args::{AdapterArgs, Backend, Common, HubArgs};
use crate::{hub, source};

/// Opens the model's files and checks their headers; what a reference means is fetched where it is not kept.
pub(crate) async fn open(common: &Common) -> Result<Checkpoint> {
    if !hub::is_meant(&common.model, &common.hub) {
        return Checkpoint::open(source::open(&common.model)?).await;
    }
    let (hub, call) = (hub::open(&common.hub)?, hub::call(&common.hub, common.json)?);
    let mut pulled = hub.pull(&common.model, &call).await?;
    let checkpoint = Checkpoint::open(pulled.sources.clone()).await?;
    if call.lock.is_some() {
        let template = engine::inspect(&checkpoint, &options(common))?.template;
        hub.note_template(&mut pulled, template.as_ref().map(|template| template.hash.as_str()), &call).await?;
    }
    Ok(checkpoint)
}

/// A model that was looked at.
pub(crate) struct Looked {
    /// Its headers.
    pub(crate) checkpoint: Checkpoint,
    /// Where it is from, if that is a hub.
    pub(crate) origin: Option<Value>,
    /// What would have to be fetched to have it, and by whom.
    pub(crate) found: Option<(Hub, Found)>,
}

/// Opens the model's headers, and tells where it is from; nothing is fetched to be kept.
pub(crate) async fn look(common: &Common) -> Result<Looked> {
    if !hub::is_meant(&common.model, &common.hub) {
        return Ok(Looked { checkpoint: open(common).await?, origin: None, found: None });
    }
    let (hub, call) = (hub::open(&common.hub)?, hub::call(&common.hub, true)?);
    match hub.pull(&common.model, &Call { offline: true, ..call.clone() }).await {
        Ok(pulled) => {
            let checkpoint = Checkpoint::open(pulled.sources.clone()).await?;
            Ok(Looked { checkpoint, origin: Some(kept(&pulled)), found: None })
        }
        Err(error) if error.kind() == ErrorKind::NotFound && !common.hub.offline => {
            let found = hub.find(&common.model, &call).await?;
            let checkpoint = Checkpoint::look(found.sources.clone()).await?;
            let files: Vec<Value> = found
                .files
                .iter()
                .map(|file| {
                    json!({
                        "path": file.path, "sizeBytes": file.size_bytes, "expected": file.expected.to_text(),
                    })
                })
                .collect();
            let manifest = &found.manifest;
            let told = origin(&manifest.hub, &manifest.repo, &manifest.commit, &found.license, files, found.hosts());
            Ok(Looked { checkpoint, origin: Some(told), found: Some((hub, found)) })
        }
        Err(error) => Err(error),
    }
}

fn kept(pulled: &Pulled) -> Value {
    let model = &pulled.model;
    let files = model.files.iter().map(|file| {
        json!({
            "path": file.path, "sizeBytes": file.size_bytes, "expected": format!("sha256:{}", file.sha256),
        })
    });
    origin(&model.hub, &model.repo, &model.commit, &pulled.license, files.collect(), pulled.hosts.clone())
}

fn origin(hub: &str, repo: &str, commit: &str, license: &License, files: Vec<Value>, hosts: Vec<String>) -> Value {
    json!({ "hub": hub, "repo": repo, "commit": commit, "license": license, "files": files, "hosts": hosts })
}

/// What the flags say about loading.
pub(crate) fn options(common: &Common) -> LoadOptions {
    LoadOptions {
        backend: match common.backend {
            Backend::Gpu => BackendChoice::Gpu,
            Backend::Cpu => BackendChoice::Cpu,
        },
        context: common.context,
        exact: common.exact,
        kv_format: common.kv.clone(),
        activations: common.activations.clone(),
        architecture: common.architecture.clone(),
        quantize: common.quantize.clone(),
        self_test: None,
    }
}

/// Loads the model.
pub(crate) async fn load(common: &Common) -> Result<Engine> {
    if !hub::is_meant(&common.model, &common.hub) || common.hub.lock.is_some() {
        return start(open(common).await?, common).await;
    }
    let (hub, call) = (hub::open(&common.hub)?, hub::call(&common.hub, common.json)?);
    let loading = |incoming: Rc<Incoming>| async move {
        let checkpoint = Checkpoint::open(incoming.sources().await?).await?;
        incoming.seal();
        start(checkpoint, common).await
    };
    hub.pull_while(&common.model, &call, loading).await.map(|(_, engine)| engine)
}

async fn start(checkpoint: Checkpoint, common: &Common) -> Result<Engine> {
    Engine::load(checkpoint, &options(common), environment(&common.hub), &mut |_| Ok(())).await
}

/// Loads the adapter that the flags name, from a hub under the same flags as the model, and says how to ask for it.
pub(crate) async fn adapter(engine: &Engine, common: &Common, args: &AdapterArgs) -> Result<Option<AdapterChoice>> {
    let Some(given) = &args.adapter else { return Ok(None) };
    let (path, scale) = path_and_scale(given);
    let sources = match hub::is_meant(path, &common.hub) {
        true => hub::open(&common.hub)?.pull(path, &hub::call(&common.hub, common.json)?).await?.sources,
        false => source::open(path)?,
    };
    let adapter = Checkpoint::open_adapter(sources).await?;
    let info = engine.load_adapter(&adapter, Some(path), &|| false).await?;
    Ok(Some(AdapterChoice::Scaled(ScaledAdapter { name: info.name, scale })))
}

/// What stands after the last colon, if it is a number, is the scale.
fn path_and_scale(given: &str) -> (&str, Option<f64>) {
    let scaled = given.rsplit_once(':').and_then(|(path, scale)| Some((path, Some(scale.parse().ok()?))));
    scaled.unwrap_or((given, None))
}

/// What was measured of this machine, in a file beside the models that are kept; nothing depends on it.
struct KeptFile(Option<PathBuf>);

impl Kept for KeptFile {
    fn read(&self) -> LocalFuture<'_, Option<String>> {
        let text = self.0.as_ref().and_then(|path| std::fs::read_to_string(path).ok());
        Box::pin(async { text })
    }

    fn write(&self, text: String) -> LocalFuture<'_, ()> {
        if let Some(path) = &self.0 {
            // Renamed, so that nobody reads half of it; where it cannot be kept, the next load measures again.
            let part = path.with_extension(format!("{}.part", std::process::id()));
            let written = path.parent().is_none_or(|folder| std::fs::create_dir_all(folder).is_ok())
                && std::fs::write(&part, text).is_ok()
                && std::fs::rename(&part, path).is_ok();
            log::debug!("{}: kept: {written}", path.display());
        }
        Box::pin(async {})
    }
}

fn environment(args: &HubArgs) -> Environment {
    Environment {
        now_secs: Box::new(|| SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())),
        // The standard library seeds its hash maps from the system's randomness.
        seed: Box::new(|| RandomState::new().hash_one(0) as u32),
        yield_now: Box::new(|| Box::pin(async {})),
        grammars: Box::<headwater::sample::NativeGrammars>::default(),
        kept: Box::new(KeptFile(hub::folder(args).ok().map(|folder| folder.join("kernels.json")))),
    }
}

#[cfg(test)]
mod tests {
    use super::path_and_scale;

    #[test]
    fn a_number_after_the_last_colon_is_the_scale() {
        assert_eq!(path_and_scale("my-lora"), ("my-lora", None));
        assert_eq!(path_and_scale("my-lora:0.5"), ("my-lora", Some(0.5)));
        assert_eq!(path_and_scale("a:b.gguf:-1"), ("a:b.gguf", Some(-1.0)));
        assert_eq!(path_and_scale("C:\\lora"), ("C:\\lora", None));
    }
}
