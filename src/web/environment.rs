//! What the engine asks of its surroundings, from the browser: the clock, a seed, a turn for other work.

use std::cell::RefCell;
use std::collections::VecDeque;

use js_sys::{Function, Promise, Reflect};
use wasm_bindgen::closure::Closure;
use wasm_bindgen::prelude::wasm_bindgen;
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;
use web_sys::{MessageChannel, Performance};

use super::grammar::WebGrammars;
use crate::engine::Environment;
use crate::gpu::Kept;
use crate::source::LocalFuture;

/// The environment of a page or a worker.
pub(super) fn browser() -> Environment {
    Environment {
        now_secs: Box::new(now_secs),
        seed: Box::new(|| getrandom::u32().unwrap_or_else(|_| now_secs().to_bits() as u32)),
        yield_now: Box::new(|| Box::pin(yield_now())),
        grammars: Box::<WebGrammars>::default(),
        kept: Box::new(Page),
    }
}

thread_local! {
    static KEEP: RefCell<Option<Function>> = const { RefCell::new(None) };
}

/// Says how a short text is kept from visit to visit: `(text?) => Promise<string | undefined>` gives the one that is kept, or
/// keeps another.
#[wasm_bindgen(js_name = useKept)]
pub fn use_kept(keep: Function) {
    KEEP.with(|kept| *kept.borrow_mut() = Some(keep));
}

/// What the page keeps; where it cannot, nothing.
struct Page;

async fn keep(text: Option<String>) -> Option<String> {
    let keep = KEEP.with(|kept| kept.borrow().clone())?;
    let promise = keep.call1(&JsValue::NULL, &text.into()).ok()?.dyn_into::<Promise>().ok()?;
    JsFuture::from(promise).await.ok()?.as_string()
}

impl Kept for Page {
    fn read(&self) -> LocalFuture<'_, Option<String>> {
        Box::pin(keep(None))
    }

    fn write(&self, text: String) -> LocalFuture<'_, ()> {
        Box::pin(async {
            keep(Some(text)).await;
        })
    }
}

/// Seconds since 1970, in the fine steps of `performance.now()` where there is one.
fn now_secs() -> f64 {
    let performance = Reflect::get(&js_sys::global(), &"performance".into()).ok();
    match performance.and_then(|object| object.dyn_into::<Performance>().ok()) {
        Some(performance) => (performance.time_origin() + performance.now()) / 1000.0,
        None => js_sys::Date::now() / 1000.0,
    }
}

/// A channel to ourselves. Its messages are tasks of the event loop, so that other messages (an abort) get their turn;
/// timers would do the same, but browsers stretch nested ones to 4 ms.
struct Turns {
    channel: MessageChannel,
    waiting: RefCell<VecDeque<Function>>,
}

thread_local! {
    static TURNS: Option<Turns> = Turns::new().ok();
}

impl Turns {
    fn new() -> Result<Self, JsValue> {
        let channel = MessageChannel::new()?;
        let next = Closure::<dyn FnMut()>::new(|| {
            let waiter = TURNS.with(|turns| turns.as_ref().and_then(|turns| turns.waiting.borrow_mut().pop_front()));
            if let Some(waiter) = waiter {
                // Resolving a promise does not throw, and nobody could be told.
                let _ = waiter.call0(&JsValue::NULL);
            }
        });
        channel.port1().set_onmessage(Some(next.as_ref().unchecked_ref()));
        // Lives as long as the module.
        next.forget();
        Ok(Self { channel, waiting: RefCell::new(VecDeque::new()) })
    }

    /// A promise that is resolved in a task of its own.
    fn next(&self) -> Promise {
        Promise::new(&mut |resolve, _| {
            self.waiting.borrow_mut().push_back(resolve.clone());
            if self.channel.port2().post_message(&JsValue::NULL).is_err() {
                self.waiting.borrow_mut().pop_back();
                let _ = resolve.call0(&JsValue::NULL);
            }
        })
    }
}

/// Lets the event loop run everything that waits.
async fn yield_now() {
    let turn = TURNS.with(|turns| turns.as_ref().map(Turns::next));
    if let Some(turn) = turn {
        // The promise is never rejected.
        let _ = JsFuture::from(turn).await;
    }
}
