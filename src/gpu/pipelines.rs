//! Pipelines by kernel, formats and numbers, made once for a device and kept for all its models: compiling is what takes
//! most of a load's time on many devices.

use std::cell::RefCell;
use std::collections::BTreeMap;

use super::device::Device;
use super::shader::kernel_source;
use crate::graph::KvFormat;
use crate::kernel::{Kernel, Use};
use crate::quant::FormatId;

/// A kernel, the format of its weight, the format of keys and values where it touches them, and its numbers.
type Key = (&'static str, Option<FormatId>, Option<KvFormat>, Vec<(&'static str, u64)>);

/// What a device has made so far.
#[derive(Default)]
pub(super) struct Made {
    layouts: RefCell<BTreeMap<&'static str, wgpu::BindGroupLayout>>,
    pipelines: RefCell<BTreeMap<Key, wgpu::ComputePipeline>>,
}

impl Made {
    /// Forgets all pipelines: one of them did not compile, and nobody knows which.
    pub(super) fn forget(&self) {
        self.pipelines.borrow_mut().clear();
    }
}

/// The pipelines of one model.
pub(super) struct Pipelines {
    kv: KvFormat,
    weights_layout: wgpu::BindGroupLayout,
    /// Takes the place of the weights' group in kernels without a weight.
    empty: (wgpu::BindGroupLayout, wgpu::BindGroup),
}

impl Pipelines {
    pub(super) fn new(device: &Device, kv: KvFormat) -> Self {
        let empty_layout = layout(device, "nothing", &[]);
        let empty_group = device.bind("nothing", &empty_layout, &[]);
        let weights_layout = layout(device, "weights", &[Use::Read; 3]);
        Self { kv, weights_layout, empty: (empty_layout, empty_group) }
    }

    /// The layout of bind group 0.
    pub(super) fn weights_layout(&self) -> &wgpu::BindGroupLayout {
        &self.weights_layout
    }

    /// Bind group 0 of a kernel without a weight.
    pub(super) fn no_weights(&self) -> &wgpu::BindGroup {
        &self.empty.1
    }

    /// A pipeline and the layout of its bind group 1.
    pub(super) fn get(
        &self,
        device: &Device,
        kernel: &'static Kernel,
        format: Option<FormatId>,
        constants: &[(&'static str, f64)],
    ) -> (wgpu::ComputePipeline, wgpu::BindGroupLayout) {
        let layout = layout(device, kernel.name, kernel.bindings);
        let numbers = constants.iter().map(|(name, value)| (*name, value.to_bits())).collect();
        let key = (kernel.name, format, kernel.kv.then_some(self.kv), numbers);
        let mut pipelines = device.made().pipelines.borrow_mut();
        let pipeline = pipelines.entry(key).or_insert_with(|| {
            let source = kernel_source(kernel, format, self.kv, device.dialect());
            let first = if kernel.weights { &self.weights_layout } else { &self.empty.0 };
            let own = format.map_or(&[][..], |format| format.format().planes.numbers);
            let constants = [constants, own].concat();
            device.pipeline(kernel.name, source, &[Some(first), Some(&layout)], &constants)
        });
        (pipeline.clone(), layout)
    }
}

/// The layout of that name. Bind groups fit pipelines of the same layout object only where layouts are not deduplicated,
/// so each is made once.
fn layout(device: &Device, name: &'static str, uses: &[Use]) -> wgpu::BindGroupLayout {
    device.made().layouts.borrow_mut().entry(name).or_insert_with(|| device.layout(uses)).clone()
}
