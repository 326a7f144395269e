//! Adapters of a loaded model: several may be resident, a request chooses one of them and how much of it.

use std::cell::RefCell;
use std::rc::Rc;

use serde::{Deserialize, Serialize};

use super::identity::Identity;
use super::json::invalid;
use super::loaded::Loaded;
use crate::error::{At, Error, ErrorKind, Result};
use crate::format::Checkpoint;
use crate::graph::{AdapterId, AdapterUse, Backend, Delta};
use crate::model::{self, AdapterKind, Plan};
use crate::source::Source;

/// What adapters need of the model they change.
pub(super) struct Base {
    pub(super) plan: Plan,
    /// The model's files, which adapters of some kinds read again.
    pub(super) files: Vec<Rc<dyn Source>>,
}

/// A resident adapter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AdapterInfo {
    /// What requests call it.
    pub name: String,
    /// `lora` or `dora`.
    pub kind: String,
    /// The largest rank of its matrices.
    pub rank: usize,
    /// Matrices of the model that it changes.
    pub matrices: usize,
    /// Bytes of its numbers.
    pub size_bytes: u64,
    /// What its files say that it was made for.
    pub base_model: Option<String>,
    /// Of its settings and tensors, and of its files where their hashes were verified: SHA-256 in hexadecimal digits.
    pub hash: String,
}

/// The adapter of a request: its name, or its name and a scale.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "a name or an object { name, scale } is needed")]
pub enum AdapterChoice {
    /// As it was trained.
    Name(String),
    /// So much of it.
    Scaled(ScaledAdapter),
}

/// See [`AdapterChoice`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScaledAdapter {
    /// Its name.
    pub name: String,
    /// Factor on what it adds: 0 is the model alone, 1 (also when absent) the adapter as it was trained.
    pub scale: Option<f64>,
}

impl AdapterChoice {
    pub(super) fn parts(&self) -> (&str, f64) {
        match self {
            Self::Name(name) => (name, 1.0),
            Self::Scaled(ScaledAdapter { name, scale }) => (name, scale.unwrap_or(1.0)),
        }
    }
}

/// The resident adapters, in the order in which they were loaded.
#[derive(Default)]
pub(super) struct Adapters(RefCell<Vec<(AdapterId, AdapterInfo)>>);

impl Adapters {
    pub(super) fn list(&self) -> Vec<AdapterInfo> {
        self.0.borrow().iter().map(|(_, info)| info.clone()).collect()
    }

    /// See [`AdapterInfo::hash`].
    pub(super) fn hash(&self, name: &str) -> Result<String> {
        let id = self.find(name)?;
        let adapters = self.0.borrow();
        Ok(adapters.iter().find(|(own, _)| *own == id).map(|(_, info)| info.hash.clone()).unwrap_or_default())
    }

    fn find(&self, name: &str) -> Result<AdapterId> {
        let adapters = self.0.borrow();
        let found = adapters.iter().find(|(_, info)| info.name == name).map(|(id, _)| *id);
        found.ok_or_else(|| {
            let names: Vec<&str> = adapters.iter().map(|(_, info)| info.name.as_str()).collect();
            let there = if names.is_empty() { "none is loaded".to_owned() } else { format!("there are {names:?}") };
            Error::new(ErrorKind::NotFound, format!("no adapter is called {name:?}; {there}")).at("adapter")
        })
    }

    /// What a request asks for. A scale of 0 is the model alone, whose cache it shares.
    pub(super) fn chosen(&self, choice: Option<&AdapterChoice>) -> Result<Option<AdapterUse>> {
        let Some((name, scale)) = choice.map(AdapterChoice::parts) else { return Ok(None) };
        let id = self.find(name)?;
        let as_f32 = scale as f32;
        if !as_f32.is_finite() {
            return Err(invalid(format!("{scale} is no scale")).at("adapter"));
        }
        Ok((as_f32 != 0.0).then_some(AdapterUse { id, scale: as_f32 }))
    }

    fn check_free(&self, name: &str) -> Result<()> {
        match self.0.borrow().iter().any(|(_, info)| info.name == name) {
            true => Err(invalid(format!("an adapter called {name:?} is loaded already")).at("name")),
            false => Ok(()),
        }
    }
}

/// An adapter that is being loaded; let go of, it is removed.
struct Unfinished<'a> {
    backend: &'a dyn Backend,
    id: Option<AdapterId>,
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            // Nobody uses it yet, and the error that ended the load is the one to tell.
            self.backend.remove_adapter(id).ok();
        }
    }
}

/// Loads an adapter beside the model. `aborted` is asked between its matrices.
pub(super) async fn load(
    loaded: &Loaded,
    adapter: &Checkpoint,
    name: Option<&str>,
    aborted: &dyn Fn() -> bool,
) -> Result<AdapterInfo> {
    let Base { plan, files } = &loaded.base;
    let adapter_plan = model::plan_adapter(plan, adapter)?;
    let name = match name.or(adapter_plan.name.as_deref()) {
        Some("") => return Err(invalid("an empty name").at("name")),
        Some(name) => name.to_owned(),
        None => own_name(adapter),
    };
    loaded.adapters.check_free(&name)?;
    let backend = loaded.backend.as_ref();
    let id = backend.add_adapter(&adapter_plan.deltas).await?;
    let mut unfinished = Unfinished { backend, id: Some(id) };
    model::read_adapter(files, plan, adapter, &adapter_plan, &mut |index, values| {
        loaded.alive()?;
        if aborted() {
            return Err(Error::new(ErrorKind::Aborted, "the caller ended the load"));
        }
        backend.fill_adapter(id, index, values)
    })
    .await?;
    // Another of that name may have come in the meantime.
    loaded.adapters.check_free(&name)?;
    unfinished.id = None;
    let info = AdapterInfo {
        name,
        kind: match adapter_plan.kind {
            AdapterKind::Lora => "lora".to_owned(),
            AdapterKind::Dora => "dora".to_owned(),
        },
        rank: adapter_plan.rank(),
        matrices: adapter_plan.deltas.len(),
        size_bytes: adapter_plan.deltas.iter().map(|delta| size_bytes(plan, delta)).sum(),
        base_model: adapter_plan.base_model,
        hash: Identity::of(adapter)?.model,
    };
    loaded.adapters.0.borrow_mut().push((id, info.clone()));
    Ok(info)
}

/// Frees an adapter; the caller has its turn, so no reply is using it.
pub(super) fn unload(loaded: &Loaded, name: &str) -> Result<()> {
    let id = loaded.adapters.find(name)?;
    loaded.adapters.0.borrow_mut().retain(|(other, _)| *other != id);
    loaded.backend.remove_adapter(id).at(|| name.to_owned())
}

/// The folder of its files, or its file without the ending.
fn own_name(adapter: &Checkpoint) -> String {
    let file = adapter.files.first().map_or("adapter", |file| file.name());
    let parts: Vec<&str> = file.split(['/', '\\']).filter(|part| !part.is_empty()).collect();
    match parts.as_slice() {
        [.., folder, "adapter_model.safetensors"] => (*folder).to_owned(),
        ["adapter_model.safetensors"] => "adapter".to_owned(),
        [.., file] => file.rsplit_once('.').map_or(*file, |(stem, _)| stem).to_owned(),
        [] => "adapter".to_owned(),
    }
}

fn size_bytes(plan: &Plan, delta: &Delta) -> u64 {
    let Some(weight) = plan.graph.weights.get(delta.weight.0) else { return 0 };
    let [a, b] = delta.formats.map(|format| format.format().block_bytes as u64);
    let gains = if delta.gain { 4 * weight.rows as u64 } else { 0 };
    delta.rank as u64 * (a * weight.cols as u64 + b * weight.rows as u64) + gains
}
