//! Steps that verify what is expected of a reply: the last id and the draft behind it are rows of one batch, in the same
//! pages, each row with its own index among the ids of the reply. So each chooses exactly what a chain would have chosen
//! there, by the same random number; the rows that were given a right id stand, and what the others wrote into the pages
//! is written over.

use super::live::Live;
use super::loaded::Loaded;
use super::session::Session;
use super::track::Open;
use crate::error::Result;
use crate::graph::{Backend, Batch, Ticket};

impl Session {
    /// Submits a step for the ids that are expected of a reply. Gives whether one was submitted, and nothing where a chain
    /// is to be.
    pub(super) async fn submit_draft(&mut self, loaded: &Loaded, index: usize) -> Result<Option<bool>> {
        let backend = loaded.backend.as_ref();
        let Some(live) = self.lives.get(index).filter(|live| live.lookup.is_some() && self.batches) else {
            return Ok(None);
        };
        let number = live.number;
        if self.common.open.iter().any(|open| !open.draft.is_empty() && open.rows.contains(&number)) {
            // How it goes on is not known yet.
            return Ok(Some(false));
        }
        let most = live.left().saturating_sub(1) as usize;
        let draft = live.lookup.as_ref().map(|lookup| lookup.draft(most)).unwrap_or_default();
        if draft.is_empty() {
            return Ok(None);
        }
        if !self.common.open.is_empty() {
            // What is under way comes first, and may not be as expected.
            return Ok(Some(false));
        }
        let rows = draft.len().saturating_add(1);
        if let Err(error) = backend.prepare_batches(rows).await {
            log::warn!("nothing is expected of replies: {error}");
            self.batches = false;
            return Ok(None);
        }
        if !self.make_room(loaded, index, rows).await {
            return Ok(Some(false));
        }
        let submitted = self.submit_rows_of(backend, number, &draft);
        self.rounds += 1;
        let Self { common, lives, on_device, rounds, .. } = self;
        let Some(live) = lives.iter_mut().find(|live| live.number == number) else { return Ok(Some(false)) };
        match submitted {
            Ok(ticket) => {
                let count = u32::try_from(rows).unwrap_or(u32::MAX);
                (live.round, live.submitted) = (*rounds, live.submitted.saturating_add(rows));
                on_device.alone = on_device.alone.filter(|alone| *alone != number);
                on_device.batch.clear();
                common.open.push_back(Open { draft, ..Open::of(ticket, count, number) });
                Ok(Some(true))
            }
            Err(error) => {
                live.fail(error);
                Ok(Some(false))
            }
        }
    }

    fn submit_rows_of(&mut self, backend: &dyn Backend, number: u64, draft: &[u32]) -> Result<Ticket> {
        let place = self.place(backend, number)?;
        let live = self.lives.iter().find(|live| live.number == number);
        let rows = live.map(|live| live.track.draft_rows(draft, live.index(), place)).transpose()?;
        backend.decode_batch(&Batch { rows: rows.as_deref().unwrap_or_default(), count: 1, goes_on: false })
    }
}

impl Live {
    /// Of the ids that a step with `draft` gave, those that a chain would have given.
    pub(super) fn verified<'a>(&mut self, draft: &[u32], ids: &'a [u32]) -> &'a [u32] {
        let right = draft.iter().zip(ids).take_while(|(expected, id)| expected == id).count();
        let ids = ids.get(..=right).unwrap_or(ids);
        self.track.went_on(u32::try_from(ids.len()).unwrap_or(u32::MAX));
        self.submitted = self.reply.len().saturating_add(ids.len());
        self.place = self.place.map(|(place, _)| (place, self.submitted));
        if let Some(lookup) = &mut self.lookup {
            lookup.verified(ids, draft.len());
            self.letters.speculated(lookup.counts());
        }
        ids
    }
}
