//! Models on plain servers, which list nothing: one GGUF file (with the others of a split one), or a folder with
//! `config.json` whose files have the names that they always have.

use std::collections::BTreeSet;

use serde::Deserialize;

use super::address::Address;
use super::api::is_hex;
use super::card::{Card, Gate};
use super::client::Client;
use super::manifest::{Expected, FIRST_BYTE, Manifest, RepoFile};
use super::pick::{COMPANIONS, MODULES, shard_name, shard_of};
use super::reference::check_path;
use crate::digest::sha256_hex;
use crate::error::{At, Error, ErrorKind, Result};
use crate::format::limits::{CONFIG_BYTES, INDEX_BYTES};
use crate::format::{self, json};

/// What a folder must have.
const CONFIG: &str = "config.json";
const CARD: &str = "README.md";
const INDEX: &str = "model.safetensors.index.json";
const WEIGHTS: &str = "model.safetensors";
/// Most bytes of a card that is fetched for its header.
const MAX_CARD_BYTES: usize = 1 << 20;
/// Most shards of a folder, which are asked for one by one.
const MAX_SHARDS: usize = 1_000;

/// The index of a model in shards; only the shards' names are taken from it.
#[derive(Deserialize)]
struct Index {
    weight_map: std::collections::BTreeMap<String, String>,
}

/// A folder.
pub(super) async fn folder(client: &Client, folder: &Address) -> Result<Manifest> {
    let mut files = vec![probe(client, folder, CONFIG).await?];
    // Files that are taken where they are there; the others are looked for by themselves.
    let optional = COMPANIONS.iter().filter(|name| ![CONFIG, INDEX].contains(*name));
    for name in optional.chain([&CARD]) {
        files.extend(probe_if_there(client, folder, name).await?);
    }
    if let Some(modules) = files.iter().find(|file| file.path == MODULES).map(|file| file.address.clone()) {
        let (bytes, _) = client.document(&modules, usize::try_from(CONFIG_BYTES).unwrap_or(usize::MAX)).await?;
        for name in format::module_configs(&String::from_utf8_lossy(&bytes)).at(|| modules.shown())? {
            check_path(&name).at(|| modules.shown())?;
            files.extend(probe_if_there(client, folder, &name).await?);
        }
    }
    let card = match files.iter().find(|file| file.path == CARD && file.size_bytes <= MAX_CARD_BYTES as u64) {
        Some(card) => {
            let (bytes, _) = client.document(&card.address, MAX_CARD_BYTES).await?;
            Card::from_markdown(&String::from_utf8_lossy(&bytes))
        }
        None => Card::default(),
    };
    match probe_if_there(client, folder, INDEX).await? {
        None => files.push(probe(client, folder, WEIGHTS).await?),
        Some(index) => {
            let (bytes, _) =
                client.document(&index.address, usize::try_from(INDEX_BYTES).unwrap_or(usize::MAX)).await?;
            for name in shards(&bytes).at(|| index.address.shown())? {
                files.push(probe(client, folder, &name).await?);
            }
            files.push(index);
        }
    }
    Ok(manifest(folder, files, card))
}

/// The files that an index names, each a plain name in the folder.
fn shards(index: &[u8]) -> Result<BTreeSet<String>> {
    let malformed = |words: String| Error::new(ErrorKind::MalformedSafetensors, words);
    json::check_depth(index)?;
    let index: Index = serde_json::from_slice(index).map_err(|error| malformed(format!("the index: {error}")))?;
    let names: BTreeSet<String> = index.weight_map.into_values().collect();
    if names.len() > MAX_SHARDS {
        let words = format!("shards: {}, the limit is {MAX_SHARDS}", names.len());
        return Err(Error::new(ErrorKind::LimitExceeded, words));
    }
    for name in &names {
        if check_path(name).is_err() || name.contains('/') || !name.ends_with(".safetensors") {
            let shown: String = name.chars().take(80).flat_map(char::escape_debug).collect();
            return Err(malformed(format!("\"{shown}\" is no name of a shard in this folder")));
        }
    }
    Ok(names)
}

/// One GGUF file, and the others where its name says that it is one of several.
pub(super) async fn file(client: &Client, address: &Address) -> Result<Manifest> {
    let name = address.file_name();
    check_path(&name).at(|| address.shown())?;
    let folder = address.join(".")?;
    let mut files = Vec::new();
    match shard_of(&name) {
        // The query may be a signature of this very file, so the address stays as it is.
        None => files.push(probe_at(client, name, address.clone()).await?),
        Some(shard) if shard.count as usize > MAX_SHARDS => {
            let words = format!("shards: {}, the limit is {MAX_SHARDS}", shard.count);
            return Err(Error::new(ErrorKind::LimitExceeded, words).at(address.shown()));
        }
        Some(shard) => {
            for number in 1..=shard.count {
                let name = shard_name(&shard, number);
                files.push(match number == shard.number {
                    true => probe_at(client, name, address.clone()).await?,
                    false => probe(client, &folder, &name).await?,
                });
            }
        }
    }
    Ok(manifest(address, files, Card::default()))
}

fn manifest(address: &Address, files: Vec<RepoFile>, card: Card) -> Manifest {
    let mut marks = String::new();
    for file in &files {
        marks.push_str(&format!("{}\n{}\n{:?}\n", file.path, file.size_bytes, file.expected));
    }
    let commit = sha256_hex(marks.as_bytes()).chars().take(40).collect();
    let repo = address.path().trim_matches('/').to_owned();
    Manifest { hub: address.origin(), repo, revision: None, commit, files, card, gate: Gate::Open }
}

async fn probe(client: &Client, folder: &Address, name: &str) -> Result<RepoFile> {
    probe_at(client, name.to_owned(), folder.child(name)).await
}

async fn probe_if_there(client: &Client, folder: &Address, name: &str) -> Result<Option<RepoFile>> {
    match probe(client, folder, name).await {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Asks for one byte, whose answer tells the size.
async fn probe_at(client: &Client, path: String, address: Address) -> Result<RepoFile> {
    let mut tried = 0;
    let answer = loop {
        match client.try_get(&address, Some(FIRST_BYTE), false).await {
            Ok(answer) => break answer,
            Err(fault) => {
                client.back_off(fault, &mut tried).await?;
            }
        }
    };
    let response = &answer.response;
    let total = match response.status {
        206 => response.header("content-range").and_then(|range| range.rsplit_once('/')).map(|(_, total)| total),
        // A server without ranges; a coded answer's length would be that of the coded bytes.
        _ if response.header("content-encoding").is_some() => None,
        _ => response.header("content-length"),
    };
    let Some(size_bytes) = total.and_then(|total| total.trim().parse().ok()) else {
        // An empty file has no first byte to give, and nothing here needs one.
        let words = "the server does not tell the file's size";
        return Err(Error::new(ErrorKind::SizeMismatch, words).at(address.shown()));
    };
    let is_page = response.header("content-type").is_some_and(|kind| kind.starts_with("text/html"));
    if is_page {
        let words = "a web page came in place of the file (a sign-in or error page?)";
        return Err(Error::new(ErrorKind::UnsupportedFormat, words).at(address.shown()));
    }
    let expected = match response.header("x-linked-etag").map(|mark| mark.trim_matches('"').to_ascii_lowercase()) {
        // Hubs give a large file's SHA-256 as its mark.
        Some(mark) if is_hex(&mark, 64) => Expected::Sha256(mark),
        _ => Expected::Unknown(response.header("etag").map(str::to_owned)),
    };
    Ok(RepoFile { path, size_bytes, expected, address })
}
