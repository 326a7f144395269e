//! Orders of columns: GPTQ's `desc_act` gives every column the group that its importance earns, not its place, so a group's
//! columns lie all over a row. Put in the order of their groups they are blocks like any other; what is multiplied must then be
//! gathered in the same order (exllama's `make_q_matrix` does the same).

use std::collections::BTreeMap;
use std::rc::Rc;

use super::{Layout, Part, Weight, malformed, unsupported};
use crate::error::Result;
use crate::quant::FormatId;

/// Columns that an order may have: their numbers are read as float32, exactly.
const MOST_COLUMNS: usize = 1 << 24;

/// The columns by their groups, those of a group as they stood; `None` where that is how they stand.
///
/// Fails with `MalformedModel` for a group that does not exist, with `UnsupportedFormat` where groups are not equally large.
pub(super) fn by_group(part: &Part, group_of: &[u32], group: usize) -> Result<Option<Rc<[u32]>>> {
    let groups = group_of.len().checked_div(group).unwrap_or(0);
    if let Some((column, found)) = group_of.iter().enumerate().find(|(_, found)| **found as usize >= groups) {
        return Err(malformed(&part.name, format!("column {column} has the group {found} of {groups}")));
    }
    if group_of.is_sorted() && group_of.chunks(group.max(1)).zip(0u32..).all(|(own, at)| own.iter().all(|g| *g == at)) {
        return Ok(None);
    }
    if group_of.len() > MOST_COLUMNS {
        return Err(unsupported(&part.name, format!("an order of {} columns", group_of.len())));
    }
    let mut order: Vec<u32> = (0u32..).take(group_of.len()).collect();
    let of = |column: &u32| group_of.get(*column as usize).copied();
    order.sort_by_key(of);
    for (columns, at) in order.chunks(group.max(1)).zip(0u32..) {
        if columns.iter().any(|column| of(column) != Some(at)) {
            return Err(unsupported(&part.name, format!("the group {at} has not {group} columns as it should")));
        }
    }
    Ok(Some(order.into()))
}

/// Where each column of a file goes.
pub(super) fn inverse(order: &[u32]) -> Vec<usize> {
    let mut places = vec![0; order.len()];
    for (place, column) in order.iter().enumerate() {
        if let Some(to) = places.get_mut(*column as usize) {
            *to = place;
        }
    }
    places
}

/// An order as the numbers of a vector.
pub(super) fn bytes(order: &[u32]) -> Vec<u8> {
    order.iter().flat_map(|column| (*column as f32).to_le_bytes()).collect()
}

/// Adds a tensor for each different order to `weights`, and tells which matrices have which.
pub(super) fn tensors(weights: &mut Vec<Weight>) -> Result<BTreeMap<String, String>> {
    let (mut of_matrix, mut names, mut made) = (BTreeMap::new(), BTreeMap::<Rc<[u32]>, String>::new(), Vec::new());
    for weight in weights.iter_mut() {
        let Some((order, raw)) = weight.order.take() else { continue };
        let name = match names.get(&order) {
            Some(known) => known.clone(),
            None => {
                let (shape, layout) = (vec![order.len()], Layout::Order(Rc::clone(&order)));
                made.push(Weight::new(raw.name.clone(), FormatId::F32, shape, &raw, layout)?);
                names.insert(order, raw.name.clone());
                raw.name
            }
        };
        of_matrix.insert(weight.name.clone(), name);
    }
    weights.extend(made);
    Ok(of_matrix)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn order(group_of: &[u32], group: usize) -> Result<Option<Rc<[u32]>>> {
        let part = Part { name: "x.g_idx".into(), file: 0, offset: 0, row_bytes: 4 };
        by_group(&part, group_of, group)
    }

    #[test]
    fn columns_come_by_their_groups() {
        assert_eq!(order(&[0, 0, 1, 1], 2).unwrap(), None);
        let found = order(&[1, 0, 2, 0, 1, 2], 2).unwrap().unwrap();
        assert_eq!(*found, [1, 3, 0, 4, 2, 5]);
        assert_eq!(inverse(&found), [2, 0, 4, 1, 3, 5]);
        assert_eq!(order(&[0, 2, 1, 1], 2).unwrap_err().kind(), ErrorKind::MalformedModel);
        let uneven = order(&[0, 1, 1, 1], 2).unwrap_err();
        assert_eq!(uneven.kind(), ErrorKind::UnsupportedFormat);
        assert!(uneven.message().contains("the group 0 has not 2 columns"), "{uneven}");
    }
}
