//! Keys and values in pages of [`PAGE_TOKENS`] positions.

use half::f16;
use half::slice::HalfFloatSliceExt;

use crate::error::{Error, ErrorKind, Result};
use crate::graph::{KvFormat, KvWidths, PAGE_TOKENS};
use crate::quant::widen;

/// `(n_pages * PAGE_TOKENS, width)`, keys and values each of their own width.
enum Cells {
    F16(Vec<f16>),
    F32(Vec<f32>),
}

/// The pages of one layer.
struct Layer {
    widths: KvWidths,
    keys: Cells,
    values: Cells,
}

/// The pages of all layers.
pub(super) struct Kv(Vec<Layer>);

impl Cells {
    fn new(format: KvFormat, len: usize) -> Result<Self> {
        Ok(match format {
            KvFormat::F16 => Cells::F16(zeros(len)?),
            KvFormat::F32 => Cells::F32(zeros(len)?),
        })
    }

    fn write(&mut self, start: usize, row: &[f32]) {
        match self {
            Cells::F16(cells) => cells[start..start + row.len()].convert_from_f32_slice(row),
            Cells::F32(cells) => cells[start..start + row.len()].copy_from_slice(row),
        }
    }

    fn read(&self, start: usize, out: &mut [f32]) {
        match self {
            Cells::F16(cells) => {
                for (cell, out) in cells[start..start + out.len()].iter().zip(out) {
                    *out = widen(*cell);
                }
            }
            Cells::F32(cells) => out.copy_from_slice(&cells[start..start + out.len()]),
        }
    }
}

fn zeros<T: Clone + Default>(len: usize) -> Result<Vec<T>> {
    let mut cells = Vec::new();
    cells.try_reserve_exact(len).map_err(|error| no_room().caused_by(error))?;
    cells.resize(len, T::default());
    Ok(cells)
}

fn no_room() -> Error {
    Error::new(ErrorKind::LimitExceeded, "the memory does not suffice").at("keys and values")
}

impl Kv {
    /// Empty pages for layers of the given widths.
    pub(super) fn new(widths: &[KvWidths], format: KvFormat, n_pages: usize) -> Result<Self> {
        let cells = |width: usize| {
            let len = n_pages.checked_mul(PAGE_TOKENS).and_then(|slots| slots.checked_mul(width));
            Cells::new(format, len.ok_or_else(no_room)?)
        };
        let layer = |&widths| Ok(Layer { widths, keys: cells(widths.keys)?, values: cells(widths.values)? });
        widths.iter().map(layer).collect::<Result<_>>().map(Self)
    }

    /// Stores one position of a sequence; `key` and `value` are as wide as the layer's.
    pub(super) fn write(&mut self, layer: usize, pages: &[u32], position: usize, key: &[f32], value: &[f32]) {
        let layer = &mut self.0[layer];
        let slot = pages[position / PAGE_TOKENS] as usize * PAGE_TOKENS + position % PAGE_TOKENS;
        layer.keys.write(slot * layer.widths.keys, key);
        layer.values.write(slot * layer.widths.values, value);
    }

    /// The first `len` positions of a sequence as `(len, width)`, keys and values.
    pub(super) fn gather(&self, layer: usize, pages: &[u32], len: usize) -> (Vec<f32>, Vec<f32>) {
        let layer = &self.0[layer];
        let read = |cells: &Cells, width: usize| {
            let mut rows = vec![0.0; len * width];
            let page_len = PAGE_TOKENS * width;
            for (rows, page) in rows.chunks_mut(page_len.max(1)).zip(pages) {
                cells.read(*page as usize * page_len, rows);
            }
            rows
        };
        (read(&layer.keys, layer.widths.keys), read(&layer.values, layer.widths.values))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_come_back_across_pages_in_any_order() {
        for (format, error) in [(KvFormat::F32, 0.0), (KvFormat::F16, 5e-4)] {
            let mut kv =
                Kv::new(&[KvWidths { keys: 3, values: 3 }, KvWidths { keys: 2, values: 1 }], format, 4).unwrap();
            let pages = [2, 0, 3];
            let len = 2 * PAGE_TOKENS + 5;
            let key = |position: usize| [0.0, 1.0, 2.0].map(|i| (position as f32 + i / 3.0) / 100.0);
            for position in 0..len {
                kv.write(0, &pages, position, &key(position), &key(position + 100));
                kv.write(1, &pages, position, &[1.0, 2.0], &[3.0]);
            }
            let (keys, values) = kv.gather(0, &pages, len);
            for position in 0..len {
                for (found, expected) in keys[position * 3..][..3].iter().zip(key(position)) {
                    assert!((found - expected).abs() <= error * expected, "{found} {expected}");
                }
                for (found, expected) in values[position * 3..][..3].iter().zip(key(position + 100)) {
                    assert!((found - expected).abs() <= error * expected, "{found} {expected}");
                }
            }
            assert_eq!(kv.gather(1, &pages, 2), (vec![1.0, 2.0, 1.0, 2.0], vec![3.0, 3.0]));
        }
    }
}
