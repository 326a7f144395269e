//! The gated delta rule over the rows of sequences and their state.

use super::{Buffer, Context, Extent, Kernel, Launch, Teams, Use, word};
use crate::gpu::stage::Place;
use crate::graph::GatedDelta;

pub(super) const GATED_DELTA: Kernel = Kernel {
    name: "gated_delta",
    source: wgsl!("gated_delta.wgsl"),
    bindings: &[Use::Uniform, Use::Read, Use::Read, Use::Read, Use::Read, Use::Read, Use::Write, Use::Write],
    reduces: Some(Teams::Workgroup),
    recurrent: true,
    ..Kernel::PLAIN
};

/// Widest keys that the kernel stages in workgroup memory, in elements.
pub(crate) const MAX_KEY_DIM: usize = 256;

/// See [`GatedDelta`].
pub(super) fn gated_delta(
    spec: &GatedDelta,
    [qkv, beta, decay]: [Place; 3],
    y: Place,
    context: &Context<'_>,
) -> Launch {
    let vectors = [spec.a_log, spec.dt].map(|weight| (context.norm_offset)(weight));
    let mut params = [spec.key_heads, spec.value_heads, spec.key_dim, spec.value_dim].map(word).to_vec();
    params.extend([qkv, beta, decay, y].iter().flat_map(|place| [word(place.offset), word(place.stride)]));
    params.extend(vectors.map(word));
    params.push(context.max_rows());
    let columns = Teams::Workgroup.lanes(spec.value_dim, 64);
    Launch {
        kernel: &GATED_DELTA,
        weights: None,
        constants: vec![("WG", columns)],
        params,
        buffers: vec![
            Buffer::State,
            Buffer::Norms,
            Buffer::Activation(qkv.buffer),
            Buffer::Activation(beta.buffer),
            Buffer::Activation(decay.buffer),
            Buffer::Activation(y.buffer),
            Buffer::Slots(spec.state),
        ],
        grid_x: word(spec.value_heads * spec.value_dim.div_ceil(columns as usize)),
        grid_y: Extent::Sequences,
    }
}
