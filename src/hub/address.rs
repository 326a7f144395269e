//! Addresses of the web, as far as hubs need them: `https`, or `http` of this machine; never a name or password inside.
//!
//! Not a general URL parser: hosts are ASCII, and what is unusual is refused. `Debug` and [`Address::shown`] leave the
//! query out, because signatures are in queries.

use std::fmt;

use crate::error::{Error, ErrorKind, Result};

/// Longest address that is read.
const MAX_BYTES: usize = 8192;

/// An absolute address.
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    secure: bool,
    /// Lower case; with its port where that is not the scheme's own.
    host: String,
    /// From the first slash, percent-encoded, without the query.
    path: String,
    /// What follows the question mark.
    query: Option<String>,
}

impl Address {
    /// Reads an absolute address. Fails with `InvalidArgument`, words without the query.
    pub fn parse(text: &str) -> Result<Address> {
        let bad = |words: &str| Err(invalid(format!("{} {words}", without_query(text))));
        if text.len() > MAX_BYTES || text.bytes().any(|byte| byte <= b' ' || byte == 0x7f) || !text.is_ascii() {
            return bad("is no address (spaces and letters beyond ASCII have to be percent-encoded)");
        }
        let (secure, rest) = match text.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => (true, rest),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => (false, rest),
            _ => return bad("is no https address"),
        };
        let rest = rest.split('#').next().unwrap_or_default();
        let (rest, query) = match rest.split_once('?') {
            Some((rest, query)) => (rest, Some(query.to_owned())),
            None => (rest, None),
        };
        let (authority, path) = rest.find('/').map_or((rest, "/"), |slash| rest.split_at(slash));
        if authority.contains('@') {
            return Err(invalid("addresses with a name or password in them are not used; give the token apart"));
        }
        let Some(host) = host(authority, secure) else { return bad("has no host that is understood") };
        if path.contains(['\\', '<', '>', '"']) {
            return bad("has letters that have to be percent-encoded");
        }
        let address = Address { secure, host, path: normal(path), query };
        if !secure && !address.is_loopback() {
            return bad("is not encrypted: https is needed everywhere but on this machine");
        }
        Ok(address)
    }

    /// The address that a `Location` or `Link` header of an answer from here means.
    pub fn join(&self, location: &str) -> Result<Address> {
        if location.contains("://") {
            return Address::parse(location);
        }
        if location.starts_with("//") {
            let scheme = if self.secure { "https:" } else { "http:" };
            return Address::parse(&format!("{scheme}{location}"));
        }
        let origin = self.origin();
        if location.starts_with('/') {
            return Address::parse(&format!("{origin}{location}"));
        }
        let folder = self.path.rsplit_once('/').map_or("", |(folder, _)| folder);
        Address::parse(&format!("{origin}{folder}/{location}"))
    }

    /// The address with more parts behind its path; parts are percent-encoded, slashes in them are kept. The query goes.
    #[must_use]
    pub fn child(&self, parts: &str) -> Address {
        let path = format!("{}/{}", self.path.trim_end_matches('/'), encode_path(parts));
        Address { path, query: None, ..self.clone() }
    }

    /// The address with this query.
    #[must_use]
    pub fn with_query(&self, query: &str) -> Address {
        Address { query: Some(query.to_owned()), ..self.clone() }
    }

    /// Scheme, host and port.
    pub fn origin(&self) -> String {
        format!("{}://{}", if self.secure { "https" } else { "http" }, self.host)
    }

    /// Host, with its port where that is not the scheme's own.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The path, still percent-encoded.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The last part of the path, decoded where that is UTF-8.
    pub fn file_name(&self) -> String {
        let name = self.path.rsplit('/').next().unwrap_or_default();
        decode(name).unwrap_or_else(|| name.to_owned())
    }

    /// Everything, for a request and for nothing else.
    pub fn to_url(&self) -> String {
        let query = self.query.as_ref().map_or(String::new(), |query| format!("?{query}"));
        format!("{}{}{query}", self.origin(), self.path)
    }

    /// For people: everything but the query, in which signatures are.
    pub fn shown(&self) -> String {
        format!("{}{}", self.origin(), self.path)
    }

    /// Whether it is this machine.
    pub fn is_loopback(&self) -> bool {
        let name = match self.host.rfind(':') {
            Some(colon) if !self.host.ends_with(']') => self.host.get(..colon).unwrap_or_default(),
            _ => &self.host,
        };
        matches!(name, "localhost" | "127.0.0.1" | "[::1]")
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown())
    }
}

/// Host and port in their one form; nothing where they are not understood.
fn host(authority: &str, secure: bool) -> Option<String> {
    let lower = authority.to_ascii_lowercase();
    let (name, port) = match lower.rfind(':') {
        Some(colon) if !lower.ends_with(']') => (lower.get(..colon)?, lower.get(colon.checked_add(1)?..)?),
        _ => (lower.as_str(), ""),
    };
    let is_v6 = name.len() > 2
        && name
            .strip_prefix('[')
            .and_then(|name| name.strip_suffix(']'))
            .is_some_and(|inner| inner.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b':' || byte == b'.'));
    let is_name = !name.is_empty()
        && name.len() <= 253
        && name.split('.').all(|label| {
            !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        });
    if !is_v6 && !is_name {
        return None;
    }
    if port.is_empty() {
        return Some(name.to_owned());
    }
    let port: u16 = port.parse().ok().filter(|port| *port > 0)?;
    let own = if secure { 443 } else { 80 };
    Some(if port == own { name.to_owned() } else { format!("{name}:{port}") })
}

/// A path without `.` and `..`.
fn normal(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/').skip(1) {
        match part {
            "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

fn without_query(text: &str) -> String {
    let shown = text.split(['?', '#']).next().unwrap_or_default();
    let plain = shown.chars().take(200).flat_map(char::escape_debug).collect::<String>();
    // A name and password before the host are not shown either.
    match (plain.find("://"), plain.find('@')) {
        (Some(scheme), Some(at)) if scheme < at => format!("\"{}://...\"", plain.get(..scheme).unwrap_or_default()),
        _ => format!("\"{plain}\""),
    }
}

/// A path in the form of addresses: everything but letters, digits, `-._~` and slashes becomes `%XX`.
pub(super) fn encode_path(path: &str) -> String {
    let mut encoded = String::with_capacity(path.len());
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// Undoes percent encoding; nothing where it is not UTF-8 or not well formed.
pub(super) fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digit = |byte: u8| char::from(byte).to_digit(16);
            let (high, low) = (digit(rest.next()?)?, digit(rest.next()?)?);
            bytes.push(u8::try_from(high.checked_mul(16)?.checked_add(low)?).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

fn invalid(words: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidArgument, words)
}

#[cfg(test)]
mod tests {
    use super::Address;

    #[test]
    fn addresses_have_one_form() {
        let form = |text: &str| Address::parse(text).unwrap().to_url();
        assert_eq!(form("https://Hub.Example:443/a/./b/../c?x=1#top"), "https://hub.example/a/c?x=1");
        assert_eq!(form("https://hub.example"), "https://hub.example/");
        assert_eq!(form("http://127.0.0.1:8080/m"), "http://127.0.0.1:8080/m");
        assert_eq!(form("http://[::1]:8080/m"), "http://[::1]:8080/m");
        assert_eq!(Address::parse("https://a.b/c?sig=secret").unwrap().shown(), "https://a.b/c");
        assert!(!format!("{:?}", Address::parse("https://a.b/c?sig=secret").unwrap()).contains("secret"));
    }

    #[test]
    fn what_is_unsafe_or_odd_is_refused_without_showing_secrets() {
        for bad in [
            "http://hub.example/m",
            "ftp://hub.example/m",
            "https://",
            "https:///path",
            "https://user:hunter2@hub.example/m",
            "https://hub.example:0/",
            "https://hub.example:99999/",
            "https://hub..example/",
            "https://hub example/",
            "https://höst/",
            "relative/path",
            "http://127.0.0.1.evil.example/",
            "http://localhost.evil.example/?sig=hunter2",
        ] {
            let error = Address::parse(bad).expect_err(bad).to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn locations_are_joined_as_servers_mean_them() {
        let base = Address::parse("https://hub.example/a/b?x=1").unwrap();
        let join = |location: &str| base.join(location).unwrap().to_url();
        assert_eq!(join("https://cdn.example/z?s=1"), "https://cdn.example/z?s=1");
        assert_eq!(join("/api/x?y=2"), "https://hub.example/api/x?y=2");
        assert_eq!(join("//cdn.example/z"), "https://cdn.example/z");
        assert_eq!(join("c"), "https://hub.example/a/c");
        assert!(base.join("http://cdn.example/z").is_err());
        assert_eq!(base.child("owner/a b#1.gguf").to_url(), "https://hub.example/a/b/owner/a%20b%231.gguf");
    }
}
