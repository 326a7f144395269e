//! Which files of a repository are the model that was meant: by quant tag, by path, or the only one there is.
//!
//! The shards of a split GGUF file are one model, and so are a folder's `config.json`, tokenizer and safetensors.

use std::collections::BTreeMap;

use super::manifest::{Manifest, RepoFile};
use super::reference::Pick;
use crate::error::{Error, ErrorKind, Result};

/// Small files of a folder that a model is loaded with, beside its weights.
pub(super) const COMPANIONS: &[&str] = &[
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "generation_config.json",
    "chat_template.jinja",
    "chat_template.json",
    MODULES,
    "sentence_bert_config.json",
    "model.safetensors.index.json",
];
/// Lists what an embedder has behind its model; each module may have a `config.json` in a folder of its own.
pub(super) const MODULES: &str = "modules.json";
/// How names of GGUF files begin that hold no language model: vision projectors, importance matrices.
const NOT_MODELS: &[&str] = &["mmproj", "imatrix"];
/// How names of safetensors begin that repeat the weights in another layout, or are something else.
const NOT_WEIGHTS: &[&str] = &["consolidated", "adapter_model"];
/// What peft writes: the two files of an adapter.
const ADAPTER: [&str; 2] = ["adapter_config.json", "adapter_model.safetensors"];
/// Endings of PyTorch's pickles.
const PICKLES: &[&str] = &[".bin", ".pt", ".pth", ".ckpt", ".pkl"];
/// As many names are listed in an error.
const SHOWN_NAMES: usize = 40;

/// A name that ends in `-00002-of-00003.gguf`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ShardName {
    /// What stands before the numbers.
    stem: String,
    pub(super) number: u32,
    pub(super) count: u32,
    ending: String,
}

/// The position in a shard's name, which counts from 1.
pub(super) fn shard_of(name: &str) -> Option<ShardName> {
    let (stem, ending) = name.rsplit_once('.')?;
    let (rest, count) = stem.rsplit_once("-of-")?;
    let (stem, number) = rest.rsplit_once('-')?;
    let digits = |text: &str| (text.len() == 5).then(|| text.parse::<u32>().ok()).flatten();
    let (number, count) = (digits(number)?, digits(count)?);
    (number >= 1 && number <= count).then(|| ShardName {
        stem: stem.to_owned(),
        number,
        count,
        ending: ending.to_owned(),
    })
}

/// The name of another shard of the same file.
pub(super) fn shard_name(shard: &ShardName, number: u32) -> String {
    format!("{}-{number:05}-of-{:05}.{}", shard.stem, shard.count, shard.ending)
}

/// The files that a reference means. Fails with `NotFound` where none fit and `InvalidArgument` where several do, naming
/// what there is; `UnsupportedFormat` where there are only pickles.
pub fn choose(manifest: &Manifest, pick: &Pick) -> Result<Vec<RepoFile>> {
    let ggufs = ggufs(manifest);
    let chosen = match pick {
        Pick::Tag(tag) => by_tag(manifest, &ggufs, tag),
        Pick::Path(path) => by_path(manifest, &ggufs, path),
        Pick::Any => the_only_one(manifest, &ggufs),
    };
    chosen.map_err(|error| error.at(manifest.repo.as_str()))
}

/// GGUF models by their names without numbers and ending, each with its files in order.
type Ggufs<'a> = BTreeMap<String, Vec<&'a RepoFile>>;

fn ggufs(manifest: &Manifest) -> Ggufs<'_> {
    let mut models = Ggufs::new();
    for file in &manifest.files {
        let base = base_name(&file.path).to_ascii_lowercase();
        if !base.ends_with(".gguf") || NOT_MODELS.iter().any(|start| base.starts_with(start)) {
            continue;
        }
        let stem = match shard_of(&file.path) {
            Some(shard) => shard.stem,
            None => file.path.rsplit_once('.').map_or(file.path.as_str(), |(stem, _)| stem).to_owned(),
        };
        models.entry(stem).or_default().push(file);
    }
    for files in models.values_mut() {
        files.sort_by(|a, b| a.path.cmp(&b.path));
    }
    models
}

/// The other GGUF models of a repository, as whole as they have to be, each with the path that names it and the bytes of all its
/// files; the largest first. Nothing where no GGUF file was chosen.
pub(super) fn others(manifest: &Manifest, chosen: &[RepoFile]) -> Vec<(String, u64)> {
    let mut others = Vec::new();
    if chosen.iter().all(|file| !file.path.to_ascii_lowercase().ends_with(".gguf")) {
        return others;
    }
    for (stem, files) in ggufs(manifest) {
        let Ok(files) = whole(&stem, &files) else { continue };
        let Some(first) = files.first().filter(|first| chosen.iter().all(|file| file.path != first.path)) else {
            continue;
        };
        let bytes = files.iter().fold(0, |sum: u64, file| sum.saturating_add(file.size_bytes));
        others.push((first.path.clone(), bytes));
    }
    others.sort_by(|a, b| b.1.cmp(&a.1));
    others
}

fn by_tag(manifest: &Manifest, ggufs: &Ggufs<'_>, tag: &str) -> Result<Vec<RepoFile>> {
    let matching: Vec<_> = ggufs.iter().filter(|(stem, _)| has_tag(stem, tag)).collect();
    match matching.as_slice() {
        [(stem, files)] => whole(stem, files),
        [] if ggufs.is_empty() => {
            let what =
                if safetensors(manifest, "").is_ok() { "safetensors; leave the tag out" } else { "no GGUF file" };
            Err(Error::new(ErrorKind::NotFound, format!("{tag} names a GGUF file, and the repository has {what}")))
        }
        [] => Err(Error::new(
            ErrorKind::NotFound,
            format!("no GGUF file is tagged {tag}; there are {}", names(ggufs.keys())),
        )),
        several => {
            let found = names(several.iter().map(|(stem, _)| *stem));
            let words = format!("several GGUF files are tagged {tag}: {found}; name one by its path");
            Err(Error::new(ErrorKind::InvalidArgument, words))
        }
    }
}

/// Whether a name carries a tag as a word of its own: `Q4_K` is not in `Q4_K_M`, `Q8_0` is in `model.Q8_0` and `UD-Q8_0`.
fn has_tag(stem: &str, tag: &str) -> bool {
    let (stem, tag) = (stem.to_ascii_lowercase(), tag.to_ascii_lowercase());
    stem.match_indices(&tag).any(|(start, found)| {
        let before = stem.get(..start).and_then(|before| before.chars().next_back());
        let after = stem.get(start.saturating_add(found.len())..).and_then(|after| after.chars().next());
        matches!(before, None | Some('-' | '.' | '_' | '/')) && matches!(after, None | Some('-' | '.' | '/'))
    })
}

fn by_path(manifest: &Manifest, ggufs: &Ggufs<'_>, path: &str) -> Result<Vec<RepoFile>> {
    for (stem, files) in ggufs {
        if files.iter().any(|file| file.path == path) {
            return whole(stem, files);
        }
    }
    if let Some(file) = manifest.file(path) {
        let base = base_name(path);
        if base == "config.json" || base.ends_with(".safetensors") {
            return safetensors(manifest, directory(path));
        }
        return Err(unsupported(file));
    }
    let folder = format!("{path}/");
    let inside: Ggufs<'_> = ggufs
        .iter()
        .filter(|(stem, _)| stem.starts_with(&folder))
        .map(|(stem, files)| (stem.clone(), files.clone()))
        .collect();
    match safetensors(manifest, &folder) {
        Ok(files) if inside.is_empty() => Ok(files),
        _ if inside.len() == 1 => inside.iter().next().map_or(Ok(Vec::new()), |(stem, files)| whole(stem, files)),
        _ if inside.is_empty() => Err(Error::new(ErrorKind::NotFound, format!("there is no model at {path}"))),
        _ => Err(several(&inside)),
    }
}

fn the_only_one(manifest: &Manifest, ggufs: &Ggufs<'_>) -> Result<Vec<RepoFile>> {
    let folder = safetensors(manifest, "").or_else(|error| adapter(manifest).ok_or(error));
    match (ggufs.len(), folder) {
        (0, Ok(files)) => Ok(files),
        (0, Err(error)) => Err(manifest.files.iter().find(|file| is_pickle(file)).map_or(error, unsupported)),
        (1, Err(_)) => ggufs.iter().next().map_or(Ok(Vec::new()), |(stem, files)| whole(stem, files)),
        (_, Ok(_)) => {
            let words = format!(
                "the repository has safetensors and GGUF files: add /config.json for the former, or a tag for one of {}",
                names(ggufs.keys())
            );
            Err(Error::new(ErrorKind::InvalidArgument, words))
        }
        _ => Err(several(ggufs)),
    }
}

/// All shards of a model, or the one file.
fn whole(stem: &str, files: &[&RepoFile]) -> Result<Vec<RepoFile>> {
    let Some(first) = files.first().and_then(|file| shard_of(&file.path)) else {
        return Ok(files.iter().map(|file| (*file).clone()).collect());
    };
    let missing = (1..=first.count).find(|number| {
        let name = shard_name(&first, *number);
        !files.iter().any(|file| file.path == name)
    });
    if let Some(number) = missing {
        let words = format!("shard {number} of {} of {stem} is not in the repository", first.count);
        return Err(Error::new(ErrorKind::NotFound, words));
    }
    let own = files.iter().filter(|file| shard_of(&file.path).is_some_and(|shard| shard.count == first.count));
    Ok(own.map(|file| (*file).clone()).collect())
}

/// A folder's model: `folder` is empty or ends in a slash.
fn safetensors(manifest: &Manifest, folder: &str) -> Result<Vec<RepoFile>> {
    let inside: Vec<&RepoFile> = manifest.files.iter().filter(|file| directory(&file.path) == folder).collect();
    let named = |name: &str| inside.iter().find(|file| base_name(&file.path) == name).copied();
    let missing = |what: &str| {
        let place = if folder.is_empty() { "the repository" } else { folder };
        Error::new(ErrorKind::NotFound, format!("{place} holds no model: {what}"))
    };
    if named("config.json").is_none() {
        return Err(missing("there is neither a GGUF file nor a config.json"));
    }
    let mut files: Vec<RepoFile> = COMPANIONS.iter().filter_map(|name| named(name)).cloned().collect();
    if named(MODULES).is_some() {
        let below = |file: &&RepoFile| match file.path.strip_prefix(folder).and_then(|path| path.split_once('/')) {
            Some((_, name)) => name == "config.json",
            None => false,
        };
        files.extend(manifest.files.iter().filter(below).cloned());
    }
    if let Some(single) = named("model.safetensors") {
        files.retain(|file| !file.path.ends_with(".index.json"));
        files.push(single.clone());
        return Ok(files);
    }
    let is_weights = |file: &&&RepoFile| {
        let base = base_name(&file.path);
        base.ends_with(".safetensors") && !NOT_WEIGHTS.iter().any(|start| base.starts_with(start))
    };
    let mut weights: Vec<&RepoFile> = inside.iter().filter(is_weights).copied().collect();
    let standard = |file: &&RepoFile| base_name(&file.path).starts_with("model-") && shard_of(&file.path).is_some();
    if weights.iter().any(standard) {
        weights.retain(standard);
    }
    if weights.is_empty() {
        return Err(match inside.iter().find(|file| is_pickle(file)) {
            Some(pickle) => unsupported(pickle),
            None => missing("there are no safetensors beside config.json"),
        });
    }
    let mut wanted: BTreeMap<String, ShardName> = BTreeMap::new();
    for shard in weights.iter().filter_map(|file| shard_of(&file.path)) {
        wanted.insert(shard.stem.clone(), shard);
    }
    for (stem, shard) in wanted {
        let names: Vec<&RepoFile> = weights.iter().filter(|file| file.path.starts_with(&stem)).copied().collect();
        whole(&shard.stem, &names)?;
    }
    files.extend(weights.into_iter().cloned());
    Ok(files)
}

/// The files of an adapter, where a repository has one and no model.
fn adapter(manifest: &Manifest) -> Option<Vec<RepoFile>> {
    ADAPTER.iter().map(|name| manifest.file(name).cloned()).collect()
}

fn several(ggufs: &Ggufs<'_>) -> Error {
    let words = format!("the repository has several GGUF models; add a tag for one of {}", names(ggufs.keys()));
    Error::new(ErrorKind::InvalidArgument, words)
}

fn unsupported(file: &RepoFile) -> Error {
    let words = match is_pickle(file) {
        true => "this is a pickle (PyTorch); pickle can run code and is never read",
        false => "this is neither GGUF nor safetensors",
    };
    Error::new(ErrorKind::UnsupportedFormat, words).at(file.path.as_str())
}

fn is_pickle(file: &RepoFile) -> bool {
    PICKLES.iter().any(|ending| file.path.to_ascii_lowercase().ends_with(ending))
}

fn names<'a>(names: impl ExactSizeIterator<Item = &'a String>) -> String {
    let rest = names.len().saturating_sub(SHOWN_NAMES);
    let mut list: Vec<&str> = names.take(SHOWN_NAMES).map(String::as_str).collect();
    let more = format!("{rest} more");
    if rest > 0 {
        list.push(&more);
    }
    list.join(", ")
}

fn base_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// The folder of a path, with its slash; empty at the top.
fn directory(path: &str) -> &str {
    path.strip_suffix(base_name(path)).unwrap_or_default()
}

#[cfg(test)]
#[path = "pick_tests.rs"]
mod tests;
