//! Speculation: ids that are expected are computed before they are chosen, several in one step. What is chosen is the same.

use serde::Serialize;

use super::json::invalid;
use super::loaded::Loaded;
use super::reply::Job;
use crate::error::Result;

/// Whether and how ids are expected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Speculate {
    /// They are not.
    #[default]
    Off,
    /// As they followed the same ids before, in prompt or reply.
    Lookup,
}

impl Speculate {
    /// By the name that the request gives. Fails with `InvalidArgument` for others.
    pub(super) fn named(name: Option<&str>) -> Result<Self> {
        match name {
            None => Ok(Self::default()),
            Some("off") => Ok(Self::Off),
            Some("lookup") => Ok(Self::Lookup),
            Some(other) => Err(invalid(format!("{other:?} is neither \"lookup\" nor \"off\"")).at("speculation")),
        }
    }
}

/// What came of ids that were expected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Speculation {
    /// Ids that were drafted.
    pub drafted: u64,
    /// Those that were chosen then.
    pub accepted: u64,
    /// Steps that computed them; each gave one id more than were right.
    pub steps: u64,
}

impl Speculation {
    pub(super) fn add(&mut self, other: &Self) {
        let Self { drafted, accepted, steps } = self;
        *drafted = drafted.saturating_add(other.drafted);
        *accepted = accepted.saturating_add(other.accepted);
        *steps = steps.saturating_add(other.steps);
    }
}

impl Job {
    /// Whether drafts are made, where they were asked for. A step of several ids is a batch, which backends do not make of
    /// models with state (it could not be taken back), with adapters or for a history that differs from row to row; and ids
    /// that are chosen on this side of the device come one by one.
    pub(super) fn drafts(&self, loaded: &Loaded) -> bool {
        self.settings.speculate == Speculate::Lookup
            && self.chosen.is_none()
            && self.adapter.is_none()
            && !self.settings.sampler.penalises()
            && loaded.backend.max_batch() > 1
    }
}
