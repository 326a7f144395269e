//! The device: adapter, limits, what shaders may use of it, and the only places that make buffers, bind groups and
//! pipelines, so that every one of them is counted.

use std::cell::{Cell, RefCell, RefMut};
use std::mem::ManuallyDrop;
use std::rc::Rc;
use std::sync::{Arc, Mutex};

use super::check::Checked;
use super::pipelines::Made;
use super::shader::Dialect;
use crate::error::{Error, ErrorKind, Result};
use crate::graph::Counters;
use crate::kernel::{Teams, Use};

/// What the edge may say about how the device is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceOptions {
    /// Use subgroups where the device has them.
    pub subgroups: bool,
    /// Who makes an output, where it is not to be measured.
    pub teams: Option<Teams>,
    /// Bind no more than this at a time, where the device would allow more; matrices are split accordingly.
    pub max_binding_bytes: Option<u64>,
}

impl Default for DeviceOptions {
    fn default() -> Self {
        Self { subgroups: true, teams: None, max_binding_bytes: None }
    }
}

/// An open device; clones share it with its counters.
#[derive(Clone)]
pub struct Device {
    shared: Rc<Inner>,
    counters: Rc<Cell<Counters>>,
    /// Who makes an output, where somebody said so.
    teams: Option<Teams>,
    /// Whether activations that are decoded are rounded to bytes.
    rounds: bool,
}

struct Inner {
    device: wgpu::Device,
    queue: wgpu::Queue,
    /// The last submit.
    latest: RefCell<Option<wgpu::SubmissionIndex>>,
    name: String,
    identity: String,
    dialect: Cell<Dialect>,
    /// Kernels that were found to be right.
    checked: RefCell<Checked>,
    /// What users should know of it.
    notes: RefCell<Vec<String>>,
    /// Who makes an output faster, once that was measured.
    measured: Cell<Option<Teams>>,
    max_binding_bytes: u64,
    made: Made,
    /// The first fault that no call reported: a lost device or an error outside every scope.
    fault: Arc<Mutex<Option<(ErrorKind, String)>>>,
}

const WEB: bool = cfg!(target_arch = "wasm32");

/// On the web, wgpu has no name for the feature: the package's loader asks for it, and the browser's device tells.
#[cfg(target_arch = "wasm32")]
fn has_subgroups(device: &wgpu::Device) -> bool {
    device.as_webgpu().is_some_and(|device| device.features().has("subgroups"))
}

#[cfg(not(target_arch = "wasm32"))]
fn has_subgroups(device: &wgpu::Device) -> bool {
    device.features().contains(wgpu::Features::SUBGROUP)
}

/// What only the browser tells of an adapter, where it does.
#[cfg(target_arch = "wasm32")]
fn told(device: &wgpu::Device) -> String {
    // Older browsers have no such field.
    let info = device.as_webgpu().map(|device| device.adapter_info()).filter(|info| !info.is_undefined());
    let parts = info.map(|info| [info.vendor(), info.architecture(), info.device()]).unwrap_or_default();
    parts.join(" ")
}

#[cfg(not(target_arch = "wasm32"))]
fn told(_: &wgpu::Device) -> String {
    String::new()
}

impl Device {
    /// Opens the most capable adapter. Fails with `GpuUnavailable` when there is none.
    pub async fn open(options: DeviceOptions) -> Result<Self> {
        let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle_from_env());
        let request = wgpu::RequestAdapterOptions {
            power_preference: wgpu::PowerPreference::HighPerformance,
            ..Default::default()
        };
        let adapter = instance.request_adapter(&request).await.map_err(|error| {
            let words = if WEB {
                "this browser offers no WebGPU adapter to this page"
            } else {
                "no Vulkan, Metal or Direct3D 12 adapter was found"
            };
            Error::new(ErrorKind::GpuUnavailable, words).caused_by(error)
        })?;
        let info = adapter.get_info();
        // Times are for profiles only, and asking for them costs nothing.
        let features = adapter.features() & (wgpu::Features::SUBGROUP | wgpu::Features::TIMESTAMP_QUERY);
        let limits = adapter.limits();
        let device_binding_bytes = limits.max_storage_buffer_binding_size.min(limits.max_buffer_size);
        let max_binding_bytes = options.max_binding_bytes.unwrap_or(u64::MAX).min(device_binding_bytes);
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("headwater"),
            required_features: features,
            required_limits: limits,
            ..Default::default()
        };
        let (device, queue) = adapter
            .request_device(&descriptor)
            .await
            .map_err(|error| Error::new(ErrorKind::GpuUnavailable, "the adapter gave no device").caused_by(error))?;
        // Browsers demand the directive and naga refuses it.
        let dialect = Dialect { subgroups: options.subgroups && has_subgroups(&device), subgroups_directive: WEB };
        let fault = Arc::new(Mutex::new(None));
        let note = |kind: ErrorKind, words: String, fault: &Mutex<Option<(ErrorKind, String)>>| {
            if let Ok(mut fault) = fault.lock() {
                fault.get_or_insert((kind, words));
            }
        };
        let uncaptured = Arc::clone(&fault);
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
            let kind = match error {
                wgpu::Error::OutOfMemory { .. } => ErrorKind::GpuOutOfMemory,
                _ => ErrorKind::Internal,
            };
            note(kind, error.to_string(), &uncaptured);
        }));
        let lost = Arc::clone(&fault);
        device.set_device_lost_callback(move |_, words| note(ErrorKind::DeviceLost, words, &lost));
        let parts = [&info.name, &info.driver, &info.driver_info, &info.backend.to_string(), &told(&device)];
        let numbers = [info.vendor, info.device, info.subgroup_min_size, info.subgroup_max_size];
        let identity = format!("{parts:?} {numbers:?} {dialect:?}");
        let name = match (info.name.is_empty(), info.driver.is_empty()) {
            (true, _) => "WebGPU adapter".to_owned(),
            (false, true) => info.name,
            (false, false) => format!("{} ({})", info.name, info.driver),
        };
        let made = Made::default();
        let shared = Rc::new(Inner {
            device,
            queue,
            latest: RefCell::default(),
            name,
            identity,
            dialect: Cell::new(dialect),
            checked: RefCell::default(),
            notes: RefCell::default(),
            measured: Cell::default(),
            max_binding_bytes,
            made,
            fault,
        });
        Ok(Self { shared, counters: Rc::default(), teams: options.teams, rounds: false })
    }

    /// The device of this thread, opened when it is first asked for or when the last one failed; all models share its
    /// pipelines.
    pub async fn of_thread() -> Result<Self> {
        // Not dropped with its thread: by then what dropping a device needs is gone.
        thread_local!(static OPEN: RefCell<Option<ManuallyDrop<Device>>> = const { RefCell::new(None) });
        let open = OPEN.with_borrow(|open| open.as_deref().cloned()).filter(|device| device.check().is_ok());
        let device = match open {
            Some(device) => device,
            None => Self::open(DeviceOptions::default()).await?,
        };
        let before = OPEN.replace(Some(ManuallyDrop::new(device.clone())));
        drop(before.map(ManuallyDrop::into_inner));
        Ok(device.counted_anew())
    }

    /// The same device with counters of its own, which start at 0.
    pub fn counted_anew(&self) -> Self {
        Self { counters: Rc::default(), ..self.clone() }
    }

    /// The same device, on which models are made so.
    pub fn with_teams(self, teams: Teams) -> Self {
        Self { teams: Some(teams), ..self }
    }

    /// The same device, on which models decode with activations that are rounded to bytes, 32 with one scale, where they
    /// meet weights that are multiplied as integers.
    pub fn with_rounding(self, rounds: bool) -> Self {
        Self { rounds, ..self }
    }

    pub(super) fn rounds(&self) -> bool {
        self.rounds
    }

    /// What was made for all models.
    pub(super) fn made(&self) -> &Made {
        &self.shared.made
    }

    pub(super) fn raw(&self) -> &wgpu::Device {
        &self.shared.device
    }

    pub(super) fn dialect(&self) -> Dialect {
        self.shared.dialect.get()
    }

    /// From now on kernels are made with subgroups, or without. What was made otherwise is forgotten.
    pub(super) fn use_subgroups(&self, subgroups: bool) {
        let before = self.shared.dialect.get();
        if before.subgroups != subgroups {
            self.shared.dialect.set(Dialect { subgroups, ..before });
            self.shared.made.forget();
        }
    }

    /// Kernels that were found to be right.
    pub(super) fn checked(&self) -> RefMut<'_, Checked> {
        self.shared.checked.borrow_mut()
    }

    /// Keeps what users of all models should know.
    pub(super) fn note(&self, words: String) {
        self.shared.notes.borrow_mut().push(words);
    }

    pub(super) fn notes(&self) -> Vec<String> {
        self.shared.notes.borrow().clone()
    }

    /// Who makes an output, where that was said or measured.
    pub(super) fn teams(&self) -> Option<Teams> {
        self.teams.or(self.shared.measured.get())
    }

    /// What was measured, for all models from now on.
    pub(super) fn remember(&self, teams: Teams) {
        self.shared.measured.set(Some(teams));
    }

    pub(super) fn name(&self) -> &str {
        &self.shared.name
    }

    /// What tells it from other devices, and from itself with another driver or in another browser.
    pub(super) fn identity(&self) -> &str {
        &self.shared.identity
    }

    /// Largest piece of a buffer that a kernel can bind, in bytes.
    pub fn max_binding_bytes(&self) -> u64 {
        self.shared.max_binding_bytes
    }

    /// Nanoseconds between two ticks of the device's clock.
    pub(super) fn period_ns(&self) -> f32 {
        self.shared.queue.get_timestamp_period()
    }

    pub(super) fn counters(&self) -> Counters {
        self.counters.get()
    }

    pub(super) fn count(&self, change: impl FnOnce(&mut Counters)) {
        let mut counters = self.counters.get();
        change(&mut counters);
        self.counters.set(counters);
    }

    /// Fails when the device was lost or reported an error since.
    pub(super) fn check(&self) -> Result<()> {
        let fault = self.shared.fault.lock().ok().and_then(|fault| fault.clone());
        fault.map_or(Ok(()), |(kind, words)| Err(Error::new(kind, words).at("GPU")))
    }

    /// Runs `make` and reports what went wrong in it with `GpuOutOfMemory` or, for a fault of ours, `Internal`.
    ///
    /// Scopes are a stack of the device, which models that load at the same time share: both are closed before anything
    /// is waited for, so that no other load can open its own between them.
    pub(super) async fn guarded<T>(&self, wanted_bytes: u64, make: impl FnOnce() -> Result<T>) -> Result<T> {
        let validation = self.raw().push_error_scope(wgpu::ErrorFilter::Validation);
        let memory = self.raw().push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let made = make();
        let (memory, validation) = (memory.pop(), validation.pop());
        let (memory, validation) = (memory.await, validation.await);
        if let Some(error) = memory {
            let words = format!("the GPU has no room for {wanted_bytes} bytes");
            return Err(Error::new(ErrorKind::GpuOutOfMemory, words).caused_by(error));
        }
        if let Some(error) = validation {
            return Err(Error::new(ErrorKind::Internal, error.to_string()).at("GPU"));
        }
        made
    }

    /// A buffer; zeros.
    pub(super) fn buffer(&self, label: &str, size_bytes: u64, usage: wgpu::BufferUsages) -> wgpu::Buffer {
        let size = buffer_size(size_bytes);
        self.count(|counters| {
            counters.buffers += 1;
            counters.buffer_bytes += size;
        });
        self.raw().create_buffer(&wgpu::BufferDescriptor { label: Some(label), size, usage, mapped_at_creation: false })
    }

    /// A storage buffer that can be uploaded to and read back from.
    pub(super) fn storage(&self, label: &str, size_bytes: u64) -> wgpu::Buffer {
        use wgpu::BufferUsages as U;
        self.buffer(label, size_bytes, U::STORAGE | U::COPY_DST | U::COPY_SRC)
    }

    /// A layout of one group, by position.
    pub(super) fn layout(&self, uses: &[Use]) -> wgpu::BindGroupLayout {
        let entries: Vec<wgpu::BindGroupLayoutEntry> = (0u32..)
            .zip(uses)
            .map(|(binding, how)| wgpu::BindGroupLayoutEntry {
                binding,
                visibility: wgpu::ShaderStages::COMPUTE,
                ty: wgpu::BindingType::Buffer {
                    ty: match how {
                        Use::Uniform => wgpu::BufferBindingType::Uniform,
                        Use::Read => wgpu::BufferBindingType::Storage { read_only: true },
                        Use::Write => wgpu::BufferBindingType::Storage { read_only: false },
                    },
                    has_dynamic_offset: false,
                    min_binding_size: None,
                },
                count: None,
            })
            .collect();
        self.raw().create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: None, entries: &entries })
    }

    /// A bind group, by position.
    pub(super) fn bind(
        &self,
        label: &str,
        layout: &wgpu::BindGroupLayout,
        buffers: &[wgpu::BufferBinding<'_>],
    ) -> wgpu::BindGroup {
        self.count(|counters| counters.bind_groups += 1);
        let entries: Vec<wgpu::BindGroupEntry<'_>> = (0u32..)
            .zip(buffers)
            .map(|(binding, buffer)| wgpu::BindGroupEntry {
                binding,
                resource: wgpu::BindingResource::Buffer(buffer.clone()),
            })
            .collect();
        self.raw().create_bind_group(&wgpu::BindGroupDescriptor { label: Some(label), layout, entries: &entries })
    }

    /// A pipeline of a joined source; its entry point is `main`.
    pub(super) fn pipeline(
        &self,
        label: &str,
        source: String,
        layouts: &[Option<&wgpu::BindGroupLayout>],
        constants: &[(&str, f64)],
    ) -> wgpu::ComputePipeline {
        self.count(|counters| counters.pipelines += 1);
        #[cfg(test)]
        let source = super::check::tests::spoiled(label, source);
        let module = self.raw().create_shader_module(wgpu::ShaderModuleDescriptor {
            label: Some(label),
            source: wgpu::ShaderSource::Wgsl(source.into()),
        });
        let layout = self.raw().create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: Some(label),
            bind_group_layouts: layouts,
            immediate_size: 0,
        });
        self.raw().create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(label),
            layout: Some(&layout),
            module: &module,
            entry_point: Some("main"),
            compilation_options: wgpu::PipelineCompilationOptions { constants, ..Default::default() },
            cache: None,
        })
    }

    /// Uploads bytes; their number is a multiple of four.
    pub(super) fn write(&self, buffer: &wgpu::Buffer, offset: u64, bytes: &[u8]) {
        self.count(|counters| {
            counters.writes += 1;
            counters.write_bytes += bytes.len() as u64;
        });
        self.shared.queue.write_buffer(buffer, offset, bytes);
    }

    pub(super) fn encoder(&self) -> wgpu::CommandEncoder {
        self.raw().create_command_encoder(&wgpu::CommandEncoderDescriptor { label: None })
    }

    pub(super) fn submit(&self, encoder: wgpu::CommandEncoder) -> wgpu::SubmissionIndex {
        self.count(|counters| counters.submits += 1);
        let submission = self.shared.queue.submit([encoder.finish()]);
        self.shared.latest.replace(Some(submission.clone()));
        submission
    }

    /// Calls back once everything is done that was submitted so far, and gives the last of it.
    pub(super) fn when_done(&self, heard: impl FnOnce() + Send + 'static) -> Option<wgpu::SubmissionIndex> {
        self.shared.queue.on_submitted_work_done(heard);
        self.shared.latest.borrow().clone()
    }
}

/// The size of a buffer for so many bytes.
pub(super) fn buffer_size(size_bytes: u64) -> u64 {
    size_bytes.max(16).next_multiple_of(16)
}

/// A whole buffer, or a part of it, to bind.
pub(super) fn whole(buffer: &wgpu::Buffer) -> wgpu::BufferBinding<'_> {
    wgpu::BufferBinding { buffer, offset: 0, size: None }
}
