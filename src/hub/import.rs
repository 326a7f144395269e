//! Models from files that the user has: verified like any other, and kept.

use std::rc::Rc;

use super::call::{Call, Found, Pulled};
use super::card::{Card, Gate};
use super::keep::repo_files;
use super::license::License;
use super::manifest::{Manifest, hub_of};
use super::pull::Hub;
use super::reference::Reference;
use super::shelf::KeptModel;
use crate::error::{At, Error, ErrorKind, Result};
use crate::source::Source;

impl Hub {
    /// Takes a model's files from sources, such as files that the user picked, into the store. They are verified by the
    /// lock file where there is one, else by what the hub says.
    pub async fn import(&self, text: &str, from: &[Rc<dyn Source>], call: &Call) -> Result<Pulled> {
        let reference = Reference::parse(text)?;
        let hub = hub_of(&reference, call.endpoint.as_deref())?;
        if from.is_empty() {
            return Err(Error::new(ErrorKind::InvalidArgument, "no files were given"));
        }
        let client = Rc::new(self.client(hub.clone(), call)?);
        let found = match call.lock.as_ref().map(|lock| lock.model(&reference)).transpose()? {
            Some(locked) => {
                let model = KeptModel::from(locked);
                let license = model.license.as_ref().map(License::from).unwrap_or_default();
                let files = repo_files(&model, &hub);
                let manifest = Manifest {
                    hub: locked.hub.clone(),
                    repo: locked.repo.clone(),
                    revision: None,
                    commit: locked.commit.clone(),
                    files: files.clone(),
                    card: Card::default(),
                    gate: Gate::Open,
                };
                Found { manifest, license, files, sources: Vec::new(), client, reference: reference.clone() }
            }
            None if call.offline => {
                let words = "offline, only a lock file can tell what the files should be";
                return Err(Error::new(ErrorKind::InvalidArgument, words).at(reference.to_text()));
            }
            None => self.find_with(client, &reference, None, call).await?,
        };
        call.policy.check_files(&found.files).at(|| reference.to_text())?;
        self.agree(&found.license, call).await.at(|| reference.to_text())?;
        self.bring(&reference, found, call, from, None).await
    }
}
