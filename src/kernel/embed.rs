//! Rows of a table by token, position or segment.

use super::{Buffer, Context, Extent, Kernel, Launch, Use, padded, word};
use crate::gpu::stage::Place;
use crate::graph::EmbedBy;

pub(super) const EMBED: Kernel = Kernel {
    name: "embed",
    source: wgsl!("embed.wgsl"),
    bindings: &[Use::Uniform, Use::Read, Use::Write],
    weights: true,
    ..Kernel::PLAIN
};

/// `y[t] = table[by(t)]`; each shard of the table serves the rows it has.
pub(super) fn embed(matrix: usize, by: EmbedBy, y: Place, context: &Context<'_>) -> Vec<Launch> {
    let (number, offset) = match by {
        EmbedBy::Token => (0.0, 0),
        EmbedBy::Position { offset } => (1.0, offset),
        EmbedBy::Segment => (2.0, 0),
    };
    let Some((cols, shards)) = context.matrices.get(matrix) else { return vec![] };
    let launch = |(index, shard): (usize, &super::ShardRows)| Launch {
        kernel: &EMBED,
        weights: Some((matrix, index)),
        constants: vec![("BY", number)],
        params: [padded(*cols), shard.first, shard.rows, context.max_rows, offset, y.offset, y.stride]
            .map(word)
            .to_vec(),
        buffers: vec![Buffer::State, Buffer::Activation(y.buffer)],
        grid_x: word((padded(*cols) / 8).div_ceil(64)),
        grid_y: Extent::Rows(1),
    };
    shards.iter().enumerate().map(launch).collect()
}
