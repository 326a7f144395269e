//! Norms that stand alone.

use super::{Buffer, Context, Kernel, Launch, Teams, Use, extent, word};
use crate::gpu::stage::{Domain, Norm, Place};
use crate::graph::WeightId;

pub(super) const RMS_NORM: Kernel = Kernel {
    name: "rms_norm",
    source: wgsl!("rms_norm.wgsl"),
    bindings: &[Use::Uniform, Use::Read, Use::Read, Use::Read, Use::Write],
    reduces: Some(Teams::Workgroup),
    ..Kernel::PLAIN
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
        constants: vec![
            ("WG", context.teams.lanes(part / 4, 128)),
            ("OUTPUTS", f64::from(u8::from(domain == Domain::Outputs))),
        ],
        params,
        buffers: vec![Buffer::State, Buffer::Activation(x.buffer), Buffer::Norms, Buffer::Activation(y.buffer)],
        grid_x: word(groups),
        grid_y: extent(domain, 1),
    }
}

pub(super) const LAYER_NORM: Kernel = Kernel {
    name: "layer_norm",
    source: wgsl!("layer_norm.wgsl"),
    bindings: &[Use::Uniform, Use::Read, Use::Read, Use::Read, Use::Write],
    reduces: Some(Teams::Workgroup),
    ..Kernel::PLAIN
};

/// Each row of x, into y: by weight, bias and epsilon.
pub(super) fn layer_norm(
    [x, y]: [Place; 2],
    (weight, bias, eps): (WeightId, Option<WeightId>, f32),
    width: usize,
    domain: Domain,
    context: &Context<'_>,
) -> Launch {
    let offset = |weight: WeightId| (context.norm_offset)(weight);
    let places = [width, x.offset, x.stride, y.offset, y.stride, offset(weight), bias.map_or(0, offset)];
    let mut params = places.map(word).to_vec();
    params.extend([eps.to_bits(), context.max_rows()]);
    let switch = |on: bool| f64::from(u8::from(on));
    Launch {
        kernel: &LAYER_NORM,
        weights: None,
        constants: vec![
            ("WG", context.teams.lanes(width / 4, 128)),
            ("OUTPUTS", switch(domain == Domain::Outputs)),
            ("BIAS", switch(bias.is_some())),
        ],
        params,
        buffers: vec![Buffer::State, Buffer::Activation(x.buffer), Buffer::Norms, Buffer::Activation(y.buffer)],
        grid_x: 1,
        grid_y: extent(domain, 1),
    }
}
