//! Choosing the next id on the device.

use super::{Buffer, Extent, Kernel, Launch, Use, word};
use crate::gpu::stage::Place;
use crate::graph::SamplerSettings;

pub(super) const SAMPLE: Kernel = Kernel {
    name: "sample",
    source: include_str!("../../shaders/sample.wgsl"),
    bindings: &[Use::Uniform, Use::Read, Use::Read, Use::Write, Use::Write, Use::Write],
    ..Kernel::PLAIN
};

/// The id that stands for logits which are not numbers.
pub const BAD_LOGITS: u32 = u32::MAX;

/// Chooses an id from the first row of the logits and hands it to the decode program.
pub fn sample(logits: Place, vocab: usize) -> Launch {
    Launch {
        kernel: &SAMPLE,
        weights: None,
        constants: vec![],
        params: vec![word(vocab), word(logits.offset)],
        buffers: vec![
            Buffer::Activation(logits.buffer),
            Buffer::Reply,
            Buffer::History,
            Buffer::DecodeState,
            Buffer::Ids,
        ],
        grid_x: 1,
        grid_y: Extent::Fixed(1),
    }
}

/// The words of the shader's `Reply`.
pub fn reply_words(sampler: &SamplerSettings) -> [u32; 8] {
    [
        sampler.temperature.to_bits(),
        sampler.top_k,
        sampler.top_p.to_bits(),
        sampler.min_p.to_bits(),
        sampler.repetition_penalty.to_bits(),
        sampler.frequency_penalty.to_bits(),
        sampler.presence_penalty.to_bits(),
        sampler.seed,
    ]
}
