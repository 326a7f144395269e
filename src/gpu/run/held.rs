//! Logits that stay on the device until an id is chosen of them: the choice is made when it is known which ids may come.

use super::super::program::Wanted;
use super::super::readback::Pending;
use super::super::stage::Class;
use super::{Gpu, bad_logits};
use crate::error::{Error, ErrorKind, Result};
use crate::graph::{BAD_LOGITS, Decode, SamplerSettings, StateSlots, Step};
use crate::kernel::reply_words;

impl Gpu {
    /// Runs a step whose logits stay on the device until an id is chosen of them.
    pub(super) fn hold_logits(&self, step: &Step<'_>, index: u32) -> Result<()> {
        self.graph.need_logits()?;
        self.device.check()?;
        step.check(&self.graph, self.n_pages, self.max_rows)?;
        if step.outputs.len() != 1 {
            let words = format!("{} outputs to choose one id from", step.outputs.len());
            return Err(Error::new(ErrorKind::InvalidArgument, words));
        }
        self.slots.borrow_mut().step(step)?;
        let (class, size) = self.write_either(step, index)?;
        if class == Class::Prefill {
            let states = StateSlots::default();
            self.write_chain(&Decode { token: None, position: 0, count: 1, pages: &[], states, index });
        }
        let mut encoder = self.device.encoder();
        self.encode(class, &mut encoder, size, false)?;
        self.device.submit(encoder);
        self.held.set(Some(class));
        Ok(())
    }

    /// Chooses an id of the logits that were held.
    pub(super) async fn choose_held(&self, sampler: &SamplerSettings, mask: Option<&[u32]>) -> Result<u32> {
        let class = self.held.take().ok_or_else(nothing_held)?;
        self.device.check()?;
        let vocab = self.graph.vocab();
        if sampler.penalises() {
            return Err(Error::new(ErrorKind::InvalidArgument, "penalties go by a history"));
        }
        self.device.write(&self.shared.reply, 0, bytemuck::cast_slice(&reply_words(sampler, 0, mask.is_some())));
        if let Some(mask) = mask {
            // Ids past the end of a mask are none of it.
            let mut words = mask.to_vec();
            words.resize(vocab.div_ceil(32), 0);
            self.device.write(&self.shared.history, vocab as u64 * 4, bytemuck::cast_slice(&words));
        }
        let buffer = {
            use wgpu::BufferUsages as U;
            let mut kept = self.choice.borrow_mut();
            kept.get_or_insert_with(|| self.device.buffer("choice", 4, U::MAP_READ | U::COPY_DST)).clone()
        };
        let mut encoder = self.device.encoder();
        {
            let adapter = self.adapter.borrow();
            self.program(class, adapter.as_deref())?.encode_choice(&self.device, &mut encoder);
        }
        encoder.copy_buffer_to_buffer(&self.shared.ids, 0, &buffer, 0, 4);
        let submission = self.device.submit(encoder);
        match Pending::new(&buffer, 4, submission).words(&self.device).await?.first() {
            Some(id) if *id != BAD_LOGITS => Ok(*id),
            _ => Err(bad_logits()),
        }
    }

    /// Reads the logits that were held.
    pub(super) async fn read_held(&self) -> Result<Vec<f32>> {
        let class = self.held.take().ok_or_else(nothing_held)?;
        let made = {
            let adapter = self.adapter.borrow();
            self.program(class, adapter.as_deref())?.made(Wanted::End)?.clone()
        };
        let logits = self.read_made(self.device.encoder(), &made, 1).await?;
        if logits.iter().all(|logit| logit.is_finite()) { Ok(logits) } else { Err(bad_logits()) }
    }
}

fn nothing_held() -> Error {
    Error::new(ErrorKind::Internal, "no logits are held")
}
