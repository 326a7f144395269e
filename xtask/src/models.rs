//! The table of docs/models.md: what was measured, model by model and backend by backend, in the last run of the tests.
//!
//! The parity tests leave their figures in `target/tmp/parity`. The table must have exactly their models, families,
//! formats and backends, and no figure may have become much worse than it says; `--update` writes it anew.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::paths;

/// The columns: file of figures, heading, whether keys and values were of 16 bits.
const COLUMNS: &[(&str, &str)] = &[
    ("cpu-exact", "CPU"),
    ("gpu-exact", "GPU"),
    ("chromium-exact", "Chromium"),
    ("cpu-everyday", "CPU, f16 cache"),
    ("gpu-everyday", "GPU, f16 cache"),
];

const DOCUMENT: &str = "docs/models.md";
const BEGIN: &str = "<!-- table: written by `cargo xtask test --only models --update` -->";
const END: &str = "<!-- end of the table -->";

/// A figure may be so much worse than the table says before it counts as a change: other processors add in other orders.
const SLACK: f64 = 30.0;
/// Below this nothing is told apart: it is the rounding of the references.
const FLOOR: f64 = 1e-11;

/// One model: family, container, formats, and a figure for each column.
#[derive(Clone, Debug, PartialEq)]
struct Row {
    cells: [String; 4],
    figures: Vec<Option<f64>>,
}

/// Compares the table with the figures of the last run, or writes it.
pub(crate) fn run(update: bool) -> Result<()> {
    let measured = measured()?;
    let path = paths::at(DOCUMENT);
    let document = fs::read_to_string(&path).with_context(|| format!("cannot read {DOCUMENT}"))?;
    let (before, rest) = document.split_once(BEGIN).with_context(|| format!("{DOCUMENT} has no line {BEGIN}"))?;
    let (table, after) = rest.split_once(END).with_context(|| format!("{DOCUMENT} has no line {END}"))?;
    if update {
        fs::write(&path, format!("{before}{BEGIN}\n\n{}\n{END}{after}", write_table(&measured)))?;
        println!("{DOCUMENT}: {} models", measured.len());
        return Ok(());
    }
    let faults = compare(&read_table(table)?, &measured);
    if faults.is_empty() {
        println!("{DOCUMENT}: {} models, as measured", measured.len());
        return Ok(());
    }
    bail!(
        "{DOCUMENT} is not what was measured; where that is right: cargo xtask test --only models --update\n{}",
        faults.join("\n")
    )
}

fn measured() -> Result<Vec<Row>> {
    let mut rows: Vec<Row> = vec![];
    let mut of_name: BTreeMap<String, usize> = BTreeMap::new();
    for (column, (file, _)) in COLUMNS.iter().enumerate() {
        let path = paths::at(&format!("target/tmp/parity/{file}.json"));
        let text = fs::read_to_string(&path)
            .with_context(|| format!("no figures of {file}; the steps rust and browser leave them"))?;
        let list: Vec<Value> = serde_json::from_str(&text).with_context(|| format!("{}", path.display()))?;
        for model in list {
            let text = |key: &str| model[key].as_str().unwrap_or_default().to_owned();
            let index = *of_name.entry(text("name")).or_insert_with(|| {
                let cells = [text("name"), text("family"), text("container"), text("formats")];
                rows.push(Row { cells, figures: vec![None; COLUMNS.len()] });
                rows.len() - 1
            });
            rows[index].figures[column] = model["nmse"].as_f64();
        }
    }
    rows.sort_by(|a, b| (&a.cells[1], &a.cells[2], &a.cells[0]).cmp(&(&b.cells[1], &b.cells[2], &b.cells[0])));
    Ok(rows)
}

fn write_table(rows: &[Row]) -> String {
    let headings: String = COLUMNS.iter().map(|(_, heading)| format!(" {heading} |")).collect();
    let mut table =
        format!("| model | family | files | formats |{headings}\n|---|---|---|---|{}\n", "---|".repeat(COLUMNS.len()));
    for row in rows {
        let figures: String = row.figures.iter().map(|figure| format!(" {} |", cell(*figure))).collect();
        let _ = writeln!(table, "| {} |{figures}", row.cells.join(" | "));
    }
    table
}

fn cell(figure: Option<f64>) -> String {
    figure.map_or_else(|| "-".to_owned(), |figure| if figure == 0.0 { "0".into() } else { format!("{figure:.0e}") })
}

fn read_table(table: &str) -> Result<Vec<Row>> {
    let lines = table.lines().filter(|line| line.starts_with('|')).skip(2);
    let row = |line: &str| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [name, family, container, formats, figures @ ..] = cells.as_slice() else {
            bail!("a row of {} cells: {line}", cells.len());
        };
        let figures = figures.iter().map(|text| text.parse().ok()).collect();
        Ok(Row { cells: [name, family, container, formats].map(|text| (*text).to_owned()), figures })
    };
    lines.map(row).collect()
}

/// What the table says and the run does not, and the other way round.
fn compare(written: &[Row], measured: &[Row]) -> Vec<String> {
    let mut faults = vec![];
    for row in written.iter().filter(|row| !measured.iter().any(|other| other.cells == row.cells)) {
        faults.push(format!("in the table, not measured: {}", row.cells.join(", ")));
    }
    for row in measured {
        let Some(said) = written.iter().find(|other| other.cells == row.cells) else {
            faults.push(format!("measured, not in the table: {}", row.cells.join(", ")));
            continue;
        };
        for ((found, said), (_, column)) in row.figures.iter().zip(&said.figures).zip(COLUMNS) {
            let holds = match (found, said) {
                (Some(found), Some(said)) => *found <= said.max(FLOOR) * SLACK,
                (found, said) => found.is_some() == said.is_some(),
            };
            if !holds {
                faults.push(format!(
                    "{}, {column}: {} where the table says {}",
                    row.cells[0],
                    cell(*found),
                    cell(*said)
                ));
            }
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, figures: &[Option<f64>]) -> Row {
        let mut all = vec![None; COLUMNS.len()];
        all[..figures.len()].copy_from_slice(figures);
        Row { cells: [name, "llama", "GGUF", "q4_0, f32"].map(str::to_owned), figures: all }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let rows = [row("a", &[Some(2e-13), Some(0.0), None]), row("b", &[None])];
        assert_eq!(read_table(&write_table(&rows)).unwrap(), rows);
    }

    #[test]
    fn another_model_a_missing_backend_and_a_worse_figure_are_told() {
        let said = [row("a", &[Some(1e-9), Some(1e-9)])];
        assert!(compare(&said, &[row("a", &[Some(2e-9), Some(1e-13)])]).is_empty());
        assert_eq!(compare(&said, &[row("a", &[Some(1e-7), Some(1e-9)])]).len(), 1);
        assert_eq!(compare(&said, &[row("a", &[Some(1e-9), None])]).len(), 1);
        assert_eq!(compare(&said, &[row("b", &[Some(1e-9), Some(1e-9)])]).len(), 2);
    }
}
