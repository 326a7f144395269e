//! Which values share an activation buffer: a linear scan over the stages, each value living from its first write to
//! its last read. WebGPU tracks hazards by whole buffers, so a handful of separate ones beats one arena.

use super::stage::{Domain, Stage};

/// How a stage touches a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Only read.
    Read,
    /// Overwritten.
    Write,
    /// Changed in place.
    ReadWrite,
}

/// The outcome of [`assign`].
pub struct Assigned {
    /// For each buffer of the stages the one that really exists.
    pub of: Vec<usize>,
    /// Elements of a row, and which rows, of those that exist.
    pub buffers: Vec<(usize, Domain)>,
}

/// Lets buffers whose lives do not overlap be one; the buffer of the logits stays alone.
pub fn assign(stages: &[Stage], wanted: &[(usize, Domain)], logits: usize) -> Assigned {
    let mut life: Vec<Option<(usize, usize)>> = vec![None; wanted.len()];
    for (index, stage) in stages.iter().enumerate() {
        stage.clone().for_places(&mut |place, _| {
            let (first, last) = life[place.buffer].unwrap_or((index, index));
            life[place.buffer] = Some((first.min(index), last.max(index)));
        });
    }
    let mut order: Vec<usize> = (0..wanted.len()).collect();
    order.sort_by_key(|&buffer| life[buffer].map_or(0, |(first, _)| first));
    let mut of = vec![0; wanted.len()];
    let mut buffers: Vec<(usize, Domain)> = vec![];
    let mut busy_until: Vec<usize> = vec![];
    for buffer in order {
        let (first, last) = life[buffer].unwrap_or((0, 0));
        let (width, domain) = wanted[buffer];
        let free =
            (0..buffers.len()).find(|&slot| busy_until[slot] < first && buffers[slot].1 == domain && buffer != logits);
        let slot = free.unwrap_or_else(|| {
            buffers.push((0, domain));
            busy_until.push(0);
            buffers.len() - 1
        });
        buffers[slot].0 = buffers[slot].0.max(width);
        busy_until[slot] = if buffer == logits { usize::MAX } else { last };
        of[buffer] = slot;
    }
    Assigned { of, buffers }
}
