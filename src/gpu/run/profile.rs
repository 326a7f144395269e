//! Where the time of a step goes: each launch in a pass of its own, between two stamps of the device's clock.

use std::collections::BTreeMap;

use super::super::program::Label;
use super::super::readback::Pending;
use super::Gpu;
use crate::error::{Error, ErrorKind, Result};
use crate::graph::{KernelTime, Step};

/// Stamps of one set.
const MAX_STAMPS: u32 = wgpu::QUERY_SET_MAX_QUERIES;

impl Gpu {
    /// Runs a step and tells what each kernel took, see [`crate::graph::Backend::profile`].
    pub(super) async fn time_kernels(&self, step: &Step<'_>) -> Result<Vec<KernelTime>> {
        self.device.check()?;
        step.check(&self.graph, self.n_pages, self.max_rows)?;
        let raw = self.device.raw();
        if !raw.features().contains(wgpu::Features::TIMESTAMP_QUERY) {
            return Err(Error::new(ErrorKind::GpuFeatureMissing, "this device tells no times").at("timestamp-query"));
        }
        self.slots.borrow_mut().step(step)?;
        let (class, size) = self.write_either(step, 0)?;
        let (labels, pending) = {
            let adapter = self.adapter.borrow();
            let program = self.program(class, adapter.as_deref())?;
            let labels: Vec<Label> = program.labels().collect();
            let count = u32::try_from(2 * labels.len()).ok().filter(|count| *count <= MAX_STAMPS);
            let count = count.ok_or_else(|| {
                let words = format!("{} launches, of which {} can be timed at once", labels.len(), MAX_STAMPS / 2);
                Error::new(ErrorKind::LimitExceeded, words).at("profile")
            })?;
            let stamps = raw.create_query_set(&wgpu::QuerySetDescriptor {
                label: Some("stamps"),
                ty: wgpu::QueryType::Timestamp,
                count,
            });
            use wgpu::BufferUsages as U;
            let bytes = u64::from(count) * u64::from(wgpu::QUERY_SIZE);
            let resolved = self.device.buffer("stamps", bytes, U::QUERY_RESOLVE | U::COPY_SRC);
            let readback = self.device.buffer("stamps", bytes, U::MAP_READ | U::COPY_DST);
            let mut encoder = self.device.encoder();
            program.encode_stamped(&self.device, &mut encoder, size, &stamps);
            encoder.resolve_query_set(&stamps, 0..count, &resolved, 0);
            encoder.copy_buffer_to_buffer(&resolved, 0, &readback, 0, bytes);
            let submission = self.device.submit(encoder);
            (labels, Pending::new(&readback, bytes, submission))
        };
        let words = pending.words(&self.device).await?;
        let stamps: Vec<u64> =
            words.chunks_exact(2).map(|pair| u64::from(pair[1]) << 32 | u64::from(pair[0])).collect();
        let period_secs = f64::from(self.device.period_ns()) * 1e-9;
        let mut times: BTreeMap<Label, (u32, f64)> = BTreeMap::new();
        for (label, stamps) in labels.into_iter().zip(stamps.chunks_exact(2)) {
            let (dispatches, secs) = times.entry(label).or_default();
            *dispatches += 1;
            // Clocks of some devices step back when they are reset; that is no time.
            *secs += stamps[1].saturating_sub(stamps[0]) as f64 * period_secs;
        }
        let mut times: Vec<KernelTime> = times.into_iter().map(told).collect();
        times.sort_by(|a, b| b.secs.total_cmp(&a.secs));
        Ok(times)
    }
}

fn told((label, (dispatches, secs)): (Label, (u32, f64))) -> KernelTime {
    let Label { kernel, format, shape } = label;
    KernelTime {
        kernel: kernel.into(),
        format: format.map(|format| format.format().name.into()),
        shape,
        dispatches,
        secs,
    }
}
