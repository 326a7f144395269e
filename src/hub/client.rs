//! One guarded request: the host is declared, the token goes to the hub's own origin alone, redirects are followed one
//! at a time, and what a server refuses becomes a typed error that tells no secret.

use std::fmt;
use std::rc::Rc;

use super::address::Address;
use super::edge::{ByteRange, Request, Response, Transport};
use super::hosts::Hosts;
use super::wait::Patience;
use crate::error::{Error, ErrorKind, Result};

/// Redirects that one request may take.
const MAX_REDIRECTS: usize = 5;
/// Tries of one request, the first included.
const TRIES: u32 = 3;
/// The wait before the second try, doubled before each next one; up to as much again is added by chance.
const FIRST_BACKOFF_SECS: f64 = 0.5;
/// The longest wait that a server may ask for.
const MAX_RETRY_AFTER_SECS: f64 = 60.0;
/// As much of a refusal's body is shown.
const SHOWN_BODY_BYTES: usize = 200;
/// The shortest value of a query that is taken for a secret when an answer repeats it.
const SECRET_BYTES: usize = 8;

/// A token for the hub. It is never shown: `Debug` says only that it is there.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// Takes a token; fails with `InvalidArgument` where it could not be a header's value.
    pub fn new(text: impl Into<String>) -> Result<Self> {
        let text = text.into();
        if text.is_empty() || text.len() > 4096 || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(
                Error::new(ErrorKind::InvalidArgument, "not a token: visible ASCII letters are needed").at("token")
            );
        }
        Ok(Self(text))
    }

    /// The value of the header, for a transport and for nothing else.
    pub fn header_value(&self) -> String {
        format!("Bearer {}", self.0)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(...)")
    }
}

/// What to do after a request failed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Then {
    /// The same request would fail again.
    Stop,
    /// Try again after a while.
    Retry,
    /// Try again after as many seconds as the server asks for.
    RetryAfter(f64),
    /// The address itself has expired, or never was allowed: ask the hub for another one.
    AskAgain,
}

/// A request that failed, and what to do next.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) error: Error,
    pub(super) then: Then,
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        let then = match error.kind() {
            ErrorKind::Network | ErrorKind::Stalled | ErrorKind::SizeMismatch => Then::Retry,
            _ => Then::Stop,
        };
        Self { error, then }
    }
}

/// An answer with the address that gave it.
pub(super) struct Answer {
    pub(super) response: Response,
    pub(super) address: Address,
}

/// Sends guarded requests to one hub and the hosts declared beside it.
pub struct Client {
    transport: Rc<dyn Transport>,
    hub: Address,
    token: Option<Token>,
    hosts: Hosts,
    pub(super) patience: Patience,
}

impl Client {
    /// A client of the hub at `hub`, whose token goes nowhere else.
    pub fn new(
        transport: Rc<dyn Transport>,
        hub: Address,
        token: Option<Token>,
        hosts: &[String],
        patience: Patience,
    ) -> Result<Self> {
        let hosts = Hosts::new(&hub, hosts)?;
        Ok(Self { transport, hub, token, hosts, patience })
    }

    /// The hub's address.
    pub fn hub(&self) -> &Address {
        &self.hub
    }

    /// Whether requests carry a token.
    pub(super) fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// Every host that was asked so far.
    pub fn hosts(&self) -> Vec<String> {
        self.hosts.asked()
    }

    /// One try: follows redirects, gives answers of success (200 and 206) only. `signed` says that the address came from
    /// a redirect earlier and may have expired.
    pub(super) async fn try_get(
        &self,
        address: &Address,
        range: Option<ByteRange>,
        mut signed: bool,
    ) -> std::result::Result<Answer, Fault> {
        let mut address = address.clone();
        for _ in 0..=MAX_REDIRECTS {
            let response = self.send(&address, range).await.map_err(Fault::from)?;
            // Browsers follow redirects by themselves and tell only where they ended: held against the list before a
            // byte of the body is used.
            let answered = Address::parse(&response.url)?;
            if answered != address {
                self.hosts.check(&answered)?;
                (address, signed) = (answered, true);
            }
            match response.status {
                200 | 206 => return Ok(Answer { response, address }),
                301 | 302 | 303 | 307 | 308 => {
                    let location = response.header("location").unwrap_or_default();
                    address = address.join(location).map_err(|error| {
                        Error::new(ErrorKind::HttpStatus, format!("a redirect that cannot be followed: {error}"))
                            .at(address.shown())
                    })?;
                    signed = true;
                }
                _ => return Err(self.refusal(&address, response, signed).await),
            }
        }
        let words = format!("more than {MAX_REDIRECTS} redirects");
        Err(Error::new(ErrorKind::HttpStatus, words).at(address.shown()).into())
    }

    async fn send(&self, address: &Address, range: Option<ByteRange>) -> Result<Response> {
        self.hosts.check(address)?;
        let at_home = address.origin() == self.hub.origin();
        let bearer = self.token.clone().filter(|_| at_home);
        let request = Request { url: address.to_url(), range, bearer };
        let sent = self.patience.wait(self.transport.get(&request)).await.and_then(|answer| answer);
        sent.map_err(|error| {
            // Words of a library below may quote the whole URL.
            let mut words = self.scrubbed(error.message(), address);
            if error.kind() == ErrorKind::CorsBlocked {
                // Browsers hide where a redirect led.
                let places = self.hosts.declared();
                words.push_str(&format!(
                    "; the browser does not tell which host of {places}, and each of them has to allow this page"
                ));
            }
            Error::new(error.kind(), words).at(address.shown())
        })
    }

    /// A small document, with tries and back-off; `limit_bytes` is checked as it comes.
    pub(super) async fn document(&self, address: &Address, limit_bytes: usize) -> Result<(Vec<u8>, Answer)> {
        let mut tried = 0;
        loop {
            let fault = match self.try_get(address, None, false).await {
                Err(fault) => fault,
                Ok(mut answer) => match self.read_all(&mut answer, limit_bytes).await {
                    Ok(bytes) => return Ok((bytes, answer)),
                    Err(error) => error.at(address.shown()).into(),
                },
            };
            self.back_off(fault, &mut tried).await?;
        }
    }

    async fn read_all(&self, answer: &mut Answer, limit_bytes: usize) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        while let Some(part) = self.next(answer).await? {
            if bytes.len().saturating_add(part.len()) > limit_bytes {
                let words = format!("the answer has more than {limit_bytes} bytes, which is the limit");
                return Err(Error::new(ErrorKind::LimitExceeded, words));
            }
            bytes.extend(part);
        }
        Ok(bytes)
    }

    /// The next bytes of an answer; fails with `Stalled` where none come.
    pub(super) async fn next(&self, answer: &mut Answer) -> Result<Option<Vec<u8>>> {
        let next = self.patience.wait(answer.response.body.next()).await.and_then(|next| next);
        next.map_err(|error| Error::new(error.kind(), self.scrubbed(error.message(), &answer.address)))
    }

    /// Counts a try that failed and waits before the next one, or gives the error back where there is none.
    pub(super) async fn back_off(&self, fault: Fault, tried: &mut u32) -> Result<()> {
        *tried = tried.saturating_add(1);
        if *tried >= TRIES {
            return Err(fault.error);
        }
        match fault.then {
            Then::Stop => return Err(fault.error),
            Then::AskAgain => {}
            Then::RetryAfter(secs) if secs > MAX_RETRY_AFTER_SECS => return Err(fault.error),
            Then::RetryAfter(secs) => self.patience.sleep(secs).await?,
            Then::Retry => {
                let doubled = f64::from(1_u32 << tried.saturating_sub(1).min(8));
                let secs = FIRST_BACKOFF_SECS * doubled * (1.0 + self.patience.edge.random());
                self.patience.sleep(secs).await?;
            }
        }
        Ok(())
    }

    /// What a status that is not success means.
    async fn refusal(&self, address: &Address, response: Response, signed: bool) -> Fault {
        let status = response.status;
        let at_home = !signed;
        let code = response.header("x-error-code").unwrap_or_default().to_owned();
        let told = response.header("x-error-message").map(str::to_owned);
        let after = response.header("retry-after").and_then(|text| text.trim().parse::<f64>().ok());
        let told = match told {
            Some(told) => told,
            None => self.start_of_body(response, address).await,
        };
        let told = self.scrubbed(&told, address);
        let told = if told.is_empty() { String::new() } else { format!(": {told}") };
        let has_token = self.token.is_some();
        let (kind, words, then) = match status {
            401 if at_home && !has_token => (
                ErrorKind::AuthRequired,
                "the hub asks for a token (a private or gated repository, or none at all)",
                Then::Stop,
            ),
            401 if at_home => (ErrorKind::AuthRequired, "the hub does not accept the token", Then::Stop),
            403 if at_home && code == "GatedRepo" => {
                (ErrorKind::Gated, "the repository's terms have to be accepted on the hub first", Then::Stop)
            }
            403 if at_home => (ErrorKind::Gated, "the hub refuses access with what was given", Then::Stop),
            404 if code == "RevisionNotFound" => (ErrorKind::NotFound, "no such revision", Then::Stop),
            404 if code == "RepoNotFound" => (ErrorKind::NotFound, "no such repository", Then::Stop),
            404 | 410 if at_home => (ErrorKind::NotFound, "nothing is there", Then::Stop),
            401 | 403 | 404 | 410 => (ErrorKind::SignedUrlExpired, "the signed address is refused", Then::AskAgain),
            408 | 425 | 429 | 500 | 502 | 503 | 504 => {
                let then = after.filter(|secs| *secs >= 0.0).map_or(Then::Retry, Then::RetryAfter);
                (ErrorKind::HttpStatus, "the server is busy or in trouble", then)
            }
            416 => (ErrorKind::SizeMismatch, "the server has no such range of the file", Then::Retry),
            _ => (ErrorKind::HttpStatus, "the server refused", Then::Stop),
        };
        Fault { error: Error::new(kind, format!("{words} (status {status}{told})")).at(address.shown()), then }
    }

    /// The start of a refusal's text; nothing where it is a page or no text.
    async fn start_of_body(&self, response: Response, address: &Address) -> String {
        let is_page = response.header("content-type").is_some_and(|kind| kind.contains("html"));
        let mut answer = Answer { response, address: address.clone() };
        let mut bytes = Vec::new();
        while let (Ok(Some(part)), true) = (self.next(&mut answer).await, bytes.len() < 4 * SHOWN_BODY_BYTES) {
            bytes.extend(part);
        }
        if is_page {
            return "a web page".to_owned();
        }
        let text = String::from_utf8_lossy(&bytes);
        let plain: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
        // Scrubbed before it is cut, so that half a secret cannot stay.
        self.scrubbed(&plain, address).chars().filter(|letter| !letter.is_control()).take(SHOWN_BODY_BYTES).collect()
    }

    /// Words without the token and without what the address's query holds.
    fn scrubbed(&self, words: &str, address: &Address) -> String {
        let url = address.to_url();
        let query = url.split_once('?').map_or("", |(_, query)| query);
        let values = query.split('&').map(|pair| pair.split_once('=').map_or(pair, |(_, value)| value));
        let decoded = values.clone().filter_map(super::address::decode);
        let mut secrets: Vec<String> = values.map(str::to_owned).chain(decoded).collect();
        secrets.push(query.to_owned());
        secrets.retain(|secret| secret.len() >= SECRET_BYTES);
        secrets.extend(self.token.iter().map(|token| token.0.clone()));
        // The longest first: a shorter one may be a part of it.
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        secrets.iter().fold(words.to_owned(), |words, secret| words.replace(secret.as_str(), "..."))
    }
}
