//! What a reference stands for: one commit, its files with their sizes and hashes, and what its card says.

use super::address::Address;
use super::card::{Card, Gate};
use super::client::Client;
use super::edge::ByteRange;
use super::reference::Reference;
use super::{api, plain};
use crate::error::{Error, ErrorKind, Result};

/// What is known of a file's content before it comes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// SHA-256 of the content, 64 hexadecimal digits.
    Sha256(String),
    /// Git's hash of it, 40 hexadecimal digits: SHA-1 of `blob`, its length and the content.
    GitBlob(String),
    /// Nothing but its size; the server's mark of this version (`ETag`), where it gives one.
    Unknown(Option<String>),
}

impl Expected {
    /// In one text: `sha256:...`, `git:...`, or `mark:` and the server's mark.
    pub fn to_text(&self) -> String {
        match self {
            Expected::Sha256(hash) => format!("sha256:{hash}"),
            Expected::GitBlob(hash) => format!("git:{hash}"),
            Expected::Unknown(mark) => format!("mark:{}", mark.as_deref().unwrap_or_default()),
        }
    }
}

/// One file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepoFile {
    /// Its path in the repository, checked to lead nowhere else.
    pub path: String,
    /// Its size.
    pub size_bytes: u64,
    /// What its content must be.
    pub expected: Expected,
    /// Where it is.
    pub address: Address,
}

/// A repository at one commit.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// The hub's origin; the server's for plain folders and files.
    pub hub: String,
    /// `owner/name`; the address's path for plain folders and files.
    pub repo: String,
    /// What was asked for: a branch, tag or commit; nothing for plain folders and files.
    pub revision: Option<String>,
    /// The commit, 40 hexadecimal digits. For plain folders and files it is made of their sizes and marks, so that another
    /// version has another one.
    pub commit: String,
    /// All files.
    pub files: Vec<RepoFile>,
    /// The model card's header.
    pub card: Card,
    /// Whether terms have to be accepted on the hub.
    pub gate: Gate,
}

impl Manifest {
    /// The file at a path.
    pub fn file(&self, path: &str) -> Option<&RepoFile> {
        self.files.iter().find(|file| file.path == path)
    }
}

/// The server that a reference leads to. `endpoint` is a mirror, and needed where the reference names no hub.
pub(super) fn hub_of(reference: &Reference, endpoint: Option<&str>) -> Result<Address> {
    match (reference, endpoint) {
        (Reference::Repo { .. }, Some(endpoint)) => Address::parse(endpoint),
        (Reference::Repo { names_hub: true, .. }, None) => Address::parse(super::DEFAULT_ENDPOINT),
        (Reference::Repo { .. }, None) => {
            let words = "which hub? write hf:owner/name, or give an endpoint";
            Err(Error::new(ErrorKind::InvalidArgument, words).at(reference.to_text()))
        }
        (Reference::Folder(address) | Reference::File(address), None) => Address::parse(&address.origin()),
        (Reference::Folder(_) | Reference::File(_), Some(_)) => {
            let words = "an address already says where the model is";
            Err(Error::new(ErrorKind::InvalidArgument, words).at("endpoint"))
        }
    }
}

/// Asks what a reference stands for; no file of weights is read. `commit` overrules the reference's revision (a lock).
pub async fn resolve(client: &Client, reference: &Reference, commit: Option<&str>) -> Result<Manifest> {
    match reference {
        Reference::Repo { repo, revision, .. } => {
            let revision = commit.or(revision.as_deref()).unwrap_or("main");
            api::resolve(client, repo, revision).await
        }
        Reference::Folder(address) => plain::folder(client, address).await,
        Reference::File(address) => plain::file(client, address).await,
    }
}

/// A probe of one byte, which tells a file's size without its content.
pub(super) const FIRST_BYTE: ByteRange = ByteRange { first: 0, last: 0 };
