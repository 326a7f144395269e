//! Products, with what an adapter adds to them.

use super::{Emission, Work};
use crate::gpu::stage::{Adapt, Domain, ElementOp, Experts, Norm, Place, Slots, Stage};
use crate::graph::Activation;
use crate::kernel::rounded_words;

impl Emission<'_> {
    /// A product, and what an adapter adds to it.
    pub(super) fn multiply(&mut self, work: Work, glu: Option<Activation>) {
        let Work { matrix, x, y, norm, bias, residual, domain } = work;
        let product = |adapt| {
            move |x, norm, rounded| Stage::MatMul { matrix, x, y, norm, bias, residual, glu, adapt, domain, rounded }
        };
        let Some(joint) = self.joints.get(&matrix).copied() else {
            return self.push_product_of(matrix, (x, norm), product(None));
        };
        // Before the product itself, which may overwrite what x shares a buffer with.
        let inner = self.fresh(joint.rank, domain);
        let (a, b, times) = (joint.a, joint.b, Some(Adapt::Times(joint.factor)));
        let gain = joint.gain.map(|offset| Adapt::Gain { offset });
        let plain = |matrix, x, y, norm, residual, adapt| Stage::MatMul {
            matrix,
            x,
            y,
            norm,
            bias: None,
            residual,
            glu: None,
            adapt,
            domain,
            rounded: false,
        };
        self.stages.push(plain(a, x, inner, norm, false, times));
        self.push_product_of(matrix, (x, norm), product(gain));
        self.stages.push(plain(b, inner, y, None, true, None));
    }

    /// A product whose rows alternate between gate and up, and their gated unit: in one kernel, unless an adapter has
    /// something to add between.
    pub(super) fn gated(&mut self, work: Work, activation: Activation, width: usize) {
        if !self.joints.contains_key(&work.matrix) {
            return self.multiply(work, Some(activation));
        }
        let pairs = self.fresh(2 * width, work.domain);
        self.multiply(Work { y: pairs, ..work }, None);
        let (op, y, domain) = (ElementOp::GluPairs(activation), work.y, work.domain);
        self.stages.push(Stage::Elementwise { op, a: pairs, b: pairs, y, width, domain });
    }

    /// A product whose matrix may want x in bytes: rounds x, unless the last product's were rounded of the same.
    fn push_product_of(
        &mut self,
        matrix: usize,
        (x, norm): (Place, Option<Norm>),
        product: impl FnOnce(Place, Option<Norm>, bool) -> Stage,
    ) {
        let Some(cols) = self.rounded.get(matrix).copied().flatten() else {
            self.stages.push(product(x, norm, false));
            return;
        };
        let same = self.stages.iter().rev().find_map(|stage| match stage {
            Stage::Round { x: of, y, norm: by, .. } => Some((*of, *by) == (x, norm)).map(|same| same.then_some(*y)),
            // In between x stays as it is, if only products by integers came that go elsewhere.
            Stage::MatMul { rounded: true, y, .. } if y.buffer != x.buffer => None,
            _ => Some(None),
        });
        let domain = self.buffers.get(x.buffer).map_or(Domain::Rows, |(_, domain)| *domain);
        let y = same.flatten().unwrap_or_else(|| {
            let y = self.fresh(rounded_words(cols), domain);
            self.stages.push(Stage::Round { x, y, norm, cols, domain });
            y
        });
        self.stages.push(product(y, None, true));
    }

    /// A place that no value of the graph has.
    fn fresh(&mut self, width: usize, domain: Domain) -> Place {
        let stride = width.next_multiple_of(8);
        self.buffers.push((stride, domain));
        Place { buffer: self.buffers.len() - 1, offset: 0, stride }
    }

    /// The same for a product by experts' matrices; `width` is that of what it makes.
    pub(super) fn multiply_experts(&mut self, product: Experts, width: usize) {
        let Some(joint) = self.joints.get(&product.matrix).copied() else {
            self.stages.push(Stage::Experts(product));
            return;
        };
        let Experts { slots, y, glu, .. } = product;
        let inner = self.fresh(slots.count * joint.rank, Domain::Rows);
        let made = if glu.is_some() { self.fresh(2 * width, Domain::Rows) } else { y };
        let plain = Experts { biases: [None, None], glu: None, ..product };
        let slots_of_a = Slots { weighted: false, ..slots };
        let adapt = Some(Adapt::Times(joint.factor));
        let a = Experts { matrix: joint.a, slots: slots_of_a, y: inner, sum: false, residual: false, adapt, ..plain };
        let b = Experts { matrix: joint.b, x: inner, x_slot: joint.rank, y: made, norm: None, residual: true, ..plain };
        self.stages.push(Stage::Experts(a));
        self.stages.push(Stage::Experts(Experts { y: made, glu: None, ..product }));
        self.stages.push(Stage::Experts(b));
        if let Some(activation) = glu {
            let (op, domain) = (ElementOp::GluPairs(activation), Domain::Rows);
            self.stages.push(Stage::Elementwise { op, a: made, b: made, y, width, domain });
        }
    }
}
