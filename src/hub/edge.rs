//! What the hub asks of its surroundings: requests, files, time. Each edge brings its own; the tests bring ones that fail
//! at the n-th call.

use std::rc::Rc;

use super::client::Token;
use crate::error::Result;
use crate::source::LocalFuture;

/// Bytes `first ..= last` of a file, as a `Range` header counts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteRange {
    /// The first byte.
    pub first: u64,
    /// The last byte, which belongs to the range.
    pub last: u64,
}

/// A GET request. It carries no header but `Range` and `Authorization`.
#[derive(Clone, Debug)]
pub struct Request {
    /// The whole URL. It may hold a signature: never show it, show [`super::Address::shown`].
    pub url: String,
    /// The part that is asked for; the whole where there is none.
    pub range: Option<ByteRange>,
    /// For a header `Authorization: Bearer ...`, and for nothing else.
    pub bearer: Option<Token>,
}

/// A server's answer, before its body.
pub struct Response {
    /// The HTTP status.
    pub status: u16,
    /// The address that answered: another one than was asked where the transport followed redirects by itself.
    pub url: String,
    /// Header names in any case, and values.
    pub headers: Vec<(String, String)>,
    /// What follows.
    pub body: Box<dyn Body>,
}

impl Response {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

/// The bytes of an answer as they come. Dropping it ends the transfer.
pub trait Body {
    /// The next bytes; `None` at the end. An end that came too early may look like any other, so lengths are checked by
    /// whoever reads.
    fn next(&mut self) -> LocalFuture<'_, Result<Option<Vec<u8>>>>;
}

/// Sends requests. Errors are `Network`, or `CorsBlocked` where the browser tells it apart.
pub trait Transport {
    /// Sends one request and waits for the head of its answer. A transport that can leaves redirects to the caller.
    fn get<'a>(&'a self, request: &'a Request) -> LocalFuture<'a, Result<Response>>;
}

/// Time and chance.
pub trait Edge {
    /// Seconds of any clock that does not run backwards by much; since 1970 where it is to be kept.
    fn now_secs(&self) -> f64;

    /// A number from 0 up to 1, 1 excluded.
    fn random(&self) -> f64;

    /// Ends after that many seconds.
    fn sleep(&self, secs: f64) -> LocalFuture<'_, ()>;
}

/// Named files. Names are paths of plain parts joined by `/`, every part of `[A-Za-z0-9._-]`.
pub trait Store {
    /// Opens a file to read it; `None` where there is none.
    fn read<'a>(&'a self, name: &'a str) -> LocalFuture<'a, Result<Option<Rc<dyn StoredFile>>>>;

    /// Opens a file to write it, made where there is none. One writer at a time, who has its [`Guard`].
    fn write<'a>(&'a self, name: &'a str) -> LocalFuture<'a, Result<Rc<dyn StoredFile>>>;

    /// Puts a whole small file in place of what has that name. Where a crash can tear it, what is left is no JSON.
    fn replace<'a>(&'a self, name: &'a str, bytes: &'a [u8]) -> LocalFuture<'a, Result<()>>;

    /// Names of all files that begin with `prefix`, in any order.
    fn list<'a>(&'a self, prefix: &'a str) -> LocalFuture<'a, Result<Vec<String>>>;

    /// Removes a file; nothing happens where there is none.
    fn remove<'a>(&'a self, name: &'a str) -> LocalFuture<'a, Result<()>>;

    /// Fails with `QuotaExceeded` where that many bytes more cannot be kept, so far as can be told beforehand.
    fn check_room(&self, bytes: u64) -> LocalFuture<'_, Result<()>>;

    /// The file of that SHA-256 that other sites or programs shared, where the surroundings have such a thing. Nothing
    /// vouches for it.
    fn find_shared<'a>(&'a self, _sha256: &'a str) -> LocalFuture<'a, Option<Rc<dyn StoredFile>>> {
        Box::pin(async { None })
    }

    /// Offers a verified file to others: to everybody where it `is_public`. Whether they take it is their affair.
    fn share<'a>(&'a self, _name: &'a str, _sha256: &'a str, _is_public: bool) -> LocalFuture<'a, ()> {
        Box::pin(async {})
    }

    /// Takes the lock of that name among all tabs and processes; `None` while another one has it.
    fn try_lock<'a>(&'a self, name: &'a str) -> LocalFuture<'a, Result<Option<Box<dyn Guard>>>>;
}

/// An open file. Whoever opened it for writing closes it, on every way out.
pub trait StoredFile {
    /// Its size.
    fn size_bytes(&self) -> LocalFuture<'_, Result<u64>>;

    /// Exactly `len` bytes from `offset`; fails with `SizeMismatch` when they are not all there.
    fn read(&self, offset: u64, len: usize) -> LocalFuture<'_, Result<Vec<u8>>>;

    /// Writes all of `bytes` at `offset`, which may lie behind the end. `QuotaExceeded` where there is no room.
    fn write<'a>(&'a self, offset: u64, bytes: &'a [u8]) -> LocalFuture<'a, Result<()>>;

    /// Cuts or fills the file to that size.
    fn resize(&self, size_bytes: u64) -> LocalFuture<'_, Result<()>>;

    /// Makes what was written outlive the machine's power.
    fn flush(&self) -> LocalFuture<'_, Result<()>>;

    /// Lets go of the file; later calls fail, but for another close, which does nothing.
    fn close(&self) -> LocalFuture<'_, Result<()>>;
}

/// A lock that is held until it is dropped.
pub trait Guard {}
