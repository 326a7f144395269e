//! What is done to held logits beside choosing: single ones are changed and put back, and the largest are found.

use super::{Kernel, Use};
use crate::graph::MAX_TOP;

pub(crate) const CHANGES: Kernel = Kernel {
    name: "changes",
    source: wgsl!("changes.wgsl"),
    bindings: &[Use::Uniform, Use::Write, Use::Read, Use::Write],
    ..Kernel::PLAIN
};

pub(crate) const TOP: Kernel = Kernel {
    name: "top",
    source: wgsl!("top.wgsl"),
    bindings: &[Use::Uniform, Use::Read, Use::Read, Use::Read, Use::Write],
    order: true,
    ..Kernel::PLAIN
};

/// Words before the list of what the shaders are asked.
pub(crate) const ASKED_WORDS: usize = 4;
/// Words before the ids and logits that `top` finds.
pub(crate) const TOP_WORDS: usize = 8;
/// Words before the logits of the ids that were named.
pub(crate) const FOUND_WORDS: usize = TOP_WORDS + 2 * MAX_TOP;
