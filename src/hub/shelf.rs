//! What is kept, and where in the store: `v1/<hub>/<repository>/blobs/<hash>` with a log beside each, shared by all models
//! and commits of a repository, and `.../models/<id>.json`, written last, which says that a model is whole.

use std::collections::BTreeSet;
use std::rc::Rc;

use serde::{Deserialize, Serialize};

use super::address::Address;
use super::edge::Store;
use super::journal::log_name;
use super::lock::{LockedFile, LockedLicense};
use super::manifest::{Expected, RepoFile};
use super::reference::{Pick, Reference};
use super::source::open_kept;
use crate::digest::sha256_hex;
use crate::error::{Error, ErrorKind, Result};
use crate::source::Source;

/// The layout's own part of every name; another layout has another one.
const LAYOUT: &str = "v1/";
const LAYOUT_NUMBER: u32 = 1;
/// Longest record that is read.
const MAX_RECORD_BYTES: u64 = 16 << 20;
/// Longest part of a name that is made of an address.
const MAX_PART_BYTES: usize = 120;

/// A model that is kept whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeptModel {
    /// The reference, without a revision.
    pub reference: String,
    /// The hub.
    pub hub: String,
    /// `owner/name`, or the path of a plain address.
    pub repo: String,
    /// What was asked for: a branch, tag or commit.
    pub revision: Option<String>,
    /// The commit.
    pub commit: String,
    /// Its files.
    pub files: Vec<LockedFile>,
    /// Files whose content nobody vouched for beforehand.
    pub unverified: Vec<String>,
    /// Its licence.
    pub license: Option<LockedLicense>,
    /// The hash of its chat template, once a load told it.
    pub template_hash: Option<String>,
    /// Hosts that were asked for it.
    pub hosts: Vec<String>,
    /// When it was stored, in seconds since 1970.
    pub stored_at: f64,
}

impl KeptModel {
    /// Its size.
    pub fn size_bytes(&self) -> u64 {
        self.files.iter().fold(0, |sum: u64, file| sum.saturating_add(file.size_bytes))
    }
}

/// A kept model as a list shows it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Listed {
    /// What it is.
    #[serde(flatten)]
    pub model: KeptModel,
    /// Its size.
    pub size_bytes: u64,
    /// When it was last loaded, in seconds since 1970.
    pub used_at: Option<f64>,
}

/// The room that is taken.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Usage {
    /// Whole models.
    pub models: usize,
    /// Bytes of their files, counted once where models share them.
    pub model_bytes: u64,
    /// Bytes of what was begun and not finished.
    pub partial_bytes: u64,
}

/// When a model was last used.
#[derive(Serialize, Deserialize)]
struct Used {
    at: f64,
}

/// The store with its layout.
#[derive(Clone)]
pub struct Shelf {
    pub(super) store: Rc<dyn Store>,
}

/// The folder of a repository.
pub(super) fn folder(hub: &str, repo: &str) -> String {
    let host = hub.split_once("://").map_or(hub, |(_, host)| host);
    format!("{LAYOUT}{}/{}", part(host.trim_end_matches('/')), part(repo))
}

/// Any text as one part of a name; long ones end in their hash.
fn part(text: &str) -> String {
    let mut part = String::new();
    for byte in text.bytes() {
        match byte {
            b'.' if part.is_empty() => part.push_str("_2E"),
            _ if byte.is_ascii_alphanumeric() || b"-.".contains(&byte) => part.push(char::from(byte)),
            _ => part.push_str(&format!("_{byte:02X}")),
        }
    }
    if part.is_empty() || part.len() > MAX_PART_BYTES {
        part.truncate(MAX_PART_BYTES / 2);
        part.push_str("_-");
        part.extend(sha256_hex(text.as_bytes()).chars().take(32));
    }
    part
}

/// The name of a file's content: files of the same content have the same one, whatever commit or model they are of.
pub(super) fn blob_name(folder: &str, file: &RepoFile) -> String {
    let key = match &file.expected {
        Expected::Sha256(hash) => format!("sha256-{hash}"),
        Expected::GitBlob(hash) => format!("git-{hash}"),
        Expected::Unknown(mark) => {
            let all = format!("{}\n{}\n{}", file.address.shown(), file.size_bytes, mark.as_deref().unwrap_or_default());
            format!("plain-{}", sha256_hex(all.as_bytes()))
        }
    };
    format!("{folder}/blobs/{key}")
}

impl Shelf {
    /// A shelf in a store.
    pub fn new(store: Rc<dyn Store>) -> Self {
        Self { store }
    }

    /// Everything that is kept whole, the last used first. Records that are torn or not understood are no models.
    pub async fn list(&self) -> Result<Vec<Listed>> {
        let mut listed = Vec::new();
        for name in self.store.list(LAYOUT).await? {
            let Some((folder, file)) = name.rsplit_once("/models/") else { continue };
            let Some(record) = self.record(&name).await? else { continue };
            let used: Option<Used> = self.read_json(&format!("{folder}/used/{file}")).await?;
            let (size_bytes, model) = (record.model.size_bytes(), record.model);
            listed.push(Listed { model, size_bytes, used_at: used.map(|used| used.at) });
        }
        let when = |one: &Listed| one.used_at.unwrap_or(one.model.stored_at);
        listed.sort_by(|a, b| when(b).total_cmp(&when(a)));
        Ok(listed)
    }

    /// How much room is taken.
    pub async fn usage(&self) -> Result<Usage> {
        let mut usage = Usage::default();
        let names = self.store.list(LAYOUT).await?;
        let mut whole = BTreeSet::new();
        for name in names.iter().filter(|name| name.contains("/models/")) {
            if let Some(record) = self.record(name).await? {
                usage.models = usage.models.saturating_add(1);
                whole.extend(record.blobs);
            }
        }
        for name in names.iter().filter(|name| name.contains("/blobs/") && !name.ends_with(".log")) {
            let Some(data) = self.store.read(name).await? else { continue };
            let size = data.size_bytes().await;
            data.close().await?;
            let bytes = if whole.contains(name) { &mut usage.model_bytes } else { &mut usage.partial_bytes };
            *bytes = bytes.saturating_add(size?);
        }
        Ok(usage)
    }

    /// The kept model of a reference at a hub, of whatever revision was last stored where the reference names none.
    pub(super) async fn find(
        &self,
        hub: &Address,
        reference: &Reference,
        commit: Option<&str>,
    ) -> Result<Option<Record>> {
        let (repo, revision, pick) = match reference {
            Reference::Repo { repo, revision, pick, .. } => (repo.clone(), revision.as_deref(), pick.clone()),
            Reference::Folder(address) | Reference::File(address) => {
                (address.path().trim_matches('/').to_owned(), None, Pick::Any)
            }
        };
        let hub = hub.to_url();
        let folder = folder(&hub, &repo);
        let mut found: Option<Record> = None;
        for name in self.store.list(&format!("{folder}/models/")).await? {
            let Some(record) = self.record(&name).await? else { continue };
            let wanted = match (commit, revision) {
                (Some(commit), _) => record.model.commit.eq_ignore_ascii_case(commit),
                (None, None) => true,
                (None, Some(revision)) => {
                    record.model.revision.as_deref() == Some(revision)
                        || record.model.commit.eq_ignore_ascii_case(revision)
                }
            };
            let newer = found.as_ref().is_none_or(|last| last.model.stored_at <= record.model.stored_at);
            if wanted && newer && record.pick == pick_text(&pick) {
                found = Some(record);
            }
        }
        Ok(found)
    }

    /// Says that a model is whole. Nothing else says so.
    pub(super) async fn commit(&self, record: &Record) -> Result<()> {
        let name = format!("{}/models/{}.json", record.folder, record.id());
        self.write_json(&name, record).await
    }

    /// Notes that a model was used now.
    pub(super) async fn touch(&self, record: &Record, now_secs: f64) -> Result<()> {
        self.write_json(&format!("{}/used/{}.json", record.folder, record.id()), &Used { at: now_secs }).await
    }

    /// The files of a kept model, to be read. Fails with `StorageLost` where they are not there any more.
    pub(super) async fn open(&self, record: &Record) -> Result<Vec<Rc<dyn Source>>> {
        let mut sources: Vec<Rc<dyn Source>> = Vec::new();
        for (file, blob) in record.model.files.iter().zip(&record.blobs) {
            let name = (file.path.as_str(), file.size_bytes);
            sources.push(open_kept(self.store.as_ref(), blob, name, Some(&file.sha256)).await?);
        }
        Ok(sources)
    }

    /// Removes the models of a repository that fit a reference, and every file that no other model needs. Gives the bytes
    /// that were freed.
    pub async fn remove(&self, hub: &Address, reference: &Reference) -> Result<u64> {
        let mut freed = 0_u64;
        while let Some(record) = self.find(hub, reference, None).await? {
            // First the record: what it named is garbage from then on, whatever happens next.
            self.store.remove(&format!("{}/models/{}.json", record.folder, record.id())).await?;
            self.store.remove(&format!("{}/used/{}.json", record.folder, record.id())).await?;
            freed = freed.saturating_add(self.sweep(&record.folder).await?);
        }
        Ok(freed)
    }

    /// Removes everything, also what was begun, and what an older layout left.
    pub async fn clear(&self) -> Result<()> {
        let names = self.store.list("").await?;
        let (records, rest): (Vec<_>, Vec<_>) = names.into_iter().partition(|name| name.contains("/models/"));
        let (logs, data): (Vec<_>, Vec<_>) = rest.into_iter().partition(|name| name.ends_with(".log"));
        for name in records.iter().chain(&logs).chain(&data) {
            self.store.remove(name).await?;
        }
        Ok(())
    }

    /// Removes what no model of a repository needs: a file's log first, so that nothing says that it is there.
    pub(super) async fn sweep(&self, folder: &str) -> Result<u64> {
        let mut needed = BTreeSet::new();
        for name in self.store.list(&format!("{folder}/models/")).await? {
            needed.extend(self.record(&name).await?.into_iter().flat_map(|record| record.blobs));
        }
        let mut freed = 0_u64;
        for name in self.store.list(&format!("{folder}/blobs/")).await? {
            let data_name = name.strip_suffix(".log").unwrap_or(&name);
            if needed.contains(data_name) || name != data_name {
                continue;
            }
            if let Some(data) = self.store.read(&name).await? {
                let size = data.size_bytes().await;
                data.close().await?;
                freed = freed.saturating_add(size?);
            }
            self.store.remove(&log_name(&name)).await?;
            self.store.remove(&name).await?;
        }
        Ok(freed)
    }

    /// Removes what older layouts left behind, and gives how many files that were: none of them had files that could be
    /// taken over. A newer layout belongs to a newer version in another tab and is left alone.
    pub async fn migrate(&self) -> Result<usize> {
        let older = |name: &String| {
            let number = name.split('/').next().and_then(|layout| layout.strip_prefix('v')?.parse::<u32>().ok());
            number.is_some_and(|number| number < LAYOUT_NUMBER)
        };
        let names: Vec<String> = self.store.list("v").await?.into_iter().filter(older).collect();
        for name in &names {
            self.store.remove(name).await?;
        }
        Ok(names.len())
    }

    async fn record(&self, name: &str) -> Result<Option<Record>> {
        let record: Option<Record> = self.read_json(name).await?;
        Ok(record.filter(|record| record.model.files.len() == record.blobs.len() && name.starts_with(&record.folder)))
    }

    /// A small file as JSON; nothing where it is missing, torn or of another form.
    async fn read_json<T: for<'a> Deserialize<'a>>(&self, name: &str) -> Result<Option<T>> {
        let Some(file) = self.store.read(name).await? else { return Ok(None) };
        let size = file.size_bytes().await?;
        let len = usize::try_from(size.min(MAX_RECORD_BYTES)).unwrap_or_default();
        let bytes = file.read(0, len).await;
        file.close().await?;
        Ok(serde_json::from_slice(&bytes?).ok())
    }

    async fn write_json(&self, name: &str, value: &impl Serialize) -> Result<()> {
        let bytes = serde_json::to_vec(value).map_err(|error| Error::new(ErrorKind::Internal, error.to_string()))?;
        self.store.replace(name, &bytes).await
    }
}

/// What is written for a kept model.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Record {
    /// What it is.
    pub(super) model: KeptModel,
    /// The folder of its repository.
    pub(super) folder: String,
    /// Which of the repository's models it is.
    pub(super) pick: String,
    /// The names of its files' contents, in the order of the files.
    pub(super) blobs: Vec<String>,
}

impl Record {
    /// One for each commit and pick.
    fn id(&self) -> String {
        sha256_hex(format!("{}\n{}", self.model.commit, self.pick).as_bytes()).chars().take(32).collect()
    }
}

/// A pick as records have it; tags are the same in any case.
pub(super) fn pick_text(pick: &Pick) -> String {
    match pick {
        Pick::Any => String::new(),
        Pick::Tag(tag) => format!(":{}", tag.to_ascii_lowercase()),
        Pick::Path(path) => format!("/{path}"),
    }
}
