//! Norms that stand alone.

use super::{Buffer, Context, Kernel, Launch, Use, extent, lanes, word};
use crate::gpu::stage::{Domain, Norm, Place};

pub(super) const RMS_NORM: Kernel = Kernel {
    name: "rms_norm",
    source: include_str!("../../shaders/rms_norm.wgsl"),
    bindings: &[Use::Uniform, Use::Read, Use::Read, Use::Read, Use::Write],
    weights: false,
    reduces: true,
    kv: false,
    recurrent: false,
    glu: false,
};

/// Each row of `width` in `groups` parts, each normalised on its own.
pub(super) fn rms_norm(
    x: Place,
    y: Place,
    norm: Norm,
    groups: usize,
    width: usize,
    domain: Domain,
    context: &Context<'_>,
) -> Launch {
    let part = width / groups.max(1);
    let places = [norm.cols, part, x.offset, x.stride, y.offset, y.stride];
    let mut params = places.map(word).to_vec();
    params.extend([context.norm_weight(norm), norm.eps.to_bits(), context.max_rows()]);
    Launch {
        kernel: &RMS_NORM,
        weights: None,
        constants: vec![("WG", lanes(part / 4, 128)), ("OUTPUTS", f64::from(u8::from(domain == Domain::Outputs)))],
        params,
        buffers: vec![Buffer::State, Buffer::Activation(x.buffer), Buffer::Norms, Buffer::Activation(y.buffer)],
        grid_x: word(groups),
        grid_y: extent(domain, 1),
    }
}
