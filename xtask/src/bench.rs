//! `cargo xtask bench`: decoding and prefill, measured native and in a headless browser, as one table.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::{Value, json};

use crate::wasm::Effort;
use crate::{browser, paths, peers, pkg, process, serve, synthetic};

/// The model measured where none is named: the one that comes with the project.
const EMBEDDED_MODEL: &str = "www/models/tiny-assistant/tiny-assistant-q8_0.gguf";

#[derive(Args)]
pub(crate) struct Options {
    /// Model file or folder (without it: the one that comes with the project)
    #[arg(long)]
    model: Option<PathBuf>,
    /// Measure a model of noise in the true shape of a published one (but for Qwen3-33M), native only: Qwen3-33M, Qwen3-0.6B, Llama-3.2-1B, Qwen3-4B,
    /// Llama-3.1-8B or Qwen3-30B-A3B; its file is written to target/synthetic
    #[arg(long, value_name = "NAME", conflicts_with_all = ["model", "browser"])]
    synthetic: Option<String>,
    /// Only write the file of --synthetic
    #[arg(long, requires = "synthetic")]
    write_only: bool,
    /// Tokens of context
    #[arg(long, conflicts_with = "browser")]
    context: Option<usize>,
    /// Tokens of the prompt that is timed
    #[arg(long, conflicts_with = "browser")]
    pp: Option<usize>,
    /// Tokens that are generated and timed
    #[arg(long, conflicts_with = "browser")]
    tg: Option<usize>,
    /// Measure in a headless Chromium too
    #[arg(long)]
    browser: bool,
    /// Measure beside wllama and transformers.js in one page of a headless Chromium, and natively beside llama.cpp, in
    /// turns: medians of five. Without a model: one of noise of 33 million weights in q8_0
    #[arg(long, conflicts_with_all = ["browser", "synthetic", "context", "pp", "tg"])]
    peers: bool,
    /// Print JSON: a list of what each edge reported, each with its `edge`
    #[arg(long)]
    json: bool,
}

/// The table's columns: heading, and where in a report the figure stands.
const COLUMNS: &[(&str, &str)] = &[
    ("edge", "/edge"),
    ("device", "/device"),
    ("model", "/model"),
    ("load s", "/load/elapsedSecs"),
    ("allocated bytes", "/load/allocatedBytes"),
    ("bytes/token", "/bytesPerToken"),
    ("prefill tok/s", "/prefill/tokensPerSecond"),
    ("decode tok/s", "/decode/tokensPerSecond"),
    ("dispatches/token", "/decodeCounters/dispatches"),
    ("submits/token", "/decodeCounters/submits"),
    ("objects/token", "/decodeCounters/objects"),
];

pub(crate) fn main(options: &Options) -> Result<()> {
    if options.peers {
        return peers(options);
    }
    let model = match (&options.synthetic, &options.model) {
        (Some(name), _) => synthetic::file(name)?,
        (None, Some(model)) => model.clone(),
        (None, None) => paths::at(EMBEDDED_MODEL),
    };
    if !model.exists() {
        bail!("no model at {}", model.display());
    }
    if options.write_only {
        println!("{}", model.display());
        return Ok(());
    }
    let mut reports = vec![native(&model, options)?];
    if options.browser {
        reports.push(in_browser(&model)?);
    }
    if options.json {
        println!("{:#}", Value::Array(reports));
    } else {
        print!("{}", table(COLUMNS, &reports));
    }
    Ok(())
}

/// The columns of a comparison with peers.
const PEER_COLUMNS: &[(&str, &str)] = &[
    ("engine", "/edge"),
    ("failed", "/failed"),
    ("prefill tok/s", "/prefill/tokensPerSecond"),
    ("decode tok/s", "/decode/tokensPerSecond"),
];

/// The model that peers are measured with where none is named.
const PEER_MODEL: &str = "Qwen3-33M-bytes";

fn peers(options: &Options) -> Result<()> {
    let model = options.model.clone().map_or_else(|| synthetic::file(PEER_MODEL), Ok)?;
    let reports = peers::reports(&model)?;
    if options.json {
        println!("{:#}", Value::Array(reports));
    } else {
        print!("{}", table(PEER_COLUMNS, &reports));
    }
    Ok(())
}

/// What a script that drives a browser prints about a model, the package being served to its page.
pub(crate) fn page_of(script: &Path, site: serve::Site, model: &Path) -> Result<String> {
    pkg::build(Effort::Full)?;
    let chromium = browser::ensure()?;
    let address = serve::start(0, site)?;
    process::output(
        Command::new("node")
            .current_dir(paths::root())
            .arg(script)
            .arg(model)
            .env("HEADWATER_CHROMIUM", chromium)
            .env("HEADWATER_URL", format!("http://{address}/")),
    )
}

/// The native program, built as it is released.
pub(crate) fn program() -> Result<PathBuf> {
    process::run(Command::new("cargo").current_dir(paths::root()).args([
        "build",
        "--release",
        "--quiet",
        "--bin",
        "headwater",
    ]))?;
    Ok(paths::at("target/release").join(format!("headwater{}", std::env::consts::EXE_SUFFIX)))
}

/// What `headwater bench --json` reports.
fn native(model: &Path, options: &Options) -> Result<Value> {
    let mut headwater = Command::new(program()?);
    headwater.args(["bench", "--json"]).arg(model).envs(browser::graphics()?);
    for (flag, number) in [("--context", options.context), ("--pp", options.pp), ("--tg", options.tg)] {
        if let Some(number) = number {
            headwater.arg(flag).arg(number.to_string());
        }
    }
    let report = read(&process::output(&mut headwater)?)?;
    let device = report["backend"]["device"].clone();
    Ok(labelled("native", device, report))
}

/// What the package's own benchmark reports in a page; the browser knows more about the device than the engine does.
fn in_browser(model: &Path) -> Result<Value> {
    let mut outcome = read(&page_of(&paths::at("tests/browser/bench.mjs"), serve::test_site(), model)?)?;
    let report = outcome["report"].take();
    Ok(labelled("browser", outcome["device"].take(), report))
}

fn read(report: &str) -> Result<Value> {
    let value: Value =
        serde_json::from_str(report).with_context(|| format!("the benchmark did not print JSON: {report}"))?;
    if !value.is_object() {
        bail!("the benchmark did not print a JSON object: {report}");
    }
    Ok(value)
}

/// A report with the names of its edge and device added.
fn labelled(edge: &str, device: Value, mut report: Value) -> Value {
    report["edge"] = json!(edge);
    report["device"] = device;
    report
}

/// Columns as wide as their widest word; a figure that was not reported is a dash.
fn table(columns: &[(&str, &str)], reports: &[Value]) -> String {
    let mut rows: Vec<Vec<String>> = vec![columns.iter().map(|(heading, _)| (*heading).to_owned()).collect()];
    rows.extend(reports.iter().map(|report| columns.iter().map(|(_, place)| cell(report.pointer(place))).collect()));
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

fn cell(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => match number.as_f64() {
            Some(figure) if figure.fract() != 0.0 => format!("{figure:.3}"),
            _ => number.to_string(),
        },
        Some(other) => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_lines_up_and_shows_what_is_missing() {
        let report = json!({ "decode": { "tokensPerSecond": 12.34567 }, "decodeCounters": { "dispatches": 40 } });
        let text = table(COLUMNS, &[labelled("native", json!("a device"), report)]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0].find("device"), lines[1].find("a device"));
        assert_eq!(lines[0].find("decode tok/s"), lines[1].find("12.346"));
        assert_eq!(lines[0].find("dispatches/token"), lines[1].find("40"));
        assert_eq!(lines[0].find("bytes/token").and_then(|at| lines[1].get(at..=at)), Some("-"));
    }

    #[test]
    fn words_that_are_not_a_report_are_an_error() {
        assert!(read("panicked").unwrap_err().to_string().contains("panicked"));
        assert!(read("[]").is_err());
    }
}
