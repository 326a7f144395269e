//! What a model was made from, and the licences of that: a card of its own may tell less than the models behind it ask for.

use std::collections::{BTreeSet, VecDeque};

use super::api;
use super::client::Client;
use super::license::{Base, License};
use super::reference::{Pick, Reference};
use crate::error::{ErrorKind, Result};
use crate::format::Metadata;

/// Most base models that the hub is asked for, those of base models included. What is behind them counts as not told.
const MAX_ASKED: usize = 8;
/// Most base models that a file's metadata is read for.
const MAX_NAMED: u64 = 16;

/// Asks the hub for the cards of all base models of a licence, nearest first. Those that it does not have, or does not show,
/// have a licence that is not told. Nobody but the hub is asked.
pub(super) async fn look_up(client: &Client, license: &mut License) -> Result<()> {
    let mut wanted: VecDeque<String> = license.base_models.iter().cloned().collect();
    let mut seen = BTreeSet::new();
    let mut bases = Vec::new();
    while let Some(repo) = wanted.pop_front() {
        if !seen.insert(repo.to_ascii_lowercase()) {
            continue;
        }
        let asked = bases.len() < MAX_ASKED;
        let own = if asked { of(client, &repo).await? } else { License::default() };
        wanted.extend(own.base_models.iter().cloned());
        bases.push(Base { repo, license: own });
        if !asked {
            break;
        }
    }
    license.bases = bases;
    Ok(())
}

async fn of(client: &Client, repo: &str) -> Result<License> {
    // What is no name of a repository cannot be asked for.
    let Ok(Reference::Repo { repo, revision: None, pick: Pick::Any, .. }) = Reference::parse(&format!("hf:{repo}"))
    else {
        return Ok(License::default());
    };
    match api::card_of(client, &repo).await {
        Ok(card) => Ok(License::of_card(&card)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::AuthRequired | ErrorKind::Gated) => {
            Ok(License::default())
        }
        Err(error) => Err(error),
    }
}

/// The base models that a file's metadata names (`general.base_model.{n}.repo_url`), as far as they lie on a hub.
pub(super) fn named_in(metadata: &Metadata) -> Result<Vec<String>> {
    let count = metadata.integer("general.base_model.count")?.unwrap_or(0).min(MAX_NAMED);
    let mut named = Vec::new();
    for index in 0..count {
        let url = metadata.text(&format!("general.base_model.{index}.repo_url"))?.unwrap_or_default();
        let path = url.split_once("://").and_then(|(_, rest)| rest.split_once('/')).map_or("", |(_, path)| path);
        let mut parts = path.trim_matches('/').split('/');
        if let (Some(owner), Some(name), None) = (parts.next(), parts.next(), parts.next()) {
            named.push(format!("{owner}/{name}"));
        }
    }
    Ok(named)
}
