//! A world of its own for the hub: servers, a store and a clock in memory, each of whose calls can be made to fail.

mod disk;
mod servers;

use std::cell::Cell;
use std::task::Poll;

use headwater::hub::edge::Edge;
use headwater::source::LocalFuture;

pub(crate) use crate::repository::sha256;
pub(crate) use disk::{Disk, Memory};
pub(crate) use servers::{Fault, Seen, Servers, Wire};

pub(crate) const HUB: &str = "https://hub.example";
pub(crate) const CDN: &str = "https://cdn.example";
pub(crate) const TOKEN: &str = "hf_secretsecretsecret";

/// When which call fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Break {
    #[default]
    Never,
    /// The n-th call alone, counted from 1.
    Once(usize),
    /// The n-th and every later one.
    From(usize),
}

/// Counts calls and says which fails.
#[derive(Default)]
pub(crate) struct Breaker {
    pub(crate) calls: Cell<usize>,
    pub(crate) breaks: Cell<Break>,
}

impl Breaker {
    pub(crate) fn set(&self, breaks: Break) {
        self.calls.set(0);
        self.breaks.set(breaks);
    }

    fn breaks(&self) -> bool {
        self.calls.set(self.calls.get() + 1);
        match self.breaks.get() {
            Break::Never => false,
            Break::Once(call) => self.calls.get() == call,
            Break::From(call) => self.calls.get() >= call,
        }
    }
}

/// Bytes that look like weights and differ everywhere.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = |state: &mut u64| {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        *state
    };
    (0..len.div_ceil(8)).flat_map(|_| next(&mut state).to_le_bytes()).take(len).collect()
}

/// A GGUF file as far as its first bytes go.
pub(crate) fn weights(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = noise(seed, len);
    bytes[..4].copy_from_slice(b"GGUF");
    bytes
}

/// A GGUF file with a header that can be read and no tensors, and noise behind it.
pub(crate) fn readable(seed: u64, len: usize) -> Vec<u8> {
    let text = |text: &str| [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat();
    let mut bytes = [&b"GGUF"[..], &3_u32.to_le_bytes(), &0_u64.to_le_bytes(), &2_u64.to_le_bytes()].concat();
    for (key, value) in [("general.architecture", "llama"), ("general.license", "llama3.2")] {
        bytes.extend([text(key), 8_u32.to_le_bytes().to_vec(), text(value)].concat());
    }
    let rest = len - bytes.len();
    bytes.extend(noise(seed, rest));
    bytes
}

/// A clock that only sleeping moves, and chance that repeats.
#[derive(Default)]
pub(crate) struct Clock {
    pub(crate) now_secs: Cell<f64>,
}

impl Edge for Clock {
    fn now_secs(&self) -> f64 {
        self.now_secs.get()
    }

    fn random(&self) -> f64 {
        0.5
    }

    fn sleep(&self, secs: f64) -> LocalFuture<'_, ()> {
        Box::pin(async move {
            yield_once().await;
            self.now_secs.set(self.now_secs.get() + secs);
        })
    }
}

pub(crate) async fn yield_once() {
    let mut done = false;
    std::future::poll_fn(|context| {
        if std::mem::replace(&mut done, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
