//! Adapters on every backend: against peft's own goldens, against merged weights, several beside one another.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

#[path = "../common/mod.rs"]
mod common;
mod engine;
mod errors;
mod made;
mod merged;
mod parity;

use std::rc::Rc;

use headwater::cpu::Cpu;
use headwater::format::Checkpoint;
use headwater::gpu::{Device, DeviceOptions, Gpu};
use headwater::graph::{AdapterId, AdapterUse, Backend, KvFormat};
use headwater::model::{Plan, plan, plan_adapter, read_adapter, read_weights};
use headwater::source::Source;
use pollster::block_on;

/// A model on a backend, with what its adapters need of it.
struct Model {
    backend: Box<dyn Backend>,
    checkpoint: Checkpoint,
    plan: Plan,
}

/// The backends and the error that each may make (see `parity_cpu.rs` and `parity_gpu.rs`).
const BACKENDS: &[(&str, f64)] = &[("cpu", 1e-11), ("gpu", 1e-10)];

impl Model {
    fn load(backend: &str, checkpoint: Checkpoint, n_pages: usize) -> Self {
        let plan = plan(&checkpoint).unwrap();
        let mut quiet = |_, _| Ok(());
        let backend: Box<dyn Backend> = if backend == "cpu" {
            let mut cpu = Cpu::new(&plan, KvFormat::F32, n_pages).unwrap();
            block_on(read_weights(&checkpoint, &plan, &mut cpu, &mut quiet)).unwrap();
            Box::new(cpu)
        } else {
            let device = block_on(Device::open(DeviceOptions::default())).expect("an adapter; software Vulkan will do");
            let mut gpu = block_on(Gpu::new(&device, &plan, KvFormat::F32, n_pages)).unwrap();
            block_on(read_weights(&checkpoint, &plan, &mut gpu, &mut quiet)).unwrap();
            Box::new(gpu)
        };
        Self { backend, checkpoint, plan }
    }

    /// Loads an adapter from its files.
    fn adapter(&self, files: Vec<Rc<dyn Source>>) -> AdapterId {
        self.loaded(&block_on(Checkpoint::open_adapter(files)).unwrap())
    }

    /// Loads an adapter that was opened.
    fn loaded(&self, adapter: &Checkpoint) -> AdapterId {
        let adapter_plan = plan_adapter(&self.plan, adapter).unwrap_or_else(|error| panic!("{error}"));
        let id = block_on(self.backend.add_adapter(&adapter_plan.deltas)).unwrap();
        let (files, plan) = (&self.checkpoint.files, &self.plan);
        block_on(read_adapter(files, plan, adapter, &adapter_plan, &mut |index, values| {
            self.backend.fill_adapter(id, index, values)
        }))
        .unwrap();
        id
    }

    /// From now on, so much of an adapter.
    fn with(&self, id: AdapterId, scale: f32) {
        self.backend.use_adapter(Some(AdapterUse { id, scale })).unwrap();
    }

    fn without(&self) {
        self.backend.use_adapter(None).unwrap();
    }
}
