//! What would fit where a model does not: one change each, the one that changes least first.

use serde::Serialize;

use super::fit::{DeviceLimits, FitReport, Verdict, judge, reckon};
use super::options::{BackendChoice, LoadOptions};
use crate::error::{ErrorKind, Result};
use crate::format::Checkpoint;
use crate::graph::{Footprint, KvFormat, PAGE_TOKENS};
use crate::model::{self, Plan};

/// Something that fits in place of what was asked for.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Choice {
    /// The options of a load that are to be changed.
    pub options: ChangedOptions,
    /// The model to load in place of this one: the same in other files, with fewer bits a weight.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// What it would take; an estimate from the size of its files where it is another model.
    pub total_bytes: u64,
}

/// Options as `LoadOptions` names them; what is absent stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ChangedOptions {
    /// A smaller format of keys and values.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kv_format: Option<&'static str>,
    /// Fewer tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context: Option<usize>,
    /// Floats made smaller while they are loaded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quantize: Option<&'static str>,
    /// `"cpu"`, whose buffers have no limit of their own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend: Option<&'static str>,
}

impl ChangedOptions {
    fn apply(&self, options: &LoadOptions) -> LoadOptions {
        let text =
            |changed: Option<&str>, own: &Option<String>| changed.map_or_else(|| own.clone(), |it| Some(it.into()));
        LoadOptions {
            kv_format: text(self.kv_format, &options.kv_format),
            context: self.context.or(options.context),
            quantize: text(self.quantize, &options.quantize),
            backend: if self.backend.is_some() { BackendChoice::Cpu } else { options.backend },
            ..options.clone()
        }
    }
}

/// Smaller formats of keys and values, the most exact first.
const KV_FORMATS: [KvFormat; 2] = [KvFormat::Q8_0, KvFormat::Q4_0];
/// Formats that floats are quantised to, the most exact first.
const QUANTIZED: [&str; 2] = ["q8_0", "q4_k"];
/// Shortest context that is worth naming.
const LEAST_CONTEXT: usize = PAGE_TOKENS;

/// Tries the changes of options one by one. The first of each kind that fits is given.
pub(super) fn choices(
    checkpoint: &Checkpoint,
    options: &LoadOptions,
    plan: &Plan,
    limits: DeviceLimits,
) -> Result<Vec<Choice>> {
    let trial = Trial { checkpoint, options, limits };
    let kv = KV_FORMATS.into_iter().filter(|_| !options.exact && options.kv_format.is_none());
    let kv = kv.map(|kv| ChangedOptions { kv_format: Some(kv.name()), ..ChangedOptions::default() });
    let quantized = QUANTIZED.into_iter().filter(|_| !options.exact && options.quantize.is_none());
    let quantized = quantized.map(|name| ChangedOptions { quantize: Some(name), ..ChangedOptions::default() });
    let on_cpu = (options.backend != BackendChoice::Cpu)
        .then(|| ChangedOptions { backend: Some("cpu"), ..ChangedOptions::default() });
    let found = [
        trial.first_that_fits(kv)?,
        trial.longest_context(plan.context)?,
        trial.first_that_fits(quantized)?,
        trial.first_that_fits(on_cpu)?,
    ];
    Ok(found.into_iter().flatten().collect())
}

/// What every change is tried on.
struct Trial<'a> {
    checkpoint: &'a Checkpoint,
    options: &'a LoadOptions,
    limits: DeviceLimits,
}

impl Trial<'_> {
    fn first_that_fits(&self, changes: impl IntoIterator<Item = ChangedOptions>) -> Result<Option<Choice>> {
        for change in changes {
            if let Some(choice) = self.choice(change)? {
                return Ok(Some(choice));
            }
        }
        Ok(None)
    }

    /// The choice of a change, if it fits. Options that this model cannot have are no choice.
    fn choice(&self, change: ChangedOptions) -> Result<Option<Choice>> {
        let options = change.apply(self.options);
        let reckoned = model::plan_with(self.checkpoint, &options.plan()).and_then(|plan| reckon(&plan, &options));
        let found: Footprint = match reckoned {
            Ok(found) => found,
            Err(error) if error.kind() == ErrorKind::InvalidArgument => return Ok(None),
            Err(error) => return Err(error),
        };
        let fits = judge(&found, self.limits, options.backend) != Verdict::No;
        Ok(fits.then(|| Choice { options: change, reference: None, total_bytes: found.total_bytes() }))
    }

    /// The longest context that is not too long, found by halving; the footprint grows with the context.
    fn longest_context(&self, asked: usize) -> Result<Option<Choice>> {
        let of = |context| self.choice(ChangedOptions { context: Some(context), ..ChangedOptions::default() });
        let (mut fitting, mut too_long) = (LEAST_CONTEXT, asked);
        if too_long <= fitting || of(fitting)?.is_none() {
            return Ok(None);
        }
        while too_long - fitting > PAGE_TOKENS {
            let middle = fitting + (too_long - fitting) / 2;
            match of(middle)? {
                Some(_) => fitting = middle,
                None => too_long = middle,
            }
        }
        of(fitting / PAGE_TOKENS * PAGE_TOKENS)
    }
}

impl FitReport {
    /// Looks at other files of the same model, by their bytes where this one's have `own_bytes`, and adds the largest of them
    /// that would fit, reckoned by proportion. Only where this model does not fit; `others` begin with the largest.
    pub fn consider(&mut self, own_bytes: u64, others: impl IntoIterator<Item = (String, u64)>) {
        if self.verdict != Verdict::No {
            return;
        }
        let rest = self.total_bytes.saturating_sub(self.weight_bytes);
        let weights = |bytes: u64| u128::from(self.weight_bytes) * u128::from(bytes) / u128::from(own_bytes.max(1));
        let total = |bytes: u64| rest.saturating_add(u64::try_from(weights(bytes)).unwrap_or(u64::MAX));
        let fits =
            |bytes: u64| bytes < own_bytes && self.limits.memory_bytes.is_some_and(|memory| total(bytes) <= memory);
        let found = others.into_iter().find(|(_, bytes)| fits(*bytes));
        if let Some((reference, bytes)) = found {
            let (options, total_bytes) = (ChangedOptions::default(), total(bytes));
            let after = self.choices.iter().take_while(|choice| choice.options.backend.is_none()).count();
            self.choices.insert(after, Choice { options, reference: Some(reference), total_bytes });
        }
    }
}
