//! From files of any kind to a [`Checkpoint`]: what they are is decided by their bytes.

use std::rc::Rc;

use super::sniff::{Kind, SNIFF_BYTES, sniff};
use super::{Checkpoint, base_name, gguf, hub};
use crate::error::{At, Error, ErrorKind, Result};
use crate::source::Source;

/// Files of a hub folder that stand beside weights and hold none: nobody has to look into them to know.
const NOT_WEIGHTS: &[&str] = &[".json", ".jinja", ".txt", ".md", ".model", ".gitattributes", ".py"];

/// How much of a folder's companions is read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    Whole,
    Look,
}

impl Checkpoint {
    /// Opens a model: one GGUF file, all shards of a split one, or the files of a hub folder, in any order.
    ///
    /// Reads headers and small text files, no weight. Errors: `UnsupportedFormat` names what a file is when it is no
    /// model, or what in it is not supported; `MalformedGguf`, `MalformedSafetensors`, `MalformedModel`,
    /// `MalformedTokenizer` and `TemplateError` for damaged files; `LimitExceeded`; `NotFound` for a part that is
    /// missing; `InvalidArgument` for files that are not one model; and whatever the sources fail with.
    pub async fn open(files: Vec<Rc<dyn Source>>) -> Result<Checkpoint> {
        Self::open_as(files, Extent::Whole).await
    }

    /// As [`Checkpoint::open`], but leaves a large `tokenizer.json` of a folder unread, and the vocabulary of a GGUF file that is
    /// far away: enough to tell what a model is, over a
    /// network too, and not to load it.
    pub async fn look(files: Vec<Rc<dyn Source>>) -> Result<Checkpoint> {
        Self::open_as(files, Extent::Look).await
    }

    async fn open_as(files: Vec<Rc<dyn Source>>, extent: Extent) -> Result<Checkpoint> {
        if files.is_empty() {
            return Err(Error::new(ErrorKind::InvalidArgument, "no files were given"));
        }
        let mut ggufs = Vec::new();
        let mut safetensors = 0_usize;
        let mut foreign = None;
        for file in &files {
            match kind(file.as_ref(), files.len()).await.at(|| file.name().to_owned())? {
                Kind::Gguf => ggufs.push(Rc::clone(file)),
                Kind::Safetensors => safetensors = safetensors.saturating_add(1),
                Kind::Foreign(what) => foreign = foreign.or(Some((file, what))),
                Kind::Unknown => {}
            }
        }
        let has_config = files.iter().any(|file| base_name(file.name()) == "config.json");
        match (ggufs.is_empty(), safetensors) {
            (false, 0) => gguf::open_all(ggufs, extent).await,
            (false, _) => Err(Error::new(
                ErrorKind::InvalidArgument,
                "there are GGUF and safetensors files, which are two models: choose one",
            )),
            (true, 0) => match (foreign, files.first()) {
                (Some((file, what)), _) => {
                    Err(Error::new(ErrorKind::UnsupportedFormat, format!("this is {what}")).at(file.name()))
                }
                (None, Some(only)) if !has_config => {
                    let message = "this is neither GGUF nor safetensors";
                    Err(Error::new(ErrorKind::UnsupportedFormat, message).at(only.name()))
                }
                _ => hub::open(&files, extent).await,
            },
            (true, _) => hub::open(&files, extent).await,
        }
    }
}

/// What a file is by its first bytes. Companions of a folder are not read for that, a single file always is.
async fn kind(file: &dyn Source, n_files: usize) -> Result<Kind> {
    if n_files > 1 && NOT_WEIGHTS.iter().any(|suffix| file.name().ends_with(suffix)) {
        return Ok(Kind::Unknown);
    }
    let len = usize::try_from(file.size_bytes().min(SNIFF_BYTES)).unwrap_or_default();
    Ok(sniff(&file.read(0, len).await?))
}
