//! Choosing the next id on the device.

use super::{Buffer, Extent, Kernel, Launch, Use, switch, word};
use crate::gpu::stage::Place;
use crate::graph::SamplerSettings;

pub(super) const SAMPLE: Kernel = Kernel {
    name: "sample",
    source: wgsl!("sample.wgsl"),
    bindings: &[Use::Uniform, Use::Read, Use::Read, Use::Write, Use::Write, Use::Write],
    order: true,
    ..Kernel::PLAIN
};

/// Chooses an id from the first row of the logits and hands it to the decode program, or, in a program of `batch` rows,
/// one from each.
pub fn sample(logits: Place, vocab: usize, batch: Option<usize>) -> Launch {
    Launch {
        kernel: &SAMPLE,
        weights: None,
        constants: vec![("BATCH", switch(batch.is_some()))],
        params: vec![word(vocab), word(logits.offset), word(logits.stride), word(batch.unwrap_or(1))],
        buffers: vec![
            Buffer::Activation(logits.buffer),
            Buffer::Reply,
            Buffer::History,
            Buffer::DecodeState,
            Buffer::Ids,
        ],
        grid_x: 1,
        grid_y: if batch.is_some() { Extent::Rows(1) } else { Extent::Fixed(1) },
    }
}

/// Words of one of the shader's `Reply`.
pub const REPLY_WORDS: usize = 10;

/// The words of one of the shader's `Reply`; `place` is whose history is its own, and `masked` says that a mask is behind it.
pub fn reply_words(sampler: &SamplerSettings, place: u32, masked: bool) -> [u32; REPLY_WORDS] {
    [
        sampler.temperature.to_bits(),
        sampler.top_k,
        sampler.top_p.to_bits(),
        sampler.min_p.to_bits(),
        sampler.repetition_penalty.to_bits(),
        sampler.frequency_penalty.to_bits(),
        sampler.presence_penalty.to_bits(),
        sampler.seed,
        place,
        switch(masked) as u32,
    ]
}
