//! Rows of a table by token.

use super::{Buffer, Context, Extent, Kernel, Launch, Use, padded, word};
use crate::gpu::stage::Place;

pub(super) const EMBED: Kernel = Kernel {
    name: "embed",
    source: include_str!("../../shaders/embed.wgsl"),
    bindings: &[Use::Uniform, Use::Read, Use::Write],
    weights: true,
    reduces: false,
    kv: false,
    recurrent: false,
    glu: false,
};

/// `y[t] = table[token[t]]`; each shard of the table serves the tokens it has.
pub(super) fn embed(matrix: usize, y: Place, context: &Context<'_>) -> Vec<Launch> {
    let Some((cols, shards)) = context.matrices.get(matrix) else { return vec![] };
    let launch = |(index, shard): (usize, &super::ShardRows)| Launch {
        kernel: &EMBED,
        weights: Some((matrix, index)),
        constants: vec![],
        params: vec![word(padded(*cols)), word(shard.first), word(shard.rows), context.max_rows()],
        buffers: vec![Buffer::State, Buffer::Activation(y.buffer)],
        grid_x: word((padded(*cols) / 8).div_ceil(64)),
        grid_y: Extent::Rows(1),
    };
    shards.iter().enumerate().map(launch).collect()
}
