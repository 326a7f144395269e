//! The lock file, `headwater.lock.json`: which bytes a model is, so that only those are ever loaded.

use serde::{Deserialize, Serialize};

use super::api::is_hex;
use super::license::License;
use super::manifest::{Expected, RepoFile};
use super::reference::{Reference, check_path};
use crate::error::{At, Error, ErrorKind, Result};
use crate::format::json;

/// The version of the form.
const VERSION: u32 = 1;
/// Most models of a lock file.
const MAX_MODELS: usize = 1_000;
/// Longest lock file.
const MAX_BYTES: usize = 16 << 20;

/// The models that are locked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Lock {
    /// The version of the form.
    pub version: u32,
    /// Every model, by its reference.
    pub models: Vec<LockedModel>,
}

/// One model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LockedModel {
    /// The reference without a revision.
    pub reference: String,
    /// Where it was resolved. Another mirror may serve it.
    pub hub: String,
    /// `owner/name`, or the path of a plain address.
    pub repo: String,
    /// The commit.
    pub commit: String,
    /// Its files, by path.
    pub files: Vec<LockedFile>,
    /// Its licence when it was locked.
    pub license: Option<LockedLicense>,
    /// The hash of its chat template.
    pub template_hash: Option<String>,
}

/// One file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LockedFile {
    /// Its path in the repository.
    pub path: String,
    /// Its size.
    pub size_bytes: u64,
    /// SHA-256 of its content.
    pub sha256: String,
}

/// A licence, for the record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LockedLicense {
    /// Its identifier.
    pub id: Option<String>,
    /// Its name.
    pub name: Option<String>,
    /// Where its text is.
    pub link: Option<String>,
    /// The text to show.
    pub attribution: Option<String>,
    /// What the model was made from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub base_models: Vec<String>,
    /// How: `finetune`, `quantized`, `adapter`, `merge`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_relation: Option<String>,
    /// The licences of that, where they were asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bases: Vec<LockedBase>,
}

/// A model that another one was made from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LockedBase {
    /// `owner/name`.
    pub repo: String,
    /// Its licence.
    pub license: LockedLicense,
}

impl From<&License> for LockedLicense {
    fn from(license: &License) -> Self {
        let License { id, name, link, attribution, base_models, base_relation, bases, .. } = license.clone();
        let bases = bases.iter().map(|base| LockedBase { repo: base.repo.clone(), license: (&base.license).into() });
        Self { id, name, link, attribution, base_models, base_relation, bases: bases.collect() }
    }
}

impl Default for Lock {
    fn default() -> Self {
        Self { version: VERSION, models: Vec::new() }
    }
}

impl Lock {
    /// Reads a lock file. Fails with `InvalidArgument`.
    pub fn from_json(text: &str) -> Result<Lock> {
        let bad = |words: String| Error::new(ErrorKind::InvalidArgument, words).at("lock file");
        if text.len() > MAX_BYTES {
            return Err(bad(format!("more than {MAX_BYTES} bytes")));
        }
        json::check_depth(text.as_bytes())?;
        let lock: Lock = serde_json::from_str(text).map_err(|error| bad(error.to_string()))?;
        if lock.version != VERSION {
            return Err(bad(format!("version {} is not known, {VERSION} is", lock.version)));
        }
        if lock.models.len() > MAX_MODELS {
            return Err(bad(format!("more than {MAX_MODELS} models")));
        }
        for model in &lock.models {
            model.check().map_err(|words| bad(words).at(model.reference.chars().take(200).collect::<String>()))?;
        }
        Ok(lock)
    }

    /// The file's text.
    pub fn to_json(&self) -> Result<String> {
        let text = serde_json::to_string_pretty(self);
        text.map(|text| text + "\n").map_err(|error| Error::new(ErrorKind::Internal, error.to_string()))
    }

    /// The model of a reference. Fails with `PolicyRefused` where the lock does not have it: what is not locked does not
    /// load.
    pub fn model(&self, reference: &Reference) -> Result<&LockedModel> {
        let key = key(reference);
        self.models.iter().find(|model| model.reference == key).ok_or_else(|| {
            let words = "the lock file does not have this model, and only what it has is loaded";
            Error::new(ErrorKind::PolicyRefused, words).at(key)
        })
    }

    /// Adds a model. Fails with `IntegrityMismatch` where the lock has it with another content: a lock is changed by hand.
    pub fn add(&mut self, model: LockedModel) -> Result<()> {
        match self.models.iter_mut().find(|known| known.reference == model.reference) {
            Some(known) => {
                known.check_same(&model)?;
                *known = model;
            }
            None => self.models.push(model),
        }
        self.models.sort_by(|a, b| a.reference.cmp(&b.reference));
        Ok(())
    }
}

/// What a lock file calls a reference: without `hf:` and revision, which the lock itself decides.
pub fn key(reference: &Reference) -> String {
    match reference {
        Reference::Repo { repo, pick, .. } => {
            let plain = Reference::Repo { names_hub: false, repo: repo.clone(), revision: None, pick: pick.clone() };
            plain.to_text()
        }
        Reference::Folder(_) | Reference::File(_) => reference.to_text(),
    }
}

impl LockedModel {
    fn check(&self) -> std::result::Result<(), String> {
        if !is_hex(&self.commit, 40) {
            return Err(format!("{:?} is no commit", self.commit));
        }
        if self.files.is_empty() {
            return Err("no files".to_owned());
        }
        for file in &self.files {
            check_path(&file.path).map_err(|error| error.message().to_owned())?;
            if !is_hex(&file.sha256, 64) {
                return Err(format!("{}: {:?} is no SHA-256", file.path, file.sha256));
            }
        }
        Ok(())
    }

    /// Holds what a hub now says against the lock, and gives the files with the lock's own hashes to fetch them by.
    ///
    /// Fails with `IntegrityMismatch`, showing both hashes, with `SizeMismatch`, or with `NotFound` for a file that is gone.
    pub fn apply(&self, files: Vec<RepoFile>) -> Result<Vec<RepoFile>> {
        let mut locked = Vec::new();
        for own in &self.files {
            let Some(found) = files.iter().find(|file| file.path == own.path) else {
                return Err(
                    Error::new(ErrorKind::NotFound, "the lock file has it, the hub does not").at(own.path.as_str())
                );
            };
            if found.size_bytes != own.size_bytes {
                let words = format!("{} bytes are locked, the hub has {}", own.size_bytes, found.size_bytes);
                return Err(Error::new(ErrorKind::SizeMismatch, words).at(own.path.as_str()));
            }
            if let Expected::Sha256(now) = &found.expected
                && !now.eq_ignore_ascii_case(&own.sha256)
            {
                return Err(changed(own, now));
            }
            locked.push(RepoFile { expected: Expected::Sha256(own.sha256.to_ascii_lowercase()), ..found.clone() });
        }
        if let Some(more) = files.iter().find(|file| self.files.iter().all(|own| own.path != file.path)) {
            let words = "the hub has this file of the model, the lock file does not";
            return Err(Error::new(ErrorKind::IntegrityMismatch, words).at(more.path.as_str()));
        }
        Ok(locked)
    }

    /// Fails unless the other one is the same content.
    fn check_same(&self, other: &LockedModel) -> Result<()> {
        if let (Some(own), Some(now)) = (&self.template_hash, &other.template_hash)
            && own != now
        {
            let words = format!("the chat template was locked with hash {own}, it has {now}");
            return Err(Error::new(ErrorKind::IntegrityMismatch, words).at(self.reference.as_str()));
        }
        for own in &self.files {
            let found = other.files.iter().find(|file| file.path == own.path);
            match found {
                Some(found) if found.sha256.eq_ignore_ascii_case(&own.sha256) => {}
                Some(found) => return Err(changed(own, &found.sha256)).at(|| self.reference.clone()),
                None => {
                    let words = format!("{} is locked, the model no longer has it", own.path);
                    return Err(Error::new(ErrorKind::IntegrityMismatch, words).at(self.reference.as_str()));
                }
            }
        }
        if other.files.len() != self.files.len() {
            let words = format!("{} files are locked, the model has {}", self.files.len(), other.files.len());
            return Err(Error::new(ErrorKind::IntegrityMismatch, words).at(self.reference.as_str()));
        }
        Ok(())
    }
}

fn changed(own: &LockedFile, now: &str) -> Error {
    let words = format!("the lock file has SHA-256 {}, the hub has {now}", own.sha256);
    Error::new(ErrorKind::IntegrityMismatch, words).at(own.path.as_str())
}

#[cfg(test)]
mod tests {
    use super::{Lock, LockedFile, LockedModel};
    use crate::error::ErrorKind;
    use crate::hub::{Address, Expected, Reference, RepoFile};

    fn model(reference: &str, sha256: &str) -> LockedModel {
        LockedModel {
            reference: reference.to_owned(),
            hub: "https://hub.example".to_owned(),
            repo: "o/n".to_owned(),
            commit: "c".repeat(40),
            files: vec![LockedFile { path: "m.gguf".to_owned(), size_bytes: 5, sha256: sha256.repeat(64) }],
            license: None,
            template_hash: None,
        }
    }

    fn file(path: &str, size_bytes: u64, sha256: Option<&str>) -> RepoFile {
        RepoFile {
            path: path.to_owned(),
            size_bytes,
            expected: sha256.map_or(Expected::Unknown(None), |digit| Expected::Sha256(digit.repeat(64))),
            address: Address::parse("https://hub.example/").unwrap(),
        }
    }

    #[test]
    fn a_lock_is_written_read_and_found_by_any_form_of_the_reference() {
        let mut lock = Lock::default();
        lock.add(model("o/n:Q8_0", "a")).unwrap();
        lock.add(model("o/n:Q4_0", "b")).unwrap();
        let read = Lock::from_json(&lock.to_json().unwrap()).unwrap();
        assert_eq!(read, lock);
        let found =
            |text: &str| read.model(&Reference::parse(text).unwrap()).map(|model| model.files[0].sha256.clone());
        assert_eq!(found("hf:o/n@main:Q8_0").unwrap(), "a".repeat(64));
        assert_eq!(found("o/n:Q4_0").unwrap(), "b".repeat(64));
        assert_eq!(found("o/n:Q5_0").unwrap_err().kind(), ErrorKind::PolicyRefused);
    }

    #[test]
    fn a_change_shows_both_hashes() {
        let mut lock = Lock::default();
        lock.add(model("o/n", "a")).unwrap();
        lock.add(model("o/n", "a")).unwrap();
        let shows_both = |error: crate::error::Error| {
            let told = error.to_string();
            assert_eq!(error.kind(), ErrorKind::IntegrityMismatch, "{told}");
            assert!(
                told.contains(&"a".repeat(64)) && told.contains(&"b".repeat(64)) && told.contains("m.gguf"),
                "{told}"
            );
        };
        shows_both(lock.add(model("o/n", "b")).unwrap_err());
        let own = &lock.models[0];
        shows_both(own.apply(vec![file("m.gguf", 5, Some("b"))]).unwrap_err());
        assert_eq!(own.apply(vec![file("m.gguf", 6, None)]).unwrap_err().kind(), ErrorKind::SizeMismatch);
        assert_eq!(own.apply(Vec::new()).unwrap_err().kind(), ErrorKind::NotFound);
        let more = vec![file("m.gguf", 5, None), file("x.gguf", 1, None)];
        assert!(own.apply(more).unwrap_err().to_string().contains("x.gguf"));
        // What the hub knows less of is fetched by the lock's own hash.
        let applied = own.apply(vec![file("m.gguf", 5, None)]).unwrap();
        assert_eq!(applied[0].expected, Expected::Sha256("a".repeat(64)));
    }

    #[test]
    fn broken_lock_files_are_refused() {
        let good = {
            let mut lock = Lock::default();
            lock.add(model("o/n", "a")).unwrap();
            lock.to_json().unwrap()
        };
        let a = "a".repeat(64);
        let c = "c".repeat(40);
        for (from, to) in [
            ("\"version\": 1", "\"version\": 2"),
            (c.as_str(), "main"),
            (a.as_str(), "aa"),
            ("\"m.gguf\"", "\"../m.gguf\""),
            ("\"sizeBytes\": 5", "\"sizeBytes\": -5"),
            ("\"repo\"", "\"repository\""),
        ] {
            let broken = good.replace(from, to);
            assert!(broken != good && Lock::from_json(&broken).is_err(), "{from}");
        }
        assert!(Lock::from_json("").is_err() && Lock::from_json(&"[".repeat(1000)).is_err());
    }
}
