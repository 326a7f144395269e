//! Models whose matrices have their columns in orders of their own, made of models that have them in place.

use std::collections::BTreeMap;
use std::rc::Rc;

use headwater::format::{Checkpoint, TensorInfo};
use headwater::quant::FormatId;
use headwater::source::{MemorySource, Source};
use pollster::block_on;

/// Which matrices have one order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// All of one width.
    Widths,
    /// None: every tensor has its own.
    Nothing,
}

/// A permutation that differs with its seed.
fn permutation(cols: usize, seed: &str) -> Vec<usize> {
    let mut state = seed.bytes().fold(7u64, |state, byte| state.wrapping_mul(31).wrapping_add(u64::from(byte)));
    let mut order: Vec<usize> = (0..cols).collect();
    for end in (1..cols).rev() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        order.swap(end, (state >> 33) as usize % (end + 1));
    }
    order
}

/// The same model with the columns of its matrices of floats, but for tables, in other orders.
pub fn reordered(model: &Checkpoint, sharing: Sharing) -> Checkpoint {
    let (mut bytes, mut tensors, mut orders) = (vec![], vec![], BTreeMap::new());
    for tensor in &model.tensors {
        let mut data =
            block_on(model.files[tensor.file].read(tensor.offset, tensor.size_bytes as usize)).expect("a tensor");
        let cols = *tensor.shape.last().expect("a dimension");
        let is_table = tensor.name.contains("embd") || tensor.name.contains("embed");
        let number = tensor.format.format().block_bytes;
        let order_bytes =
            (tensor.shape.len() > 1 && !is_table && tensor.format.format().block_weights == 1).then(|| {
                let seed = match sharing {
                    Sharing::Widths => String::new(),
                    Sharing::Nothing => tensor.name.clone(),
                };
                let order = permutation(cols, &seed);
                let rows = data.chunks_exact(cols * number);
                data = rows
                    .flat_map(|row| order.iter().flat_map(|column| &row[column * number..][..number]))
                    .copied()
                    .collect();
                order.iter().flat_map(|column| (*column as f32).to_le_bytes()).collect::<Vec<u8>>()
            });
        let mut add = |name: &str, format, shape: &[usize], data: Vec<u8>| {
            let (offset, size_bytes) = (bytes.len() as u64, data.len() as u64);
            tensors.push(TensorInfo { name: name.into(), format, shape: shape.to_vec(), file: 0, offset, size_bytes });
            bytes.extend(data);
        };
        if let Some(order_bytes) = order_bytes {
            let own = match sharing {
                Sharing::Widths => format!("{cols}.order"),
                Sharing::Nothing => format!("{}.order", tensor.name),
            };
            if !orders.values().any(|known| *known == own) {
                add(&own, FormatId::F32, &[cols], order_bytes);
            }
            orders.insert(tensor.name.clone(), own);
        }
        add(&tensor.name, tensor.format, &tensor.shape, data);
    }
    let files: Vec<Rc<dyn Source>> = vec![Rc::new(MemorySource::new("reordered", bytes))];
    Checkpoint { metadata: model.metadata.clone(), tensors, orders, files }
}
