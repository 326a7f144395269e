//! Kept models as locked ones and back, and their files as those of a repository.

use super::address::Address;
use super::lock::{LockedFile, LockedModel};
use super::manifest::{Expected, RepoFile};
use super::shelf::KeptModel;

/// The files of a kept or locked model, by the hashes that it has.
pub(super) fn repo_files(model: &KeptModel, hub: &Address) -> Vec<RepoFile> {
    let file = |file: &LockedFile| RepoFile {
        path: file.path.clone(),
        size_bytes: file.size_bytes,
        expected: Expected::Sha256(file.sha256.to_ascii_lowercase()),
        address: hub.clone(),
    };
    model.files.iter().map(file).collect()
}

/// The same, but what nobody vouched for when it came has no hash that a policy could ask for.
pub(super) fn unvouched(model: &KeptModel, mut files: Vec<RepoFile>) -> Vec<RepoFile> {
    for file in files.iter_mut().filter(|file| model.unverified.contains(&file.path)) {
        file.expected = Expected::Unknown(None);
    }
    files
}

impl From<&LockedModel> for KeptModel {
    fn from(locked: &LockedModel) -> Self {
        let LockedModel { reference, hub, repo, commit, files, license, template_hash } = locked.clone();
        let (revision, unverified, hosts) = (None, Vec::new(), Vec::new());
        Self {
            reference,
            hub,
            repo,
            revision,
            commit,
            files,
            unverified,
            license,
            template_hash,
            hosts,
            stored_at: 0.0,
        }
    }
}

impl From<&KeptModel> for LockedModel {
    fn from(kept: &KeptModel) -> Self {
        let KeptModel { reference, hub, repo, commit, files, license, template_hash, .. } = kept.clone();
        Self { reference, hub, repo, commit, files, license, template_hash }
    }
}
