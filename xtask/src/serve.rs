//! A small static server on the loopback address: the demo page as a user's own server would serve it.
//!
//! Correct types, byte ranges, one strict policy. No cross-origin isolation but where other engines run, which want it: nothing of ours does.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::paths;

/// All that a page of ours may do. No inline script, no `eval`, no other origin but the hub's and those where it keeps files.
const POLICY: &str = "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; \
                      connect-src 'self' https://huggingface.co https://*.huggingface.co https://*.hf.co; \
                      style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// Where workers may come from, and where those of other engines do.
const WORKERS: &str = "worker-src 'self'";
const WORKERS_OF_PEERS: &str = "worker-src 'self' blob:";
/// Types by file extension; a module or a wasm file of the wrong type does not load.
const TYPES: &[(&str, &str)] = &[
    ("html", "text/html; charset=utf-8"),
    ("js", "text/javascript; charset=utf-8"),
    ("mjs", "text/javascript; charset=utf-8"),
    ("css", "text/css; charset=utf-8"),
    ("json", "application/json"),
    ("wasm", "application/wasm"),
    ("svg", "image/svg+xml"),
    ("png", "image/png"),
    ("ico", "image/x-icon"),
    ("txt", "text/plain; charset=utf-8"),
    ("md", "text/plain; charset=utf-8"),
];
/// The longest request head that is read.
const MAX_HEAD_BYTES: u64 = 16 * 1024;
/// How long a connection may be silent.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is served: which folder answers under which first part of the address, and how.
#[derive(Clone)]
pub(crate) struct Site {
    /// The first match counts.
    mounts: Vec<(&'static str, PathBuf)>,
    /// Whether other engines run here: they have threads only where pages are cross-origin isolated, and make their workers
    /// of texts.
    peers: bool,
}

impl Site {
    /// Serves a folder too, before all that was mounted.
    pub(crate) fn mount(&mut self, at: &'static str, folder: PathBuf) -> &mut Self {
        self.mounts.insert(0, (at, folder));
        self
    }

    /// The same with wllama at `/peers/wllama/`, which is in the folder `node_modules`.
    pub(crate) fn with_peers(mut self, node_modules: &Path) -> Self {
        self.peers = true;
        self.mount("/peers/wllama/", node_modules.join("@wllama/wllama/esm"));
        self
    }
}

/// The demo: the page at `/`, the package at `/pkg/`.
pub(crate) fn demo_site() -> Site {
    Site { mounts: vec![("/pkg/", paths::at("pkg")), ("/", paths::at("www"))], peers: false }
}

/// The demo, and the tests' own pages and data at `/tests/`.
pub(crate) fn test_site() -> Site {
    let mut site = demo_site();
    site.mount("/tests/", paths::at("tests"));
    site
}

/// Starts serving on a port of the loopback address (0: any free one) until the process ends; gives the address.
pub(crate) fn start(port: u16, site: Site) -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        .with_context(|| format!("cannot listen on port {port} (another one: --port N)"))?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let site = site.clone();
            // A browser that goes away in the middle of an answer is not an error here.
            thread::spawn(move || answer(&stream, &site).ok());
        }
    });
    Ok(address)
}

/// What is sent back, before its body.
struct Head {
    status: &'static str,
    headers: Vec<(&'static str, String)>,
}

fn answer(stream: &TcpStream, site: &Site) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let Some(request) = Request::read(stream)? else { return Ok(()) };
    if request.method != "GET" && request.method != "HEAD" {
        return refuse(stream, site, "405 Method Not Allowed");
    }
    let Some(path) = find(&request.path, &site.mounts) else { return refuse(stream, site, "404 Not Found") };
    let mut file = File::open(&path)?;
    let size_bytes = file.metadata()?.len();
    let mut headers = vec![("Content-Type", content_type(&path).to_owned()), ("Accept-Ranges", "bytes".to_owned())];
    let (status, start, length_bytes) = match request.range.as_deref().map(|range| parse_range(range, size_bytes)) {
        None | Some(Range::Whole) => ("200 OK", 0, size_bytes),
        Some(Range::Part(first, last)) => {
            headers.push(("Content-Range", format!("bytes {first}-{last}/{size_bytes}")));
            ("206 Partial Content", first, last - first + 1)
        }
        Some(Range::Unsatisfiable) => {
            let headers = vec![("Content-Range", format!("bytes */{size_bytes}")), ("Content-Length", "0".to_owned())];
            return send(stream, site, &Head { status: "416 Range Not Satisfiable", headers });
        }
    };
    headers.push(("Content-Length", length_bytes.to_string()));
    send(stream, site, &Head { status, headers })?;
    if request.method == "GET" {
        file.seek(SeekFrom::Start(start))?;
        io::copy(&mut file.take(length_bytes), &mut &*stream)?;
    }
    Ok(())
}

fn refuse(stream: &TcpStream, site: &Site, status: &'static str) -> io::Result<()> {
    let headers =
        vec![("Content-Type", "text/plain; charset=utf-8".to_owned()), ("Content-Length", status.len().to_string())];
    send(stream, site, &Head { status, headers })?;
    (&*stream).write_all(status.as_bytes())
}

fn send(mut stream: &TcpStream, site: &Site, head: &Head) -> io::Result<()> {
    let mut text = format!("HTTP/1.1 {}\r\n", head.status);
    for (name, value) in &head.headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    let policy = if site.peers { POLICY.replace(WORKERS, WORKERS_OF_PEERS) } else { POLICY.to_owned() };
    text.push_str(&format!("Content-Security-Policy: {policy}\r\n"));
    if site.peers {
        text.push_str("Cross-Origin-Opener-Policy: same-origin\r\nCross-Origin-Embedder-Policy: require-corp\r\n");
    }
    text.push_str("X-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\n");
    text.push_str("Cross-Origin-Resource-Policy: same-origin\r\nCache-Control: no-cache\r\nConnection: close\r\n\r\n");
    stream.write_all(text.as_bytes())
}

/// The parts of a request that matter here.
struct Request {
    method: String,
    path: String,
    range: Option<String>,
}

impl Request {
    /// Reads a request's head; nothing where the connection closes before it is whole, or it is not HTTP.
    fn read(stream: &TcpStream) -> io::Result<Option<Self>> {
        let mut lines = BufReader::new(stream.take(MAX_HEAD_BYTES)).lines();
        let Some(first) = lines.next().transpose()? else { return Ok(None) };
        let mut words = first.split(' ');
        let (Some(method), Some(target)) = (words.next(), words.next()) else { return Ok(None) };
        let path = target.split(['?', '#']).next().unwrap_or_default().to_owned();
        let mut request = Self { method: method.to_owned(), path, range: None };
        for line in lines {
            let line = line?;
            if line.is_empty() {
                return Ok(Some(request));
            }
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("range")
            {
                request.range = Some(value.trim().to_owned());
            }
        }
        Ok(None)
    }
}

/// The file that an address means. Nothing outside the mounted folders, and no hidden file, is ever named.
fn find(address: &str, mounts: &[(&str, PathBuf)]) -> Option<PathBuf> {
    let address = decode(address)?;
    let (prefix, folder) = mounts.iter().find(|(prefix, _)| address.starts_with(prefix))?;
    let mut path = folder.clone();
    for part in address[prefix.len()..].split('/').filter(|part| !part.is_empty()) {
        if part.starts_with('.') || part.contains(['\\', ':', '\0']) {
            return None;
        }
        path.push(part);
    }
    if path.is_dir() {
        path.push("index.html");
    }
    path.is_file().then_some(path)
}

/// Undoes percent encoding; nothing where it is not UTF-8 or not well formed.
fn decode(address: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(address.len());
    let mut rest = address.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digit = |byte: u8| char::from(byte).to_digit(16);
            let (high, low) = (digit(rest.next()?)?, digit(rest.next()?)?);
            bytes.push(u8::try_from(high * 16 + low).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

/// What a Range header asks of a file.
#[derive(Debug, PartialEq, Eq)]
enum Range {
    /// Everything: also where the header is of a kind that is not served, as the standard allows.
    Whole,
    /// From the first to the last byte, inclusive.
    Part(u64, u64),
    /// Nothing that the file has.
    Unsatisfiable,
}

fn parse_range(header: &str, size_bytes: u64) -> Range {
    let Some((first, last)) = header.strip_prefix("bytes=").and_then(|range| range.split_once('-')) else {
        return Range::Whole;
    };
    match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(first), _) if first >= size_bytes => Range::Unsatisfiable,
        (Ok(first), Ok(last)) if last >= first => Range::Part(first, last.min(size_bytes - 1)),
        (Ok(first), Err(_)) if last.is_empty() => Range::Part(first, size_bytes - 1),
        (Err(_), Ok(n)) if first.is_empty() && (n == 0 || size_bytes == 0) => Range::Unsatisfiable,
        (Err(_), Ok(n)) if first.is_empty() => Range::Part(size_bytes.saturating_sub(n), size_bytes - 1),
        _ => Range::Whole,
    }
}

fn content_type(path: &Path) -> &'static str {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    TYPES.iter().find(|(known, _)| *known == extension).map_or("application/octet-stream", |(_, name)| name)
}

#[cfg(test)]
#[path = "serve_tests.rs"]
mod tests;
