//! Short convolutions over the rows of sequences and their state.

use super::{Buffer, Context, Extent, Kernel, Launch, Use, word};
use crate::gpu::stage::Place;
use crate::graph::{Activation, ShortConv};

pub(super) const SHORT_CONV: Kernel = Kernel {
    name: "short_conv",
    source: wgsl!("short_conv.wgsl"),
    bindings: &[Use::Uniform, Use::Read, Use::Read, Use::Read, Use::Write, Use::Write],
    recurrent: true,
    ..Kernel::PLAIN
};

/// See [`ShortConv`]; the gates before and after lie in the buffer of x.
pub(super) fn short_conv(
    spec: &ShortConv,
    x: Place,
    gates: Option<[Place; 2]>,
    y: Place,
    width: usize,
    context: &Context<'_>,
) -> Launch {
    let [before, after] = gates.unwrap_or([x; 2]).map(|gate| gate.offset);
    let sizes = [width, x.offset, before, after, x.stride, y.offset, y.stride, (context.norm_offset)(spec.weight)];
    let mut params = sizes.map(word).to_vec();
    params.push(context.max_rows());
    let switch = |on: bool| f64::from(u8::from(on));
    Launch {
        kernel: &SHORT_CONV,
        weights: None,
        constants: vec![
            ("TAPS", f64::from(word(spec.taps))),
            ("GATED", switch(gates.is_some())),
            ("SILU", switch(spec.activation == Some(Activation::Silu))),
        ],
        params,
        buffers: vec![
            Buffer::State,
            Buffer::Norms,
            Buffer::Activation(x.buffer),
            Buffer::Activation(y.buffer),
            Buffer::Slots(spec.state),
        ],
        grid_x: word(width.div_ceil(64)),
        grid_y: Extent::Sequences,
    }
}
