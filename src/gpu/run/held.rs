//! Logits that stay on the device until an id is chosen of them: the choice is made when it is known which ids may come.

use std::borrow::Cow;
use std::rc::Rc;

use super::super::device::{Device, whole};
use super::super::pipelines::Pipelines;
use super::super::program::{Made, Wanted};
use super::super::readback::Pending;
use super::super::stage::Class;
use super::{Gpu, bad_logits};
use crate::error::{Error, ErrorKind, Result};
use crate::graph::{BAD_LOGITS, Change, Decode, HeldChoice, MAX_TOP, StateSlots, Step, Top, TopAsk};
use crate::kernel::{ASKED_WORDS, CHANGES, FOUND_WORDS, Kernel, TOP, TOP_WORDS, reply_words, word};

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
    pub(super) async fn choose_held(&self, choice: &HeldChoice<'_>) -> Result<(u32, Option<Top>)> {
        let class = self.held.get().ok_or_else(nothing_held)?;
        self.device.check()?;
        let HeldChoice { sampler, changes, mask, tells } = *choice;
        let words = reply_words(&sampler.unpenalised(), 0, mask.is_some());
        self.device.write(&self.shared.reply, 0, bytemuck::cast_slice(&words));
        self.write_mask(mask);
        let looks = tells || !changes.is_empty();
        let looking = if looks { Some(self.looking(class, changes.len()).await?) } else { None };
        if let Some(looking) = &looking {
            looking.ask(&self.device, [word(changes.len()), 1, 1.0_f32.to_bits(), 0], changes.iter().copied());
        }
        let readback = self.readback(if tells { FOUND_WORDS + 2 } else { 1 });
        let mut encoder = self.device.encoder();
        let changing = looking.as_ref().filter(|_| !changes.is_empty());
        if let Some(looking) = changing {
            looking.encode(&self.device, &mut encoder, &looking.change, changes.len());
        }
        {
            let adapter = self.adapter.borrow();
            self.program(class, adapter.as_deref())?.encode_choice(&self.device, &mut encoder);
        }
        encoder.copy_buffer_to_buffer(&self.shared.ids, 0, &readback, 0, 4);
        if let Some(looking) = changing {
            looking.encode(&self.device, &mut encoder, &looking.restore, changes.len());
        }
        let mut size_bytes = 4;
        if let Some(looking) = looking.as_ref().filter(|_| tells) {
            encoder.copy_buffer_to_buffer(&self.shared.ids, 0, &looking.asked, ASKED_WORDS as u64 * 4, 4);
            looking.encode(&self.device, &mut encoder, &looking.top, 1);
            let found_bytes = (FOUND_WORDS as u64 + 1) * 4;
            encoder.copy_buffer_to_buffer(&looking.found, 0, &readback, 4, found_bytes);
            size_bytes += found_bytes;
        }
        let submission = self.device.submit(encoder);
        let words = Pending::new(&readback, size_bytes, submission).words(&self.device).await?;
        match words.split_first() {
            Some((id, found)) if *id != BAD_LOGITS => {
                Ok((*id, if tells { Some(top(found).ok_or_else(bad_logits)?) } else { None }))
            }
            _ => Err(bad_logits()),
        }
    }

    /// Finds the largest of the logits that are held.
    pub(super) async fn top_held(&self, ask: &TopAsk<'_>) -> Result<Top> {
        let class = self.held.get().ok_or_else(nothing_held)?;
        self.device.check()?;
        let count = ask.named.len();
        let looking = self.looking(class, count).await?;
        self.write_mask(ask.mask);
        let header = [0, word(count), ask.temperature.to_bits(), u32::from(ask.mask.is_some())];
        looking.ask(&self.device, header, ask.named.iter().map(|id| Change::none(*id)));
        let readback = self.readback(FOUND_WORDS + count);
        let mut encoder = self.device.encoder();
        looking.encode(&self.device, &mut encoder, &looking.top, 1);
        let size_bytes = ((FOUND_WORDS + count) * 4) as u64;
        encoder.copy_buffer_to_buffer(&looking.found, 0, &readback, 0, size_bytes);
        let submission = self.device.submit(encoder);
        let words = Pending::new(&readback, size_bytes, submission).words(&self.device).await?;
        top(&words).ok_or_else(bad_logits)
    }

    /// Reads the logits that were held.
    pub(super) async fn read_held(&self) -> Result<Vec<f32>> {
        let class = self.held.take().ok_or_else(nothing_held)?;
        let made = {
            let adapter = self.adapter.borrow();
            self.program(class, adapter.as_deref())?.made(Wanted::End)?.clone()
        };
        let logits = self.read_made(self.device.encoder(), &made, 1).await?;
        self.device.count(|counters| counters.full_reads += 1);
        if logits.iter().all(|logit| logit.is_finite()) { Ok(logits) } else { Err(bad_logits()) }
    }

    fn write_mask(&self, mask: Option<&[u32]>) {
        if let Some(mask) = mask {
            let vocab = self.graph.vocab();
            let mut words = Cow::Borrowed(mask);
            // Ids past the end of a mask are none of it.
            if mask.len() != vocab.div_ceil(32) {
                words.to_mut().resize(vocab.div_ceil(32), 0);
            }
            self.device.write(&self.shared.history, vocab as u64 * 4, bytemuck::cast_slice(&words));
        }
    }

    /// What goes back through, of so many words at least.
    fn readback(&self, words: usize) -> wgpu::Buffer {
        use wgpu::BufferUsages as U;
        let size_bytes = words as u64 * 4;
        let mut kept = self.choice.borrow_mut();
        let large = kept.take().filter(|buffer| buffer.size() >= size_bytes);
        let make = || self.device.buffer("choice", words.next_power_of_two() as u64 * 4, U::MAP_READ | U::COPY_DST);
        kept.insert(large.unwrap_or_else(make)).clone()
    }

    /// What looks at the logits of a class of steps, with room for a list of `count` ids; made when it is first wanted, and
    /// anew for longer lists.
    async fn looking(&self, class: Class, count: usize) -> Result<Rc<Looking>> {
        let made = {
            let adapter = self.adapter.borrow();
            self.program(class, adapter.as_deref())?.made(Wanted::End)?.clone()
        };
        let fits = |looking: &&Rc<Looking>| looking.is_of(&made) && looking.room >= count;
        if let Some(looking) = self.looking.borrow().iter().find(fits) {
            return Ok(looking.clone());
        }
        let room = count.next_power_of_two().max(LEAST_ROOM);
        let make = || Ok(Looking::new(&self.device, &self.recipe.pipelines, &self.shared.history, &made, room));
        let looking = Rc::new(self.device.guarded((room * 20) as u64, make).await?);
        let mut all = self.looking.borrow_mut();
        all.retain(|other| !other.is_of(&made));
        all.push(looking.clone());
        Ok(looking)
    }
}

/// Ids of a list, at least: longer lists come with long replies.
const LEAST_ROOM: usize = 256;

/// A kernel with its bindings.
struct Pass {
    pipeline: wgpu::ComputePipeline,
    group: wgpu::BindGroup,
    /// Ids of the list that one workgroup takes.
    each: usize,
}

/// Kernels over the first row of logits that stay.
pub(super) struct Looking {
    logits: (wgpu::Buffer, usize),
    room: usize,
    asked: wgpu::Buffer,
    found: wgpu::Buffer,
    nothing: wgpu::BindGroup,
    change: Pass,
    restore: Pass,
    top: Pass,
}

impl Looking {
    fn new(device: &Device, pipelines: &Pipelines, history: &wgpu::Buffer, made: &Made, room: usize) -> Self {
        use wgpu::BufferUsages as U;
        let params = device.buffer("params", 16, U::UNIFORM | U::COPY_DST);
        device.write(&params, 0, bytemuck::cast_slice(&[word(made.width), word(made.offset), 0, 0]));
        let asked = device.storage("asked", (ASKED_WORDS + 4 * room) as u64 * 4);
        let found = device.storage("found", (FOUND_WORDS + room) as u64 * 4);
        let logits = &made.buffer;
        let pass = |kernel: &'static Kernel, constants: &[(&'static str, f64)], buffers: &[&wgpu::Buffer], each| {
            let (pipeline, layout) = pipelines.get(device, kernel, None, constants);
            let bindings: Vec<_> = [&params].iter().chain(buffers).map(|buffer| whole(buffer)).collect();
            Pass { pipeline, group: device.bind(kernel.name, &layout, &bindings), each }
        };
        let changed = [logits, &asked, &found];
        let change = pass(&CHANGES, &[("RESTORE", 0.0)], &changed, 64);
        let restore = pass(&CHANGES, &[("RESTORE", 1.0)], &changed, 64);
        let top = pass(&TOP, &[], &[logits, &asked, history, &found], 1);
        let nothing = pipelines.no_weights().clone();
        Self { room, nothing, change, restore, top, logits: (made.buffer.clone(), made.offset), asked, found }
    }

    fn is_of(&self, made: &Made) -> bool {
        self.logits.0 == made.buffer && self.logits.1 == made.offset
    }

    fn ask(&self, device: &Device, header: [u32; ASKED_WORDS], list: impl Iterator<Item = Change>) {
        let list =
            list.flat_map(|Change { id, bias, divisor, less }| [id, bias.to_bits(), divisor.to_bits(), less.to_bits()]);
        let words: Vec<u32> = header.into_iter().chain(list).collect();
        device.write(&self.asked, 0, bytemuck::cast_slice(&words));
    }

    /// One pass over `count` ids of the list.
    fn encode(&self, device: &Device, encoder: &mut wgpu::CommandEncoder, pass: &Pass, count: usize) {
        let mut encoded = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        encoded.set_pipeline(&pass.pipeline);
        encoded.set_bind_group(0, &self.nothing, &[]);
        encoded.set_bind_group(1, &pass.group, &[]);
        encoded.dispatch_workgroups(word(count.div_ceil(pass.each)), 1, 1);
        device.count(|counters| {
            counters.passes += 1;
            counters.dispatches += 1;
        });
    }
}

/// What the kernel found; nothing where logits are no numbers or none takes part.
fn top(words: &[u32]) -> Option<Top> {
    let (header, rest) = words.split_first_chunk::<TOP_WORDS>()?;
    let (pairs, named) = rest.split_at_checked(2 * MAX_TOP)?;
    let [bad, count, written, bound, max, sum, mean, variance] = *header;
    if bad != 0 || count == 0 {
        return None;
    }
    let mut largest: Vec<(u32, f32)> = Vec::with_capacity(MAX_TOP);
    for [id, logit] in pairs.as_chunks().0.iter().take(written as usize) {
        let at = largest.partition_point(|(before, _)| before < id);
        largest.insert(at, (*id, f32::from_bits(*logit)));
    }
    let named = named.iter().copied().map(f32::from_bits).collect();
    let [bound, max, sum, mean, variance] = [bound, max, sum, mean, variance].map(f32::from_bits);
    let bound = if written == count { f32::NEG_INFINITY } else { bound };
    Some(Top { largest, bound, count, max, sum, mean, variance, named })
}

fn nothing_held() -> Error {
    Error::new(ErrorKind::Internal, "no logits are held")
}
