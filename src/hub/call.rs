//! What is asked of the hub beside a reference, and what it gives.

use std::rc::Rc;

use super::client::{Client, Token};
use super::license::License;
use super::lock::Lock;
use super::manifest::{Manifest, RepoFile};
use super::meter::Listener;
use super::pick::others;
use super::policy::Policy;
use super::reference::{Pick, Reference};
use super::shelf::{KeptModel, Record};
use crate::error::Result;
use crate::source::{LocalFuture, Source};

/// Asks the user: the licence, and why it is asked. `true` lets the download begin.
pub type Consent = Rc<dyn Fn(License, String) -> LocalFuture<'static, Result<bool>>>;

/// What a caller asks for beside a reference.
#[derive(Clone)]
pub struct Call {
    /// A mirror with the hub's layout, in place of the default hub.
    pub endpoint: Option<String>,
    /// For the hub's own origin.
    pub token: Option<Token>,
    /// What is allowed.
    pub policy: Policy,
    /// Only these bytes.
    pub lock: Option<Lock>,
    /// No request at all.
    pub offline: bool,
    /// Ask the hub even where the model is kept, for a newer commit.
    pub refresh: bool,
    /// Asked before the first byte of weights; also decides what the policy leaves open.
    pub consent: Option<Consent>,
    /// Told how far it is.
    pub on_progress: Listener,
    /// Whether the caller gave up.
    pub aborted: Rc<dyn Fn() -> bool>,
}

impl Default for Call {
    fn default() -> Self {
        Self {
            endpoint: None,
            token: None,
            policy: Policy::default(),
            lock: None,
            offline: false,
            refresh: false,
            consent: None,
            on_progress: Rc::new(|_| {}),
            aborted: Rc::new(|| false),
        }
    }
}

/// A model whose files are kept and verified.
pub struct Pulled {
    /// What it is.
    pub model: KeptModel,
    /// Its licence.
    pub license: License,
    /// Its files.
    pub sources: Vec<Rc<dyn Source>>,
    /// Hosts that were asked just now; none where it was kept already.
    pub hosts: Vec<String>,
    /// Bytes that came from the network just now.
    pub fetched_bytes: u64,
    pub(super) record: Record,
}

impl Pulled {
    /// The names of its files' contents in the store, in the order of its files.
    pub fn stored_names(&self) -> &[String] {
        &self.record.blobs
    }
}

/// A model that was looked at and not fetched.
pub struct Found {
    /// The repository at its commit.
    pub manifest: Manifest,
    /// Its licence.
    pub license: License,
    /// The files that the reference means.
    pub files: Vec<RepoFile>,
    /// The same, read over the network as they are asked for.
    pub sources: Vec<Rc<dyn Source>>,
    /// Every request goes through it.
    pub(super) client: Rc<Client>,
    /// What was asked for.
    pub(super) reference: Reference,
}

impl Found {
    /// Bytes of its files.
    pub fn size_bytes(&self) -> u64 {
        self.files.iter().fold(0, |sum, file| sum.saturating_add(file.size_bytes))
    }

    /// References to the other GGUF models of the repository, each with the bytes of its files, the largest first.
    pub fn others(&self) -> Vec<(String, u64)> {
        let Reference::Repo { names_hub, repo, revision, .. } = &self.reference else { return Vec::new() };
        let named = |(path, bytes)| {
            let (repo, revision, pick) = (repo.clone(), revision.clone(), Pick::Path(path));
            (Reference::Repo { names_hub: *names_hub, repo, revision, pick }.to_text(), bytes)
        };
        others(&self.manifest, &self.files).into_iter().map(named).collect()
    }

    /// Hosts that were asked so far.
    pub fn hosts(&self) -> Vec<String> {
        self.client.hosts()
    }
}
