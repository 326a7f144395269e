//! Matrix products: by a vector or a few when decoding, by a tile of rows when prefilling.

use super::{Buffer, Context, Extent, Kernel, Launch, SIZE, Teams, Use, extent, fold, padded, switch, word};
use crate::gpu::stage::{Adapt, Domain, Stage};
use crate::graph::{Activation, WeightId};

pub(super) const MATVEC: Kernel = Kernel {
    name: "matvec",
    source: wgsl!("matvec.wgsl"),
    bindings: &[Use::Uniform, Use::Read, Use::Read, Use::Write],
    weights: true,
    reduces: Some(Teams::Workgroup),
    glu: true,
    ..Kernel::PLAIN
};

pub(super) const MATVEC_ROWS: Kernel = Kernel {
    name: "matvec_rows",
    source: wgsl!("matvec_rows.wgsl"),
    bindings: &[Use::Uniform, Use::Read, Use::Read, Use::Read, Use::Write],
    ..MATVEC
};

pub(super) const MATVEC_ALONE: Kernel = Kernel { name: "matvec_alone", reduces: Some(Teams::Invocation), ..MATVEC };

pub(super) const MATVEC_ROWS_ALONE: Kernel =
    Kernel { name: "matvec_rows_alone", reduces: Some(Teams::Invocation), ..MATVEC_ROWS };

pub(super) const MATMUL: Kernel = Kernel {
    name: "matmul",
    source: wgsl!("matmul.wgsl"),
    bindings: &[Use::Uniform, Use::Read, Use::Read, Use::Read, Use::Write],
    weights: true,
    glu: true,
    product: true,
    tiles: true,
    ..Kernel::PLAIN
};

pub(super) const MATMUL_BLOCKS: Kernel =
    Kernel { name: "matmul_blocks", source: wgsl!("matmul_blocks.wgsl"), tiles: false, ..MATMUL };

/// Rows of the matrix that one team of `matvec` goes through.
pub(super) const MATRIX_ROWS: usize = 4;
/// Rows of x and of w in one tile of `matmul`.
const TILE_X: u32 = 32;
const TILE_W: usize = 64;
/// Rows of x, and rows of w, that one invocation of `matmul_blocks` takes.
const BLOCK: usize = 4;

/// Columns of the last group of eight, 0 where it has all.
fn tail(cols: usize) -> f64 {
    f64::from(word(cols % 8))
}

/// The numbers of `shaders/glu.wgsl`.
pub(super) fn glu_constants(glu: Option<Activation>) -> [(&'static str, f64); 3] {
    let (number, limit, slope) = match glu {
        None => (0.0, 0.0, 0.0),
        Some(Activation::Silu) => (1.0, 0.0, 0.0),
        Some(Activation::GeluTanh) => (2.0, 0.0, 0.0),
        Some(Activation::Clamped { limit, slope }) => (3.0, limit, slope),
        Some(Activation::Gelu) => (4.0, 0.0, 0.0),
        Some(Activation::Tanh) => (5.0, 0.0, 0.0),
        Some(Activation::Sigmoid) => (6.0, 0.0, 0.0),
    };
    [("GLU", number), ("GLU_LIMIT", f64::from(limit)), ("GLU_SLOPE", f64::from(slope))]
}

/// Where the biases of a shard's rows start.
fn bias_offset(bias: Option<WeightId>, shard: &super::ShardRows, context: &Context<'_>) -> u32 {
    word(bias.map_or(0, |bias| (context.norm_offset)(bias) + shard.first))
}

/// The shaders' number of what an adapter does; 0 for nothing.
pub(super) fn adapt_number(adapt: Option<Adapt>) -> f64 {
    match adapt {
        None => 0.0,
        Some(Adapt::Times(_)) => 1.0,
        Some(Adapt::Gain { .. }) => 2.0,
    }
}

/// The last two words of `Params`: where the gains of a shard's rows start, and the factor.
pub(super) fn adapt_words(adapt: Option<Adapt>, shard: &super::ShardRows) -> [u32; 2] {
    match adapt {
        None => [0, 0],
        Some(Adapt::Times(factor)) => [0, factor.to_bits()],
        Some(Adapt::Gain { offset }) => [word(offset + shard.first), 1.0f32.to_bits()],
    }
}

/// Where in its parameters a launch has a factor that the scale of an adapter multiplies.
pub(crate) fn adapter_factor(launch: &Launch) -> Option<usize> {
    let adapted = launch.constants.iter().any(|(name, number)| *name == "ADAPT" && *number != 0.0);
    adapted.then(|| launch.params.len() - 1)
}

/// Rows of the result that rows of a shard make: pairs make one when gate and up are joined.
fn made(rows: usize, glu: Option<Activation>) -> usize {
    if glu.is_some() { rows / 2 } else { rows }
}

/// `y = W x` for one row or, in a program of several, a few, a launch a shard.
pub(super) fn matvec(stage: &Stage, context: &Context<'_>) -> Vec<Launch> {
    let Stage::MatMul { matrix, x, y, norm, bias, residual, glu, adapt, .. } = stage else { return vec![] };
    let Some((cols, shards)) = context.matrices.get(*matrix) else { return vec![] };
    let launch = |(index, shard): (usize, &super::ShardRows)| {
        let (teams, size) = context.teams.of(cols / 8, 64);
        let (grid_x, grid_y) = fold(shard.rows.div_ceil(MATRIX_ROWS * teams));
        let mut params = [shard.rows, padded(*cols), x.offset, y.offset + made(shard.first, *glu)].map(word).to_vec();
        params.push(norm.map_or(0, |norm| context.norm_weight(norm)));
        params.push(norm.map_or(0.0f32, |norm| norm.eps).to_bits());
        params.push(bias_offset(*bias, shard, context));
        let mut constants = vec![
            size,
            ("TAIL", tail(*cols)),
            ("NORM", switch(norm.is_some())),
            ("RESIDUAL", switch(*residual)),
            ("BIAS", switch(bias.is_some())),
        ];
        let mut buffers = vec![Buffer::Activation(x.buffer), Buffer::Norms, Buffer::Activation(y.buffer)];
        let kernel = if context.together == 1 {
            params.extend(adapt_words(*adapt, shard));
            constants.push(("ADAPT", adapt_number(*adapt)));
            [&MATVEC, &MATVEC_ALONE]
        } else {
            params.extend([word(x.stride), word(y.stride), context.max_rows()]);
            constants.push(("MOST", f64::from(word(context.together))));
            buffers.insert(0, Buffer::State);
            [&MATVEC_ROWS, &MATVEC_ROWS_ALONE]
        };
        let kernel = kernel[usize::from(context.teams == Teams::Invocation)];
        constants.extend(glu_constants(*glu));
        let weights = Some((*matrix, index));
        Launch { kernel, weights, constants, params, buffers, grid_x, grid_y: Extent::Fixed(grid_y) }
    };
    shards.iter().enumerate().map(launch).collect()
}

/// `y = x W^T` for many rows, a launch a shard.
pub(super) fn matmul(stage: &Stage, context: &Context<'_>) -> Vec<Launch> {
    product(stage, context)
}

/// The same, whose kernel and grid others may change.
pub(super) fn product(stage: &Stage, context: &Context<'_>) -> Vec<Launch> {
    let Stage::MatMul { matrix, x, y, bias, residual, glu, adapt, domain, .. } = stage else { return vec![] };
    let Some((cols, shards)) = context.matrices.get(*matrix) else { return vec![] };
    let launch = |(index, shard): (usize, &super::ShardRows)| {
        let places = [x.offset, x.stride, y.offset + made(shard.first, *glu), y.stride];
        let mut params = vec![word(shard.rows), word(padded(*cols))];
        params.extend(places.map(word));
        params.extend([context.max_rows(), bias_offset(*bias, shard, context)]);
        params.extend(adapt_words(*adapt, shard));
        let (kernel, tile_x, tile_w) = match context.teams {
            Teams::Workgroup => (&MATMUL, TILE_X, TILE_W),
            Teams::Invocation => (&MATMUL_BLOCKS, word(BLOCK), BLOCK * SIZE),
        };
        Launch {
            kernel,
            weights: Some((*matrix, index)),
            constants: [
                ("TAIL", tail(*cols)),
                ("RESIDUAL", switch(*residual)),
                ("BIAS", switch(bias.is_some())),
                ("ADAPT", adapt_number(*adapt)),
                ("OUTPUTS", switch(*domain == Domain::Outputs)),
            ]
            .into_iter()
            .chain(glu_constants(*glu))
            .collect(),
            params,
            buffers: vec![Buffer::State, Buffer::Activation(x.buffer), Buffer::Norms, Buffer::Activation(y.buffer)],
            grid_x: word(shard.rows.div_ceil(tile_w)),
            grid_y: extent(*domain, tile_x),
        }
    };
    shards.iter().enumerate().map(launch).collect()
}
