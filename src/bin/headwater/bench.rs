//! `headwater bench`: speed, with the counts that do not depend on the machine.

use headwater::engine::{BenchRequest, CountersPerToken, Rate};
use headwater::error::Result;

use crate::args::BenchArgs;
use crate::model;
use crate::output::{print_json, print_line};

pub(crate) async fn run(args: &BenchArgs) -> Result<()> {
    let engine = model::load(&args.common).await?;
    let request = BenchRequest { prefill: args.pp, decode: args.tg, depth: args.depth };
    let report = engine.bench(&request).await?;
    if args.common.json {
        return print_json(&report);
    }
    for note in &report.notes {
        print_line(&format!("note: {note}"))?;
    }
    if let Some(backend) = &report.backend {
        print_line(&format!("{} on {} ({})", report.model, backend.name, backend.device))?;
    }
    let rate = |name: &str, rate: &Rate, counters: &CountersPerToken| {
        print_line(&format!(
            "{name} of {} tokens at depth {}: {:.1} tokens/s\n  \
             each token: {:.2} dispatches, {:.3} passes, {:.3} submits, {:.3} writes, {:.3} objects made, {:.1} bytes read back",
            rate.tokens,
            report.depth,
            rate.tokens_per_second,
            counters.dispatches,
            counters.passes,
            counters.submits,
            counters.writes,
            counters.objects,
            counters.read_bytes,
        ))
    };
    rate("prefill", &report.prefill, &report.prefill_counters)?;
    rate("decode", &report.decode, &report.decode_counters)?;
    print_line(&format!("  {} bytes read for each token, {} tokens to a submit", report.bytes_per_token, report.chain))
}
