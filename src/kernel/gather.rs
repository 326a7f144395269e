//! Columns of rows in another order, for matrices whose columns stand in one.

use super::{Buffer, Context, Kernel, Launch, Use, extent, switch, word};
use crate::gpu::stage::{Domain, Stage};

pub(super) const GATHER: Kernel = Kernel {
    name: "gather",
    source: wgsl!("gather.wgsl"),
    bindings: &[Use::Uniform, Use::Read, Use::Read, Use::Read, Use::Read, Use::Write],
    ..Kernel::PLAIN
};

/// `y[t, s, c] = x[t, s, order[e, c]]`.
pub(super) fn gather(stage: &Stage, context: &Context<'_>) -> Option<Launch> {
    let Stage::Gather { order, cols, slots, x, x_slot, route, y, domain } = stage else { return None };
    // Without a route nobody looks at what stands in its place.
    let by = route.unwrap_or(*x);
    let sizes = [*cols, *slots, x.offset, x.stride, *x_slot, by.offset, by.stride, y.offset, y.stride];
    let mut params = sizes.map(word).to_vec();
    params.extend([word((context.norm_offset)(*order)), context.max_rows()]);
    Some(Launch {
        kernel: &GATHER,
        weights: None,
        constants: vec![("ROUTED", switch(route.is_some())), ("OUTPUTS", switch(*domain == Domain::Outputs))],
        params,
        buffers: vec![
            Buffer::State,
            Buffer::Activation(x.buffer),
            Buffer::Activation(by.buffer),
            Buffer::Norms,
            Buffer::Activation(y.buffer),
        ],
        grid_x: word((cols * slots).div_ceil(64)),
        grid_y: extent(*domain, 1),
    })
}
