//! Batches: one row of each of several sequences, by programs that are lowered as that for one row and made when the first
//! batch of their size comes.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use super::device::Device;
use super::program::{Program, Shared, Size};
use super::readback::{MAX_CHAIN, MAX_IDS};
use super::state::{Layout, Words};
use crate::error::{Error, ErrorKind, Result};
use crate::graph::{Batch, MAX_BATCH, PAGE_TOKENS, SamplerSettings};
use crate::kernel::{REPLY_WORDS, reply_words};

/// Rows that programs of batches take: a size for which there is none goes by the next larger one. What a kernel does
/// for rows that a batch does not have is not free everywhere.
pub(super) const SIZES: [usize; 3] = [2, 4, MAX_BATCH];

/// What batches need beside what one sequence does.
pub(super) struct Batches {
    /// By the rows that they take at most.
    programs: RefCell<BTreeMap<usize, Rc<Program>>>,
    /// The buffers of the model's programs, those of replies being of their own.
    pub(super) shared: Shared,
    /// Of all programs, which run one after another.
    pub(super) activations: RefCell<Vec<wgpu::Buffer>>,
    vocab: usize,
    /// How the reply in each place is chosen.
    settings: RefCell<[Option<SamplerSettings>; MAX_BATCH]>,
    /// Rows of the last batch.
    rows: RefCell<usize>,
}

impl Batches {
    /// For a model with those buffers.
    pub(super) async fn new(device: &Device, shared: &Shared, vocab: usize, n_pages: usize) -> Result<Self> {
        let words = [MAX_BATCH * REPLY_WORDS, MAX_BATCH * vocab].map(|words| words as u64 * 4);
        let state_bytes = Layout::of_batch().size_bytes(n_pages * MAX_BATCH);
        let make = || {
            Ok(Shared {
                reply: device.storage("replies", words[0]),
                history: device.storage("histories", words[1]),
                decode_state: device.storage("batch state", state_bytes),
                ..shared.clone()
            })
        };
        Ok(Self {
            programs: RefCell::default(),
            shared: device.guarded(words[0] + words[1] + state_bytes, make).await?,
            activations: RefCell::default(),
            vocab,
            settings: RefCell::default(),
            rows: RefCell::default(),
        })
    }

    /// The program for so many rows: the smallest that takes them.
    pub(super) fn program(&self, rows: usize) -> Option<Rc<Program>> {
        self.programs.borrow().range(rows..).next().map(|(_, program)| program.clone())
    }

    /// Keeps a program for so many rows.
    pub(super) fn keep(&self, most: usize, program: Program) {
        self.programs.borrow_mut().insert(most, Rc::new(program));
    }

    /// Makes a place ready for a reply; `history` is there if penalties look at it.
    pub(super) fn start(
        &self,
        device: &Device,
        place: u32,
        sampler: &SamplerSettings,
        history: Option<&[u32]>,
    ) -> Result<()> {
        let mut settings = self.settings.borrow_mut();
        let slot = settings.get_mut(place as usize).ok_or_else(|| invalid(format!("place {place} of {MAX_BATCH}")))?;
        *slot = Some(sampler.clone());
        if let Some(history) = history {
            let at = u64::from(place) * self.vocab as u64 * 4;
            device.write(&self.shared.history, at, bytemuck::cast_slice(history));
        }
        Ok(())
    }

    /// Fails with `InvalidArgument` where a batch asks for what there is not.
    pub(super) fn check(&self, batch: &Batch<'_>, vocab: usize, n_pages: usize) -> Result<()> {
        let Batch { rows, count, goes_on } = *batch;
        let ids = rows.len() as u64 * u64::from(count);
        if rows.is_empty() || rows.len() > MAX_BATCH || count == 0 || count > MAX_CHAIN || ids > u64::from(MAX_IDS) {
            return Err(invalid(format!("a batch of {} sequences and {count} steps", rows.len())));
        }
        if goes_on && rows.len() != *self.rows.borrow() {
            return Err(invalid(format!("{} rows go on from {}", rows.len(), self.rows.borrow())));
        }
        for row in rows {
            let end = u64::from(row.position) + u64::from(count);
            if end > (row.pages.len() * PAGE_TOKENS) as u64 || row.pages.len() > n_pages {
                let words = format!("{count} steps from position {} in {} pages", row.position, row.pages.len());
                return Err(invalid(words));
            }
            if !goes_on && row.token as usize >= vocab {
                return Err(invalid(format!("token id {} is outside the vocabulary of {vocab}", row.token)));
            }
            if let Some(page) = row.pages.iter().find(|page| **page as usize >= n_pages) {
                return Err(invalid(format!("page {page} of {n_pages}")));
            }
            if self.settings.borrow().get(row.place as usize).is_none_or(Option::is_none) {
                return Err(invalid(format!("no reply was started in place {}", row.place)));
            }
        }
        Ok(())
    }

    /// Uploads where a batch starts and, unless it goes on, whose rows it has.
    pub(super) fn write(&self, device: &Device, batch: &Batch<'_>) -> Result<Size> {
        if !batch.goes_on {
            let settings = self.settings.borrow();
            let of_row = |place: u32| {
                settings.get(place as usize).and_then(Option::as_ref).map(|of| reply_words(of, place, false))
            };
            let replies: Vec<u32> = batch.rows.iter().filter_map(|row| of_row(row.place)).flatten().collect();
            device.write(&self.shared.reply, 0, bytemuck::cast_slice(&replies));
        }
        let Words { words, offset_bytes, size } = Layout::of_batch().batch(batch);
        device.write(&self.shared.decode_state, offset_bytes, bytemuck::cast_slice(&words));
        *self.rows.borrow_mut() = batch.rows.len();
        Ok(size)
    }
}

fn invalid(words: String) -> Error {
    Error::new(ErrorKind::InvalidArgument, words)
}
