//! Values side by side in every group of a row: a copy for each of them.

use super::{Buffer, Context, Extent, Kernel, Launch, Use, word};
use crate::gpu::stage::Place;

pub(super) const CONCAT: Kernel = Kernel {
    name: "concat",
    source: wgsl!("concat.wgsl"),
    bindings: &[Use::Uniform, Use::Read, Use::Read, Use::Write],
    ..Kernel::PLAIN
};

/// `parts` with their columns in a group.
pub(super) fn concat(parts: &[(Place, usize)], y: Place, groups: usize, context: &Context<'_>) -> Vec<Launch> {
    let group_cols: usize = parts.iter().map(|(_, cols)| cols).sum();
    let mut before = 0;
    let launch = |(x, cols): &(Place, usize)| {
        let sizes = [groups, *cols, group_cols, x.offset, x.stride, y.offset + before, y.stride];
        before += cols;
        let mut params = sizes.map(word).to_vec();
        params.push(context.max_rows());
        Launch {
            kernel: &CONCAT,
            weights: None,
            constants: vec![],
            params,
            buffers: vec![Buffer::State, Buffer::Activation(x.buffer), Buffer::Activation(y.buffer)],
            grid_x: word((groups * cols).div_ceil(64)),
            grid_y: Extent::Rows(1),
        }
    };
    parts.iter().map(launch).collect()
}
