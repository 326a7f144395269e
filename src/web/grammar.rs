//! Constraints on the web: the crate `headwater-grammar` in a module of its own, which the page loads at the first request
//! that needs it. `pkg/src/grammar.ts` is on the other side.

use std::cell::{Cell, RefCell};

use js_sys::{Function, Promise};
use serde_json::json;
use wasm_bindgen::prelude::wasm_bindgen;
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;

use super::fault;
use crate::error::{Error, ErrorKind, Result};
use crate::sample::{Constraint, Form, Grammars, Mask};
use crate::source::LocalFuture;
use crate::tokenizer::Tokenizer;

type JsResult<T> = std::result::Result<T, JsValue>;

#[wasm_bindgen]
extern "C" {
    /// The other module's `WebGrammars`.
    type JsGrammars;

    #[wasm_bindgen(method, catch)]
    fn compile(this: &JsGrammars, form: &str) -> JsResult<JsFollower>;

    /// The other module's `WebFollower`.
    type JsFollower;

    #[wasm_bindgen(method, catch)]
    fn fork(this: &JsFollower) -> JsResult<JsFollower>;

    #[wasm_bindgen(method, catch)]
    fn mask(this: &JsFollower) -> JsResult<Vec<u32>>;

    #[wasm_bindgen(method, catch)]
    fn accept(this: &JsFollower, id: u32) -> JsResult<()>;

    #[wasm_bindgen(method, catch, js_name = acceptText)]
    fn accept_text(this: &JsFollower, text: &str) -> JsResult<bool>;

    #[wasm_bindgen(method, catch)]
    fn forced(this: &JsFollower) -> JsResult<Vec<u8>>;

    #[wasm_bindgen(method, catch)]
    fn usable(this: &JsFollower, ids: &[u32]) -> JsResult<usize>;

    #[wasm_bindgen(method, catch)]
    fn complete(this: &JsFollower) -> JsResult<bool>;

    #[wasm_bindgen(method, catch)]
    fn ended(this: &JsFollower) -> JsResult<bool>;

    #[wasm_bindgen(method, catch)]
    fn free(this: &JsFollower) -> JsResult<()>;
}

thread_local! {
    static OPEN: RefCell<Option<Function>> = const { RefCell::new(None) };
    /// The other module trapped: nothing in it can be trusted, and it cannot be started a second time.
    static TRAPPED: Cell<bool> = const { Cell::new(false) };
}

/// Says how the other module is opened: `(bytes, lengths, ends) => Promise<WebGrammars>`.
#[wasm_bindgen(js_name = useGrammars)]
pub fn use_grammars(open: Function) {
    OPEN.with(|kept| *kept.borrow_mut() = Some(open));
}

/// Compiles in the other module.
#[derive(Default)]
pub(super) struct WebGrammars(RefCell<Option<JsGrammars>>);

/// What the other module throws is a kind, a line end and words; what else is thrown is a fault of it.
fn error(thrown: &JsValue) -> Error {
    let text = thrown.as_string().unwrap_or_default();
    let kind = |name: &str| ErrorKind::ALL.iter().copied().find(|kind| kind.name() == name);
    match text.split_once('\n').and_then(|(name, words)| Some(Error::new(kind(name)?, words))) {
        Some(error) => error,
        None => {
            TRAPPED.with(|trapped| trapped.set(true));
            fault::from_js(thrown, ErrorKind::Internal)
        }
    }
}

impl WebGrammars {
    async fn ready(&self, tokenizer: &Tokenizer) -> Result<()> {
        if self.0.borrow().is_some() {
            return Ok(());
        }
        let open = OPEN.with(|open| open.borrow().clone());
        let open = open.ok_or_else(|| Error::new(ErrorKind::Internal, "nobody said how grammars are opened"))?;
        let words = tokenizer.words()?;
        let [lengths, ends] = [&words.lengths, &words.ends].map(|list| js_sys::Uint32Array::from(list.as_slice()));
        let bytes = js_sys::Uint8Array::from(words.bytes.as_slice());
        let opened = |thrown| fault::from_js(&thrown, ErrorKind::Internal);
        let promise = open.call3(&JsValue::NULL, &bytes, &lengths, &ends).map_err(opened)?;
        let made = JsFuture::from(Promise::from(promise)).await.map_err(opened)?;
        *self.0.borrow_mut() = Some(made.unchecked_into());
        Ok(())
    }

    async fn follow(&self, tokenizer: &Tokenizer, form: &Form) -> Result<Box<dyn Constraint>> {
        if TRAPPED.with(Cell::get) {
            return Err(Error::new(ErrorKind::EnginePoisoned, "the grammar module trapped; load the model again"));
        }
        self.ready(tokenizer).await?;
        let form = match form {
            Form::Json(text) => json!({ "json": text }),
            Form::Regex(text) => json!({ "regex": text }),
            Form::Lark(text) => json!({ "lark": text }),
            Form::Gbnf(text) => json!({ "gbnf": text }),
        };
        let made = self.0.borrow();
        let grammars = made.as_ref().ok_or_else(|| Error::new(ErrorKind::Internal, "grammars went away"))?;
        let follower = grammars.compile(&form.to_string()).map_err(|thrown| error(&thrown))?;
        Ok(Box::new(Web(follower)))
    }
}

impl Grammars for WebGrammars {
    fn compile<'a>(&'a self, tokenizer: &'a Tokenizer, form: &'a Form) -> LocalFuture<'a, Result<Box<dyn Constraint>>> {
        Box::pin(self.follow(tokenizer, form))
    }
}

struct Web(JsFollower);

impl Drop for Web {
    fn drop(&mut self) {
        // After a trap of the other module there is nothing to free.
        self.0.free().ok();
    }
}

impl Constraint for Web {
    fn fork(&self) -> Result<Box<dyn Constraint>> {
        Ok(Box::new(Self(self.0.fork().map_err(|thrown| error(&thrown))?)))
    }

    fn mask(&mut self) -> Result<Mask> {
        self.0.mask().map(Mask).map_err(|thrown| error(&thrown))
    }

    fn accept(&mut self, id: u32) -> Result<()> {
        self.0.accept(id).map_err(|thrown| error(&thrown))
    }

    fn accept_text(&mut self, text: &str) -> Result<bool> {
        self.0.accept_text(text).map_err(|thrown| error(&thrown))
    }

    fn forced(&mut self) -> Result<Vec<u8>> {
        self.0.forced().map_err(|thrown| error(&thrown))
    }

    fn usable(&mut self, ids: &[u32]) -> Result<usize> {
        self.0.usable(ids).map_err(|thrown| error(&thrown))
    }

    fn complete(&mut self) -> Result<bool> {
        self.0.complete().map_err(|thrown| error(&thrown))
    }

    fn ended(&mut self) -> Result<bool> {
        self.0.ended().map_err(|thrown| error(&thrown))
    }
}
