//! Files of a model as sources: kept ones, and such on a server whose headers are looked at before anything is fetched.

use std::cell::RefCell;
use std::rc::Rc;

use super::address::Address;
use super::client::{Client, Then};
use super::edge::{ByteRange, Store, StoredFile};
use super::manifest::RepoFile;
use crate::error::{At, Error, ErrorKind, Result};
use crate::source::{LocalFuture, Source, check_range};

/// A file in the store.
pub(super) struct StoredSource {
    name: String,
    size_bytes: u64,
    data: Rc<dyn StoredFile>,
    /// Its hash, once it was verified.
    sha256: Option<String>,
}

impl StoredSource {
    /// A file of which nothing is certain.
    pub(super) fn new(name: &str, size_bytes: u64, data: Rc<dyn StoredFile>) -> Self {
        Self { name: name.to_owned(), size_bytes, data, sha256: None }
    }
}

impl Source for StoredSource {
    fn name(&self) -> &str {
        &self.name
    }

    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn sha256(&self) -> Option<String> {
        self.sha256.clone()
    }

    fn read(&self, offset: u64, len: usize) -> LocalFuture<'_, Result<Vec<u8>>> {
        Box::pin(async move {
            check_range(&self.name, self.size_bytes, offset, len)?;
            self.data.read(offset, len).await.at(|| self.name.clone())
        })
    }
}

/// A verified file, to be read. Fails with `StorageLost` where it is not there any more.
pub(super) async fn open_kept(
    store: &dyn Store,
    blob: &str,
    (path, size_bytes): (&str, u64),
    sha256: Option<&str>,
) -> Result<Rc<dyn Source>> {
    let data = store.read(blob).await.at(|| path.to_owned())?;
    let size = match &data {
        Some(data) => data.size_bytes().await?,
        None => 0,
    };
    let Some(data) = data.filter(|_| size == size_bytes) else {
        let words = "it was stored, and is not there any more (was the site's data cleared?); fetch it again";
        return Err(Error::new(ErrorKind::StorageLost, words).at(path));
    };
    Ok(Rc::new(StoredSource { sha256: sha256.map(str::to_owned), ..StoredSource::new(path, size_bytes, data) }))
}

/// A file on a server, read in ranges and never kept. What it says is shown before a download and trusted for nothing.
pub(super) struct RemoteSource {
    client: Rc<Client>,
    file: RepoFile,
    /// Where the hub sent us last.
    signed: RefCell<Option<Address>>,
}

impl RemoteSource {
    pub(super) fn new(client: Rc<Client>, file: RepoFile) -> Self {
        Self { client, file, signed: RefCell::new(None) }
    }

    async fn fetch(&self, offset: u64, len: usize) -> Result<Vec<u8>> {
        check_range(&self.file.path, self.file.size_bytes, offset, len)?;
        if len == 0 {
            return Ok(Vec::new());
        }
        let range = ByteRange { first: offset, last: offset.saturating_add(len as u64).saturating_sub(1) };
        let mut tried = 0;
        loop {
            let signed = self.signed.borrow().clone();
            let address = signed.as_ref().unwrap_or(&self.file.address);
            let fault = match self.client.try_get(address, Some(range), signed.is_some()).await {
                Err(fault) => fault,
                Ok(mut answer) => {
                    if answer.address != self.file.address {
                        self.signed.replace(Some(answer.address.clone()));
                    }
                    // A server without ranges sends the file from its beginning.
                    let skip = if answer.response.status == 206 { 0 } else { offset };
                    match self.take(&mut answer, skip, len).await {
                        Ok(bytes) => return Ok(bytes),
                        Err(error) => error.into(),
                    }
                }
            };
            if fault.then == Then::AskAgain {
                self.signed.replace(None);
            }
            self.client.back_off(fault, &mut tried).await?;
        }
    }

    async fn take(&self, answer: &mut super::client::Answer, skip: u64, len: usize) -> Result<Vec<u8>> {
        let mut bytes: Vec<u8> = Vec::new();
        let mut left = skip;
        while bytes.len() < len {
            let Some(part) = self.client.next(answer).await? else {
                let words = format!("{} bytes came where {len} were asked for", bytes.len());
                return Err(Error::new(ErrorKind::SizeMismatch, words));
            };
            let skipped = usize::try_from(left.min(part.len() as u64)).unwrap_or(part.len());
            left = left.saturating_sub(skipped as u64);
            bytes.extend(part.get(skipped..).unwrap_or_default());
        }
        bytes.truncate(len);
        Ok(bytes)
    }
}

impl Source for RemoteSource {
    fn name(&self) -> &str {
        &self.file.path
    }

    fn size_bytes(&self) -> u64 {
        self.file.size_bytes
    }

    fn is_far(&self) -> bool {
        true
    }

    fn read(&self, offset: u64, len: usize) -> LocalFuture<'_, Result<Vec<u8>>> {
        Box::pin(async move { self.fetch(offset, len).await.at(|| self.file.path.clone()) })
    }
}
