//! Which architecture a checkpoint is computed as: the one that it names, or the one that its user names; and what is
//! nearest where it names none that is known.

use std::collections::BTreeSet;

use super::{ARCHITECTURES, Architecture, Plan, PlanOptions, build};
use crate::error::{Error, ErrorKind, Result};
use crate::format::{Checkpoint, Dialect};

/// The option that names an architecture.
const OPTION: &str = "architecture";

/// Ends of the names of tensors that hold what is computed from the configuration, or what the headers gave already.
const NOT_WEIGHTS: &[&str] =
    &["rotary_emb.inv_freq", "rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"];

/// The architectures of a dialect by their names.
fn named(dialect: Dialect) -> impl Iterator<Item = (&'static str, &'static Architecture)> {
    ARCHITECTURES.iter().filter_map(move |architecture| Some((architecture.name(dialect)?, architecture)))
}

/// The plan of a checkpoint as the architecture that it names, or as the one that was asked for. The latter must use
/// every tensor: a weight that is left out is a wrong answer.
pub(super) fn plan(checkpoint: &Checkpoint, options: &PlanOptions) -> Result<Plan> {
    let dialect = checkpoint.metadata.dialect;
    let own = checkpoint.metadata.architecture.as_str();
    let name = options.architecture.as_deref().unwrap_or(own);
    let Some((name, architecture)) = named(dialect).find(|(known, _)| *known == name) else {
        let supported = named(dialect).map(|(known, _)| known).collect::<Vec<_>>().join(", ");
        if options.architecture.is_some() {
            let problem = format!("{name:?} is none of {supported}");
            return Err(Error::new(ErrorKind::InvalidArgument, problem).at(OPTION));
        }
        let mut problem = format!("the architecture {name:?} is not supported; supported are {supported}");
        if let Some(nearest) = nearest(checkpoint) {
            problem.push_str(&format!(
                "; its tensors and configuration fit {nearest:?}, and it is read as that where the option {OPTION} says so"
            ));
        }
        return Err(Error::new(ErrorKind::UnsupportedFormat, problem));
    };
    let plan = build(checkpoint, name, architecture, options)?;
    if name != own
        && let Some(unused) = unused(checkpoint, &plan)
    {
        let problem = format!("{name} has no such tensor");
        return Err(Error::new(ErrorKind::MalformedModel, problem).at(unused));
    }
    Ok(plan)
}

/// The first architecture of the table that has a place for every tensor and finds all of its own.
fn nearest(checkpoint: &Checkpoint) -> Option<&'static str> {
    let fits = |(name, architecture): &(&'static str, &'static Architecture)| {
        let plan = build(checkpoint, name, architecture, &PlanOptions::default());
        plan.is_ok_and(|plan| unused(checkpoint, &plan).is_none())
    };
    named(checkpoint.metadata.dialect).find(fits).map(|(name, _)| name)
}

/// A tensor that a plan does not read.
fn unused<'a>(checkpoint: &'a Checkpoint, plan: &Plan) -> Option<&'a str> {
    let used: BTreeSet<&str> = plan.tensors().collect();
    let head = |name: &str| plan.hyper.tied && matches!(name, "lm_head.weight" | "output.weight");
    let names = checkpoint.tensors.iter().map(|tensor| tensor.name.as_str());
    let mut left = names.filter(|name| !used.contains(name) && !head(name));
    left.find(|name| !NOT_WEIGHTS.iter().any(|end| name.ends_with(end)))
}
