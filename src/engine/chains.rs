//! Chains of ids: submitted for one reply or for several at once, and handed out when they come. The next chain goes on from
//! ids that only the backend knows.

use super::live::{Live, Mail};
use super::loaded::Loaded;
use super::schedule::again;
use super::session::Session;
use super::track::Open;
use crate::error::{Error, ErrorKind, Result};
use crate::graph::{BAD_LOGITS, Backend, Batch, Ticket};

impl Session {
    /// Submits a chain of ids for the replies that are past their prompts. Gives whether one was submitted.
    pub(super) async fn submit_chains(&mut self, loaded: &Loaded) -> Result<bool> {
        let backend = loaded.backend.as_ref();
        if self.common.open.len() >= loaded.submits_ahead() {
            return Ok(false);
        }
        let ready: Vec<usize> = (0..).zip(&self.lives).filter(|(_, live)| live.is_ready()).map(|(at, _)| at).collect();
        let least_served = ready.iter().copied().min_by_key(|at| self.lives.get(*at).map(|live| live.round));
        let Some(one) = least_served else { return Ok(false) };
        let batched = ready.len() > 1 && self.batches && backend.max_batch() > 1;
        let plain = ready.iter().all(|at| self.lives.get(*at).is_some_and(|live| live.order.adapter.is_none()));
        if batched && plain {
            return self.submit_batch(loaded, &ready).await;
        }
        if let [only] = ready.as_slice()
            && let Some(submitted) = self.submit_draft(loaded, *only).await?
        {
            return Ok(submitted);
        }
        self.submit_alone(loaded, one).await
    }

    /// Submits a chain for one reply.
    async fn submit_alone(&mut self, loaded: &Loaded, index: usize) -> Result<bool> {
        let backend = loaded.backend.as_ref();
        let Some((number, left)) = self.lives.get(index).map(|live| (live.number, live.left())) else {
            return Ok(false);
        };
        let count = backend.decode_chain().max(1).min(left);
        let goes_on = self.on_device.alone == Some(number);
        if !goes_on && !self.common.open.is_empty() {
            self.collect_all(backend).await;
            return Ok(false);
        }
        if !self.make_room(loaded, index, count as usize).await {
            return Ok(false);
        }
        self.rounds += 1;
        let Self { common, lives, on_device, rounds, .. } = self;
        let Some(live) = lives.get_mut(index) else { return Ok(false) };
        live.round = *rounds;
        let mut submit = |live: &mut Live| {
            let token = if goes_on { None } else { live.track.latest() };
            if !goes_on {
                let (prompt, reply) = live.history();
                backend.start_reply(&live.order.sampler, prompt, &reply)?;
            }
            live.track.chain(common, backend, token, count, live.index())
        };
        match submit(live) {
            Ok(ticket) => {
                live.submitted = live.submitted.saturating_add(count as usize);
                on_device.alone = Some(number);
                if on_device.batch.contains(&number) {
                    on_device.batch.clear();
                }
                common.open.push_back(Open::of(ticket, count, number));
                Ok(true)
            }
            Err(error) => {
                live.fail(error);
                Ok(false)
            }
        }
    }

    /// Submits a chain for several replies.
    async fn submit_batch(&mut self, loaded: &Loaded, ready: &[usize]) -> Result<bool> {
        let backend = loaded.backend.as_ref();
        let members = || ready.iter().filter_map(|at| self.lives.get(*at));
        let numbers: Vec<u64> = members().map(|live| live.number).collect();
        let left = members().map(Live::left).min().unwrap_or(1);
        let count = backend.decode_chain().max(1).min(left);
        let goes_on = self.on_device.batch == numbers;
        if !goes_on {
            if !self.common.open.is_empty() {
                self.collect_all(backend).await;
                return Ok(false);
            }
            if let Err(error) = backend.prepare_batches(numbers.len()).await {
                // They can still take turns.
                log::warn!("replies are computed in turns: {error}");
                self.batches = false;
                self.moves += 1;
                return Ok(false);
            }
        }
        for at in ready {
            if !self.make_room(loaded, *at, count as usize).await {
                return Ok(false);
            }
        }
        if numbers.iter().any(|number| self.lives.iter().all(|live| live.number != *number)) {
            // One of them was put off for another.
            return Ok(false);
        }
        let submitted = self.submit_rows(backend, &numbers, count, goes_on);
        let Self { common, lives, on_device, .. } = self;
        let members = lives.iter_mut().filter(|live| numbers.contains(&live.number));
        match submitted {
            Ok(ticket) => {
                for live in members {
                    live.track.went_on(count);
                    live.submitted = live.submitted.saturating_add(count as usize);
                    live.place = live.place.map(|(place, _)| (place, live.submitted));
                }
                on_device.alone = on_device.alone.filter(|alone| !numbers.contains(alone));
                on_device.batch.clone_from(&numbers);
                common.open.push_back(Open { ticket, count, rows: numbers, batched: true, draft: Vec::new() });
                Ok(true)
            }
            Err(error) => {
                members.for_each(|live| live.fail(again(&error)));
                Ok(false)
            }
        }
    }

    fn submit_rows(&mut self, backend: &dyn Backend, numbers: &[u64], count: u32, goes_on: bool) -> Result<Ticket> {
        if !goes_on {
            for number in numbers {
                self.place(backend, *number)?;
            }
        }
        let of = |number: &u64| self.lives.iter().find(|live| live.number == *number);
        let rows = numbers.iter().filter_map(of);
        let rows = rows.map(|live| live.track.row(live.index(), live.place.map_or(0, |(place, _)| place)));
        let rows = rows.collect::<Result<Vec<_>>>()?;
        backend.decode_batch(&Batch { rows: &rows, count, goes_on })
    }

    /// The place that a reply has in batches, which knows all of its ids.
    pub(super) fn place(&mut self, backend: &dyn Backend, number: u64) -> Result<u32> {
        let taken: Vec<u32> = self.lives.iter().filter_map(|live| live.place).map(|(place, _)| place).collect();
        let free = || (0..).find(|place| !taken.contains(place)).unwrap_or(0);
        let Some(live) = self.lives.iter_mut().find(|live| live.number == number) else { return Ok(free()) };
        let place = live.place.map_or_else(free, |(place, _)| place);
        if live.place.is_none_or(|(_, known)| known != live.reply.len()) {
            let (prompt, reply) = live.history();
            backend.start_place(place, &live.order.sampler, prompt, &reply)?;
            live.place = Some((place, live.reply.len()));
        }
        Ok(place)
    }

    /// Waits for the oldest chain and hands out its ids.
    pub(super) async fn collect_oldest(&mut self, backend: &dyn Backend) {
        let Some(Open { ticket, count, rows, batched, draft }) = self.common.open.pop_front() else { return };
        self.moves += 1;
        let count = count as usize;
        let collected = match backend.collect(ticket).await {
            Ok(ids) if ids.len() == rows.len().saturating_mul(count) => Ok(ids),
            Ok(ids) => {
                let words = format!("{} ids where {} times {count} were asked for", ids.len(), rows.len());
                Err(Error::new(ErrorKind::Internal, words))
            }
            Err(error) => Err(error),
        };
        for (at, number) in rows.iter().enumerate() {
            let Some(live) = self.lives.iter_mut().find(|live| live.number == *number) else { continue };
            match &collected {
                Err(error) => live.fail(again(error)),
                Ok(ids) => {
                    let ids = ids.get(at * count..).and_then(|ids| ids.get(..count)).unwrap_or_default();
                    let ids = if draft.is_empty() { ids } else { live.verified(&draft, ids) };
                    if (batched || !draft.is_empty()) && ids.contains(&BAD_LOGITS) {
                        live.fail(Error::new(ErrorKind::BadLogits, "the model's logits are not numbers"));
                        continue;
                    }
                    if let Some(lookup) = live.lookup.as_mut().filter(|_| draft.is_empty()) {
                        lookup.came(ids);
                    }
                    live.track.collected(ids);
                    live.reply.extend_from_slice(ids);
                    if live.letters.done().is_none() {
                        live.letters.put(Mail::Ids(ids.to_vec()));
                    }
                }
            }
        }
    }

    pub(super) async fn collect_all(&mut self, backend: &dyn Backend) {
        while !self.common.open.is_empty() {
            self.collect_oldest(backend).await;
        }
    }
}
