//! Products by integers when decoding: activations are rounded to signed bytes, 32 with one scale, once for all products of a
//! value; then bytes are multiplied by the codes of the weights, four at a time.

use super::matmul::{MATMUL, MATRIX_ROWS, product};
use super::{Buffer, Context, Extent, Kernel, Launch, Teams, Use, extent, switch, word};
use crate::gpu::stage::{Domain, Norm, Place, Stage};

pub(super) const ROUND: Kernel = Kernel {
    name: "round",
    source: wgsl!("round.wgsl"),
    bindings: &[Use::Uniform, Use::Read, Use::Read, Use::Read, Use::Write],
    reduces: Some(Teams::Workgroup),
    ..Kernel::PLAIN
};

pub(super) const MATVEC_ROUNDED: Kernel = Kernel {
    name: "matvec_rounded",
    source: wgsl!("matvec_rounded.wgsl"),
    reduces: Some(Teams::Workgroup),
    tiles: false,
    rounded: true,
    ..MATMUL
};

pub(super) const MATVEC_ROUNDED_ALONE: Kernel =
    Kernel { name: "matvec_rounded_alone", reduces: Some(Teams::Invocation), ..MATVEC_ROUNDED };

/// Activations that have one scale.
pub(crate) const BLOCK: usize = 32;

/// Words of a row of so many rounded activations: four to a word, scale and sum of each block.
pub(crate) fn words(cols: usize) -> usize {
    cols / 4 + cols / BLOCK * 2
}

/// Most workgroups in x.
const MOST: usize = 65_535;

/// Rows of x, normalised first where that is said, as bytes.
pub(super) fn round(
    [x, y]: [Place; 2],
    norm: Option<Norm>,
    cols: usize,
    domain: Domain,
    context: &Context<'_>,
) -> Launch {
    let mut params = [cols, x.offset, x.stride, y.offset, y.stride].map(word).to_vec();
    params.push(norm.map_or(0, |norm| context.norm_weight(norm)));
    params.extend([norm.map_or(0.0f32, |norm| norm.eps).to_bits(), context.max_rows()]);
    Launch {
        kernel: &ROUND,
        weights: None,
        constants: vec![
            ("WG", context.teams.lanes(cols / BLOCK, 128)),
            ("NORM", switch(norm.is_some())),
            ("OUTPUTS", switch(domain == Domain::Outputs)),
        ],
        params,
        buffers: vec![Buffer::State, Buffer::Activation(x.buffer), Buffer::Norms, Buffer::Activation(y.buffer)],
        grid_x: 1,
        grid_y: extent(domain, 1),
    }
}

/// `y = W x` for rows of rounded activations, a launch a shard. Rows do not look at each other, so each has the same result
/// alone and in a batch.
pub(super) fn matvec(stage: &Stage, context: &Context<'_>) -> Vec<Launch> {
    let (teams, (name, size)) = context.teams.of(BLOCK, 64);
    let mut launches = product(stage, context);
    for launch in &mut launches {
        launch.kernel = match context.teams {
            Teams::Workgroup => &MATVEC_ROUNDED,
            Teams::Invocation => &MATVEC_ROUNDED_ALONE,
        };
        let rows = launch.params.first().map_or(0, |rows| *rows as usize);
        launch.grid_x = word(rows.div_ceil(MATRIX_ROWS * teams).min(MOST));
        launch.grid_y = match launch.grid_y {
            Extent::Outputs(_) => Extent::Outputs(1),
            _ => Extent::Rows(1),
        };
        launch.constants.push((name, size));
    }
    launches
}
