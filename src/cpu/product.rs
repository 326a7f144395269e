//! Products of matrices with rows of activations.

use std::ops::Range;

use headwater_cpu_kernels::{Activations, float, integer};

use super::weights::Weights;
use crate::graph::WeightId;

/// `y[t, r] = sum_c weight[r, c] * x[t, c]` with `cols` columns.
pub(super) fn matmul(weights: &Weights, weight: WeightId, x: &[f32], cols: usize) -> Vec<f32> {
    product(weights, weight, 0..weights.n_rows(weight), x, cols)
}

/// The same with some rows of the matrix. A token's results do not depend on the others.
pub(super) fn product(weights: &Weights, weight: WeightId, rows: Range<usize>, x: &[f32], cols: usize) -> Vec<f32> {
    let mut y = vec![0.0; x.len() / cols * rows.len()];
    match weights.blocks(weight, rows.clone()) {
        Some((blocks, bytes)) => integer::matmul(blocks, bytes, &Activations::new(x, cols), &mut y),
        None => {
            let row = |row: usize, out: &mut [f32]| weights.row(weight, rows.start + row, out);
            float::matmul(row, &float::Floats::new(x, cols), &mut y);
        }
    }
    y
}

#[cfg(test)]
mod tests {
    use headwater_cpu_kernels::BLOCKS;

    use super::*;
    use crate::graph::{Graph, Weight, WeightKind};
    use crate::quant::{FORMATS, FormatId};

    const COLS: usize = 512;
    const ROWS: usize = 7;

    /// A matrix of bytes that are finite numbers in every format.
    fn matrix(format: FormatId, rounds: bool) -> Weights {
        let weight = Weight { name: String::new(), rows: ROWS, cols: COLS, kind: WeightKind::Matrix, stacked: 1 };
        let mut weights =
            Weights::new(&Graph { weights: vec![weight], ..Graph::default() }, &[format], rounds).unwrap();
        let bytes: Vec<u8> = (0..ROWS * format.row_bytes(COLS).unwrap()).map(|i| (i * 7919 % 509 % 60) as u8).collect();
        weights.store(WeightId(0), 0, &bytes).unwrap();
        weights
    }

    fn rounded() -> Vec<FormatId> {
        let names: Vec<&str> = BLOCKS.iter().map(|blocks| blocks.name).collect();
        let found: Vec<FormatId> =
            FORMATS.iter().filter(|(_, format)| names.contains(&format.name)).map(|(id, _)| *id).collect();
        assert_eq!(found.len(), names.len(), "every row of the kernels' table is a format");
        found
    }

    #[test]
    fn codes_with_their_factors_are_the_weights() {
        for format in rounded() {
            let weights = matrix(format, true);
            assert!(weights.blocks(WeightId(0), 0..1).is_some(), "{format:?}");
            let mut expected = vec![0.0; COLS];
            for column in 0..COLS {
                let mut x = vec![0.0; COLS];
                x[column] = 1.0;
                let found = matmul(&weights, WeightId(0), &x, COLS);
                for (row, found) in found.iter().enumerate() {
                    weights.row(WeightId(0), row, &mut expected);
                    let largest = expected.iter().fold(0.0f32, |largest, weight| largest.max(weight.abs()));
                    assert!(largest > 0.0);
                    let error = (found - expected[column]).abs() / largest;
                    assert!(error < 1e-6, "{format:?}, row {row}, column {column}: {error}");
                }
            }
        }
    }

    #[test]
    fn a_token_has_the_same_results_alone_and_in_company() {
        let numbers = |len: usize| -> Vec<f32> { (0..len).map(|i| (i * 37 % 1013) as f32 / 400.0 - 1.0).collect() };
        let exact = [FormatId::F32, FormatId::F16, FormatId::Bf16, FormatId::Nf4].map(|format| (format, false));
        for (format, rounds) in rounded().into_iter().map(|format| (format, true)).chain(exact) {
            let weights = matrix(format, rounds);
            for tokens in [2, 3, 4, 5, 8, 11, 13] {
                let x = numbers(tokens * COLS);
                let together = matmul(&weights, WeightId(0), &x, COLS);
                let alone: Vec<f32> =
                    x.chunks_exact(COLS).flat_map(|x| matmul(&weights, WeightId(0), x, COLS)).collect();
                assert_eq!(together, alone, "{format:?}, {tokens} tokens");
                let some = product(&weights, WeightId(0), 2..5, &x, COLS);
                let expected: Vec<f32> = together.chunks_exact(ROWS).flat_map(|y| &y[2..5]).copied().collect();
                assert_eq!(some, expected, "{format:?}, rows 2 to 4");
            }
        }
    }

    #[test]
    fn products_are_sums_of_products() {
        for (format, rounds, tolerance) in [(FormatId::F32, false, 1e-6), (FormatId::Q4_0, true, 4e-5)] {
            let weights = matrix(format, rounds);
            for cols_and_tokens in [1, 6] {
                let x: Vec<f32> = (0..cols_and_tokens * COLS).map(|i| (i * 101 % 997) as f32 / 500.0 - 1.0).collect();
                let y = matmul(&weights, WeightId(0), &x, COLS);
                let mut row = vec![0.0; COLS];
                for (at, found) in y.iter().enumerate() {
                    weights.row(WeightId(0), at % ROWS, &mut row);
                    let terms = || row.iter().zip(&x[at / ROWS * COLS..]).map(|(w, x)| f64::from(*w) * f64::from(*x));
                    let (expected, size) = (terms().sum::<f64>(), terms().map(f64::abs).sum::<f64>());
                    let error = (f64::from(*found) - expected).abs() / size;
                    assert!(error < tolerance, "{format:?}, {at}: {found} where {expected} is right");
                }
            }
        }
    }

    #[test]
    fn activations_that_are_no_numbers_are_told() {
        let weights = matrix(FormatId::Q8_0, true);
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for tokens in [1, 3] {
                let mut x = vec![0.5; tokens * COLS];
                x[100] = bad;
                let y = matmul(&weights, WeightId(0), &x, COLS);
                assert!(y[..ROWS].iter().all(|y| y.is_nan()) && y[ROWS..].iter().all(|y| y.is_finite()), "{bad}");
            }
        }
    }
}
