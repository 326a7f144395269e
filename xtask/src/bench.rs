//! `cargo xtask bench`: decoding and prefill, measured native and in a headless browser, as one table.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::{Value, json};

use crate::wasm::Effort;
use crate::{browser, paths, pkg, process, serve};

/// The model measured where none is named: the one that comes with the project.
const EMBEDDED_MODEL: &str = "www/models/tiny-assistant/tiny-assistant-q8_0.gguf";

#[derive(Args)]
pub(crate) struct Options {
    /// Model file or folder (without it: the one that comes with the project)
    #[arg(long)]
    model: Option<PathBuf>,
    /// Measure in a headless Chromium too
    #[arg(long)]
    browser: bool,
    /// Print JSON: a list of what each edge reported, each with its `edge`
    #[arg(long)]
    json: bool,
}

/// The table's columns: heading, and the field of a report that fills it.
const COLUMNS: &[(&str, &str)] = &[
    ("edge", "edge"),
    ("device", "device"),
    ("model", "model"),
    ("bytes/token", "bytesPerToken"),
    ("prefill tok/s", "prefillTokensPerSecond"),
    ("decode tok/s", "decodeTokensPerSecond"),
    ("dispatches/token", "dispatchesPerToken"),
    ("submits/token", "submitsPerToken"),
    ("objects/token", "objectsPerToken"),
];

pub(crate) fn main(options: &Options) -> Result<()> {
    let model = options.model.clone().unwrap_or_else(|| paths::at(EMBEDDED_MODEL));
    if !model.exists() {
        bail!("no model at {}", model.display());
    }
    let mut reports = vec![native(&model)?];
    if options.browser {
        reports.push(in_browser(&model)?);
    }
    if options.json {
        println!("{:#}", Value::Array(reports));
    } else {
        print!("{}", table(&reports));
    }
    Ok(())
}

fn native(model: &Path) -> Result<Value> {
    process::run(Command::new("cargo").current_dir(paths::root()).args([
        "build",
        "--release",
        "--quiet",
        "--bin",
        "headwater",
    ]))?;
    let mut headwater = Command::new(paths::at("target/release/headwater"));
    let report = process::output(headwater.args(["bench", "--json"]).arg(model).envs(browser::graphics()?))?;
    labelled("native", &report)
}

fn in_browser(model: &Path) -> Result<Value> {
    pkg::build(Effort::Full)?;
    let chromium = browser::ensure()?;
    let address = serve::start(0, serve::test_mounts())?;
    let report = process::output(
        Command::new("node")
            .current_dir(paths::root())
            .arg("tests/browser/bench.mjs")
            .arg(model)
            .env("HEADWATER_CHROMIUM", chromium)
            .env("HEADWATER_URL", format!("http://{address}/")),
    )?;
    labelled("browser", &report)
}

/// An edge's report with the edge's name in front.
fn labelled(edge: &str, report: &str) -> Result<Value> {
    let mut report: Value =
        serde_json::from_str(report).with_context(|| format!("the {edge} benchmark did not print JSON: {report}"))?;
    let fields = report.as_object_mut().with_context(|| format!("the {edge} benchmark did not print an object"))?;
    fields.insert("edge".to_owned(), json!(edge));
    Ok(report)
}

/// Columns as wide as their widest word; a figure that was not reported is a dash.
fn table(reports: &[Value]) -> String {
    let mut rows: Vec<Vec<String>> = vec![COLUMNS.iter().map(|(heading, _)| (*heading).to_owned()).collect()];
    rows.extend(reports.iter().map(|report| COLUMNS.iter().map(|(_, field)| cell(&report[*field])).collect()));
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..COLUMNS.len()).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Number(number) => match number.as_f64() {
            Some(figure) if figure.fract() != 0.0 => format!("{figure:.3}"),
            _ => number.to_string(),
        },
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_lines_up_and_shows_what_is_missing() {
        let report =
            labelled("native", r#"{"device":"a device","decodeTokensPerSecond":12.34567,"dispatchesPerToken":40}"#);
        let text = table(&[report.unwrap()]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0].find("device"), lines[1].find("a device"));
        assert_eq!(lines[0].find("decode tok/s"), lines[1].find("12.346"));
        assert_eq!(lines[0].find("bytes/token").and_then(|at| lines[1].get(at..=at)), Some("-"));
    }

    #[test]
    fn words_that_are_not_a_report_are_an_error() {
        assert!(labelled("native", "panicked").unwrap_err().to_string().contains("panicked"));
        assert!(labelled("native", "[]").is_err());
    }
}
