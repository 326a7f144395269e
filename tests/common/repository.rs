//! What the hubs of the tests have and say, whether they answer in memory or over sockets: repositories, their commits,
//! listings and files, and parts of files.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use sha1::Sha1;
use sha2::{Digest, Sha256};

/// The files of a repository, by path.
pub(crate) type Files = BTreeMap<String, Vec<u8>>;
/// Files by repository.
pub(crate) type Repositories = BTreeMap<String, Files>;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// As `git hash-object` gives it.
pub(crate) fn git_hash(bytes: &[u8]) -> String {
    hex(&Sha1::digest([format!("blob {}\0", bytes.len()).as_bytes(), bytes].concat()))
}

/// Whether git has only a pointer to a file, whose content lies elsewhere.
pub(crate) fn is_large(path: &str) -> bool {
    path.ends_with(".gguf") || path.ends_with(".safetensors")
}

/// The commit of a repository: of its contents.
pub(crate) fn commit_of(files: &Files) -> String {
    let all: String = files.iter().map(|(path, bytes)| format!("{path} {}", sha256(bytes))).collect();
    sha256(all.as_bytes())[..40].to_owned()
}

/// The API's listing of a commit; large files are said to have so many bytes `more`.
pub(crate) fn listing(files: &Files, more: u64) -> Vec<Value> {
    let entry = |(path, bytes): (&String, &Vec<u8>)| match is_large(path) {
        true => {
            let size = bytes.len() as u64 + more;
            json!({"type": "file", "path": path, "size": size, "oid": "0".repeat(40),
                   "lfs": {"oid": sha256(bytes), "size": size, "pointerSize": 134}})
        }
        false => json!({"type": "file", "path": path, "size": bytes.len(), "oid": git_hash(bytes)}),
    };
    files.iter().map(entry).collect()
}

/// What is asked of the API.
pub(crate) struct Asked<'a> {
    pub(crate) repo: String,
    pub(crate) files: &'a Files,
    pub(crate) commit: String,
    /// The files of the commit, not the commit of a revision.
    pub(crate) listing: bool,
}

/// What is asked of `/api/models/<rest>`; the hub's code of what is not there.
pub(crate) fn asked<'a>(repositories: &'a Repositories, rest: &str) -> Result<Asked<'a>, &'static str> {
    let parts: Vec<&str> = rest.split('/').collect();
    let [owner, name, verb, revision] = parts.as_slice() else { return Err("EntryNotFound") };
    let repo = format!("{owner}/{name}");
    let files = repositories.get(&repo).ok_or("RepoNotFound")?;
    let (commit, listing) = (commit_of(files), *verb == "tree");
    if !listing && *revision != "main" && *revision != commit {
        return Err("RevisionNotFound");
    }
    Ok(Asked { repo, files, commit, listing })
}

/// The file of `/<repository>/resolve/<commit>/<path>`: its repository, its path, its bytes.
pub(crate) fn file_at<'a>(repositories: &'a Repositories, path: &str) -> Option<(&'a str, &'a str, &'a [u8])> {
    let (repo, rest) = path.strip_prefix('/')?.split_once("/resolve/")?;
    let (commit, file) = rest.split_once('/')?;
    let (repo, files) = repositories.get_key_value(repo).filter(|(_, files)| commit_of(files) == commit)?;
    files.get_key_value(file).map(|(file, bytes)| (repo.as_str(), file.as_str(), bytes.as_slice()))
}

/// The file whose SHA-256 stands in a path of the CDN.
pub(crate) fn content<'a>(repositories: &'a Repositories, path: &str) -> Option<&'a [u8]> {
    let mut all = repositories.values().flat_map(BTreeMap::values);
    all.find(|bytes| path == format!("/{}", sha256(bytes))).map(Vec::as_slice)
}

/// Bytes `first ..= last` of a body, with their `Content-Range`; nothing where they lie behind its end.
pub(crate) fn part(body: &[u8], (first, last): (u64, u64)) -> Option<(String, Vec<u8>)> {
    let total = body.len() as u64;
    let last = last.min(total.checked_sub(1)?);
    (first <= last).then(|| (format!("bytes {first}-{last}/{total}"), body[first as usize..=last as usize].to_vec()))
}
