//! A hub and its CDN on two ports of this machine, with real sockets, whose conduct tests can change.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::repository::{Repositories, asked, content, file_at, is_large, listing, part, sha256};

/// What a server does in place of its duty.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// This status and header.
    Status(u16, &'static str),
    /// The body ends after so many bytes and the socket is closed, whatever length was promised.
    Cut(usize),
    /// Neither a length nor chunks are told, and the body ends early: it looks complete.
    CutSilently(usize),
    /// A bit is wrong.
    Flip(usize),
    /// A pause before every 64 KiB.
    Slow(Duration),
    /// Everything, whatever range was asked for.
    NoRanges,
}

/// A request as a server saw it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) cdn: bool,
    pub(crate) path: String,
    pub(crate) token: Option<String>,
}

type Rule = Box<dyn Fn(&Seen, usize) -> Option<Fault> + Send>;

#[derive(Default)]
struct State {
    repos: Repositories,
    token: Option<String>,
    /// What large files are said to have more than they do.
    exaggeration: u64,
    signature: u64,
    seen: Vec<Seen>,
    /// Bytes of bodies that the CDN sent.
    sent: u64,
    rule: Option<Rule>,
}

/// Both servers.
pub(crate) struct Servers {
    pub(crate) hub: String,
    pub(crate) cdn: String,
    state: Arc<Mutex<State>>,
    gone: Arc<AtomicBool>,
}

impl Servers {
    pub(crate) fn start() -> Self {
        let state: Arc<Mutex<State>> = Arc::default();
        let gone: Arc<AtomicBool> = Arc::default();
        let listen = || TcpListener::bind("127.0.0.1:0").expect("a port");
        let (hub, cdn) = (listen(), listen());
        let at = |listener: &TcpListener| format!("127.0.0.1:{}", listener.local_addr().expect("an address").port());
        let (hub_at, cdn_at) = (at(&hub), at(&cdn));
        for (listener, is_cdn) in [(hub, false), (cdn, true)] {
            let (state, gone, cdn) = (Arc::clone(&state), Arc::clone(&gone), cdn_at.clone());
            thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    if gone.load(Ordering::SeqCst) {
                        return;
                    }
                    let (state, cdn) = (Arc::clone(&state), cdn.clone());
                    // A client that goes away in the middle of an answer is what is tested.
                    thread::spawn(move || answer(&stream, &state, &cdn, is_cdn).ok());
                }
            });
        }
        Self { hub: hub_at, cdn: cdn_at, state, gone }
    }

    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.state.lock().expect("no test panics with it"))
    }

    pub(crate) fn put(&self, repo: &str, path: &str, bytes: Vec<u8>) {
        self.with(|state| state.repos.entry(repo.to_owned()).or_default().insert(path.to_owned(), bytes));
    }

    pub(crate) fn want_token(&self, token: &str) {
        self.with(|state| state.token = Some(token.to_owned()));
    }

    /// Large files are said to have so many bytes more.
    pub(crate) fn exaggerate(&self, bytes: u64) {
        self.with(|state| state.exaggeration = bytes);
    }

    pub(crate) fn rule(&self, rule: impl Fn(&Seen, usize) -> Option<Fault> + Send + 'static) {
        self.with(|state| state.rule = Some(Box::new(rule)));
    }

    pub(crate) fn honest(&self) {
        self.with(|state| state.rule = None);
    }

    /// What was signed before is refused from now on.
    pub(crate) fn expire(&self) {
        self.with(|state| state.signature += 1);
    }

    pub(crate) fn forget(&self) {
        self.with(|state| (state.seen.clear(), state.sent = 0));
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.with(|state| state.seen.clone())
    }

    pub(crate) fn sent(&self) -> u64 {
        self.with(|state| state.sent)
    }

    pub(crate) fn expirer(&self) -> impl Fn() + Send + 'static {
        let state = Arc::downgrade(&self.state);
        move || {
            let state = state.upgrade();
            thread::spawn(move || state.map(|state| state.lock().map(|mut state| state.signature += 1).ok()));
        }
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        self.gone.store(true, Ordering::SeqCst);
        for at in [&self.hub, &self.cdn] {
            drop(TcpStream::connect(at));
        }
    }
}

struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Answer {
    fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: Vec::new(), body: body.into() }
    }

    fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }
}

fn answer(stream: &TcpStream, state: &Mutex<State>, cdn: &str, is_cdn: bool) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next().transpose()?.unwrap_or_default();
    let target = first.split(' ').nth(1).unwrap_or_default().to_owned();
    let (mut range, mut token) = (None, None);
    for line in lines {
        let line = line?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(": ").unwrap_or((&line, ""));
        match name.to_ascii_lowercase().as_str() {
            "range" => {
                range = value
                    .strip_prefix("bytes=")
                    .and_then(|span| span.split_once('-'))
                    .map(|(a, b)| (a.parse::<u64>().expect("a number"), b.parse::<u64>().expect("a number")))
            }
            "authorization" => token = value.strip_prefix("Bearer ").map(str::to_owned),
            _ => {}
        }
    }
    let path = target.split('?').next().unwrap_or_default().to_owned();
    let seen = Seen { cdn: is_cdn, path: path.clone(), token: token.clone() };
    let (mut answer, fault) = {
        let Ok(mut state) = state.lock() else { return Ok(()) };
        state.seen.push(seen.clone());
        let count = state.seen.iter().filter(|other| other.cdn == is_cdn).count();
        let fault = state.rule.as_ref().and_then(|rule| rule(&seen, count));
        let answer = if is_cdn { from_cdn(&state, &target) } else { from_hub(&state, &target, token.as_deref(), cdn) };
        (answer, fault)
    };
    if let (Some((first, last)), 200, false) = (range, answer.status, matches!(fault, Some(Fault::NoRanges))) {
        match part(&answer.body, (first, last)) {
            None => answer = Answer::new(416, ""),
            Some((told, body)) => answer = Answer { status: 206, body, ..answer }.with("Content-Range", told),
        }
    }
    let (mut promised, mut pause, mut silent) = (answer.body.len(), None, false);
    match fault {
        Some(Fault::Status(status, header)) => {
            answer = Answer::new(status, "no");
            promised = 2;
            if let Some((name, value)) = header.split_once(": ") {
                answer = answer.with(name, value);
            }
        }
        Some(Fault::Cut(len)) => answer.body.truncate(len),
        Some(Fault::CutSilently(len)) => {
            answer.body.truncate(len);
            silent = true;
        }
        Some(Fault::Flip(place)) if place < answer.body.len() => answer.body[place] ^= 1,
        Some(Fault::Slow(time)) => pause = Some(time),
        _ => {}
    }
    let mut head = format!("HTTP/1.1 {} x\r\nConnection: close\r\n", answer.status);
    for (name, value) in &answer.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if !silent {
        head.push_str(&format!("Content-Length: {promised}\r\n"));
    }
    let mut stream = stream;
    stream.write_all(format!("{head}\r\n").as_bytes())?;
    for part in answer.body.chunks(64 << 10) {
        if let Some(time) = pause {
            thread::sleep(time);
        }
        stream.write_all(part)?;
        if is_cdn && let Ok(mut state) = state.lock() {
            state.sent += part.len() as u64;
        }
    }
    stream.flush()
}

fn from_cdn(state: &State, target: &str) -> Answer {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    if query != format!("Signature=verysecret{}", state.signature) {
        return Answer::new(403, format!("expired: {query}"));
    }
    content(&state.repos, path).map_or_else(|| Answer::new(404, "nothing"), |bytes| Answer::new(200, bytes))
}

fn from_hub(state: &State, target: &str, token: Option<&str>, cdn: &str) -> Answer {
    let (path, _) = target.split_once('?').unwrap_or((target, ""));
    let missing = |code: &str| Answer::new(404, "").with("X-Error-Code", code);
    if let Some(rest) = path.strip_prefix("/api/models/") {
        return match asked(&state.repos, rest) {
            Err(code) => missing(code),
            Ok(asked) if asked.listing => {
                Answer::new(200, Value::from(listing(asked.files, state.exaggeration)).to_string())
            }
            Ok(asked) => {
                let gated = if state.token.is_some() { json!("auto") } else { json!(false) };
                Answer::new(200, json!({"id": asked.repo, "sha": asked.commit, "gated": gated}).to_string())
            }
        };
    }
    if path.contains("/resolve/")
        && !path.ends_with("README.md")
        && state.token.is_some()
        && state.token.as_deref() != token
    {
        return match token {
            None => Answer::new(401, "").with("X-Error-Code", "GatedRepo"),
            Some(_) => {
                Answer::new(403, "").with("X-Error-Code", "GatedRepo").with("X-Error-Message", "Access is restricted")
            }
        };
    }
    match file_at(&state.repos, path) {
        None => missing("EntryNotFound"),
        Some((_, file, bytes)) if is_large(file) => {
            let to = format!("http://{cdn}/{}?Signature=verysecret{}", sha256(bytes), state.signature);
            Answer::new(302, "").with("Location", to)
        }
        Some((_, _, bytes)) => Answer::new(200, bytes),
    }
}
