//! Files that JavaScript reads for the engine: `{ name, size, read(offset, length): Promise<Uint8Array> }`.

use js_sys::Uint8Array;
use wasm_bindgen::prelude::wasm_bindgen;
use wasm_bindgen::{JsCast, JsValue};
use web_sys::AbortSignal;

use super::fault;
use crate::error::{At, Error, ErrorKind, Result};
use crate::source::{LocalFuture, Source, check_range};

/// Largest size that a JavaScript number counts without gaps, 2^53 - 1.
const MAX_SAFE_INTEGER: f64 = 9_007_199_254_740_991.0;

#[wasm_bindgen]
extern "C" {
    /// A file as JavaScript hands it in.
    pub type JsFile;

    #[wasm_bindgen(method, getter)]
    fn name(this: &JsFile) -> String;

    #[wasm_bindgen(method, getter)]
    fn size(this: &JsFile) -> f64;

    #[wasm_bindgen(method, catch)]
    async fn read(this: &JsFile, offset: f64, length: f64) -> std::result::Result<JsValue, JsValue>;
}

/// A [`Source`] over a file of JavaScript. Reads end with `Aborted` once the signal has.
pub(super) struct JsSource {
    file: JsFile,
    name: String,
    size_bytes: u64,
    signal: Option<AbortSignal>,
}

impl JsSource {
    /// Takes the file; fails when its size is not a count of bytes.
    pub(super) fn new(file: JsFile, signal: Option<AbortSignal>) -> Result<Self> {
        let (name, size) = (file.name(), file.size());
        if !(0.0..=MAX_SAFE_INTEGER).contains(&size) || size.fract() != 0.0 {
            return Err(
                Error::new(ErrorKind::InvalidArgument, format!("the size {size} is no count of bytes")).at(name)
            );
        }
        Ok(Self { file, name, size_bytes: size as u64, signal })
    }

    async fn read_exactly(&self, offset: u64, len: usize) -> Result<Vec<u8>> {
        check_aborted(self.signal.as_ref())?;
        check_range(&self.name, self.size_bytes, offset, len)?;
        let answer = self.file.read(offset as f64, len as f64).await;
        check_aborted(self.signal.as_ref())?;
        let bytes = answer.map_err(|thrown| fault::from_js(&thrown, ErrorKind::Io)).at(|| self.name.clone())?;
        let bytes = bytes
            .dyn_into::<Uint8Array>()
            .map_err(|_| Error::new(ErrorKind::Io, "read() gave no Uint8Array").at(self.name.as_str()))?;
        if usize::try_from(bytes.length()) != Ok(len) {
            let words = format!("{} bytes came where {len} were asked for at {offset}", bytes.length());
            return Err(Error::new(ErrorKind::SizeMismatch, words).at(self.name.as_str()));
        }
        Ok(bytes.to_vec())
    }
}

impl Source for JsSource {
    fn name(&self) -> &str {
        &self.name
    }

    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn read(&self, offset: u64, len: usize) -> LocalFuture<'_, Result<Vec<u8>>> {
        Box::pin(self.read_exactly(offset, len))
    }
}

/// Whether the caller has given up.
pub(super) fn is_aborted(signal: Option<&AbortSignal>) -> bool {
    signal.is_some_and(AbortSignal::aborted)
}

/// Fails with `Aborted` once the caller has given up.
pub(super) fn check_aborted(signal: Option<&AbortSignal>) -> Result<()> {
    if is_aborted(signal) {
        return Err(Error::new(ErrorKind::Aborted, "ended by the caller's signal"));
    }
    Ok(())
}
