//! Who makes an output on a device: workgroups together, as GPUs like it, or every invocation by itself, as the software
//! that stands in for a GPU likes it by a factor of five to ten. Nothing that a device tells says which it is (names come
//! and go), so a product of the model itself is timed both ways, and what comes out kept for the device.

use super::check::check;
use super::device::{Device, whole};
use super::kept::{Kept, keep, recall};
use super::pipelines::Pipelines;
use super::planes::{Bank, Matrices};
use super::readback::Pending;
use super::stage::{Class, Domain, Place, Stage};
use crate::error::{Error, ErrorKind, Result};
use crate::graph::{Graph, KvFormat};
use crate::kernel::{Buffer, Context, Extent, Launch, Teams, launches};
use crate::quant::FormatId;

/// Products that are timed at once: few, and many where the few take no time.
const REPEATS: [usize; 2] = [4, 32];

/// A device that is through with the many sooner is a GPU, or fast enough; clocks and waiting are no finer than this.
const FAST_MS: f64 = 6.0;

/// How many times faster invocations have to be: a choice that changes from load to load would change last digits.
const CLEARLY: f64 = 1.5;

/// Weights of the product: at most, where the model has one so small, since it should not take long on any device; and so
/// many that it says something of other models too.
const WEIGHTS: [usize; 2] = [1 << 20, 1 << 16];

/// What the choice of kernels goes by.
#[derive(Clone, Copy)]
pub struct Measuring<'a> {
    /// A clock.
    pub now_secs: &'a dyn Fn() -> f64,
    /// What is known of the device.
    pub kept: &'a dyn Kept,
    /// Whether kernels are held against the interpreter before they are trusted.
    pub self_test: bool,
}

/// The kernels that a model is made with: the faster ones, if what they make is right. Where it is not, the device goes on
/// without subgroups, then with the other kernels, and says so. Fails with `GpuUnavailable` where none are right.
pub(super) async fn teams(
    device: &Device,
    model: (&Graph, &[FormatId]),
    kv: KvFormat,
    made: (&Matrices, &Pipelines),
    Measuring { now_secs, kept, self_test }: Measuring<'_>,
) -> Result<Teams> {
    let mut faster = device.teams();
    if faster.is_none() {
        faster = recall(device, kept).await;
        faster.into_iter().for_each(|teams| device.remember(teams));
    }
    let faster = match faster {
        Some(teams) => teams,
        None => {
            let (teams, telling) = measured(device, model.0, made, now_secs).await?;
            if telling {
                device.remember(teams);
                keep(device, teams, kept).await;
            }
            teams
        }
    };
    if !self_test {
        return Ok(faster);
    }
    let other = if faster == Teams::Workgroup { Teams::Invocation } else { Teams::Workgroup };
    let with = device.dialect().subgroups;
    let mut wrong: Option<Error> = None;
    for (teams, subgroups) in [(faster, true), (faster, false), (other, false)] {
        if subgroups && !with {
            continue;
        }
        device.use_subgroups(subgroups);
        match check(device, model, kv, teams).await {
            Ok(()) => {
                if let Some(wrong) = wrong {
                    device.remember(teams);
                    device.note(format!("slower kernels are used ({}): {wrong}", described(teams, subgroups)));
                }
                return Ok(teams);
            }
            Err(error) if GONE.contains(&error.kind()) => return Err(error),
            Err(error) => wrong = Some(error),
        }
    }
    device.use_subgroups(with);
    let error = Error::new(ErrorKind::GpuUnavailable, "no kernels compute right numbers on this device");
    Err(wrong.into_iter().fold(error.at(device.name()), Error::caused_by))
}

/// What says nothing of kernels, but of the device.
const GONE: [ErrorKind; 3] = [ErrorKind::GpuOutOfMemory, ErrorKind::DeviceLost, ErrorKind::GpuTimeout];

fn described(teams: Teams, subgroups: bool) -> &'static str {
    match (teams, subgroups) {
        (Teams::Invocation, _) => "invocations alone",
        (Teams::Workgroup, true) => "subgroups",
        (Teams::Workgroup, false) => "no subgroups",
    }
}

/// Times a product of the model by workgroups and, where that is slow, by invocations: these have to be clearly faster. Says
/// too whether the product was large enough to tell something of other models.
async fn measured(
    device: &Device,
    graph: &Graph,
    (matrices, pipelines): (&Matrices, &Pipelines),
    now_secs: &dyn Fn() -> f64,
) -> Result<(Teams, bool)> {
    let bank = Bank { model: matrices, adapter: None };
    let shapes = bank.shapes();
    let sizes = shapes.iter().map(|(cols, shards)| shards.first().map_or(0, |shard| shard.rows * cols));
    let sizes: Vec<(usize, usize)> = sizes.enumerate().filter(|(_, size)| *size > 0).collect();
    let [most, telling] = WEIGHTS;
    let small = sizes.iter().filter(|(_, size)| *size <= most).max_by_key(|(_, size)| *size);
    let Some(&(matrix, size)) = small.or_else(|| sizes.iter().min_by_key(|(_, size)| *size)) else {
        return Ok((Teams::default(), false));
    };
    let context = |teams| Context {
        graph,
        class: Class::Decode,
        max_rows: 1,
        teams,
        together: 1,
        matrices: &shapes,
        norm_offset: &|_| 0,
        rope_offset: &|_| 0,
    };
    // What is made for this is not the model's.
    let of_probe = &device.counted_anew();
    let probe = async |teams| {
        let make = || Probe::new(of_probe, bank, pipelines, matrix, &context(teams));
        let probe = of_probe.guarded(0, make).await?;
        // Drivers finish what they compile when it first runs.
        probe.run(of_probe, 1).await?;
        Ok::<_, Error>(probe)
    };
    Ok((faster(of_probe, probe, now_secs).await?, size >= telling))
}

async fn faster(
    device: &Device,
    probe: impl AsyncFn(Teams) -> Result<Probe>,
    now_secs: &dyn Fn() -> f64,
) -> Result<Teams> {
    let timed = async |probe: &Probe, repeats| {
        let began_secs = now_secs();
        probe.run(device, repeats).await?;
        Ok::<_, Error>((now_secs() - began_secs) * 1e3)
    };
    let together = probe(Teams::Workgroup).await?;
    let [few, many] = REPEATS;
    let (mut repeats, mut together_ms) = (few, timed(&together, few).await?);
    if together_ms < FAST_MS {
        (repeats, together_ms) = (many, timed(&together, many).await?);
    }
    if together_ms < FAST_MS {
        return Ok(Teams::Workgroup);
    }
    let alone_ms = timed(&probe(Teams::Invocation).await?, repeats).await?;
    if alone_ms * CLEARLY >= together_ms {
        return Ok(Teams::Workgroup);
    }
    // Something else may have held the device up.
    let again_ms = timed(&together, repeats).await?;
    log::debug!("{repeats} products: {together_ms}, {again_ms} ms by workgroups, {alone_ms} ms by invocations");
    Ok(if alone_ms * CLEARLY < again_ms { Teams::Invocation } else { Teams::Workgroup })
}

/// A product of a matrix that holds zeros still, by a vector of zeros: what is in them makes no difference to the time.
struct Probe {
    pipeline: wgpu::ComputePipeline,
    weights: wgpu::BindGroup,
    group: wgpu::BindGroup,
    grid: [u32; 2],
    product: wgpu::Buffer,
    readback: wgpu::Buffer,
}

/// Bytes of the product that are read back, to know when it is there.
const READ_BYTES: u64 = 16;

impl Probe {
    fn new(
        device: &Device,
        bank: Bank<'_>,
        pipelines: &Pipelines,
        matrix: usize,
        context: &Context<'_>,
    ) -> Result<Self> {
        let missing = || Error::new(ErrorKind::Internal, "a product that cannot be timed");
        let (format, [rows, cols], weights) = bank.shard(matrix, 0)?;
        let place = |buffer| Place { buffer, offset: 0, stride: 0 };
        let stage = Stage::MatMul {
            matrix,
            x: place(0),
            y: place(1),
            norm: None,
            bias: None,
            residual: false,
            glu: None,
            adapt: None,
            domain: Domain::Rows,
            rounded: false,
        };
        let Launch { kernel, constants, params, buffers, grid_x, grid_y, .. } =
            launches(&stage, context).into_iter().next().ok_or_else(missing)?;
        let Extent::Fixed(grid_y) = grid_y else { return Err(missing()) };
        let (pipeline, layout) = pipelines.get(device, kernel, Some(format), &constants);
        use wgpu::BufferUsages as U;
        let numbers = device.buffer("probe", params.len() as u64 * 4, U::UNIFORM | U::COPY_DST);
        device.write(&numbers, 0, bytemuck::cast_slice(&params));
        let [vector, product] = [cols.next_multiple_of(8), rows].map(|count| device.storage("probe", count as u64 * 4));
        let bound = |buffer: &Buffer| if *buffer == Buffer::Activation(1) { &product } else { &vector };
        let bindings: Vec<_> = [&numbers].into_iter().chain(buffers.iter().map(bound)).map(whole).collect();
        let group = device.bind("probe", &layout, &bindings);
        let readback = device.buffer("probe", READ_BYTES, U::MAP_READ | U::COPY_DST);
        Ok(Self { pipeline, weights: weights.clone(), group, grid: [grid_x, grid_y], product, readback })
    }

    /// Waits until the last of `repeats` products is there.
    async fn run(&self, device: &Device, repeats: usize) -> Result<()> {
        let mut encoder = device.encoder();
        {
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            pass.set_pipeline(&self.pipeline);
            pass.set_bind_group(0, &self.weights, &[]);
            pass.set_bind_group(1, &self.group, &[]);
            for _ in 0..repeats {
                pass.dispatch_workgroups(self.grid[0], self.grid[1], 1);
            }
        }
        encoder.copy_buffer_to_buffer(&self.product, 0, &self.readback, 0, READ_BYTES);
        let submission = device.submit(encoder);
        Pending::new(&self.readback, READ_BYTES, submission).words(device).await?;
        Ok(())
    }
}
