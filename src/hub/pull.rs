//! From a reference to files that may be used: kept ones without a request, or found, judged, fetched, verified and kept.

use std::future::Future;
use std::rc::Rc;

use super::address::Address;
use super::bases;
use super::blob::kept;
use super::call::{Call, Found, Pulled};
use super::client::Client;
use super::edge::{Edge, Guard, Store, Transport};
use super::incoming::Incoming;
use super::keep::{repo_files, unvouched};
use super::license::License;
use super::lock::{Lock, LockedFile, LockedModel, key};
use super::manifest::{Expected, RepoFile, hub_of, resolve};
use super::meter::{Meter, Phase, Progress};
use super::pick::choose;
use super::policy::Verdict;
use super::reference::{Pick, Reference};
use super::shelf::{KeptModel, Record, Shelf, blob_name, folder, pick_text};
use super::source::RemoteSource;
use super::transfer::{Job, Transfer};
use super::wait::{Patience, both};
use crate::error::{At, Error, ErrorKind, Result};
use crate::format::Checkpoint;
use crate::source::Source;

/// Silence after which a connection is given up.
pub const STALL_SECS: f64 = 30.0;
/// How often a busy store is looked at.
const LOOK_SECS: f64 = 0.25;
/// How long another tab or process may hold a model without getting any further.
const BUSY_SECS: f64 = 30.0;

/// The hub, between the traits of an edge.
#[derive(Clone)]
pub struct Hub {
    transport: Rc<dyn Transport>,
    edge: Rc<dyn Edge>,
    /// What is kept.
    pub shelf: Shelf,
}

impl Hub {
    /// A hub over the edge's own transport, store and clock.
    pub fn new(transport: Rc<dyn Transport>, store: Rc<dyn Store>, edge: Rc<dyn Edge>) -> Self {
        Self { transport, edge, shelf: Shelf::new(store) }
    }

    fn patience(&self, call: &Call) -> Patience {
        Patience { edge: Rc::clone(&self.edge), aborted: Rc::clone(&call.aborted), stall_secs: STALL_SECS }
    }

    pub(super) fn client(&self, hub: Address, call: &Call) -> Result<Client> {
        Client::new(Rc::clone(&self.transport), hub, call.token.clone(), &call.policy.hosts, self.patience(call))
    }

    /// A model's files, from the store without a request where they are kept, else fetched.
    pub async fn pull(&self, text: &str, call: &Call) -> Result<Pulled> {
        self.pull_into(text, call, None).await
    }

    /// The same, with `work` on the files while they come: see [`Incoming`]. The transfer goes on where the work fails; what
    /// either fails with is given, the transfer's error first. Work that began on other bytes than were verified, or that failed
    /// over headers that were not verified yet, is done again on the kept files.
    pub async fn pull_while<T, W: Future<Output = Result<T>>>(
        &self,
        text: &str,
        call: &Call,
        work: impl Fn(Rc<Incoming>) -> W,
    ) -> Result<(Pulled, T)> {
        let incoming = Rc::new(Incoming::default());
        let transfer = async {
            let pulled = self.pull_into(text, call, Some(&incoming)).await;
            incoming.end(pulled.as_ref().ok().map(|pulled| pulled.sources.as_slice()));
            pulled
        };
        let (pulled, done) = both(transfer, work(Rc::clone(&incoming))).await;
        let pulled = pulled?;
        if !(done.is_err() && incoming.failed_early()) && incoming.proves_right().await? {
            return Ok((pulled, done?));
        }
        // Freed before the same is made again.
        drop(done);
        let kept = Rc::new(Incoming::default());
        kept.end(Some(&pulled.sources));
        let done = work(kept).await?;
        Ok((pulled, done))
    }

    async fn pull_into(&self, text: &str, call: &Call, incoming: Option<&Incoming>) -> Result<Pulled> {
        let reference = Reference::parse(text)?;
        let hub = hub_of(&reference, call.endpoint.as_deref())?;
        let locked = call.lock.as_ref().map(|lock| lock.model(&reference)).transpose()?;
        if !call.refresh || call.offline {
            match self.pull_kept(&hub, &reference, locked, call).await {
                Ok(Some(pulled)) => return Ok(pulled),
                Err(error) if error.kind() == ErrorKind::StorageLost && !call.offline => {
                    (call.on_progress)(&Progress { phase: Phase::Lost, file: error.place(), ..nothing_yet() });
                }
                Err(error) => return Err(error),
                Ok(None) => {}
            }
        }
        if call.offline {
            let words = "it is not stored here, and no request is to be made (offline)";
            return Err(Error::new(ErrorKind::NotFound, words).at(reference.to_text()));
        }
        (call.on_progress)(&nothing_yet());
        let client = self.client(hub, call)?;
        let found = self.find_with(Rc::new(client), &reference, locked, call).await?;
        call.policy.check_files(&found.files).at(|| reference.to_text())?;
        self.agree(&found.license, call).await.at(|| reference.to_text())?;
        self.bring(&reference, found, call, &[], incoming).await
    }

    /// Looks at what a reference means, reading headers at most.
    pub async fn find(&self, text: &str, call: &Call) -> Result<Found> {
        let reference = Reference::parse(text)?;
        let hub = hub_of(&reference, call.endpoint.as_deref())?;
        let locked = call.lock.as_ref().map(|lock| lock.model(&reference)).transpose()?;
        self.find_with(Rc::new(self.client(hub, call)?), &reference, locked, call).await
    }

    pub(super) async fn find_with(
        &self,
        client: Rc<Client>,
        reference: &Reference,
        locked: Option<&LockedModel>,
        call: &Call,
    ) -> Result<Found> {
        let commit =
            locked.filter(|_| matches!(reference, Reference::Repo { .. })).map(|locked| locked.commit.as_str());
        let manifest = resolve(&client, reference, commit).await.at(|| reference.to_text())?;
        let mut files = choose(&manifest, pick_of(reference))?;
        if let Some(locked) = locked {
            files = locked.apply(files).at(|| reference.to_text())?;
        }
        let source = |file: &RepoFile| Rc::new(RemoteSource::new(Rc::clone(&client), file.clone())) as Rc<dyn Source>;
        let sources: Vec<Rc<dyn Source>> = files.iter().map(source).collect();
        let mut license = License::of_manifest(&manifest);
        let untold = license.id.is_none() || (call.policy.checks_bases() && license.base_models.is_empty());
        if untold && files.iter().all(|file| file.path.to_ascii_lowercase().ends_with(".gguf")) {
            let header = Checkpoint::look(sources.clone()).await?;
            license = license.or(License::of_metadata(&header.metadata)?);
        }
        if call.policy.checks_bases() {
            bases::look_up(&client, &mut license).await.at(|| reference.to_text())?;
        }
        Ok(Found { manifest, license, files, sources, client, reference: reference.clone() })
    }

    /// Fails with `PolicyRefused` unless the policy and, where it is asked, the user agree.
    pub(super) async fn agree(&self, license: &License, call: &Call) -> Result<()> {
        let refused = |words: String| Err(Error::new(ErrorKind::PolicyRefused, words));
        let why = match call.policy.judge(license) {
            Verdict::Denied(why) => return refused(format!("the policy does not allow this model: {why}")),
            Verdict::Allowed => None,
            Verdict::Ask(why) => Some(why),
        };
        match (&call.consent, why) {
            (None, None) => Ok(()),
            (None, Some(why)) => refused(format!("the policy wants consent, and there is no one to ask: {why}")),
            (Some(consent), why) => match consent(license.clone(), why.unwrap_or_default()).await? {
                true => Ok(()),
                false => refused("the licence was not accepted".to_owned()),
            },
        }
    }

    /// A kept model, judged again: policies and locks change. Nothing is asked of anyone.
    async fn pull_kept(
        &self,
        hub: &Address,
        reference: &Reference,
        locked: Option<&LockedModel>,
        call: &Call,
    ) -> Result<Option<Pulled>> {
        let commit =
            locked.filter(|_| matches!(reference, Reference::Repo { .. })).map(|locked| locked.commit.as_str());
        let Some(record) = self.shelf.find(hub, reference, commit).await? else { return Ok(None) };
        let license = record.model.license.as_ref().map(License::from).unwrap_or_default();
        let unasked = call.policy.checks_bases() && !license.base_models.is_empty() && license.bases.is_empty();
        if unasked && !call.offline {
            return Ok(None);
        }
        if let Verdict::Denied(why) = call.policy.judge(&license) {
            let words = format!("the policy does not allow this model: {why}");
            return Err(Error::new(ErrorKind::PolicyRefused, words).at(reference.to_text()));
        }
        let files = repo_files(&record.model, hub);
        call.policy.check_files(&unvouched(&record.model, files.clone())).at(|| reference.to_text())?;
        if let Some(locked) = locked {
            locked.apply(files).at(|| reference.to_text())?;
        }
        let sources = self.shelf.open(&record).await?;
        self.shelf.touch(&record, self.edge.now_secs()).await?;
        let model = record.model.clone();
        Ok(Some(Pulled { model, license, sources, hosts: Vec::new(), fetched_bytes: 0, record }))
    }

    /// Brings the files into the store and says that the model is there. `from` are files that are taken in place of the
    /// network's.
    pub(super) async fn bring(
        &self,
        reference: &Reference,
        found: Found,
        call: &Call,
        from: &[Rc<dyn Source>],
        incoming: Option<&Incoming>,
    ) -> Result<Pulled> {
        let Found { manifest, license, files, client, sources, .. } = found;
        let patience = self.patience(call);
        let meter = Meter::new(patience.clone(), Rc::clone(&call.on_progress));
        let folder = folder(&manifest.hub, &manifest.repo);
        let _guard = self.take_turn(&folder, &patience, &meter).await?;
        self.shelf.migrate().await?;
        let remote = sources.into_iter().map(Some).chain(std::iter::repeat(None));
        let announced: Vec<_> = files.iter().cloned().zip(remote).collect();
        let arriving = incoming.map(|incoming| incoming.announce(&announced)).unwrap_or_default();
        let mut arriving = arriving.into_iter();
        let jobs = files.into_iter().map(|file| {
            let source = given(from, &file);
            if source.is_none() && !from.is_empty() {
                let words = "this file of the model is not among those given";
                return Err(Error::new(ErrorKind::NotFound, words).at(file.path));
            }
            Ok(Job { blob: blob_name(&folder, &file), file, from: source, arriving: arriving.next() })
        });
        let jobs = jobs.collect::<Result<Vec<Job>>>()?;
        meter.set_total(jobs.iter().fold(0, |sum: u64, job| sum.saturating_add(job.file.size_bytes)));
        self.check_room(jobs.iter().map(|job| (job.blob.as_str(), &job.file))).await?;
        let transfer = Transfer { client: &client, store: self.shelf.store.as_ref(), meter: &meter };
        let brought = transfer.run(&jobs).await?;
        let locked = |(job, kept): (&Job, super::blob::Kept)| LockedFile {
            path: job.file.path.clone(),
            size_bytes: job.file.size_bytes,
            sha256: kept.sha256,
        };
        let unknown = jobs.iter().filter(|job| matches!(job.file.expected, Expected::Unknown(_)));
        let record = Record {
            model: KeptModel {
                reference: key(reference),
                hub: manifest.hub.clone(),
                repo: manifest.repo.clone(),
                revision: manifest.revision.clone(),
                commit: manifest.commit.clone(),
                unverified: unknown.map(|job| job.file.path.clone()).collect(),
                files: jobs.iter().zip(brought).map(locked).collect(),
                license: (license.id.is_some() || !license.base_models.is_empty()).then(|| (&license).into()),
                template_hash: None,
                hosts: client.hosts(),
                stored_at: self.edge.now_secs(),
            },
            pick: pick_text(pick_of(reference)),
            blobs: jobs.iter().map(|job| job.blob.clone()).collect(),
            folder,
        };
        // Found again before it is said to be there: what was cleared behind our back is not stored.
        let sources = self.shelf.open(&record).await?;
        self.shelf.commit(&record).await?;
        self.shelf.touch(&record, self.edge.now_secs()).await?;
        let (model, hosts, fetched_bytes) = (record.model.clone(), client.hosts(), meter.fetched_bytes());
        Ok(Pulled { model, license, sources, hosts, fetched_bytes, record })
    }

    /// Waits until no other tab or process is at this repository. What it fetched meanwhile need not be fetched again.
    async fn take_turn(&self, folder: &str, patience: &Patience, meter: &Meter) -> Result<Box<dyn Guard>> {
        let mut still_secs = 0.0;
        let mut seen = 0;
        loop {
            if let Some(guard) = self.shelf.store.try_lock(folder).await? {
                return Ok(guard);
            }
            let now = self.written(folder).await;
            still_secs = if now == seen { still_secs + LOOK_SECS } else { 0.0 };
            seen = now;
            if still_secs > BUSY_SECS {
                let words = format!(
                    "another tab or process has this model and does not get further for {BUSY_SECS} seconds; close it"
                );
                return Err(Error::new(ErrorKind::StorageBusy, words));
            }
            meter.tell(Phase::Wait, "", 0, 0);
            patience.sleep(LOOK_SECS).await?;
        }
    }

    /// Something that grows while somebody writes; what cannot be read now tells nothing.
    async fn written(&self, folder: &str) -> u64 {
        let mut sum = 0_u64;
        for name in self.shelf.store.list(&format!("{folder}/blobs/")).await.unwrap_or_default() {
            if let Ok(Some(file)) = self.shelf.store.read(&name).await {
                sum = sum.saturating_add(file.size_bytes().await.unwrap_or_default());
                // Its reader could only be told what it already knows.
                file.close().await.ok();
            }
        }
        sum
    }

    /// Fails with `QuotaExceeded` where the store does not take what was found, tried so far as that can be done beforehand.
    pub async fn check_room_for(&self, found: &Found) -> Result<()> {
        let folder = folder(&found.manifest.hub, &found.manifest.repo);
        let named: Vec<_> = found.files.iter().map(|file| (blob_name(&folder, file), file)).collect();
        self.check_room(named.iter().map(|(blob, file)| (blob.as_str(), *file))).await
    }

    /// Fails with `QuotaExceeded` before the first byte where what is missing cannot be kept.
    async fn check_room(&self, files: impl Iterator<Item = (&str, &RepoFile)>) -> Result<()> {
        let store = self.shelf.store.as_ref();
        let mut missing = 0_u64;
        for (blob, file) in files {
            if kept(store, blob, file).await?.is_some() {
                continue;
            }
            let begun = match store.read(blob).await? {
                Some(data) => {
                    let size = data.size_bytes().await;
                    data.close().await?;
                    size?
                }
                None => 0,
            };
            missing = missing.saturating_add(file.size_bytes.saturating_sub(begun));
        }
        if missing > 0 { store.check_room(missing).await } else { Ok(()) }
    }

    /// Notes the hash of a model's chat template, which is known once it was opened; fails with `IntegrityMismatch` where
    /// the lock file has another one.
    pub async fn note_template(&self, pulled: &mut Pulled, hash: Option<&str>, call: &Call) -> Result<()> {
        if let Some(lock) = &call.lock {
            let locked = lock.models.iter().find(|locked| locked.reference == pulled.model.reference);
            if let Some(wanted) = locked.and_then(|locked| locked.template_hash.as_deref())
                && hash != Some(wanted)
            {
                let found = hash.unwrap_or("none");
                let words = format!("the lock file has a chat template of hash {wanted}, the model has {found}");
                return Err(Error::new(ErrorKind::IntegrityMismatch, words).at(pulled.model.reference.as_str()));
            }
        }
        if pulled.model.template_hash.as_deref() != hash {
            pulled.record.model.template_hash = hash.map(str::to_owned);
            pulled.model.template_hash.clone_from(&pulled.record.model.template_hash);
            self.shelf.commit(&pulled.record).await?;
        }
        Ok(())
    }

    /// Frees what a reference has kept; gives the bytes.
    pub async fn remove(&self, text: &str, endpoint: Option<&str>) -> Result<u64> {
        let reference = Reference::parse(text)?;
        self.shelf.remove(&hub_of(&reference, endpoint)?, &reference).await
    }

    /// A lock file of everything that is kept.
    pub async fn lock(&self) -> Result<Lock> {
        let mut lock = Lock::default();
        // The last used first: where two commits of one model are kept, the other one is the older.
        for listed in self.shelf.list().await? {
            if lock.models.iter().all(|locked| locked.reference != listed.model.reference) {
                lock.add(LockedModel::from(&listed.model))?;
            }
        }
        Ok(lock)
    }
}

fn nothing_yet() -> Progress {
    Progress {
        phase: Phase::Resolve,
        file: String::new(),
        file_loaded_bytes: 0,
        file_total_bytes: 0,
        loaded_bytes: 0,
        total_bytes: 0,
        bytes_per_second: 0.0,
        eta_secs: None,
    }
}

fn pick_of(reference: &Reference) -> &Pick {
    match reference {
        Reference::Repo { pick, .. } => pick,
        Reference::Folder(_) | Reference::File(_) => &Pick::Any,
    }
}

/// The one of the given files that is meant by a file: by its path, by its name in a store, whose folders may be given, or by the
/// last part of its path.
fn given(from: &[Rc<dyn Source>], file: &RepoFile) -> Option<Rc<dyn Source>> {
    let base = |path: &str| path.rsplit(['/', '\\']).next().unwrap_or_default().to_owned();
    let by = |is_meant: &dyn Fn(&str) -> bool| from.iter().find(|source| is_meant(source.name())).cloned();
    let kept = base(&blob_name("", file));
    by(&|name| name == file.path)
        .or_else(|| by(&|name| base(name) == kept))
        .or_else(|| by(&|name| base(name) == base(&file.path)))
}
