//! `headwater pull`: brings a model into the store, judged and verified, and pins it in a lock file.

use headwater::engine::{self, LoadOptions};
use headwater::error::{Error, ErrorKind, Result};
use headwater::format::Checkpoint;
use headwater::hub::{Call, Lock, LockedModel, Pulled, Reference};
use serde_json::json;

use crate::args::PullArgs;
use crate::output::{print_json, print_line};
use crate::{hub, source};

pub(crate) async fn run(args: &PullArgs) -> Result<()> {
    let reference = Reference::parse(&args.reference)?;
    let pinned = match &args.hub.lock {
        Some(path) if path.exists() => hub::read_lock(path)?,
        _ => Lock::default(),
    };
    // A model that is pinned comes as it is pinned; another one is added to the file.
    let lock = pinned.model(&reference).is_ok().then(|| pinned.clone());
    let flags = crate::args::HubArgs { lock: None, ..args.hub.clone() };
    let call = Call { lock, refresh: true, ..hub::call(&flags, args.json)? };
    let hub = hub::open(&args.hub)?;
    let mut pulled = hub.pull(&args.reference, &call).await?;
    let (template, refused) = template_hash(&pulled).await;
    if refused.is_none() {
        hub.note_template(&mut pulled, template.as_deref(), &call).await?;
    }
    if let Some(path) = &args.hub.lock {
        let mut lock = pinned;
        lock.add(LockedModel::from(&pulled.model))?;
        std::fs::write(path, lock.to_json()?).map_err(|error| source::failed(path, error))?;
    }
    let told = refused.map(|error| format!("it is kept, but this version cannot run it: {error}"));
    report(args.json, &pulled, told)
}

/// The hash of the model's chat template; or why the model cannot be run, which is no reason not to keep it.
async fn template_hash(pulled: &Pulled) -> (Option<String>, Option<Error>) {
    match Checkpoint::open(pulled.sources.clone())
        .await
        .and_then(|checkpoint| engine::inspect(&checkpoint, &LoadOptions::default()))
    {
        Ok(info) => (info.template.map(|template| template.hash), None),
        Err(error) => (None, Some(error)),
    }
}

/// Tells what is kept now.
pub(crate) fn report(as_json: bool, pulled: &Pulled, warning: Option<String>) -> Result<()> {
    let (model, license) = (&pulled.model, &pulled.license);
    if as_json {
        let license =
            serde_json::to_value(license).map_err(|error| Error::new(ErrorKind::Internal, error.to_string()))?;
        return print_json(&json!({
            "reference": model.reference, "hub": model.hub, "repo": model.repo, "commit": model.commit,
            "files": model.files, "unverified": model.unverified, "license": license,
            "templateHash": model.template_hash, "fetchedBytes": pulled.fetched_bytes, "hosts": pulled.hosts,
            "warning": warning,
        }));
    }
    print_line(&format!("{} at {}", model.reference, model.commit))?;
    for file in &model.files {
        let vouched = if model.unverified.contains(&file.path) { " (nobody told it beforehand)" } else { "" };
        print_line(&format!("  {}  {:>12} bytes  {}{vouched}", file.sha256, file.size_bytes, file.path))?;
    }
    let name = license.name.as_deref().or(license.id.as_deref()).unwrap_or("not told");
    print_line(&format!("licence: {name}{}", license.link.as_ref().map_or(String::new(), |link| format!(", {link}"))))?;
    for obligation in &license.obligations {
        print_line(&format!("  asks for: {}", obligation.name()))?;
    }
    if let Some(text) = &license.attribution {
        print_line(&format!("  to be shown: {text}"))?;
    }
    print_line(&format!("{} bytes fetched", pulled.fetched_bytes))?;
    warning.map_or(Ok(()), |warning| print_line(&format!("note: {warning}")))
}
