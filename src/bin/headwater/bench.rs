//! `headwater bench`: speed, with the counts that do not depend on the machine.

use std::time::Instant;

use headwater::engine::{BenchReport, BenchRequest, CountersPerToken, Profile, Rate, SpeculationRates};
use headwater::error::Result;
use headwater::graph::KernelTime;
use serde::Serialize;

use crate::args::BenchArgs;
use crate::model;
use crate::output::{print_json, print_line};

/// What loading took.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Load {
    elapsed_secs: f64,
    /// Bytes of the device's buffers; 0 on the CPU.
    allocated_bytes: u64,
}

/// What is printed as JSON.
#[derive(Serialize)]
struct Report {
    load: Load,
    #[serde(flatten)]
    report: BenchReport,
}

pub(crate) async fn run(args: &BenchArgs) -> Result<()> {
    let began = Instant::now();
    let engine = model::load(&args.common).await?;
    let load =
        Load { elapsed_secs: began.elapsed().as_secs_f64(), allocated_bytes: engine.stats().counters.buffer_bytes };
    let request = BenchRequest {
        prefill: args.pp,
        decode: args.tg,
        depth: args.depth,
        replies: args.replies,
        speculation: args.speculation,
        profile: args.profile,
    };
    let report = engine.bench(&request).await?;
    if args.common.json {
        return print_json(&Report { load, report });
    }
    print_line(&format!("loaded in {:.2} s, {} bytes allocated", load.elapsed_secs, load.allocated_bytes))?;
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
    if let Some(together) = &report.together {
        let (rate, replies) = (together.tokens_per_second, args.replies);
        print_line(&format!("{replies} replies side by side: {rate:.1} tokens/s in all"))?;
    }
    for (rates, what) in report.speculation.iter().flatten().zip(["copies", "does not copy"]) {
        let SpeculationRates { plain, drafted, counts } = rates;
        print_line(&format!(
            "a reply that {what}: {:.1} tokens/s, with drafts {:.1} ({:.2} times; {} of {} ids in {} steps)",
            plain.tokens_per_second,
            drafted.tokens_per_second,
            drafted.tokens_per_second / plain.tokens_per_second.max(f64::MIN_POSITIVE),
            counts.accepted,
            counts.drafted,
            counts.steps,
        ))?;
    }
    let (cold_ms, cached_ms) = (report.prefill.elapsed_secs * 1e3, report.cached.elapsed_secs * 1e3);
    print_line(&format!(
        "first id of that prompt after {cold_ms:.1} ms; after {cached_ms:.1} ms ({:.2} of that) where all but {} tokens are cached",
        cached_ms / cold_ms.max(f64::MIN_POSITIVE),
        report.cached.tokens,
    ))?;
    if let Some(Profile { prompt_secs, prefill_tokens, prefill, decode }) = &report.profile {
        let kernels_ms = prompt_secs * 1e3;
        let times = cold_ms / kernels_ms.max(f64::MIN_POSITIVE);
        print_line(&format!("its kernels take {kernels_ms:.1} ms: the first id comes after {times:.2} times that"))?;
        print_kernels(&format!("a chunk of {prefill_tokens} tokens"), prefill)?;
        print_kernels("one token", decode)?;
    }
    print_line(&format!("  {} bytes read for each token, {} tokens to a submit", report.bytes_per_token, report.chain))
}

/// A line a kernel: its time, its part of all, its launches, and what of.
fn print_kernels(of: &str, times: &[KernelTime]) -> Result<()> {
    let all_secs: f64 = times.iter().map(|time| time.secs).sum();
    print_line(&format!("kernels of {of}: {:.3} ms", all_secs * 1e3))?;
    for KernelTime { kernel, format, shape, dispatches, secs } in times {
        let matrix = shape.map_or(String::new(), |[rows, cols]| format!("{rows} x {cols} "));
        let (ms, part) = (secs * 1e3, 100.0 * secs / all_secs.max(f64::MIN_POSITIVE));
        let format = format.as_deref().unwrap_or_default();
        print_line(&format!("  {ms:9.3} ms {part:5.1} %  {dispatches:4} x {kernel} {matrix}{format}"))?;
    }
    Ok(())
}
