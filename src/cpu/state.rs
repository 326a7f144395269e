//! What operations with recurrence remember: for each of them one row of numbers a slot; and those operations.

use super::ops;
use super::weights::Weights;
use crate::error::{Error, ErrorKind, Result};
use crate::graph::{ShortConv, StateSlots, Step};

/// `(n_slots, width)` for each operation that keeps state.
pub(super) struct States(Vec<Vec<Vec<f32>>>);

impl States {
    /// Slots for operations of the given widths.
    pub(super) fn new(widths: &[usize], n_slots: usize) -> Result<Self> {
        let slot = |width: usize| {
            let mut slot = Vec::new();
            slot.try_reserve_exact(width).map_err(|error| {
                Error::new(ErrorKind::LimitExceeded, "the memory does not suffice").at("state").caused_by(error)
            })?;
            slot.resize(width, 0.0);
            Ok(slot)
        };
        let slots = |width: &usize| (0..n_slots).map(|_| slot(*width)).collect();
        widths.iter().map(slots).collect::<Result<_>>().map(Self)
    }

    /// Goes through the step sequence by sequence: `work` is given the state before its first row, which it leaves as
    /// it is after the last one, and the indices of its rows in order.
    pub(super) fn each_sequence(&mut self, state: usize, step: &Step<'_>, mut work: impl FnMut(&mut [f32], &[usize])) {
        let slots = &mut self.0[state];
        for (sequence, StateSlots { from, to }) in step.states.iter().enumerate() {
            let of_sequence = |index: &usize| step.rows[*index].sequence as usize == sequence;
            let rows: Vec<usize> = (0..step.rows.len()).filter(of_sequence).collect();
            let Some(first) = rows.first() else { continue };
            let mut now = std::mem::take(&mut slots[*to as usize]);
            match step.rows[*first].position {
                0 => now.fill(0.0),
                _ if from != to => now.copy_from_slice(&slots[*from as usize]),
                _ => {}
            }
            work(&mut now, &rows);
            slots[*to as usize] = now;
        }
    }
}

/// The operands of a [`ShortConv`], each `(tokens, width)`.
pub(super) struct ConvInputs<'a> {
    pub x: &'a [f32],
    /// Factors before and after.
    pub gates: Option<(&'a [f32], &'a [f32])>,
    pub width: usize,
}

/// See [`ShortConv`].
pub(super) fn short_conv(
    states: &mut States,
    weights: &Weights,
    spec: &ShortConv,
    step: &Step<'_>,
    inputs: &ConvInputs<'_>,
) -> Vec<f32> {
    let (width, taps) = (inputs.width, spec.taps);
    let factors = weights.vector(spec.weight);
    let mut out = vec![0.0; inputs.x.len()];
    states.each_sequence(spec.state, step, |past, rows| {
        for row in rows {
            for channel in 0..width {
                let at = row * width + channel;
                let now = inputs.x[at] * inputs.gates.map_or(1.0, |(before, _)| before[at]);
                let factors = &factors[channel * taps..][..taps];
                let mut sum = factors[taps - 1] * now;
                for tap in 0..taps - 1 {
                    sum += factors[tap] * past[tap * width + channel];
                }
                let sum = spec.activation.map_or(sum, |activation| ops::activate(activation, sum));
                out[at] = sum * inputs.gates.map_or(1.0, |(_, after)| after[at]);
                for tap in 1..taps - 1 {
                    past[(tap - 1) * width + channel] = past[tap * width + channel];
                }
                past[(taps - 2) * width + channel] = now;
            }
        }
    });
    out
}
