//! A lowered graph on a device: a flat list of dispatches with pipelines and bind groups made once, then replayed.

use super::device::{Device, whole};
use super::pipelines::Pipelines;
use super::planes::Matrices;
use super::stage::{Class, Domain, Lowered, Place};
use crate::error::{Error, ErrorKind, Result};
use crate::kernel::{Buffer, Extent, Launch};

/// One dispatch, ready to be encoded.
struct Dispatch {
    pipeline: wgpu::ComputePipeline,
    weights: Option<wgpu::BindGroup>,
    group: wgpu::BindGroup,
    grid_x: u32,
    grid_y: Extent,
}

/// The buffers of a model that its programs share.
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

/// A replayable list.
pub(super) struct Program {
    dispatches: Vec<Dispatch>,
    sample: Dispatch,
    /// The rows of a step.
    pub(super) state: wgpu::Buffer,
    /// `(outputs, vocab)`.
    pub(super) logits: wgpu::Buffer,
    /// Where the logits start and how far their rows are apart.
    pub(super) logits_place: Place,
}

/// Bytes between the parameters of two dispatches in their common buffer, as WebGPU aligns uniform bindings.
const PARAMS_STRIDE: u64 = 256;

impl Program {
    /// Makes everything a list needs: `launches` of all stages and, last, of the sampler.
    #[expect(clippy::too_many_arguments, reason = "each is a part of the one thing that is put together here")]
    pub(super) async fn new(
        device: &Device,
        class: Class,
        lowered: &Lowered,
        launches: &[Launch],
        matrices: &Matrices,
        shared: &Shared,
        pipelines: &Pipelines,
        (max_rows, max_outputs): (usize, usize),
        state: wgpu::Buffer,
    ) -> Result<Self> {
        let elements =
            |(width, domain): &(usize, Domain)| width * if *domain == Domain::Rows { max_rows } else { max_outputs };
        let sizes: Vec<u64> = lowered.buffers.iter().map(|buffer| elements(buffer) as u64 * 4).collect();
        let activation_bytes = sizes.iter().sum();
        let label = format!("{class:?} activations");
        let activations = device
            .guarded(activation_bytes, || {
                Ok(sizes.iter().map(|size| device.storage(&label, *size)).collect::<Vec<_>>())
            })
            .await?;

        use wgpu::BufferUsages as U;
        let params_bytes = PARAMS_STRIDE * launches.len() as u64;
        let params = device.buffer("params", params_bytes, U::UNIFORM | U::COPY_DST);
        let mut words = vec![0u32; params_bytes as usize / 4];
        for (launch, slot) in launches.iter().zip(words.chunks_mut(PARAMS_STRIDE as usize / 4)) {
            slot[..launch.params.len()].copy_from_slice(&launch.params);
        }
        device.write(&params, 0, bytemuck::cast_slice(&words));

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
            let format = shard.map(|(format, _)| format);
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
                pipeline,
                weights: shard.map(|(_, group)| group.clone()),
                group: device.bind(launch.kernel.name, &layout, &bindings),
                grid_x: launch.grid_x,
                grid_y: launch.grid_y,
            });
        }
        for dispatch in &mut dispatches {
            dispatch.weights.get_or_insert_with(|| pipelines.no_weights().clone());
        }
        let missing = || Error::new(ErrorKind::Internal, "a program without logits or sampler");
        let sample = dispatches.pop().ok_or_else(missing)?;
        let logits = activations.get(lowered.logits.buffer).cloned().ok_or_else(missing)?;
        Ok(Self { dispatches, sample, state, logits, logits_place: lowered.logits })
    }

    /// Dispatches of one run with these rows, the sampler counted.
    pub(super) fn encode(&self, device: &Device, encoder: &mut wgpu::CommandEncoder, size: Size, sample: bool) {
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        let sampler = sample.then_some(&self.sample);
        let mut dispatched = 0;
        for dispatch in self.dispatches.iter().chain(sampler) {
            let grid_y = match dispatch.grid_y {
                Extent::Fixed(count) => count,
                Extent::Rows(each) => size.rows.div_ceil(each),
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
}
