//! Matrices whose columns stand in an order of their own: what they multiply is gathered in that order, once for all that
//! read the same value in the same order. Models do not know of it.

use std::collections::BTreeMap;

use super::{Builder, Op, ValueId, Weight, WeightId};

/// For the name of each such matrix the name of its order, and how many of the stacked there is one for: 1 for all of them,
/// or one for each.
pub type Orders = BTreeMap<String, (String, usize)>;

impl Builder {
    /// The value as the matrix multiplies it.
    pub(super) fn in_order(&mut self, x: ValueId, route: Option<ValueId>, weight: WeightId) -> ValueId {
        let Weight { name, cols, .. } = &self.graph.weights[weight.0];
        let (matrix, cols) = (name.clone(), *cols);
        let Some((name, count)) = self.orders.get(&matrix).cloned() else { return x };
        let width = self.graph.width(x);
        // What does not fit is told by the product.
        if cols == 0 || !width.is_multiple_of(cols) {
            return x;
        }
        let route = route.filter(|_| count > 1);
        self.expect(count == 1 || route.is_some(), &matrix, || "an order of columns for each, but no route".into());
        let slots = route.map_or(width / cols, |route| self.graph.width(route) / 2);
        let order = self.table(name, count, cols);
        if let Some(known) = self.gathered.get(&(x, route, order)) {
            return *known;
        }
        let name = format!("{}.ordered", self.graph.nodes[x.0].name);
        let made = self.push(name, Op::Gather { x, route, order }, slots.saturating_mul(cols));
        self.gathered.insert((x, route, order), made);
        made
    }
}
