//! A hub, its CDN and whoever else is asked, in memory; every fault is a switch.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use headwater::error::{Error, ErrorKind, Result};
use headwater::hub::edge::{Body, Request, Response, Transport};
use headwater::source::LocalFuture;
use serde_json::{Value, json};

use super::{Breaker, CDN, Clock, HUB, yield_once};
use crate::repository::{
    Asked, Repositories, asked, commit_of, content, file_at, git_hash, is_large, listing, part, sha256,
};

/// What a server does in place of its duty.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// This status, these headers, this text.
    Status(u16, Vec<(&'static str, &'static str)>, &'static str),
    /// The body ends after so many bytes, without an error.
    Cut(usize),
    /// The connection breaks after so many bytes.
    Reset(usize),
    /// Nothing comes any more after so many bytes.
    Hang(usize),
    /// A byte a second comes after so many bytes.
    Trickle(usize),
    /// A bit is wrong in the byte at this place of the answer.
    Flip(usize),
    /// So many bytes too many.
    Longer(usize),
    /// 200 and everything, whatever range was asked for.
    NoRanges,
    /// A header is replaced.
    Header(&'static str, &'static str),
    /// A redirect to there.
    Redirect(&'static str),
}

/// A request as servers saw it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) url: String,
    pub(crate) range: Option<(u64, u64)>,
    pub(crate) bearer: bool,
}

type Rule = Box<dyn Fn(&Seen, usize) -> Option<Fault>>;

/// A hub, its CDN and whoever else is asked.
#[derive(Default)]
pub(crate) struct Servers {
    /// Files by repository and path; large ones (those with weights) are on the CDN.
    pub(crate) files: RefCell<Repositories>,
    /// What the API tells of a repository beside its commit.
    pub(crate) info: RefCell<BTreeMap<String, Value>>,
    pub(crate) seen: RefCell<Vec<Seen>>,
    /// Bytes of bodies that were sent, by path.
    pub(crate) served: RefCell<BTreeMap<String, u64>>,
    pub(crate) rule: RefCell<Option<Rule>>,
    pub(crate) breaker: Breaker,
    /// Moved by what takes its time.
    pub(crate) clock: Rc<Clock>,
    /// Signatures that are accepted.
    pub(crate) signature: Cell<u64>,
    /// Follows redirects by itself, as browsers do.
    pub(crate) follows: Cell<bool>,
    /// Bodies of the CDN that are being sent, and the most that ever were at once.
    pub(crate) open: Cell<usize>,
    pub(crate) most_open: Cell<usize>,
    /// Repositories that want a token.
    pub(crate) gated: RefCell<BTreeSet<String>>,
}

impl Servers {
    pub(crate) fn put(&self, repo: &str, path: &str, bytes: Vec<u8>) {
        self.files.borrow_mut().entry(repo.to_owned()).or_default().insert(path.to_owned(), bytes);
    }

    pub(crate) fn commit(&self, repo: &str) -> String {
        commit_of(&self.files.borrow()[repo])
    }

    pub(crate) fn rule(&self, rule: impl Fn(&Seen, usize) -> Option<Fault> + 'static) {
        *self.rule.borrow_mut() = Some(Box::new(rule));
    }

    pub(crate) fn forget(&self) {
        self.seen.borrow_mut().clear();
        self.served.borrow_mut().clear();
    }

    pub(crate) fn served(&self, path: &str) -> u64 {
        self.served.borrow().iter().filter(|(key, _)| key.ends_with(path)).map(|(_, bytes)| bytes).sum()
    }

    /// Status, headers and body as an honest server gives them.
    fn answer(&self, url: &str) -> (u16, Vec<(String, String)>, Vec<u8>) {
        let not_found = || (404, vec![("X-Error-Code".to_owned(), "EntryNotFound".to_owned())], b"not here".to_vec());
        let files = self.files.borrow();
        if let Some(path) = url.strip_prefix(CDN) {
            let (path, query) = path.split_once('?').unwrap_or((path, ""));
            if query != format!("X-Sig=signature{:08}", self.signature.get()) {
                return (403, Vec::new(), format!("<Error>AccessDenied {query}</Error>").into_bytes());
            }
            return content(&files, path).map_or_else(not_found, |bytes| (200, Vec::new(), bytes.to_vec()));
        }
        let Some(path) = url.strip_prefix(HUB) else { return (200, Vec::new(), b"a stranger".to_vec()) };
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        if let Some(rest) = path.strip_prefix("/api/models/") {
            let Asked { repo, files, commit, listing: wants_listing } = match asked(&files, rest) {
                Ok(asked) => asked,
                Err(code) => return (404, vec![("X-Error-Code".to_owned(), code.to_owned())], Vec::new()),
            };
            if !wants_listing {
                let mut info = json!({ "id": repo, "sha": commit, "gated": false, "private": false });
                for (key, value) in self.info.borrow().get(&repo).and_then(Value::as_object).into_iter().flatten() {
                    info[key] = value.clone();
                }
                return (200, Vec::new(), info.to_string().into_bytes());
            }
            // Two entries a page.
            let entries = listing(files, 0);
            let page: usize = query.rsplit_once("cursor=").and_then(|(_, page)| page.parse().ok()).unwrap_or(0);
            let part: Vec<Value> = entries.iter().skip(2 * page).take(2).cloned().collect();
            let more = 2 * page + 2 < entries.len();
            let link = format!("<{HUB}{path}?recursive=true&cursor={}>; rel=\"next\"", page + 1);
            let headers = if more { vec![("Link".to_owned(), link)] } else { Vec::new() };
            return (200, headers, Value::from(part).to_string().into_bytes());
        }
        if path.contains("/resolve/") {
            let Some((_, file, bytes)) = file_at(&files, path) else { return not_found() };
            if is_large(file) {
                let to = format!("{CDN}/{}?X-Sig=signature{:08}", sha256(bytes), self.signature.get());
                return (302, vec![("Location".to_owned(), to)], Vec::new());
            }
            return (200, Vec::new(), bytes.to_vec());
        }
        // A plain server.
        let found = files.get("plain").and_then(|own| own.get(&path[1..]));
        found.map_or_else(not_found, |bytes| {
            (200, vec![("ETag".to_owned(), format!("\"{}\"", git_hash(bytes)))], bytes.clone())
        })
    }

    fn serve(self: &Rc<Self>, request: &Request) -> Result<Response> {
        if self.breaker.breaks() {
            return Err(Error::new(ErrorKind::Network, format!("broken on purpose at {}", request.url)));
        }
        let seen = Seen {
            url: request.url.clone(),
            range: request.range.map(|range| (range.first, range.last)),
            bearer: request.bearer.is_some(),
        };
        self.seen.borrow_mut().push(seen.clone());
        let count = self.seen.borrow().len();
        let fault = self.rule.borrow().as_ref().and_then(|rule| rule(&seen, count));
        let (mut status, mut headers, mut body) = self.answer(&request.url);
        let wants_token = self.gated.borrow().iter().any(|repo| request.url.starts_with(&format!("{HUB}/{repo}/")));
        if wants_token && request.bearer.is_none() {
            (status, headers, body) = (401, vec![("X-Error-Code".to_owned(), "GatedRepo".to_owned())], Vec::new());
        }
        if let Some(range) = request.range
            && status == 200
            && !matches!(fault, Some(Fault::NoRanges))
        {
            match part(&body, (range.first, range.last)) {
                None => (status, body) = (416, Vec::new()),
                Some((told, bytes)) => {
                    headers.push(("Content-Range".to_owned(), told));
                    (status, body) = (206, bytes);
                }
            }
        }
        if request.range.is_some() && status == 200 {
            headers.push(("Content-Length".to_owned(), body.len().to_string()));
        }
        let mut end = End::Whole;
        match fault {
            Some(Fault::Status(other, more, text)) => {
                status = other;
                headers = more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
                body = text.as_bytes().to_vec();
            }
            Some(Fault::Redirect(to)) => (status, headers) = (302, vec![("Location".to_owned(), to.to_owned())]),
            Some(Fault::Cut(len)) => body.truncate(len),
            Some(Fault::Reset(len)) => {
                body.truncate(len);
                end = End::Reset;
            }
            Some(Fault::Hang(len)) => {
                body.truncate(len);
                end = End::Hang;
            }
            Some(Fault::Trickle(len)) => end = End::Trickle(len),
            Some(Fault::Flip(place)) if place < body.len() => body[place] ^= 4,
            Some(Fault::Longer(more)) => body.extend(vec![7; more]),
            Some(Fault::Header(name, value)) => {
                headers.retain(|(key, _)| !key.eq_ignore_ascii_case(name));
                headers.push((name.to_owned(), value.to_owned()));
            }
            _ => {}
        }
        let path = request.url.split('?').next().unwrap_or_default().to_owned();
        if path.starts_with(CDN) {
            self.open.set(self.open.get() + 1);
            self.most_open.set(self.most_open.get().max(self.open.get()));
        }
        let body = Box::new(Sent { bytes: body, at: 0, end, path, turn: false, servers: Rc::clone(self) });
        Ok(Response { status, url: request.url.clone(), headers, body })
    }
}

/// The servers, as the hub's transport.
pub(crate) struct Wire(pub(crate) Rc<Servers>);

#[derive(Clone, Copy, PartialEq)]
enum End {
    Whole,
    Reset,
    Hang,
    Trickle(usize),
}

struct Sent {
    bytes: Vec<u8>,
    at: usize,
    end: End,
    path: String,
    turn: bool,
    servers: Rc<Servers>,
}

impl Drop for Sent {
    fn drop(&mut self) {
        if self.path.starts_with(CDN) {
            self.servers.open.set(self.servers.open.get() - 1);
        }
    }
}

impl Body for Sent {
    fn next(&mut self) -> LocalFuture<'_, Result<Option<Vec<u8>>>> {
        Box::pin(async move {
            // Every other call has to wait once, so that connections take turns.
            self.turn = !self.turn;
            if self.turn {
                yield_once().await;
            }
            if self.servers.breaker.breaks() {
                return Err(Error::new(ErrorKind::Network, "broken on purpose"));
            }
            let rest = &self.bytes[self.at..];
            if rest.is_empty() {
                return match self.end {
                    End::Whole | End::Trickle(_) => Ok(None),
                    End::Reset => Err(Error::new(ErrorKind::Network, "the connection was reset")),
                    End::Hang => std::future::pending().await,
                };
            }
            let most = match self.end {
                End::Trickle(len) if self.at >= len => {
                    self.servers.clock.now_secs.set(self.servers.clock.now_secs.get() + 1.0);
                    1
                }
                _ => 300_000,
            };
            let part = rest[..rest.len().min(most)].to_vec();
            self.at += part.len();
            *self.servers.served.borrow_mut().entry(self.path.clone()).or_default() += part.len() as u64;
            Ok(Some(part))
        })
    }
}

impl Transport for Wire {
    fn get<'a>(&'a self, request: &'a Request) -> LocalFuture<'a, Result<Response>> {
        Box::pin(async move {
            let mut request = request.clone();
            for _ in 0..10 {
                let answer = self.0.serve(&request)?;
                let location = answer.header("location").map(str::to_owned);
                if let (true, Some(to), 300..400) = (self.0.follows.get(), location, answer.status) {
                    // As browsers do: another origin does not get the header.
                    if !to.starts_with(HUB) {
                        request.bearer = None;
                    }
                    request.url = to;
                    continue;
                }
                return Ok(answer);
            }
            Err(Error::new(ErrorKind::Network, "too many redirects"))
        })
    }
}
