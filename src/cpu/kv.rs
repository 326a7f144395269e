//! Keys and values in pages of [`PAGE_TOKENS`] positions.

use half::f16;
use half::slice::HalfFloatSliceExt;
use headwater_cpu_kernels::float::{widen, widen_all};

use crate::error::{Error, ErrorKind, Result};
use crate::graph::{KvFormat, KvWidths, PAGE_TOKENS};
use crate::quant::encode;

/// `(n_pages * PAGE_TOKENS, width)`, keys and values each of their own width.
enum Cells {
    F16(Vec<f16>),
    F32(Vec<f32>),
    /// Blocks of so many elements: a half float, then a byte or a nibble for each.
    Blocks {
        nibbles: bool,
        block: usize,
        bytes: Vec<u8>,
    },
}

/// The pages of one layer.
struct Layer {
    widths: KvWidths,
    keys: Cells,
    values: Cells,
}

/// The pages of all layers.
pub(super) struct Kv(Vec<Layer>);

/// Bytes of a block's scale.
const SCALE: usize = 2;

/// Bytes of a block.
fn block_bytes(nibbles: bool, block: usize) -> usize {
    SCALE + if nibbles { block / 2 } else { block }
}

impl Cells {
    /// Room for `len` elements in heads of `dim`.
    fn new(format: KvFormat, len: usize, dim: usize) -> Result<Self> {
        let block = format.block(dim).unwrap_or(dim.max(1));
        let blocks = |nibbles: bool| {
            let bytes = (len / block).checked_mul(block_bytes(nibbles, block)).ok_or_else(no_room)?;
            Ok(Cells::Blocks { nibbles, block, bytes: zeros(bytes)? })
        };
        match format {
            KvFormat::F16 => Ok(Cells::F16(zeros(len)?)),
            KvFormat::F32 => Ok(Cells::F32(zeros(len)?)),
            KvFormat::Q8_0 => blocks(false),
            KvFormat::Q4_0 => blocks(true),
        }
    }

    fn write(&mut self, start: usize, row: &[f32]) {
        match self {
            Cells::F16(cells) => cells[start..start + row.len()].convert_from_f32_slice(row),
            Cells::F32(cells) => cells[start..start + row.len()].copy_from_slice(row),
            Cells::Blocks { nibbles, block, bytes } => {
                let each = block_bytes(*nibbles, *block);
                let to = bytes[start / *block * each..].chunks_exact_mut(each);
                for (elements, to) in row.chunks_exact(*block).zip(to) {
                    let (scale, codes) = to.split_at_mut(SCALE);
                    if *nibbles {
                        let (d, q) = encode::nibbles(elements);
                        scale.copy_from_slice(&d.to_le_bytes());
                        let q: Vec<u8> = q.collect();
                        codes.iter_mut().zip(q.chunks_exact(2)).for_each(|(to, q)| *to = q[0] | q[1] << 4);
                    } else {
                        let (d, q) = encode::bytes(elements);
                        scale.copy_from_slice(&d.to_le_bytes());
                        codes.iter_mut().zip(q).for_each(|(to, q)| *to = q.cast_unsigned());
                    }
                }
            }
        }
    }

    /// Copies `len` elements from the `from`-th such run to the `to`-th.
    fn copy(&mut self, from: usize, to: usize, len: usize) {
        match self {
            Cells::F16(cells) => cells.copy_within(from * len..(from + 1) * len, to * len),
            Cells::F32(cells) => cells.copy_within(from * len..(from + 1) * len, to * len),
            Cells::Blocks { nibbles, block, bytes } => {
                let len = len / *block * block_bytes(*nibbles, *block);
                bytes.copy_within(from * len..(from + 1) * len, to * len);
            }
        }
    }

    /// Bytes of `len` elements.
    fn bytes(&self, len: usize) -> usize {
        match self {
            Cells::F16(_) => len * 2,
            Cells::F32(_) => len * 4,
            Cells::Blocks { nibbles, block, .. } => len / block * block_bytes(*nibbles, *block),
        }
    }

    /// Adds `len` elements from `start` to `to`, as they are stored.
    fn give(&self, start: usize, len: usize, to: &mut Vec<u8>) {
        match self {
            Cells::F16(cells) => to.extend(cells[start..start + len].iter().flat_map(|cell| cell.to_le_bytes())),
            Cells::F32(cells) => to.extend(cells[start..start + len].iter().flat_map(|cell| cell.to_le_bytes())),
            Cells::Blocks { bytes, .. } => to.extend(&bytes[self.bytes(start)..][..self.bytes(len)]),
        }
    }

    /// Takes elements from `start` on that were given.
    fn take(&mut self, start: usize, from: &[u8]) {
        let at = self.bytes(start);
        match self {
            Cells::F16(cells) => {
                let from = from.as_chunks::<2>().0.iter().map(|bytes| f16::from_le_bytes(*bytes));
                cells[start..].iter_mut().zip(from).for_each(|(cell, from)| *cell = from);
            }
            Cells::F32(cells) => {
                let from = from.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
                cells[start..].iter_mut().zip(from).for_each(|(cell, from)| *cell = from);
            }
            Cells::Blocks { bytes, .. } => bytes[at..][..from.len()].copy_from_slice(from),
        }
    }

    fn read(&self, start: usize, out: &mut [f32]) {
        match self {
            Cells::F16(cells) => {
                widen_all(&cells[start..start + out.len()], out);
            }
            Cells::F32(cells) => out.copy_from_slice(&cells[start..start + out.len()]),
            Cells::Blocks { nibbles, block, bytes } => {
                let each = block_bytes(*nibbles, *block);
                let from = bytes[start / *block * each..].chunks_exact(each);
                for (from, out) in from.zip(out.chunks_exact_mut(*block)) {
                    let d = widen(f16::from_le_bytes([from[0], from[1]]));
                    if *nibbles {
                        for (out, q) in out.chunks_exact_mut(2).zip(&from[SCALE..]) {
                            out[0] = d * (f32::from(q & 15) - 8.0);
                            out[1] = d * (f32::from(q >> 4) - 8.0);
                        }
                    } else {
                        out.iter_mut().zip(&from[SCALE..]).for_each(|(out, q)| *out = d * f32::from(q.cast_signed()));
                    }
                }
            }
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
        let cells = |width: usize, dim: usize| {
            let len = n_pages.checked_mul(PAGE_TOKENS).and_then(|slots| slots.checked_mul(width));
            Cells::new(format, len.ok_or_else(no_room)?, dim)
        };
        let layer = |&widths: &KvWidths| {
            let (keys, values) = (cells(widths.keys(), widths.key_dim)?, cells(widths.values(), widths.value_dim)?);
            Ok(Layer { widths, keys, values })
        };
        widths.iter().map(layer).collect::<Result<_>>().map(Self)
    }

    /// Gives page `to` what page `from` has.
    pub(super) fn copy_page(&mut self, from: usize, to: usize) {
        for layer in &mut self.0 {
            layer.keys.copy(from, to, PAGE_TOKENS * layer.widths.keys());
            layer.values.copy(from, to, PAGE_TOKENS * layer.widths.values());
        }
    }

    /// Bytes of one position.
    pub(super) fn position_bytes(&self) -> usize {
        self.0
            .iter()
            .map(|layer| layer.keys.bytes(layer.widths.keys()) + layer.values.bytes(layer.widths.values()))
            .sum()
    }

    /// The first `positions` of a page: of each layer the keys, then the values.
    pub(super) fn read_page(&self, page: usize, positions: usize) -> Vec<u8> {
        let mut bytes = vec![];
        for Layer { widths, keys, values } in &self.0 {
            for (cells, width) in [(keys, widths.keys()), (values, widths.values())] {
                cells.give(page * PAGE_TOKENS * width, positions * width, &mut bytes);
            }
        }
        bytes
    }

    /// Takes what `read_page` gave.
    pub(super) fn write_page(&mut self, page: usize, positions: usize, mut bytes: &[u8]) {
        for Layer { widths, keys, values } in &mut self.0 {
            for (cells, width) in [(keys, widths.keys()), (values, widths.values())] {
                let (own, rest) = bytes.split_at(cells.bytes(positions * width));
                cells.take(page * PAGE_TOKENS * width, own);
                bytes = rest;
            }
        }
    }

    /// Stores one position of a sequence; `key` and `value` are as wide as the layer's.
    pub(super) fn write(&mut self, layer: usize, pages: &[u32], position: usize, key: &[f32], value: &[f32]) {
        let layer = &mut self.0[layer];
        let slot = pages[position / PAGE_TOKENS] as usize * PAGE_TOKENS + position % PAGE_TOKENS;
        layer.keys.write(slot * layer.widths.keys(), key);
        layer.values.write(slot * layer.widths.values(), value);
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
        (read(&layer.keys, layer.widths.keys()), read(&layer.values, layer.widths.values()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quant::FormatId;

    fn widths(key_dim: usize, value_dim: usize) -> KvWidths {
        KvWidths { heads: 1, key_dim, value_dim }
    }

    #[test]
    fn blocks_are_those_of_the_weights_formats() {
        let element = |i: usize| ((i * 37 + 11) % 101) as f32 / 25.0 - 2.0;
        for (format, stored) in [(KvFormat::Q8_0, FormatId::Q8_0), (KvFormat::Q4_0, FormatId::Q4_0)] {
            let mut kv = Kv::new(&[KvWidths { heads: 2, key_dim: 64, value_dim: 32 }], format, 2).unwrap();
            let (key, value): (Vec<f32>, Vec<f32>) = ((0..128).map(element).collect(), (0..64).map(element).collect());
            kv.write(0, &[1, 0], 33, &key, &value);
            let (keys, values) = kv.gather(0, &[1, 0], 34);
            for (row, found) in [(key, &keys[33 * 128..]), (value, &values[33 * 64..])] {
                let mut blocks = vec![];
                stored.encoder().unwrap()(&row, &mut blocks);
                let mut expected = vec![0.0; row.len()];
                (stored.format().decode)(&blocks, &mut expected);
                assert_eq!(found, expected, "{format:?}");
            }
        }
    }

    #[test]
    fn positions_come_back_across_pages_in_any_order() {
        for (format, error) in [(KvFormat::F32, 0.0), (KvFormat::F16, 5e-4)] {
            let mut kv = Kv::new(&[widths(3, 3), widths(2, 1)], format, 4).unwrap();
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
            kv.copy_page(3, 1);
            assert_eq!(kv.gather(0, &[2, 0, 1], len), (keys, values), "{format:?}");
        }
    }
}
