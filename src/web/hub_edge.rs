//! What the hub's logic asks of its surroundings, from the browser: the package's `hub/` answers with fetch, with files of
//! the origin's private file system, with locks, with timers.

use std::cell::RefCell;
use std::rc::Rc;

use js_sys::{Array, Uint8Array};
use wasm_bindgen::prelude::wasm_bindgen;
use wasm_bindgen::{JsCast, JsValue};

use super::fault;
use crate::error::{Error, ErrorKind, Result};
use crate::hub::edge::{Body, Edge, Guard, Request, Response, Store, StoredFile, Transport};
use crate::source::LocalFuture;

type JsResult<T> = std::result::Result<T, JsValue>;

#[wasm_bindgen]
extern "C" {
    /// Requests and timers of the package (`hub/transport.ts`).
    #[derive(Clone)]
    pub type JsTransport;

    #[wasm_bindgen(method, catch)]
    async fn get(
        this: &JsTransport,
        url: String,
        range: Option<String>,
        authorization: Option<String>,
    ) -> JsResult<JsValue>;

    #[wasm_bindgen(method)]
    async fn sleep(this: &JsTransport, ms: f64);

    /// An answer.
    type JsResponse;

    #[wasm_bindgen(method, getter)]
    fn status(this: &JsResponse) -> u16;

    #[wasm_bindgen(method, getter)]
    fn url(this: &JsResponse) -> String;

    #[wasm_bindgen(method, getter)]
    fn headers(this: &JsResponse) -> Array;

    #[wasm_bindgen(method, catch)]
    async fn next(this: &JsResponse) -> JsResult<JsValue>;

    #[wasm_bindgen(method)]
    fn cancel(this: &JsResponse);

    /// Named files of the package (`hub/store.ts`).
    #[derive(Clone)]
    pub type JsStore;

    #[wasm_bindgen(method, catch)]
    async fn read(this: &JsStore, name: String) -> JsResult<JsValue>;

    #[wasm_bindgen(method, catch)]
    async fn write(this: &JsStore, name: String) -> JsResult<JsValue>;

    #[wasm_bindgen(method, catch)]
    async fn replace(this: &JsStore, name: String, bytes: Uint8Array) -> JsResult<JsValue>;

    #[wasm_bindgen(method, catch)]
    async fn list(this: &JsStore, prefix: String) -> JsResult<JsValue>;

    #[wasm_bindgen(method, catch)]
    async fn remove(this: &JsStore, name: String) -> JsResult<JsValue>;

    #[wasm_bindgen(method, catch, js_name = checkRoom)]
    async fn check_room(this: &JsStore, bytes: f64) -> JsResult<JsValue>;

    #[wasm_bindgen(method, catch, js_name = findShared)]
    async fn find_shared(this: &JsStore, sha256: String) -> JsResult<JsValue>;

    #[wasm_bindgen(method, catch)]
    async fn share(this: &JsStore, name: String, sha256: String, is_public: bool) -> JsResult<JsValue>;

    #[wasm_bindgen(method, catch, js_name = tryLock)]
    async fn try_lock(this: &JsStore, name: String) -> JsResult<JsValue>;

    /// An open file.
    type JsStoredFile;

    #[wasm_bindgen(method, catch)]
    async fn size(this: &JsStoredFile) -> JsResult<JsValue>;

    #[wasm_bindgen(method, catch, js_name = read)]
    async fn read_at(this: &JsStoredFile, offset: f64, length: f64) -> JsResult<JsValue>;

    #[wasm_bindgen(method, catch, js_name = write)]
    async fn write_at(this: &JsStoredFile, offset: f64, bytes: Uint8Array) -> JsResult<JsValue>;

    #[wasm_bindgen(method, catch)]
    async fn resize(this: &JsStoredFile, size: f64) -> JsResult<JsValue>;

    #[wasm_bindgen(method, catch)]
    async fn flush(this: &JsStoredFile) -> JsResult<JsValue>;

    #[wasm_bindgen(method, catch)]
    async fn close(this: &JsStoredFile) -> JsResult<JsValue>;

    /// A lock that is held.
    type JsLock;

    #[wasm_bindgen(method)]
    fn release(this: &JsLock);
}

fn io(thrown: &JsValue) -> Error {
    fault::from_js(thrown, ErrorKind::Io)
}

/// What JavaScript gave, as the bytes that it should be.
fn bytes(value: JsValue) -> Result<Vec<u8>> {
    let array = value.dyn_into::<Uint8Array>();
    array.map(|array| array.to_vec()).map_err(|_| Error::new(ErrorKind::Internal, "bytes were asked for"))
}

thread_local! {
    /// Where JavaScript finds what it is to write: new memory for each block would cost more than copying it.
    static LENT: RefCell<Uint8Array> = RefCell::new(Uint8Array::new_with_length(0));
}

/// Bytes for a call of JavaScript that lets go of them before it returns.
fn lend(bytes: &[u8]) -> Uint8Array {
    LENT.with_borrow_mut(|lent| {
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        if lent.length() < len {
            *lent = Uint8Array::new_with_length(len);
        }
        let part = lent.subarray(0, len);
        part.copy_from(bytes);
        part
    })
}

/// `undefined` as nothing.
fn some(value: JsValue) -> Option<JsValue> {
    (!value.is_undefined() && !value.is_null()).then_some(value)
}

/// Requests by fetch.
pub(super) struct WebTransport(pub(super) JsTransport);

impl Transport for WebTransport {
    fn get<'a>(&'a self, request: &'a Request) -> LocalFuture<'a, Result<Response>> {
        Box::pin(async move {
            let range = request.range.map(|range| format!("bytes={}-{}", range.first, range.last));
            let bearer = request.bearer.as_ref().map(crate::hub::Token::header_value);
            let answer = self.0.get(request.url.clone(), range, bearer).await;
            let answer: JsResponse =
                answer.map_err(|thrown| fault::from_js(&thrown, ErrorKind::Network))?.unchecked_into();
            let text = |value: JsValue| value.as_string().unwrap_or_default();
            let pairs = answer.headers();
            let headers = pairs.iter().map(|pair| {
                let pair: Array = pair.unchecked_into();
                (text(pair.get(0)), text(pair.get(1)))
            });
            let (status, url, headers) = (answer.status(), answer.url(), headers.collect());
            Ok(Response { status, url, headers, body: Box::new(WebBody(answer)) })
        })
    }
}

struct WebBody(JsResponse);

impl Body for WebBody {
    fn next(&mut self) -> LocalFuture<'_, Result<Option<Vec<u8>>>> {
        Box::pin(async {
            let part = self.0.next().await.map_err(|thrown| fault::from_js(&thrown, ErrorKind::Network))?;
            some(part).map(bytes).transpose()
        })
    }
}

impl Drop for WebBody {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// Time and chance of the browser.
pub(super) struct WebEdge(pub(super) JsTransport);

impl Edge for WebEdge {
    fn now_secs(&self) -> f64 {
        js_sys::Date::now() / 1000.0
    }

    fn random(&self) -> f64 {
        js_sys::Math::random()
    }

    fn sleep(&self, secs: f64) -> LocalFuture<'_, ()> {
        Box::pin(self.0.sleep(secs * 1000.0))
    }
}

/// Files of the origin.
pub(super) struct WebStore(pub(super) JsStore);

impl Store for WebStore {
    fn read<'a>(&'a self, name: &'a str) -> LocalFuture<'a, Result<Option<Rc<dyn StoredFile>>>> {
        Box::pin(async move {
            let file = self.0.read(name.to_owned()).await.map_err(|thrown| io(&thrown))?;
            Ok(some(file).map(|file| Rc::new(WebFile(file.unchecked_into())) as Rc<dyn StoredFile>))
        })
    }

    fn write<'a>(&'a self, name: &'a str) -> LocalFuture<'a, Result<Rc<dyn StoredFile>>> {
        Box::pin(async move {
            let file = self.0.write(name.to_owned()).await.map_err(|thrown| io(&thrown))?;
            Ok(Rc::new(WebFile(file.unchecked_into())) as Rc<dyn StoredFile>)
        })
    }

    fn replace<'a>(&'a self, name: &'a str, bytes: &'a [u8]) -> LocalFuture<'a, Result<()>> {
        Box::pin(async move {
            let done = self.0.replace(name.to_owned(), Uint8Array::from(bytes)).await;
            done.map(drop).map_err(|thrown| io(&thrown))
        })
    }

    fn list<'a>(&'a self, prefix: &'a str) -> LocalFuture<'a, Result<Vec<String>>> {
        Box::pin(async move {
            let names: Array = self.0.list(prefix.to_owned()).await.map_err(|thrown| io(&thrown))?.unchecked_into();
            Ok(names.iter().filter_map(|name| name.as_string()).collect())
        })
    }

    fn remove<'a>(&'a self, name: &'a str) -> LocalFuture<'a, Result<()>> {
        Box::pin(async move { self.0.remove(name.to_owned()).await.map(drop).map_err(|thrown| io(&thrown)) })
    }

    fn check_room(&self, bytes: u64) -> LocalFuture<'_, Result<()>> {
        Box::pin(async move { self.0.check_room(bytes as f64).await.map(drop).map_err(|thrown| io(&thrown)) })
    }

    fn find_shared<'a>(&'a self, sha256: &'a str) -> LocalFuture<'a, Option<Rc<dyn StoredFile>>> {
        Box::pin(async move {
            let file = self.0.find_shared(sha256.to_owned()).await.ok().and_then(some);
            file.map(|file| Rc::new(WebFile(file.unchecked_into())) as Rc<dyn StoredFile>)
        })
    }

    fn share<'a>(&'a self, name: &'a str, sha256: &'a str, is_public: bool) -> LocalFuture<'a, ()> {
        Box::pin(async move {
            // Nobody waits for what becomes of it.
            self.0.share(name.to_owned(), sha256.to_owned(), is_public).await.ok();
        })
    }

    fn try_lock<'a>(&'a self, name: &'a str) -> LocalFuture<'a, Result<Option<Box<dyn Guard>>>> {
        Box::pin(async move {
            let lock = self.0.try_lock(name.to_owned()).await.map_err(|thrown| io(&thrown))?;
            Ok(some(lock).map(|lock| Box::new(WebLock(lock.unchecked_into())) as Box<dyn Guard>))
        })
    }
}

struct WebFile(JsStoredFile);

impl StoredFile for WebFile {
    fn size_bytes(&self) -> LocalFuture<'_, Result<u64>> {
        Box::pin(async {
            let size = self.0.size().await.map_err(|thrown| io(&thrown))?;
            Ok(size.as_f64().unwrap_or_default() as u64)
        })
    }

    fn read(&self, offset: u64, len: usize) -> LocalFuture<'_, Result<Vec<u8>>> {
        Box::pin(async move {
            let read = bytes(self.0.read_at(offset as f64, len as f64).await.map_err(|thrown| io(&thrown))?)?;
            if read.len() != len {
                let words = format!("{} bytes came where {len} were asked for at {offset}", read.len());
                return Err(Error::new(ErrorKind::SizeMismatch, words));
            }
            Ok(read)
        })
    }

    fn write<'a>(&'a self, offset: u64, bytes: &'a [u8]) -> LocalFuture<'a, Result<()>> {
        Box::pin(async move {
            let written = self.0.write_at(offset as f64, lend(bytes)).await;
            written.map(drop).map_err(|thrown| io(&thrown))
        })
    }

    fn resize(&self, size_bytes: u64) -> LocalFuture<'_, Result<()>> {
        Box::pin(async move { self.0.resize(size_bytes as f64).await.map(drop).map_err(|thrown| io(&thrown)) })
    }

    fn flush(&self) -> LocalFuture<'_, Result<()>> {
        Box::pin(async { self.0.flush().await.map(drop).map_err(|thrown| io(&thrown)) })
    }

    fn close(&self) -> LocalFuture<'_, Result<()>> {
        Box::pin(async { self.0.close().await.map(drop).map_err(|thrown| io(&thrown)) })
    }
}

struct WebLock(JsLock);

impl Guard for WebLock {}

impl Drop for WebLock {
    fn drop(&mut self) {
        self.0.release();
    }
}
