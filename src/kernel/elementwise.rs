//! What works element by element: sums and gates that nothing took in, and the choice of output rows.

use super::matmul::glu_constants;
use super::{Buffer, Context, Extent, Kernel, Launch, Use, extent, switch, word};
use crate::gpu::stage::{Domain, ElementOp, Place};

pub(super) const ELEMENTWISE: Kernel = Kernel {
    name: "elementwise",
    source: wgsl!("elementwise.wgsl"),
    bindings: &[Use::Uniform, Use::Read, Use::Read, Use::Read, Use::Read, Use::Write],
    glu: true,
    ..Kernel::PLAIN
};

pub(super) const OUTPUT_ROWS: Kernel = Kernel {
    name: "output_rows",
    source: wgsl!("output_rows.wgsl"),
    bindings: &[Use::Uniform, Use::Read, Use::Read, Use::Write],
    ..Kernel::PLAIN
};

/// `y = op(a, b)`.
pub(super) fn elementwise(
    op: ElementOp,
    [a, b, y]: [Place; 3],
    width: usize,
    domain: Domain,
    context: &Context<'_>,
) -> Launch {
    let number = match op {
        ElementOp::Add => 0.0,
        ElementOp::Glu(_) | ElementOp::GluPairs(_) | ElementOp::GluOneGate(_) => 1.0,
        ElementOp::Bias(_) => 2.0,
        ElementOp::Scale(_) => 3.0,
        ElementOp::SoftCap(_) => 4.0,
        ElementOp::SumParts(_) => 5.0,
        ElementOp::Activate(_) => 6.0,
    };
    let glu = match op {
        ElementOp::Glu(activation)
        | ElementOp::GluPairs(activation)
        | ElementOp::GluOneGate(activation)
        | ElementOp::Activate(activation) => Some(activation),
        _ => None,
    };
    let bias = if let ElementOp::Bias(bias) = op { (context.norm_offset)(bias) } else { 0 };
    let factor = if let ElementOp::Scale(factor) | ElementOp::SoftCap(factor) = op { factor } else { 0.0 };
    let parts = if let ElementOp::SumParts(parts) = op { parts } else { 1 };
    let sizes = [width, a.offset, a.stride, b.offset, b.stride, y.offset, y.stride];
    let mut params = sizes.map(word).to_vec();
    params.extend([context.max_rows(), word(bias), factor.to_bits(), word(parts)]);
    Launch {
        kernel: &ELEMENTWISE,
        weights: None,
        constants: [
            ("OP", number),
            ("PAIRS", switch(matches!(op, ElementOp::GluPairs(_)))),
            ("ONE_GATE", switch(matches!(op, ElementOp::GluOneGate(_)))),
            ("OUTPUTS", switch(domain == Domain::Outputs)),
        ]
        .into_iter()
        .chain(glu_constants(glu))
        .collect(),
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
