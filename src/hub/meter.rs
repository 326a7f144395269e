//! How far a transfer is, how fast it goes and when it ends.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use serde::Serialize;

use super::wait::Patience;

/// The rate is the mean over this time.
const WINDOW_SECS: f64 = 5.0;
/// The listener is told at most so often, and at every change of phase.
const INTERVAL_SECS: f64 = 0.1;

/// What is being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Phase {
    /// The hub is asked what the reference means.
    Resolve,
    /// Another tab or process is at it.
    Wait,
    /// What is there already is read and hashed.
    Verify,
    /// Bytes come.
    Download,
    /// What was kept of the model is not there any more, in whole or in part; it is fetched again.
    Lost,
}

/// How far it is.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    /// What is being done.
    pub phase: Phase,
    /// The file that something last happened to.
    pub file: String,
    /// Bytes of it that were written.
    pub file_loaded_bytes: u64,
    /// Its size.
    pub file_total_bytes: u64,
    /// Bytes of the whole model that were written.
    pub loaded_bytes: u64,
    /// Its size; 0 while it is not known.
    pub total_bytes: u64,
    /// Bytes that come each second.
    pub bytes_per_second: f64,
    /// Seconds until the end; nothing while there is nothing to reckon from.
    pub eta_secs: Option<f64>,
}

/// Who is told.
pub type Listener = Rc<dyn Fn(&Progress)>;

/// Counts bytes and tells a listener.
pub(super) struct Meter {
    patience: Patience,
    listener: Listener,
    total_bytes: Cell<u64>,
    loaded_bytes: Cell<u64>,
    fetched_bytes: Cell<u64>,
    /// When how many bytes had come from the network.
    window: RefCell<VecDeque<(f64, u64)>>,
    told: Cell<Option<(Phase, f64)>>,
}

impl Meter {
    pub(super) fn new(patience: Patience, listener: Listener) -> Self {
        Self {
            patience,
            listener,
            total_bytes: Cell::new(0),
            loaded_bytes: Cell::new(0),
            fetched_bytes: Cell::new(0),
            window: RefCell::default(),
            told: Cell::new(None),
        }
    }

    /// Says how much there is.
    pub(super) fn set_total(&self, bytes: u64) {
        self.total_bytes.set(bytes);
        self.loaded_bytes.set(0);
    }

    /// Bytes that came from the network.
    pub(super) fn fetched_bytes(&self) -> u64 {
        self.fetched_bytes.get()
    }

    /// Counts bytes that came.
    pub(super) fn fetched(&self, bytes: u64) {
        self.fetched_bytes.set(self.fetched_bytes.get().saturating_add(bytes));
    }

    /// Counts bytes that are written, or found written.
    pub(super) fn loaded(&self, bytes: u64) {
        self.loaded_bytes.set(self.loaded_bytes.get().saturating_add(bytes));
    }

    /// Takes back bytes that turned out wrong.
    pub(super) fn lost(&self, bytes: u64) {
        self.loaded_bytes.set(self.loaded_bytes.get().saturating_sub(bytes));
    }

    /// Tells the listener, unless it was told just now.
    pub(super) fn tell(&self, phase: Phase, file: &str, file_loaded_bytes: u64, file_total_bytes: u64) {
        let now = self.patience.edge.now_secs();
        let recent = matches!(self.told.get(), Some((last, at)) if last == phase && now - at < INTERVAL_SECS);
        if recent && file_loaded_bytes < file_total_bytes {
            return;
        }
        self.told.set(Some((phase, now)));
        let bytes_per_second = self.rate(now);
        let (loaded_bytes, total_bytes) = (self.loaded_bytes.get(), self.total_bytes.get());
        let left_bytes = total_bytes.saturating_sub(loaded_bytes);
        let progress = Progress {
            phase,
            file: file.to_owned(),
            file_loaded_bytes,
            file_total_bytes,
            loaded_bytes,
            total_bytes,
            bytes_per_second,
            eta_secs: (phase == Phase::Download && bytes_per_second > 0.0)
                .then(|| left_bytes as f64 / bytes_per_second),
        };
        (self.listener)(&progress);
    }

    /// Bytes a second over the last seconds.
    fn rate(&self, now: f64) -> f64 {
        let mut window = self.window.borrow_mut();
        window.push_back((now, self.fetched_bytes.get()));
        while window.len() > 2 && window.front().is_some_and(|(at, _)| now - at > WINDOW_SECS) {
            window.pop_front();
        }
        let Some((at, bytes)) = window.front() else { return 0.0 };
        let elapsed_secs = now - at;
        if elapsed_secs > 0.0 { self.fetched_bytes.get().saturating_sub(*bytes) as f64 / elapsed_secs } else { 0.0 }
    }
}
