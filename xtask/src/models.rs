//! The tables of docs/models.md: what was measured, model by model and backend by backend, in the last run of the tests.
//!
//! The parity tests leave their figures in `target/tmp/parity`. The tables must have exactly their models, families,
//! formats and backends, and no figure may have become much worse than they say; `--update` writes them anew.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::paths;

/// A table of the document.
struct Table {
    /// What its models are.
    of: &'static str,
    /// The line before it.
    begin: &'static str,
    /// File of figures and heading of each column.
    columns: &'static [(&'static str, &'static str)],
}

const ENCODERS: Table = Table {
    of: "encoders",
    begin: "<!-- encoders: written by `cargo xtask test --only models --update` -->",
    columns: &[
        ("encoders-cpu", "CPU"),
        ("encoders-gpu", "GPU"),
        ("embeddings-cpu", "embeddings, CPU"),
        ("embeddings-gpu", "embeddings, GPU"),
        ("embeddings-chromium", "embeddings, Chromium"),
    ],
};

const DECODERS: Table = Table {
    of: "decoders",
    begin: "<!-- table: written by `cargo xtask test --only models --update` -->",
    columns: &[
        ("cpu-exact", "CPU"),
        ("gpu-exact", "GPU"),
        ("chromium-exact", "Chromium"),
        ("cpu-everyday", "CPU, f16 cache"),
        ("gpu-everyday", "GPU, f16 cache"),
    ],
};

const DOCUMENT: &str = "docs/models.md";
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

/// The browser tries a choice of the models every day, and all of them in a sweep.
const CHOICE: &str = "chromium-exact";

/// Compares the tables with the figures of the last run; after a `sweep` no figure may be missing.
pub(crate) fn run(sweep: bool) -> Result<()> {
    [ENCODERS, DECODERS].iter().try_for_each(|table| table.run(sweep))
}

/// Writes the tables from the figures of the last run; what it did not measure stays.
pub(crate) fn update() -> Result<()> {
    [ENCODERS, DECODERS].iter().try_for_each(Table::update)
}

impl Table {
    /// What stands before, in and after the table in the document.
    fn split(&self) -> Result<[String; 3]> {
        let document = fs::read_to_string(paths::at(DOCUMENT)).with_context(|| format!("cannot read {DOCUMENT}"))?;
        let (before, rest) =
            document.split_once(self.begin).with_context(|| format!("{DOCUMENT} has no line {}", self.begin))?;
        let (table, after) = rest.split_once(END).with_context(|| format!("{DOCUMENT} has no line {END}"))?;
        Ok([before, table, after].map(str::to_owned))
    }

    fn update(&self) -> Result<()> {
        let mut measured = self.measured()?;
        let [before, table, after] = self.split()?;
        let written = read_table(&table)?;
        for row in &mut measured {
            let Some(said) = written.iter().find(|other| other.cells == row.cells) else { continue };
            for ((found, said), (file, _)) in row.figures.iter_mut().zip(&said.figures).zip(self.columns) {
                *found = found.or(said.filter(|_| *file == CHOICE));
            }
        }
        fs::write(paths::at(DOCUMENT), format!("{before}{}\n\n{}\n{END}{after}", self.begin, self.write(&measured)))?;
        println!("{DOCUMENT}: {} {}", measured.len(), self.of);
        Ok(())
    }

    fn run(&self, sweep: bool) -> Result<()> {
        let measured = self.measured()?;
        let [_, table, _] = self.split()?;
        let faults = self.compare(&read_table(&table)?, &measured, sweep);
        if faults.is_empty() {
            println!("{DOCUMENT}: {} {}, as measured", measured.len(), self.of);
            return Ok(());
        }
        bail!(
            "{DOCUMENT} is not what was measured; where that is right: cargo xtask test --only models --update\n{}",
            faults.join("\n")
        )
    }

    fn measured(&self) -> Result<Vec<Row>> {
        let mut rows: Vec<Row> = vec![];
        let mut of_name: BTreeMap<String, usize> = BTreeMap::new();
        for (column, (file, _)) in self.columns.iter().enumerate() {
            let path = paths::at(&format!("target/tmp/parity/{file}.json"));
            let text = fs::read_to_string(&path)
                .with_context(|| format!("no figures of {file}; the steps rust and browser leave them"))?;
            let list: Vec<Value> = serde_json::from_str(&text).with_context(|| format!("{}", path.display()))?;
            for model in list {
                let text = |key: &str| model[key].as_str().unwrap_or_default().to_owned();
                let index = *of_name.entry(text("name")).or_insert_with(|| {
                    let cells = [text("name"), text("family"), text("container"), text("formats")];
                    rows.push(Row { cells, figures: vec![None; self.columns.len()] });
                    rows.len() - 1
                });
                rows[index].figures[column] = model["nmse"].as_f64();
            }
        }
        rows.sort_by(|a, b| (&a.cells[1], &a.cells[2], &a.cells[0]).cmp(&(&b.cells[1], &b.cells[2], &b.cells[0])));
        Ok(rows)
    }

    fn write(&self, rows: &[Row]) -> String {
        let headings: String = self.columns.iter().map(|(_, heading)| format!(" {heading} |")).collect();
        let mut table = format!(
            "| model | family | files | formats |{headings}\n|---|---|---|---|{}\n",
            "---|".repeat(self.columns.len())
        );
        for row in rows {
            let figures: String = row.figures.iter().map(|figure| format!(" {} |", cell(*figure))).collect();
            let _ = writeln!(table, "| {} |{figures}", row.cells.join(" | "));
        }
        table
    }

    /// What the table says and the run does not, and the other way round.
    fn compare(&self, written: &[Row], measured: &[Row], sweep: bool) -> Vec<String> {
        let mut faults = vec![];
        for row in written.iter().filter(|row| !measured.iter().any(|other| other.cells == row.cells)) {
            faults.push(format!("in the table, not measured: {}", row.cells.join(", ")));
        }
        for row in measured {
            let Some(said) = written.iter().find(|other| other.cells == row.cells) else {
                faults.push(format!("measured, not in the table: {}", row.cells.join(", ")));
                continue;
            };
            for ((found, said), (file, column)) in row.figures.iter().zip(&said.figures).zip(self.columns) {
                let holds = match (found, said) {
                    (Some(found), Some(said)) => *found <= said.max(FLOOR) * SLACK,
                    (None, Some(_)) => *file == CHOICE && !sweep,
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

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, figures: &[Option<f64>]) -> Row {
        let mut all = vec![None; DECODERS.columns.len()];
        all[..figures.len()].copy_from_slice(figures);
        Row { cells: [name, "llama", "GGUF", "q4_0, f32"].map(str::to_owned), figures: all }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let rows = [row("a", &[Some(2e-13), Some(0.0), None]), row("b", &[None])];
        assert_eq!(read_table(&DECODERS.write(&rows)).unwrap(), rows);
    }

    #[test]
    fn another_model_a_missing_backend_and_a_worse_figure_are_told() {
        let said = [row("a", &[Some(1e-9), Some(1e-9)])];
        let faults = |measured: Row| DECODERS.compare(&said, &[measured], false).len();
        assert_eq!(faults(row("a", &[Some(2e-9), Some(1e-13)])), 0);
        assert_eq!(faults(row("a", &[Some(1e-7), Some(1e-9)])), 1);
        assert_eq!(faults(row("a", &[Some(1e-9), None])), 1);
        assert_eq!(faults(row("b", &[Some(1e-9), Some(1e-9)])), 2);
    }

    #[test]
    fn the_browser_may_leave_out_a_model_but_not_in_a_sweep() {
        let said = [row("a", &[Some(1e-9), Some(1e-9), Some(1e-9)])];
        let measured = [row("a", &[Some(1e-9), Some(1e-9), None])];
        assert!(DECODERS.compare(&said, &measured, false).is_empty());
        assert_eq!(DECODERS.compare(&said, &measured, true).len(), 1);
    }
}
