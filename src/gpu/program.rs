//! A lowered graph on a device: a flat list of dispatches with pipelines and bind groups made once, then replayed.

use std::cell::RefCell;

use super::device::{Device, whole};
use super::pipelines::Pipelines;
use super::planes::Bank;
use super::stage::{Class, Domain, Lowered, Place};
use crate::error::{Error, ErrorKind, Result};
use crate::graph::Graph;
use crate::kernel::{Buffer, Extent, Launch, adapter_factor};
use crate::quant::FormatId;

/// What a dispatch does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Label {
    pub(super) kernel: &'static str,
    /// Of the matrix, where it has one.
    pub(super) format: Option<FormatId>,
    /// Rows of the launch and columns of that matrix.
    pub(super) shape: Option<[usize; 2]>,
}

/// One dispatch, ready to be encoded.
struct Dispatch {
    label: Label,
    pipeline: wgpu::ComputePipeline,
    weights: Option<wgpu::BindGroup>,
    group: wgpu::BindGroup,
    grid_x: u32,
    grid_y: Extent,
}

/// The buffers of a model that its programs share.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) norms: wgpu::Buffer,
    pub(super) ropes: wgpu::Buffer,
    pub(super) kv: Vec<wgpu::Buffer>,
    pub(super) slots: Vec<wgpu::Buffer>,
    pub(super) reply: wgpu::Buffer,
    pub(super) history: wgpu::Buffer,
    pub(super) decode_state: wgpu::Buffer,
    pub(super) ids: wgpu::Buffer,
}

/// Rows of one run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size {
    pub(super) rows: u32,
    pub(super) outputs: u32,
    pub(super) sequences: u32,
}

/// What of a graph is read back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// What it ends in.
    End,
    /// The final hidden states.
    Hidden,
}

/// A value of the outputs that is read back: where it is after the first dispatches of the list.
#[derive(Clone)]
pub(super) struct Made {
    pub(super) buffer: wgpu::Buffer,
    /// First element.
    pub(super) offset: usize,
    /// Elements from one row to the next.
    pub(super) stride: usize,
    /// Elements of a row.
    pub(super) width: usize,
    dispatches: usize,
}

/// A replayable list.
pub(super) struct Program {
    dispatches: Vec<Dispatch>,
    /// Not there where there are no logits.
    sample: Option<Dispatch>,
    /// The rows of a step.
    pub(super) state: wgpu::Buffer,
    /// What the list ends in.
    end: Made,
    /// The final hidden states, which may be before the end of the list.
    hidden: Option<Made>,
    /// Where an adapter's scale goes.
    factors: Option<Factors>,
}

/// The parameters of all launches, some of which have a factor that the scale of an adapter multiplies.
struct Factors {
    params: wgpu::Buffer,
    words: RefCell<Vec<u32>>,
    /// By their place among the words, as they are at a scale of 1.
    at_one: Vec<(usize, f32)>,
}

/// What a program is made of.
pub(super) struct Parts<'a> {
    pub(super) graph: &'a Graph,
    pub(super) lowered: &'a Lowered,
    /// Of each stage.
    pub(super) stages: &'a [Vec<Launch>],
    /// Where there are logits.
    pub(super) sampler: Option<Launch>,
    pub(super) matrices: Bank<'a>,
    pub(super) shared: &'a Shared,
    pub(super) pipelines: &'a Pipelines,
    pub(super) state: wgpu::Buffer,
    /// One for each buffer of the lowered graph.
    pub(super) activations: Vec<wgpu::Buffer>,
}

/// Bytes between the parameters of two dispatches in their common buffer, as WebGPU aligns uniform bindings.
pub(super) const PARAMS_STRIDE: u64 = 256;

impl Program {
    /// Makes everything a list needs, at once: whoever calls it watches the device for faults meanwhile.
    pub(super) fn new(device: &Device, parts: Parts<'_>) -> Result<Self> {
        let Parts { graph, lowered, stages, matrices, shared, pipelines, state, activations, .. } = parts;
        let launches: Vec<&Launch> = stages.iter().flatten().chain(&parts.sampler).collect();
        use wgpu::BufferUsages as U;
        let params_bytes = PARAMS_STRIDE * launches.len() as u64;
        let params = device.buffer("params", params_bytes, U::UNIFORM | U::COPY_DST);
        let mut words = vec![0u32; params_bytes as usize / 4];
        for (launch, slot) in launches.iter().zip(words.chunks_mut(PARAMS_STRIDE as usize / 4)) {
            slot[..launch.params.len()].copy_from_slice(&launch.params);
        }
        device.write(&params, 0, bytemuck::cast_slice(&words));
        let factor = |(index, launch): (usize, &&Launch)| {
            let at = index * (PARAMS_STRIDE as usize / 4) + adapter_factor(launch)?;
            Some((at, f32::from_bits(words[at])))
        };
        let at_one: Vec<(usize, f32)> = launches.iter().enumerate().filter_map(factor).collect();
        let factors = (!at_one.is_empty()).then(|| Factors {
            params: params.clone(),
            words: RefCell::new(words.clone()),
            at_one,
        });

        let find = |buffer: Buffer| {
            let found = match buffer {
                Buffer::State => Some(&state),
                Buffer::Norms => Some(&shared.norms),
                Buffer::Ropes => Some(&shared.ropes),
                Buffer::Kv(layer) => shared.kv.get(layer),
                Buffer::Slots(index) => shared.slots.get(index),
                Buffer::Activation(index) => activations.get(index),
                Buffer::Reply => Some(&shared.reply),
                Buffer::History => Some(&shared.history),
                Buffer::DecodeState => Some(&shared.decode_state),
                Buffer::Ids => Some(&shared.ids),
            };
            found.ok_or_else(|| Error::new(ErrorKind::Internal, format!("a launch names {buffer:?}")))
        };
        let mut dispatches = vec![];
        for (index, launch) in launches.iter().enumerate() {
            let shard = launch.weights.map(|(matrix, shard)| matrices.shard(matrix, shard)).transpose()?;
            let format = shard.map(|(format, ..)| format);
            let (pipeline, layout) = pipelines.get(device, launch.kernel, format, &launch.constants);
            let mut bindings = vec![wgpu::BufferBinding {
                buffer: &params,
                offset: PARAMS_STRIDE * index as u64,
                size: wgpu::BufferSize::new(PARAMS_STRIDE),
            }];
            for buffer in &launch.buffers {
                bindings.push(whole(find(*buffer)?));
            }
            dispatches.push(Dispatch {
                label: Label { kernel: launch.kernel.name, format, shape: shard.map(|(_, shape, _)| shape) },
                pipeline,
                weights: shard.map(|(.., group)| group.clone()),
                group: device.bind(launch.kernel.name, &layout, &bindings),
                grid_x: launch.grid_x,
                grid_y: launch.grid_y,
            });
        }
        for dispatch in &mut dispatches {
            dispatch.weights.get_or_insert_with(|| pipelines.no_weights().clone());
        }
        let sample = parts.sampler.and_then(|_| dispatches.pop());
        let made = |place: Place, width: usize, stages: &[Vec<Launch>]| -> Result<Made> {
            let missing = || Error::new(ErrorKind::Internal, "a value without a buffer");
            let buffer = activations.get(place.buffer).cloned().ok_or_else(missing)?;
            let dispatches = stages.iter().map(Vec::len).sum();
            Ok(Made { buffer, offset: place.offset, stride: place.stride, width, dispatches })
        };
        let end = made(lowered.logits, graph.output_width(), stages)?;
        let hidden = match (lowered.hidden, graph.hidden) {
            (Some((place, count)), Some(value)) => {
                Some(made(place, graph.width(value), stages.get(..count).unwrap_or(stages))?)
            }
            _ => None,
        };
        Ok(Self { dispatches, sample, state, end, hidden, factors })
    }

    /// A value that can be read back. Fails where the list does not make it.
    pub(super) fn made(&self, wanted: Wanted) -> Result<&Made> {
        match (wanted, &self.hidden) {
            (Wanted::End, _) => Ok(&self.end),
            (Wanted::Hidden, Some(hidden)) => Ok(hidden),
            (Wanted::Hidden, None) => Err(Error::new(ErrorKind::Internal, "hidden states without a place")),
        }
    }

    /// Elements from one row to the next of the widest value that can be read back.
    pub(super) fn widest(&self) -> usize {
        self.hidden.iter().fold(self.end.stride, |most, made| most.max(made.stride))
    }

    /// From the next submit on, so much of the adapter is applied.
    pub(super) fn set_scale(&self, device: &Device, scale: f32) {
        let Some(Factors { params, words, at_one }) = &self.factors else { return };
        let mut words = words.borrow_mut();
        for (at, factor) in at_one {
            words[*at] = (factor * scale).to_bits();
        }
        device.write(params, 0, bytemuck::cast_slice(&words));
    }

    /// Dispatches of one run with these rows, the sampler counted.
    pub(super) fn encode(&self, device: &Device, encoder: &mut wgpu::CommandEncoder, size: Size, sample: bool) {
        let sampler = self.sample.iter().filter(|_| sample);
        let pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        dispatch_all(device, pass, size, self.dispatches.iter().chain(sampler));
    }

    /// What the dispatches of one run do, in their order, the sampler left out.
    pub(super) fn labels(&self) -> impl ExactSizeIterator<Item = Label> {
        self.dispatches.iter().map(|dispatch| dispatch.label)
    }

    /// One run, each dispatch a pass of its own between two stamps of `stamps`.
    pub(super) fn encode_stamped(
        &self,
        device: &Device,
        encoder: &mut wgpu::CommandEncoder,
        size: Size,
        stamps: &wgpu::QuerySet,
    ) {
        for (index, dispatch) in (0u32..).zip(&self.dispatches) {
            let timestamp_writes = wgpu::ComputePassTimestampWrites {
                query_set: stamps,
                beginning_of_pass_write_index: Some(2 * index),
                end_of_pass_write_index: Some(2 * index + 1),
            };
            let pass = wgpu::ComputePassDescriptor { label: None, timestamp_writes: Some(timestamp_writes) };
            dispatch_all(device, encoder.begin_compute_pass(&pass), size, [dispatch]);
        }
    }

    /// The sampler alone, on the logits of the run before.
    pub(super) fn encode_choice(&self, device: &Device, encoder: &mut wgpu::CommandEncoder) {
        let pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        dispatch_all(device, pass, Size { rows: 1, outputs: 1, sequences: 1 }, self.sample.iter());
    }

    /// The dispatches of one run that make a value, which is handed back.
    pub(super) fn encode_to(
        &self,
        device: &Device,
        encoder: &mut wgpu::CommandEncoder,
        size: Size,
        wanted: Wanted,
    ) -> Result<Made> {
        let made = self.made(wanted)?;
        let pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        dispatch_all(device, pass, size, self.dispatches.iter().take(made.dispatches));
        Ok(made.clone())
    }
}

/// Encodes dispatches as one pass.
fn dispatch_all<'a>(
    device: &Device,
    mut pass: wgpu::ComputePass<'_>,
    size: Size,
    dispatches: impl IntoIterator<Item = &'a Dispatch>,
) {
    let mut dispatched = 0;
    for dispatch in dispatches {
        let grid_y = match dispatch.grid_y {
            Extent::Fixed(count) => count,
            Extent::Rows(each) => size.rows.div_ceil(each),
            Extent::RowParts(parts) => size.rows * parts,
            Extent::Outputs(each) => size.outputs.div_ceil(each),
            Extent::Sequences => size.sequences,
        };
        if grid_y == 0 {
            continue;
        }
        pass.set_pipeline(&dispatch.pipeline);
        pass.set_bind_group(0, dispatch.weights.as_ref(), &[]);
        pass.set_bind_group(1, &dispatch.group, &[]);
        pass.dispatch_workgroups(dispatch.grid_x, grid_y, 1);
        dispatched += 1;
    }
    device.count(|counters| {
        counters.passes += 1;
        counters.dispatches += dispatched;
    });
}

/// A buffer for each one of a lowered graph: of those `kept` by programs of the class that never run between two
/// dispatches of one another, the smallest that is large enough and not taken. What is missing is made and put there.
pub(super) async fn activations(
    device: &Device,
    class: Class,
    lowered: &Lowered,
    (max_rows, max_outputs): (usize, usize),
    kept: &RefCell<Vec<wgpu::Buffer>>,
) -> Result<Vec<wgpu::Buffer>> {
    let elements =
        |(width, domain): &(usize, Domain)| width * if *domain == Domain::Rows { max_rows } else { max_outputs };
    let sizes: Vec<u64> = lowered.buffers.iter().map(|buffer| elements(buffer) as u64 * 4).collect();
    let (largest, limit) =
        (sizes.iter().copied().max().unwrap_or(0), device.raw().limits().max_storage_buffer_binding_size);
    if largest > limit {
        let words = format!(
            "a value of {max_rows} rows takes {largest} bytes, and this device binds {limit}; a smaller context needs less"
        );
        return Err(Error::new(ErrorKind::GpuFeatureMissing, words));
    }
    let mut free = kept.borrow().clone();
    let mut take = |size: &u64| {
        let fits = free.iter().enumerate().filter(|(_, buffer)| buffer.size() >= *size);
        let best = fits.min_by_key(|(_, buffer)| buffer.size()).map(|(index, _)| index);
        best.map(|index| free.swap_remove(index))
    };
    let found: Vec<Option<wgpu::Buffer>> = sizes.iter().map(&mut take).collect();
    let missing = || found.iter().zip(&sizes).filter(|(found, _)| found.is_none()).map(|(_, size)| *size);
    let label = format!("{class:?} activations");
    let make = || Ok(missing().map(|size| device.storage(&label, size)).collect::<Vec<_>>());
    let made = device.guarded(missing().sum(), make).await?;
    kept.borrow_mut().extend(made.iter().cloned());
    let mut made = made.into_iter();
    Ok(found.into_iter().filter_map(|found| found.or_else(|| made.next())).collect())
}
