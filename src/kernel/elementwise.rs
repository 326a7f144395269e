//! What works element by element: sums and gates that nothing took in, and the choice of output rows.

use super::matmul::glu_number;
use super::{Buffer, Context, Extent, Kernel, Launch, Use, extent, word};
use crate::gpu::stage::{Domain, ElementOp, Place};

pub(super) const ELEMENTWISE: Kernel = Kernel {
    name: "elementwise",
    source: include_str!("../../shaders/elementwise.wgsl"),
    bindings: &[Use::Uniform, Use::Read, Use::Read, Use::Read, Use::Read, Use::Write],
    weights: false,
    reduces: false,
    kv: false,
    recurrent: false,
};

pub(super) const OUTPUT_ROWS: Kernel = Kernel {
    name: "output_rows",
    source: include_str!("../../shaders/output_rows.wgsl"),
    bindings: &[Use::Uniform, Use::Read, Use::Read, Use::Write],
    weights: false,
    reduces: false,
    kv: false,
    recurrent: false,
};

/// `y = op(a, b)`.
pub(super) fn elementwise(
    op: ElementOp,
    [a, b, y]: [Place; 3],
    width: usize,
    domain: Domain,
    context: &Context<'_>,
) -> Launch {
    let (number, bias, factor) = match op {
        ElementOp::Add => (0.0, None, 0.0),
        ElementOp::Glu(activation) | ElementOp::GluPairs(activation) => (glu_number(Some(activation)), None, 0.0),
        ElementOp::Bias(bias) => (3.0, Some(bias), 0.0),
        ElementOp::Scale(factor) => (4.0, None, factor),
        ElementOp::SoftCap(cap) => (5.0, None, cap),
    };
    let sizes = [width, a.offset, a.stride, b.offset, b.stride, y.offset, y.stride];
    let mut params = sizes.map(word).to_vec();
    params.extend([context.max_rows(), word(bias.map_or(0, |bias| (context.norm_offset)(bias))), factor.to_bits()]);
    Launch {
        kernel: &ELEMENTWISE,
        weights: None,
        constants: vec![
            ("OP", number),
            ("PAIRS", f64::from(u8::from(matches!(op, ElementOp::GluPairs(_))))),
            ("OUTPUTS", f64::from(u8::from(domain == Domain::Outputs))),
        ],
        params,
        buffers: vec![
            Buffer::State,
            Buffer::Activation(a.buffer),
            Buffer::Activation(b.buffer),
            Buffer::Norms,
            Buffer::Activation(y.buffer),
        ],
        grid_x: word(width.div_ceil(4).div_ceil(64)),
        grid_y: extent(domain, 1),
    }
}

/// The rows whose logits are wanted, one after another.
pub(super) fn output_rows(x: Place, y: Place, context: &Context<'_>) -> Launch {
    Launch {
        kernel: &OUTPUT_ROWS,
        weights: None,
        constants: vec![],
        params: vec![word(y.stride / 4), word(x.offset), word(x.stride), context.max_rows()],
        buffers: vec![Buffer::State, Buffer::Activation(x.buffer), Buffer::Activation(y.buffer)],
        grid_x: word((y.stride / 4).div_ceil(64)),
        grid_y: Extent::Outputs(1),
    }
}
