//! Products of matrices of codes with [`Activations`]: integers are multiplied and added up a group at a time, exactly, and
//! the groups' sums are added in 32-bit floats, always in the same order.

use bytemuck::{cast, cast_slice, cast_slice_mut};
use wide::{f32x4, i16x8, i32x4};

use crate::LANES;
use crate::activations::{self, Activations, Panel};
use crate::blocks::{Blocks, Group, Row};
use crate::fused::across;

/// `y[t, r] = sum_c w[r, c] * x[t, c]` for the rows whose blocks `bytes` are; `y (tokens, rows)`.
///
/// # Panics
/// Where `bytes` and `y` are not as long as that wants.
pub fn matmul(blocks: &Blocks, bytes: &[u8], x: &Activations, y: &mut [f32]) {
    if let Some(by_one) = blocks.by_one.filter(|_| x.is_one()) {
        return by_one(bytes, &x.panel(0), y);
    }
    match (blocks.group, x.is_one()) {
        (Group::Of16, true) => product::<16, false, 0>(blocks, bytes, x, y),
        (Group::Of16WithAddends, true) => product::<16, true, 0>(blocks, bytes, x, y),
        (Group::Of32, true) => product::<32, false, 0>(blocks, bytes, x, y),
        (Group::Of32WithAddends, true) => product::<32, true, 0>(blocks, bytes, x, y),
        (Group::Of16, false) => product::<16, false, 2>(blocks, bytes, x, y),
        (Group::Of16WithAddends, false) => product::<16, true, 2>(blocks, bytes, x, y),
        (Group::Of32, false) => product::<32, false, 2>(blocks, bytes, x, y),
        (Group::Of32WithAddends, false) => product::<32, true, 2>(blocks, bytes, x, y),
    }
}

/// [`LANES`] rows of a matrix.
struct Tile {
    cols: usize,
    /// `(LANES, cols / 2)`: pairs of codes, the first in the low half.
    pairs: Vec<i32>,
    /// `(LANES, groups)`.
    factors: Vec<f32>,
    /// `(LANES, groups)`; unused where the format has none.
    addends: Vec<f32>,
}

impl Tile {
    fn new(cols: usize, group: Group) -> Self {
        let factors = vec![0.0; LANES * cols / group.len()];
        Self { cols, pairs: vec![0; LANES * cols / 2], addends: factors.clone(), factors }
    }

    /// Reads up to [`LANES`] rows; what is there of others is of no use to anybody.
    fn read(&mut self, blocks: &Blocks, rows: std::slice::ChunksExact<'_, u8>) {
        let groups = self.factors.len() / LANES;
        let codes = cast_slice_mut::<i32, i16>(&mut self.pairs).chunks_exact_mut(self.cols);
        let numbers = self.factors.chunks_exact_mut(groups).zip(self.addends.chunks_exact_mut(groups));
        for ((bytes, codes), (factors, addends)) in rows.zip(codes).zip(numbers) {
            (blocks.read)(bytes, &mut Row { codes, factors, addends });
        }
    }

    fn pairs(&self, lane: usize) -> &[i32] {
        &self.pairs[lane * (self.cols / 2)..][..self.cols / 2]
    }
}

/// The rows of `(LANES, groups)`.
#[inline(always)]
fn rows_of(numbers: &[f32], groups: usize) -> [&[f32]; LANES] {
    std::array::from_fn(|lane| &numbers[lane * groups..][..groups])
}

/// With `PANELS` panels at a time, or, where that is 0, a single token.
fn product<const GROUP: usize, const ADDENDS: bool, const PANELS: usize>(
    blocks: &Blocks,
    bytes: &[u8],
    x: &Activations,
    y: &mut [f32],
) {
    let rows = y.len() / x.tokens;
    let row_bytes = bytes.len() / rows.max(1);
    let mut tile = Tile::new(x.cols, blocks.group);
    for (index, bytes) in bytes.chunks(LANES * row_bytes).enumerate() {
        tile.read(blocks, bytes.chunks_exact(row_bytes));
        let first = index * LANES;
        let wide = (rows - first).min(LANES);
        if PANELS == 0 {
            let sums = by_one::<GROUP, ADDENDS>(&tile, &x.panel(0)).to_array();
            y[first..first + wide].copy_from_slice(&sums[..wide]);
            continue;
        }
        let mut panel = 0;
        while panel < x.n_panels() {
            let at_once = (x.n_panels() - panel).min(2);
            let sums = if at_once == 2 {
                by_panels::<GROUP, ADDENDS, 2>(&tile, &[x.panel(panel), x.panel(panel + 1)])
            } else {
                let [sums] = by_panels::<GROUP, ADDENDS, 1>(&tile, &[x.panel(panel)]);
                [sums, sums]
            };
            for (index, sums) in sums.into_iter().take(at_once).enumerate() {
                let first_token = (panel + index) * LANES;
                let of_tokens = y[first_token * rows..].chunks_exact_mut(rows);
                for (y, sums) in of_tokens.zip(f32x4::transpose(sums)) {
                    y[first..first + wide].copy_from_slice(&sums.to_array()[..wide]);
                }
            }
            panel += at_once;
        }
    }
}

/// The products of the tile's rows, a lane each, with one token.
#[inline(always)]
fn by_one<const GROUP: usize, const ADDENDS: bool>(tile: &Tile, x: &Panel<'_>) -> f32x4 {
    let mut total = f32x4::ZERO;
    let groups = tile.cols / GROUP;
    let (factors, addends) = (rows_of(&tile.factors, groups), rows_of(&tile.addends, groups));
    let rows: [&[i16]; LANES] = std::array::from_fn(|lane| cast_slice(tile.pairs(lane)));
    let [a, b, c, d] = rows.map(|row| row.as_chunks::<GROUP>().0);
    let codes = x.codes.chunks_exact(GROUP / 8);
    for (group, ((((x_codes, a), b), c), d)) in codes.zip(a).zip(b).zip(c).zip(d).enumerate() {
        let sums = [a, b, c, d].map(|codes| {
            let parts = codes.as_chunks::<8>().0.iter().zip(x_codes);
            parts.fold(i32x4::ZERO, |sum, (codes, x)| sum + i16x8::new(*codes).dot(*x))
        });
        let sum = across(sums);
        let factors = f32x4::new(factors.map(|factors| factors[group]));
        total += sum.round_float() * factors * x.scales[group * GROUP / activations::GROUP];
        if ADDENDS {
            total += f32x4::new(addends.map(|addends| addends[group])) * summed::<GROUP>(x, group);
        }
    }
    total
}

/// The products of the tile's rows with the tokens of panels, a lane each: `(panels, LANES)`.
#[inline(always)]
fn by_panels<const GROUP: usize, const ADDENDS: bool, const PANELS: usize>(
    tile: &Tile,
    x: &[Panel<'_>; PANELS],
) -> [[f32x4; LANES]; PANELS] {
    let mut totals = [[f32x4::ZERO; LANES]; PANELS];
    let groups = tile.cols / GROUP;
    let (factors, addends) = (rows_of(&tile.factors, groups), rows_of(&tile.addends, groups));
    for group in 0..groups {
        let at = group * (GROUP / 2);
        let rows: [&[i32]; LANES] = std::array::from_fn(|lane| &tile.pairs(lane)[at..][..GROUP / 2]);
        let codes: [&[i16x8]; PANELS] = std::array::from_fn(|panel| &x[panel].codes[at..][..GROUP / 2]);
        let mut sums = [[i32x4::ZERO; LANES]; PANELS];
        for pair in 0..GROUP / 2 {
            let codes: [i16x8; PANELS] = std::array::from_fn(|panel| codes[panel][pair]);
            for lane in 0..LANES {
                let weights: i16x8 = cast(i32x4::splat(rows[lane][pair]));
                for panel in 0..PANELS {
                    sums[panel][lane] += weights.dot(codes[panel]);
                }
            }
        }
        for panel in 0..PANELS {
            let scales = x[panel].scales[group * GROUP / activations::GROUP];
            for lane in 0..LANES {
                totals[panel][lane] += sums[panel][lane].round_float() * f32x4::splat(factors[lane][group]) * scales;
            }
            if ADDENDS {
                let summed = summed::<GROUP>(&x[panel], group);
                for lane in 0..LANES {
                    totals[panel][lane] += f32x4::splat(addends[lane][group]) * summed;
                }
            }
        }
    }
    totals
}

/// The sums of a group's activations.
#[inline(always)]
fn summed<const GROUP: usize>(x: &Panel<'_>, group: usize) -> f32x4 {
    if GROUP == activations::SUMMED { x.sums[group] } else { x.sums[2 * group] + x.sums[2 * group + 1] }
}
