//! Mixtures of experts: the choice of a row's experts, and products by the chosen ones' matrices.

use super::matmul::{MATRIX_ROWS, adapt_number, adapt_words, glu_constants};
use super::{Buffer, Context, Extent, Kernel, Launch, ShardRows, Teams, Use, switch, word};
use crate::gpu::stage::{Class, Experts, Place, Stage};
use crate::graph::{GroupScore, RouterScore, Routing, WeightId};

pub(super) const ROUTE: Kernel = Kernel {
    name: "route",
    source: wgsl!("route.wgsl"),
    bindings: &[Use::Uniform, Use::Read, Use::Read, Use::Read, Use::Write],
    reduces: Some(Teams::Workgroup),
    ..Kernel::PLAIN
};

pub(super) const EXPERT_MATVEC: Kernel = Kernel {
    name: "expert_matvec",
    source: wgsl!("expert_matvec.wgsl"),
    bindings: &[Use::Uniform, Use::Read, Use::Read, Use::Read, Use::Read, Use::Write],
    weights: true,
    reduces: Some(Teams::Workgroup),
    glu: true,
    ..Kernel::PLAIN
};

pub(super) const EXPERT_MATVEC_ALONE: Kernel =
    Kernel { name: "expert_matvec_alone", reduces: Some(Teams::Invocation), ..EXPERT_MATVEC };

pub(super) const EXPERT_MATMUL: Kernel =
    Kernel { name: "expert_matmul", source: wgsl!("expert_matmul.wgsl"), reduces: None, tiles: true, ..EXPERT_MATVEC };

/// Rows of one tile of `expert_matmul`.
const TILE_W: usize = 64;
/// Most rows of a step for which it keeps the list of an expert's.
const MOST_ROWS: usize = 1024;

/// Most experts that the choice holds in workgroup memory.
pub(crate) const MAX_EXPERTS: usize = 1024;

/// Numbers and weights of the chosen experts by the scores in x.
pub(super) fn route(spec: &Routing, bias: Option<WeightId>, x: Place, y: Place, context: &Context<'_>) -> Launch {
    let bias_offset = bias.map_or(0, |bias| (context.norm_offset)(bias));
    let sizes = [spec.experts, spec.used, x.offset, x.stride, y.offset, y.stride, bias_offset];
    let mut params = sizes.map(word).to_vec();
    params.extend([context.max_rows(), spec.scale.to_bits()]);
    let score = match spec.score {
        RouterScore::Softmax => 0.0,
        RouterScore::SoftmaxOfChosen => 1.0,
        RouterScore::Sigmoid => 2.0,
    };
    let number = |count: Option<usize>| f64::from(word(count.unwrap_or(1)));
    Launch {
        kernel: &ROUTE,
        weights: None,
        constants: vec![
            ("WG", context.teams.lanes(spec.experts, 128)),
            ("SCORE", score),
            ("BIAS", switch(bias.is_some())),
            ("NORMALISE", switch(spec.normalise)),
            ("GROUPS", number(spec.groups.map(|groups| groups.count))),
            ("GROUPS_USED", number(spec.groups.map(|groups| groups.used))),
            ("TWO_BEST", switch(spec.groups.is_some_and(|groups| groups.by == GroupScore::TwoBest))),
        ],
        params,
        buffers: vec![Buffer::State, Buffer::Activation(x.buffer), Buffer::Norms, Buffer::Activation(y.buffer)],
        grid_x: 1,
        grid_y: Extent::Rows(1),
    }
}

/// Products of every slot of every row, a launch a shard; experts need not lie in one shard whole. Many rows go by
/// experts, so that a weight is decoded once for all rows that are routed to it.
pub(super) fn experts(stage: &Stage, context: &Context<'_>) -> Vec<Launch> {
    let Stage::Experts(product) = stage else { return vec![] };
    let Experts { matrix, slots, x, x_slot, y, norm, biases, sum, residual, glu, adapt } = product;
    let Some((cols, shards)) = context.matrices.get(*matrix) else { return vec![] };
    let offset = |vector: Option<WeightId>| vector.map_or(0, |vector| (context.norm_offset)(vector));
    let all_rows: usize = shards.iter().map(|shard| shard.rows).sum();
    let rows = all_rows / slots.stacked.max(1);
    let route = slots.route.unwrap_or(*x);
    let by_expert =
        context.class == Class::Prefill && context.max_rows <= MOST_ROWS && norm.is_none() && !(*sum || *residual);
    let launch = |(index, shard): (usize, &ShardRows)| {
        let mut params = [rows, *cols, slots.count, shard.first, shard.rows].map(word).to_vec();
        params.extend([x.offset, x.stride, *x_slot, y.offset, y.stride, route.offset, route.stride].map(word));
        params.extend([
            norm.map_or(0, |norm| context.norm_weight(norm)),
            norm.map_or(0.0f32, |norm| norm.eps).to_bits(),
            word(offset(biases[0])),
            word(offset(biases[1])),
            context.max_rows(),
            adapt_words(*adapt, shard)[1],
        ]);
        let mut constants = vec![
            ("ROUTED", switch(slots.route.is_some())),
            ("WEIGHTED", switch(slots.weighted)),
            ("BIAS", switch(biases[0].is_some())),
            ("PAIRS", switch(biases[1].is_some())),
            ("ADAPT", adapt_number(*adapt)),
        ];
        constants.extend(glu_constants(*glu));
        let (kernel, grid_x, grid_y) = if by_expert {
            constants.push(("MAX_ROWS", f64::from(context.max_rows())));
            (&EXPERT_MATMUL, rows.div_ceil(TILE_W), Extent::Fixed(word(slots.stacked)))
        } else {
            let (teams, size) = context.teams.of(cols / 8, 64);
            constants.extend([
                size,
                ("NORM", switch(norm.is_some())),
                ("SUM", switch(*sum)),
                // What the first shard lacks of a sum, the others add to it.
                ("RESIDUAL", switch(*residual || (*sum && index > 0))),
            ]);
            let grid_y = if *sum { Extent::Rows(1) } else { Extent::RowParts(word(slots.count)) };
            let kernel = match context.teams {
                Teams::Workgroup => &EXPERT_MATVEC,
                Teams::Invocation => &EXPERT_MATVEC_ALONE,
            };
            (kernel, rows.div_ceil(MATRIX_ROWS * teams), grid_y)
        };
        Launch {
            kernel,
            weights: Some((*matrix, index)),
            constants,
            params,
            buffers: vec![
                Buffer::State,
                Buffer::Activation(x.buffer),
                Buffer::Norms,
                Buffer::Activation(route.buffer),
                Buffer::Activation(y.buffer),
            ],
            grid_x: word(grid_x),
            grid_y,
        }
    };
    shards.iter().enumerate().map(launch).collect()
}
