//! The hub's public API: a revision to its commit, a commit to its files.
//!
//! `GET /api/models/{repo}/revision/{revision}` and `GET /api/models/{repo}/tree/{commit}?recursive=true`, as
//! <https://huggingface.co/docs/hub/api> and the hub's OpenAPI description have them; mirrors keep the same layout.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::address::{Address, encode_path};
use super::card::{Card, Gate};
use super::client::Client;
use super::manifest::{Expected, Manifest, RepoFile};
use super::reference::check_path;
use crate::error::{At, Error, ErrorKind, Result};
use crate::format::json;

/// Most bytes of one answer of the API.
const MAX_ANSWER_BYTES: usize = 16 << 20;
/// Most pages of a listing.
const MAX_PAGES: usize = 100;
/// Most files of a repository.
const MAX_FILES: usize = 50_000;
/// Most bytes of a card that is fetched for its header.
const MAX_CARD_BYTES: usize = 1 << 20;

/// What `revision/` tells of a repository.
#[derive(Deserialize)]
struct Info {
    sha: Option<String>,
    #[serde(default)]
    gated: Value,
    #[serde(rename = "cardData")]
    card: Option<Map<String, Value>>,
}

/// One line of a listing.
#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "type")]
    kind: String,
    path: String,
    #[serde(default)]
    size: Option<u64>,
    oid: Option<String>,
    lfs: Option<Lfs>,
}

/// A large file, which git has only a pointer to.
#[derive(Deserialize)]
struct Lfs {
    oid: String,
    size: Option<u64>,
}

/// Where the API tells of a revision. Its own slashes are part of its name.
fn revision_address(client: &Client, repo: &str, revision: &str) -> Result<Address> {
    let api = client.hub().child(&format!("api/models/{repo}"));
    Address::parse(&format!("{}/revision/{}", api.to_url(), encode_path(revision).replace('/', "%2F")))
}

async fn info(client: &Client, asked: &Address) -> Result<Info> {
    let (bytes, _) = client.document(asked, MAX_ANSWER_BYTES).await?;
    parse(&bytes).at(|| asked.shown())
}

/// The header of a repository's card, by one request; by two at mirrors whose API does not have it.
pub(super) async fn card_of(client: &Client, repo: &str) -> Result<Card> {
    let info = info(client, &revision_address(client, repo, "main")?).await?;
    match info.card {
        Some(card) => Ok(Card::from_json(&card)),
        None => card_at(client, &client.hub().child(&format!("{repo}/resolve/main/README.md"))).await,
    }
}

/// Asks for a revision and lists its commit.
pub(super) async fn resolve(client: &Client, repo: &str, revision: &str) -> Result<Manifest> {
    let api = client.hub().child(&format!("api/models/{repo}"));
    let asked = revision_address(client, repo, revision)?;
    let info = info(client, &asked).await?;
    let commit = info.sha.filter(|sha| is_hex(sha, 40)).map(|sha| sha.to_ascii_lowercase());
    let commit = commit.ok_or_else(|| not_a_hub("tells no commit").at(asked.shown()))?;
    // A commit that was asked for is the commit that is used, whatever the answer says.
    if is_hex(revision, 40) && !revision.eq_ignore_ascii_case(&commit) {
        let words = format!("commit {revision} was asked for, the hub answers with {commit}");
        return Err(Error::new(ErrorKind::RevisionChanged, words).at(asked.shown()));
    }
    let files = list(client, &api, repo, &commit).await?;
    let card = match info.card {
        Some(card) => Card::from_json(&card),
        None => card(client, &files).await?,
    };
    let gate = match &info.gated {
        Value::Bool(true) => Gate::Closed,
        Value::String(how) if how == "auto" || how == "manual" => Gate::Closed,
        _ => Gate::Open,
    };
    Ok(Manifest {
        hub: client.hub().to_url().trim_end_matches('/').to_owned(),
        repo: repo.to_owned(),
        revision: Some(revision.to_owned()),
        commit,
        files,
        card,
        gate,
    })
}

/// All files of a commit, page by page.
async fn list(client: &Client, api: &Address, repo: &str, commit: &str) -> Result<Vec<RepoFile>> {
    let mut files: Vec<RepoFile> = Vec::new();
    let mut page = api.child(&format!("tree/{commit}")).with_query("recursive=true");
    for _ in 0..MAX_PAGES {
        let (bytes, answer) = client.document(&page, MAX_ANSWER_BYTES).await?;
        let entries: Vec<Entry> = parse(&bytes).at(|| page.shown())?;
        for entry in entries.into_iter().filter(|entry| entry.kind == "file") {
            if files.len() >= MAX_FILES {
                let words = format!("files of a repository: more than {MAX_FILES}, which is the limit");
                return Err(Error::new(ErrorKind::LimitExceeded, words).at(repo));
            }
            files.push(file(client, repo, commit, entry).at(|| page.shown())?);
        }
        let Some(next) = answer.response.header("link").and_then(next_link) else { return Ok(files) };
        let next = page.join(next)?;
        if next.origin() != page.origin() {
            return Err(not_a_hub("has its next page on another host").at(page.shown()));
        }
        page = next;
    }
    let words = format!("pages of a listing: more than {MAX_PAGES}, which is the limit");
    Err(Error::new(ErrorKind::LimitExceeded, words).at(repo))
}

/// One file of a listing, checked.
fn file(client: &Client, repo: &str, commit: &str, entry: Entry) -> Result<RepoFile> {
    let shown: String = entry.path.chars().take(80).flat_map(char::escape_debug).collect();
    check_path(&entry.path).map_err(|error| not_a_hub(&format!("lists a file that {}", error.message())))?;
    let (size, expected) = match entry.lfs {
        Some(lfs) => {
            let oid = lfs.oid.strip_prefix("sha256:").unwrap_or(&lfs.oid).to_ascii_lowercase();
            if !is_hex(&oid, 64) {
                return Err(not_a_hub("gives an lfs.oid that is no SHA-256").at(shown));
            }
            (lfs.size.or(entry.size), Expected::Sha256(oid))
        }
        None => match entry.oid {
            Some(oid) if is_hex(&oid, 40) => (entry.size, Expected::GitBlob(oid.to_ascii_lowercase())),
            _ => (entry.size, Expected::Unknown(None)),
        },
    };
    let size_bytes = size.ok_or_else(|| not_a_hub("does not tell the size of a file").at(shown))?;
    let address = client.hub().child(&format!("{repo}/resolve/{commit}/{}", entry.path));
    Ok(RepoFile { path: entry.path, size_bytes, expected, address })
}

/// The card's header out of the card itself, for mirrors whose API does not have it.
async fn card(client: &Client, files: &[RepoFile]) -> Result<Card> {
    let readme = files.iter().find(|file| file.path == "README.md" && file.size_bytes <= MAX_CARD_BYTES as u64);
    let Some(readme) = readme else { return Ok(Card::default()) };
    card_at(client, &readme.address).await
}

async fn card_at(client: &Client, readme: &Address) -> Result<Card> {
    let (bytes, _) = client.document(readme, MAX_CARD_BYTES).await?;
    Ok(Card::from_markdown(&String::from_utf8_lossy(&bytes)))
}

/// The address of the next page in a `Link` header: `<...>; rel="next"`.
fn next_link(header: &str) -> Option<&str> {
    header.split(',').find_map(|link| {
        let (address, rest) = link.trim().strip_prefix('<')?.split_once('>')?;
        rest.split(';').any(|part| matches!(part.trim(), "rel=\"next\"" | "rel=next")).then_some(address)
    })
}

fn parse<T: for<'a> Deserialize<'a>>(bytes: &[u8]) -> Result<T> {
    let start = bytes.trim_ascii_start();
    if start.starts_with(b"<") {
        return Err(Error::new(
            ErrorKind::UnsupportedFormat,
            "a web page came in place of the API's answer (a sign-in page, or no hub at all)",
        ));
    }
    json::check_depth(bytes)?;
    serde_json::from_slice(bytes).map_err(|error| not_a_hub(&format!("is not understood: {error}")))
}

fn not_a_hub(words: &str) -> Error {
    Error::new(ErrorKind::UnsupportedFormat, format!("the hub's answer {words}"))
}

/// Whether a text is that many hexadecimal digits.
pub(super) fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::next_link;

    #[test]
    fn the_next_page_is_read_from_the_link_header() {
        let header = "<https://h/a?cursor=1>; rel=\"prev\", <https://h/a?cursor=2>; rel=\"next\"";
        assert_eq!(next_link(header), Some("https://h/a?cursor=2"));
        assert_eq!(next_link("<https://h/a>; rel=\"last\""), None);
    }
}
