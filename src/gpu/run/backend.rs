//! What a model on a GPU promises as a [`Backend`], and where its weights come in.

use std::rc::Rc;

use super::super::batch::{self, Batches};
use super::super::planes::Bank;
use super::super::program::Wanted;
use super::super::readback::{self, MAX_CHAIN};
use super::super::sizes::page_bytes;
use super::super::stage::Class;
use super::{CHAIN, Gpu, bad_logits, no_adapter, no_decoding, unprepared};
use crate::error::{Error, ErrorKind, Result};
use crate::graph::{
    AdapterId, AdapterUse, BAD_LOGITS, Backend, BackendInfo, Batch, Counters, Decode, Delta, DeltaValues, HeldChoice,
    KernelTime, MAX_BATCH, PAGE_TOKENS, SamplerSettings, StateSlots, Step, Ticket, Top, TopAsk, WeightId, check_page,
    check_page_bytes,
};
use crate::kernel::{Teams, reply_words, word};
use crate::model::WeightSink;
use crate::source::LocalFuture;

impl WeightSink for Gpu {
    fn rows(&mut self, weight: WeightId, first_row: usize, bytes: &[u8]) -> Result<()> {
        self.device.check()?;
        match self.norm_offsets.get(&weight) {
            Some(offset) => {
                self.device.write(&self.shared.norms, *offset as u64 * 4, bytes);
                Ok(())
            }
            None => self.matrices.rows(weight, first_row, bytes),
        }
    }
}

impl Backend for Gpu {
    fn info(&self) -> BackendInfo {
        let web = cfg!(target_arch = "wasm32");
        let subgroups = self.device.dialect().subgroups.then(|| "subgroups".to_owned());
        let alone = (self.recipe.teams == Teams::Invocation).then(|| "invocations alone".to_owned());
        let rounded = self.recipe.rounds.then(|| "int8".to_owned());
        let kv = format!("kv {}", self.kv.name());
        BackendInfo {
            name: if web { "webgpu" } else { "gpu" }.into(),
            device: self.device.name().into(),
            features: subgroups.into_iter().chain(alone).chain(rounded).chain([kv]).collect(),
            notes: self.device.notes(),
        }
    }

    fn max_rows(&self) -> usize {
        self.max_rows
    }

    fn n_pages(&self) -> usize {
        self.n_pages
    }

    fn n_states(&self) -> usize {
        self.graph.n_states()
    }

    fn decode_chain(&self) -> u32 {
        CHAIN
    }

    fn forward<'a>(&'a self, step: &'a Step<'a>) -> LocalFuture<'a, Result<Vec<f32>>> {
        Box::pin(self.read(step, Wanted::End))
    }

    fn hidden<'a>(&'a self, step: &'a Step<'a>) -> LocalFuture<'a, Result<Vec<f32>>> {
        Box::pin(async move {
            self.graph.need_hidden()?;
            self.read(step, Wanted::Hidden).await
        })
    }

    fn start_reply(&self, sampler: &SamplerSettings, prompt: &[u32], reply: &[u32]) -> Result<()> {
        self.graph.need_logits()?;
        self.device.check()?;
        self.ids.borrow_mut().forget();
        self.device.write(&self.shared.reply, 0, bytemuck::cast_slice(&reply_words(sampler, 0, false)));
        if sampler.penalises() {
            self.device.write(&self.shared.history, 0, bytemuck::cast_slice(&self.history(prompt, reply)));
        }
        Ok(())
    }

    fn hold(&self, step: &Step<'_>, index: u32) -> Result<()> {
        self.hold_logits(step, index)
    }

    fn choose<'a>(&'a self, choice: &'a HeldChoice<'a>) -> LocalFuture<'a, Result<(u32, Option<Top>)>> {
        Box::pin(self.choose_held(choice))
    }

    fn top<'a>(&'a self, ask: &'a TopAsk<'a>) -> LocalFuture<'a, Result<Top>> {
        Box::pin(self.top_held(ask))
    }

    fn held(&self) -> LocalFuture<'_, Result<Vec<f32>>> {
        Box::pin(self.read_held())
    }

    fn max_batch(&self) -> usize {
        if self.decode.is_some() && self.graph.n_states() == 0 { MAX_BATCH } else { 1 }
    }

    fn prepare_batches(&self, rows: usize) -> LocalFuture<'_, Result<()>> {
        Box::pin(async move {
            let most = batch::SIZES.into_iter().find(|most| rows <= *most && *most <= self.max_batch());
            let most = most.ok_or_else(|| Error::new(ErrorKind::InvalidArgument, format!("a batch of {rows} rows")))?;
            let made = self.batches.borrow().clone();
            let batches = match made {
                Some(batches) => batches,
                None => {
                    let (vocab, shared) = (self.graph.vocab().max(1), &self.shared);
                    let made = Rc::new(Batches::new(&self.device, shared, vocab, self.n_pages).await?);
                    self.batches.borrow_mut().get_or_insert(made).clone()
                }
            };
            if batches.program(rows).is_none() {
                let bank = Bank { model: &self.matrices, adapter: None };
                let program = self.making().batch(bank, &batches.shared, &batches.activations, most).await?;
                batches.keep(most, program);
            }
            Ok(())
        })
    }

    fn start_place(&self, place: u32, sampler: &SamplerSettings, prompt: &[u32], reply: &[u32]) -> Result<()> {
        self.device.check()?;
        let history = sampler.penalises().then(|| self.history(prompt, reply));
        self.batches()?.start(&self.device, place, sampler, history.as_deref())
    }

    fn decode_batch(&self, batch: &Batch<'_>) -> Result<Ticket> {
        self.device.check()?;
        if self.adapter.borrow().is_some() {
            return Err(Error::new(ErrorKind::InvalidArgument, "batches use no adapter"));
        }
        let batches = self.batches()?;
        batches.check(batch, self.graph.vocab(), self.n_pages)?;
        let program = batches.program(batch.rows.len()).ok_or_else(unprepared)?;
        let size = batches.write(&self.device, batch)?;
        let mut encoder = self.device.encoder();
        for _ in 0..batch.count {
            program.encode(&self.device, &mut encoder, size, true);
        }
        self.submit_ids(encoder, word(batch.rows.len()) * batch.count, true)
    }

    fn copy_page(&self, from: u32, to: u32) -> Result<()> {
        self.device.check()?;
        if let Some(page) = [from, to].into_iter().find(|page| *page as usize >= self.n_pages) {
            return Err(Error::new(ErrorKind::InvalidArgument, format!("page {page} of {}", self.n_pages)));
        }
        // A buffer is not copied to itself, so the page goes through another one.
        let between = &self.page;
        let mut encoder = self.device.encoder();
        for (layer, widths) in self.shared.kv.iter().zip(&self.graph.kv_widths) {
            let bytes = page_bytes(*widths, self.kv);
            encoder.copy_buffer_to_buffer(layer, u64::from(from) * bytes, between, 0, bytes);
            encoder.copy_buffer_to_buffer(between, 0, layer, u64::from(to) * bytes, bytes);
        }
        self.device.submit(encoder);
        Ok(())
    }

    fn position_bytes(&self) -> usize {
        self.graph.kv_widths.iter().map(|widths| widths.position_bytes(self.kv)).sum()
    }

    fn read_page(&self, page: u32, positions: usize) -> LocalFuture<'_, Result<Vec<u8>>> {
        Box::pin(self.page_bytes(page, positions))
    }

    fn write_page(&self, page: u32, positions: usize, bytes: &[u8]) -> Result<()> {
        self.device.check()?;
        check_page(page, positions, self.n_pages)?;
        check_page_bytes(bytes, positions, self.position_bytes())?;
        let mut rest = bytes;
        for (layer, at, size) in self.page_parts(page, positions) {
            let (part, after) = rest.split_at_checked(size as usize).unwrap_or((rest, &[]));
            self.device.write(layer, at, part);
            rest = after;
        }
        Ok(())
    }

    fn prefill(&self, step: &Step<'_>) -> Result<Option<Ticket>> {
        self.graph.need_logits()?;
        self.device.check()?;
        step.check(&self.graph, self.n_pages, self.max_rows)?;
        if step.outputs.len() > 1 {
            let words = format!("{} outputs in one prefill", step.outputs.len());
            return Err(Error::new(ErrorKind::InvalidArgument, words));
        }
        self.slots.borrow_mut().step(step)?;
        let size = self.write_step(step)?;
        let choose = !step.outputs.is_empty();
        if choose {
            let states = StateSlots::default();
            self.write_chain(&Decode { token: None, position: 0, count: 1, pages: &[], states, index: 0 });
        }
        let mut encoder = self.device.encoder();
        self.encode(Class::Prefill, &mut encoder, size, choose)?;
        if choose {
            return self.submit_ids(encoder, 1, false).map(Some);
        }
        self.device.submit(encoder);
        Ok(None)
    }

    fn done(&self) -> Option<LocalFuture<'static, Result<()>>> {
        Some(readback::done(&self.device))
    }

    fn decode(&self, chain: &Decode<'_>) -> Result<Ticket> {
        self.device.check()?;
        if self.decode.is_none() {
            return Err(no_decoding());
        }
        let end = u64::from(chain.position) + u64::from(chain.count);
        if chain.count == 0 || chain.count > MAX_CHAIN || end > (chain.pages.len() * PAGE_TOKENS) as u64 {
            let words =
                format!("{} steps from position {} in {} pages", chain.count, chain.position, chain.pages.len());
            return Err(Error::new(ErrorKind::InvalidArgument, words));
        }
        let vocab = self.graph.vocab();
        if let Some(id) = chain.token.filter(|id| *id as usize >= vocab) {
            let words = format!("token id {id} is outside the vocabulary of {vocab}");
            return Err(Error::new(ErrorKind::InvalidArgument, words));
        }
        if let Some(page) = chain.pages.iter().find(|page| **page as usize >= self.n_pages) {
            return Err(Error::new(ErrorKind::InvalidArgument, format!("page {page} of {}", self.n_pages)));
        }
        self.slots.borrow_mut().advance(chain.states, chain.position, chain.position + chain.count)?;
        let size = self.write_chain(chain);
        let mut encoder = self.device.encoder();
        for _ in 0..chain.count {
            self.encode(Class::Decode, &mut encoder, size, true)?;
        }
        self.submit_ids(encoder, chain.count, false)
    }

    fn collect(&self, ticket: Ticket) -> LocalFuture<'_, Result<Vec<u32>>> {
        Box::pin(async move {
            let (pending, batch) = self.ids.borrow_mut().take(&ticket)?;
            let ids = pending.words(&self.device).await?;
            match !batch && ids.contains(&BAD_LOGITS) {
                true => Err(bad_logits()),
                false => Ok(ids),
            }
        })
    }

    fn add_adapter<'a>(&'a self, deltas: &'a [Delta]) -> LocalFuture<'a, Result<AdapterId>> {
        Box::pin(async move {
            let adapter = self.make_adapter(deltas).await?;
            let id = AdapterId(self.next_adapter.replace(self.next_adapter.get() + 1));
            self.adapters.borrow_mut().insert(id, Rc::new(adapter));
            Ok(id)
        })
    }

    fn fill_adapter(&self, id: AdapterId, index: usize, values: &DeltaValues<'_>) -> Result<()> {
        self.device.check()?;
        self.adapters.borrow().get(&id).ok_or_else(no_adapter)?.fill(&self.device, index, values)
    }

    fn remove_adapter(&self, id: AdapterId) -> Result<()> {
        let adapter = self.adapters.borrow_mut().remove(&id).ok_or_else(no_adapter)?;
        let mut used = self.adapter.borrow_mut();
        *used = used.take().filter(|used| !Rc::ptr_eq(used, &adapter));
        adapter.destroy();
        Ok(())
    }

    fn use_adapter(&self, adapter: Option<AdapterUse>) -> Result<()> {
        let chosen = match adapter {
            None => None,
            Some(AdapterUse { id, scale }) => {
                let adapter = self.adapters.borrow().get(&id).cloned().ok_or_else(no_adapter)?;
                adapter.ready(&self.device, scale)?;
                Some(adapter)
            }
        };
        *self.adapter.borrow_mut() = chosen;
        Ok(())
    }

    fn profile<'a>(&'a self, step: &'a Step<'a>) -> LocalFuture<'a, Result<Vec<KernelTime>>> {
        Box::pin(self.time_kernels(step))
    }

    fn counters(&self) -> Counters {
        self.device.counters()
    }
}
