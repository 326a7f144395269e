//! A folder as on the hub: `config.json`, safetensors in one file or in shards with an index, and companion files.

use std::collections::{BTreeMap, HashSet};
use std::rc::Rc;

use serde::Deserialize;

use super::limits::{self, CONFIG_BYTES, INDEX_BYTES, LOOKED_AT_TOKENIZER_BYTES, TOKENIZER_BYTES};
use super::open::Extent;
use super::packed::{self, Raw};
use super::sniff::{Kind, sniff};
use super::{Checkpoint, Dialect, Metadata, base_name, config, json, safetensors, shown};
use crate::error::{At, Error, ErrorKind, Result};
use crate::source::Source;

const CONFIG: &str = "config.json";
const TOKENIZER: &str = "tokenizer.json";
const WEIGHTS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
const WEIGHTS_SUFFIX: &str = ".safetensors";
/// Lists what sentence-transformers puts behind a model; each may have a configuration in a folder of its own.
const MODULES: &str = "modules.json";
/// Folders of such modules, at most.
const MAX_MODULES: usize = 16;

/// A file that is read whole and handed on.
struct Companion {
    name: &'static str,
    limit_bytes: u64,
    /// The kind of error when it is damaged.
    kind: ErrorKind,
}

const fn companion(name: &'static str, limit_bytes: u64, kind: ErrorKind) -> Companion {
    Companion { name, limit_bytes, kind }
}

const COMPANIONS: &[Companion] = &[
    companion(TOKENIZER, TOKENIZER_BYTES, ErrorKind::MalformedTokenizer),
    companion("tokenizer_config.json", CONFIG_BYTES, ErrorKind::MalformedTokenizer),
    companion("special_tokens_map.json", CONFIG_BYTES, ErrorKind::MalformedTokenizer),
    companion("added_tokens.json", CONFIG_BYTES, ErrorKind::MalformedTokenizer),
    companion("generation_config.json", CONFIG_BYTES, ErrorKind::MalformedModel),
    companion("chat_template.jinja", CONFIG_BYTES, ErrorKind::TemplateError),
    companion("chat_template.json", CONFIG_BYTES, ErrorKind::TemplateError),
    companion(MODULES, CONFIG_BYTES, ErrorKind::MalformedModel),
    companion("sentence_bert_config.json", CONFIG_BYTES, ErrorKind::MalformedModel),
];

/// The configuration of a module, in its folder.
const MODULE_CONFIG: Companion = companion(CONFIG, CONFIG_BYTES, ErrorKind::MalformedModel);

/// The files of the folder that holds `config.json`, by their names in it, and the `config.json` of the folders in it.
type Folder = BTreeMap<String, Rc<dyn Source>>;

/// Opens a folder's files, given in any order; other files below the folder of `config.json` are left alone.
pub(super) async fn open(sources: &[Rc<dyn Source>], extent: Extent) -> Result<Checkpoint> {
    let folder = folder(sources)?;
    let metadata = read_metadata(&folder, extent).await?;
    let (files, tensors) = read_tensors(&folder).await?;
    packed::unpack(files, tensors, metadata).await
}

fn directory(name: &str) -> &str {
    name.strip_suffix(base_name(name)).unwrap_or_default()
}

fn folder(sources: &[Rc<dyn Source>]) -> Result<Folder> {
    let root = sources
        .iter()
        .filter(|source| base_name(source.name()) == CONFIG)
        .map(|source| directory(source.name()))
        .min_by_key(|directory| directory.len())
        .ok_or_else(|| Error::new(ErrorKind::NotFound, "config.json is not among the files"))?;
    let mut folder = Folder::new();
    for source in sources {
        let Some(name) = source.name().strip_prefix(root) else { continue };
        let below = directory(name);
        let is_module = base_name(name) == CONFIG && below.matches(['/', '\\']).count() == 1;
        if !below.is_empty() && !is_module {
            continue;
        }
        if folder.insert(name.replace('\\', "/"), Rc::clone(source)).is_some() {
            return Err(Error::new(ErrorKind::InvalidArgument, "the file is there twice").at(source.name()));
        }
    }
    Ok(folder)
}

/// A whole file as text.
pub(super) async fn read_text(source: &dyn Source, limit_bytes: u64, kind: ErrorKind) -> Result<String> {
    let size = source.size_bytes();
    if size > limit_bytes {
        return Err(limits::exceeded("bytes", size, limit_bytes));
    }
    let len = usize::try_from(size).map_err(|_| limits::exceeded("bytes", size, usize::MAX))?;
    let bytes = source.read(0, len).await?;
    if let Kind::Foreign(what) = sniff(&bytes) {
        return Err(Error::new(ErrorKind::UnsupportedFormat, format!("this is {what}")));
    }
    String::from_utf8(bytes).map_err(|error| {
        Error::new(kind, format!("the text is not UTF-8 (byte {})", error.utf8_error().valid_up_to())).caused_by(error)
    })
}

async fn read_metadata(folder: &Folder, extent: Extent) -> Result<Metadata> {
    let missing = || Error::new(ErrorKind::NotFound, "config.json is not among the files");
    let source = folder.get(CONFIG).ok_or_else(missing)?;
    let values = read_config(source.as_ref()).await.at(|| source.name().to_owned())?;
    let mut metadata = Metadata {
        dialect: Dialect::Hub,
        architecture: String::new(),
        values,
        companions: BTreeMap::new(),
        small_tensors: BTreeMap::new(),
    };
    let architecture = metadata.text("model_type").at(|| source.name().to_owned())?;
    metadata.architecture = architecture
        .ok_or_else(|| Error::new(ErrorKind::MalformedModel, "the key is missing").at("model_type").at(source.name()))?
        .to_owned();
    let too_large = |companion: &Companion, size: u64| {
        extent == Extent::Look && companion.name == TOKENIZER && size > LOOKED_AT_TOKENIZER_BYTES
    };
    for companion in COMPANIONS {
        let source = folder.get(companion.name);
        if let Some(source) = source.filter(|source| !too_large(companion, source.size_bytes())) {
            let text = read_companion(source.as_ref(), companion).await.at(|| source.name().to_owned())?;
            metadata.companions.insert(companion.name.to_owned(), text);
        }
    }
    if let Some(modules) = metadata.companions.get(MODULES) {
        for name in module_configs(modules).at(|| MODULES.to_owned())? {
            if let Some(source) = folder.get(&name) {
                let text = read_companion(source.as_ref(), &MODULE_CONFIG).await.at(|| source.name().to_owned())?;
                metadata.companions.insert(name, text);
            }
        }
    }
    Ok(metadata)
}

/// One entry of `modules.json`.
#[derive(Deserialize)]
struct Module {
    /// Its folder; empty for the model itself.
    path: String,
}

/// The configurations that the modules of a `modules.json` may have, by their paths beside it; whoever opens them checks the paths.
pub(crate) fn module_configs(text: &str) -> Result<Vec<String>> {
    let wrong = |error| Error::new(ErrorKind::MalformedModel, json::words(&error));
    let modules: Vec<Module> = serde_json::from_str(text).map_err(wrong)?;
    if modules.len() > MAX_MODULES {
        return Err(limits::exceeded("modules", modules.len(), MAX_MODULES));
    }
    let named = modules.into_iter().filter(|module| !module.path.is_empty());
    Ok(named.map(|module| format!("{}/{CONFIG}", module.path)).collect())
}

async fn read_config(source: &dyn Source) -> Result<BTreeMap<String, super::Value>> {
    let text = read_text(source, CONFIG_BYTES, ErrorKind::MalformedModel).await?;
    config::values(&json::parse_object(&text, ErrorKind::MalformedModel)?)
}

/// Its owner parses it; what is checked here is that any parser may see it.
async fn read_companion(source: &dyn Source, companion: &Companion) -> Result<String> {
    let text = read_text(source, companion.limit_bytes, companion.kind).await?;
    if companion.name.ends_with(".json") {
        json::check_depth(text.as_bytes())?;
    }
    Ok(text)
}

/// The index of a model in shards.
#[derive(Deserialize)]
struct Index {
    /// Files by the tensors in them.
    weight_map: BTreeMap<String, String>,
}

type Weights = (Vec<Rc<dyn Source>>, Vec<Raw>);

async fn read_tensors(folder: &Folder) -> Result<Weights> {
    if let Some(source) = folder.get(WEIGHTS) {
        return read_files(vec![Rc::clone(source)]).await;
    }
    if let Some(index) = folder.get(INDEX) {
        return read_indexed(folder, index.as_ref()).await.at(|| index.name().to_owned());
    }
    let others: Vec<_> =
        folder.iter().filter(|(name, _)| name.ends_with(WEIGHTS_SUFFIX)).map(|(_, file)| file).collect();
    match others.as_slice() {
        [] => Err(Error::new(ErrorKind::NotFound, format!("no weights: {WEIGHTS} is not among the files"))),
        [one] => read_files(vec![Rc::clone(*one)]).await,
        [first, ..] => {
            Err(Error::new(ErrorKind::NotFound, format!("several weight files, but no {INDEX}")).at(first.name()))
        }
    }
}

/// Reads the headers of all files; no tensor may be in two of them.
async fn read_files(files: Vec<Rc<dyn Source>>) -> Result<Weights> {
    let mut tensors: Vec<Raw> = Vec::new();
    let mut names = HashSet::new();
    for (file, source) in files.iter().enumerate() {
        let own = safetensors::read_header(source.as_ref(), file).await.at(|| source.name().to_owned())?;
        for tensor in own {
            if files.len() > 1 && !names.insert(tensor.name.clone()) {
                let message = "the tensor is in two shards";
                let place = shown(&tensor.name);
                return Err(Error::new(ErrorKind::MalformedSafetensors, message).at(place).at(source.name()));
            }
            tensors.push(tensor);
        }
    }
    Ok((files, tensors))
}

/// The shards that an index names. Its `total_size` is often wrong on the hub and is not used.
async fn read_indexed(folder: &Folder, index: &dyn Source) -> Result<Weights> {
    let malformed = |message: String| Error::new(ErrorKind::MalformedSafetensors, message);
    let text = read_text(index, INDEX_BYTES, ErrorKind::MalformedSafetensors).await?;
    json::check_depth(text.as_bytes())?;
    let Index { weight_map } =
        serde_json::from_str(&text).map_err(|error| malformed(format!("the index: {}", json::words(&error))))?;
    let mut shards: BTreeMap<&str, Rc<dyn Source>> = BTreeMap::new();
    for (tensor, shard) in &weight_map {
        if !is_shard_name(shard) {
            return Err(malformed(format!("{} is no name of a shard in this folder", shown(shard))).at(shown(tensor)));
        }
        let missing = || Error::new(ErrorKind::NotFound, format!("shard {} is not among the files", shown(shard)));
        shards.insert(shard, Rc::clone(folder.get(shard).ok_or_else(missing)?));
    }
    let names: Vec<&str> = shards.keys().copied().collect();
    let (files, tensors) = read_files(shards.into_values().collect()).await?;
    let mut missing: BTreeMap<&str, &str> =
        weight_map.iter().map(|(tensor, shard)| (tensor.as_str(), shard.as_str())).collect();
    for tensor in &tensors {
        let found = names.get(tensor.file).copied().unwrap_or_default();
        if let Some(shard) = missing.remove(tensor.name.as_str()).filter(|shard| *shard != found) {
            let message = format!("the index has the tensor in {shard}, it is in {found}");
            return Err(malformed(message).at(shown(&tensor.name)));
        }
    }
    match missing.first_key_value() {
        Some((tensor, shard)) => Err(malformed(format!("shard {shard} lacks the tensor")).at(shown(tensor))),
        None => Ok((files, tensors)),
    }
}

/// A plain file name: no folder, no address, and a weight file, so that an index cannot name itself.
fn is_shard_name(name: &str) -> bool {
    name.ends_with(WEIGHTS_SUFFIX) && !name.starts_with('.') && !name.contains(['/', '\\', ':', '\0'])
}
