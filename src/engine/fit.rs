//! Whether a model fits a device, in figures, before a weight byte is read.

use serde::{Deserialize, Serialize};

use super::fit_choices::{Choice, choices};
use super::open::pages;
use super::options::{BackendChoice, LoadOptions};
use crate::cpu;
use crate::error::Result;
use crate::format::Checkpoint;
use crate::gpu;
use crate::graph::Footprint;
use crate::model::{self, Plan};

/// What is known of the device that a model is to fit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct DeviceLimits {
    /// Largest buffer that a kernel can bind; unknown where absent, and of no matter to the CPU.
    pub binding_bytes: Option<u64>,
    /// Memory that the model may take; no graphics interface tells it, so it is the edge's best knowledge.
    pub memory_bytes: Option<u64>,
    /// Memory that it may take where the CPU computes, if that has another limit.
    pub cpu_memory_bytes: Option<u64>,
}

/// The answer in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Verdict {
    /// There is room.
    Fits,
    /// There is room, but less than a fifth of the memory is left.
    Tight,
    /// There is none.
    No,
}

/// The answer in figures.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FitReport {
    /// In a word.
    pub verdict: Verdict,
    /// Tokens of context that were reckoned with.
    pub context: usize,
    /// All weights, on the device.
    pub weight_bytes: u64,
    /// Keys and values of that context, and states.
    pub kv_bytes: u64,
    /// What passes between the operations of a step.
    pub activation_bytes: u64,
    /// Everything else.
    pub other_bytes: u64,
    /// All of it.
    pub total_bytes: u64,
    /// The largest buffer that cannot be split.
    pub largest_buffer_bytes: u64,
    /// What it was compared with.
    pub limits: DeviceLimits,
    /// The longest context that would fit, where this one does not and a shorter one does.
    pub fitting_context: Option<usize>,
    /// What would fit where this does not, the least change first; nothing where it fits.
    pub choices: Vec<Choice>,
    /// What its reader should know.
    pub notes: Vec<String>,
}

/// More than this part of the memory is tight, in percent.
const TIGHT_PERCENT: u64 = 80;

/// Compares what a model would take, loaded with these options, with what a device has.
///
/// Fails as a load does for files and options that make no model.
pub fn fit(checkpoint: &Checkpoint, options: &LoadOptions, limits: DeviceLimits) -> Result<FitReport> {
    let plan = model::plan_with(checkpoint, &options.plan())?;
    let on_gpu = options.backend != BackendChoice::Cpu;
    let found = reckon(&plan, options)?;
    let verdict = judge(&found, limits, options.backend);
    let mut notes = vec![];
    if limits.memory_bytes.is_none() {
        notes.push("the memory of the device is not known; only the size of its buffers was compared".to_owned());
    }
    if let Some(binding) = limits.binding_bytes.filter(|binding| on_gpu && found.largest_bytes > *binding) {
        let largest = found.largest_bytes;
        notes.push(format!("a buffer of {largest} bytes cannot be split, and this device binds {binding}"));
    }
    let choices = match verdict {
        Verdict::No => choices(checkpoint, options, &plan, limits)?,
        Verdict::Fits | Verdict::Tight => Vec::new(),
    };
    Ok(FitReport {
        verdict,
        context: plan.context,
        weight_bytes: found.weight_bytes,
        kv_bytes: found.kv_bytes,
        activation_bytes: found.activation_bytes,
        other_bytes: found.other_bytes,
        total_bytes: found.total_bytes(),
        largest_buffer_bytes: found.largest_bytes,
        limits,
        fitting_context: choices.iter().find_map(|choice| choice.options.context),
        choices,
        notes,
    })
}

pub(super) fn reckon(plan: &Plan, options: &LoadOptions) -> Result<Footprint> {
    let (kv, n_pages) = pages(plan, options)?;
    match options.backend {
        BackendChoice::Cpu => Ok(cpu::footprint(plan, kv, n_pages)),
        BackendChoice::Gpu | BackendChoice::Auto => gpu::footprint(plan, kv, n_pages),
    }
}

pub(super) fn judge(found: &Footprint, limits: DeviceLimits, backend: BackendChoice) -> Verdict {
    let on_gpu = backend != BackendChoice::Cpu;
    let binds = !on_gpu || limits.binding_bytes.is_none_or(|binding| found.largest_bytes <= binding);
    let memory_bytes = limits.cpu_memory_bytes.filter(|_| !on_gpu).or(limits.memory_bytes);
    match memory_bytes {
        _ if !binds => Verdict::No,
        Some(memory) if found.total_bytes() > memory => Verdict::No,
        Some(memory) if found.total_bytes() > memory / 100 * TIGHT_PERCENT => Verdict::Tight,
        _ => Verdict::Fits,
    }
}
