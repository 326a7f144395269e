//! Reading back: a few small mappable buffers used in turn for ids, and futures for their mapping.

use std::collections::VecDeque;

use futures_channel::oneshot;

use super::device::Device;
use crate::error::{Error, ErrorKind, Result};
use crate::graph::Ticket;
use crate::source::LocalFuture;

/// Most ids of one chain.
pub(super) const MAX_CHAIN: u32 = 32;

/// Most ids of one submit: of a chain, or of all rows of a batch.
pub(super) const MAX_IDS: u32 = 64;

/// Chains that may be open at a time, and one that is being read.
pub(super) const BUFFERS: usize = 3;

/// How long a native wait may take before the GPU counts as hung.
#[cfg(not(target_arch = "wasm32"))]
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);

type Mapped = oneshot::Receiver<std::result::Result<(), wgpu::BufferAsyncError>>;

/// A mapping under way; dropping it unmaps the buffer, whether or not anyone waited.
pub(super) struct Pending {
    buffer: wgpu::Buffer,
    size_bytes: u64,
    mapped: Mapped,
    submission: Option<wgpu::SubmissionIndex>,
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.buffer.unmap();
    }
}

impl Pending {
    /// Starts to map what a submission has copied into `buffer`.
    pub(super) fn new(buffer: &wgpu::Buffer, size_bytes: u64, submission: wgpu::SubmissionIndex) -> Self {
        let (sender, mapped) = oneshot::channel();
        buffer.map_async(wgpu::MapMode::Read, 0..size_bytes, move |outcome| {
            // Nobody may be waiting any more.
            let _unheard = sender.send(outcome);
        });
        Self { buffer: buffer.clone(), size_bytes, mapped, submission: Some(submission) }
    }

    /// Waits, and hands out the words.
    pub(super) async fn words(mut self, device: &Device) -> Result<Vec<u32>> {
        wait(device, self.submission.take())?;
        let outcome = (&mut self.mapped).await;
        device.check()?;
        let lost = |words: String| Error::new(ErrorKind::DeviceLost, words).at("GPU");
        outcome
            .map_err(|_| lost("a read was dropped".into()))?
            .map_err(|error| lost("a read failed".into()).caused_by(error))?;
        device.count(|counters| counters.read_bytes += self.size_bytes);
        let view = self
            .buffer
            .get_mapped_range(0..self.size_bytes)
            .map_err(|error| lost("what was read is gone".into()).caused_by(error))?;
        Ok(bytemuck::pod_collect_to_vec(&view[..]))
    }
}

/// Becomes ready once everything is done that was submitted so far.
pub(super) fn done(device: &Device) -> LocalFuture<'static, Result<()>> {
    let (sender, done) = oneshot::channel();
    let submission = device.when_done(move || {
        // Nobody may be waiting any more.
        let _unheard = sender.send(());
    });
    let device = device.clone();
    Box::pin(async move {
        wait(&device, submission)?;
        let heard = done.await;
        device.check()?;
        heard.map_err(|_| Error::new(ErrorKind::DeviceLost, "the GPU told of no end").at("GPU"))
    })
}

/// Natively nothing happens unless someone waits; in browsers the event loop does it.
#[cfg(not(target_arch = "wasm32"))]
fn wait(device: &Device, submission: Option<wgpu::SubmissionIndex>) -> Result<()> {
    let poll = wgpu::PollType::Wait { submission_index: submission, timeout: Some(PATIENCE) };
    device.raw().poll(poll).map(|_| ()).map_err(|error| {
        let words = format!("the GPU did not answer in {} s", PATIENCE.as_secs());
        Error::new(ErrorKind::GpuTimeout, words).caused_by(error)
    })
}

#[cfg(target_arch = "wasm32")]
fn wait(_: &Device, _: Option<wgpu::SubmissionIndex>) -> Result<()> {
    Ok(())
}

/// Ids on their way back, oldest first.
pub(super) struct IdRing {
    buffers: Vec<wgpu::Buffer>,
    next: usize,
    /// With whether they are those of a batch.
    open: VecDeque<(u64, Pending, bool)>,
    issued: u64,
}

impl IdRing {
    pub(super) fn new(device: &Device) -> Self {
        use wgpu::BufferUsages as U;
        let size_bytes = u64::from(MAX_IDS) * 4;
        let make = |_| device.buffer("ids", size_bytes, U::MAP_READ | U::COPY_DST);
        Self { buffers: (0..BUFFERS).map(make).collect(), next: 0, open: VecDeque::new(), issued: 0 }
    }

    /// The buffer for the next chain. Fails when two chains are open already.
    pub(super) fn claim(&mut self) -> Result<wgpu::Buffer> {
        if self.open.len() + 1 >= BUFFERS {
            return Err(Error::new(ErrorKind::Internal, "more than two chains at a time"));
        }
        let buffer = self.buffers.get(self.next).cloned();
        self.next = (self.next + 1) % BUFFERS;
        buffer.ok_or_else(|| Error::new(ErrorKind::Internal, "no buffer for ids"))
    }

    pub(super) fn issue(&mut self, pending: Pending, batch: bool) -> Ticket {
        self.issued += 1;
        self.open.push_back((self.issued, pending, batch));
        Ticket(self.issued)
    }

    /// Lets go of chains that nobody will collect.
    pub(super) fn forget(&mut self) {
        self.open.clear();
    }

    /// What a ticket stands for, and whether it is that of a batch.
    pub(super) fn take(&mut self, ticket: &Ticket) -> Result<(Pending, bool)> {
        match self.open.pop_front() {
            Some((number, pending, batch)) if number == ticket.0 => Ok((pending, batch)),
            other => {
                if let Some(other) = other {
                    self.open.push_front(other);
                }
                Err(Error::new(ErrorKind::Internal, "chains are collected in order, once"))
            }
        }
    }
}
