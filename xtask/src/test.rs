//! `cargo xtask test`: everything that continuous integration checks, step by step, stopping at the first failure.

use std::ffi::OsStr;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::Args;

use crate::wasm::Effort;
use crate::{browser, lm_eval, models, npm, paths, pkg, process, serve, toolchain, wasm};

#[derive(Args)]
pub(crate) struct Options {
    /// Run only this step (may be repeated); a step that needs an earlier one's result finds or makes it
    #[arg(long, value_name = "STEP")]
    only: Vec<String>,
    /// Name the steps and end
    #[arg(long)]
    list: bool,
    /// Leave nothing out: in the browser every model, every shader and twenty kills of a download, not a choice of them; and
    /// lm-evaluation-harness itself
    #[arg(long)]
    sweep: bool,
    /// With --only models: write the table of docs/models.md from the figures of the last run
    #[arg(long)]
    update: bool,
}

/// One thing that is checked.
struct Step {
    name: &'static str,
    /// What it shows, in a few words.
    shows: &'static str,
    run: fn(&Options) -> Result<()>,
}

/// What is checked, quick steps first.
const STEPS: &[Step] = &[
    Step { name: "format", shows: "rustfmt has nothing to change", run: |_| format() },
    Step { name: "clippy", shows: "no lint on the native side, tests and tools included", run: |_| clippy() },
    Step { name: "rust", shows: "all Rust tests, on the CPU and on a native GPU", run: |_| rust() },
    Step { name: "docs", shows: "the documentation builds without a warning", run: |_| docs() },
    Step { name: "clippy-wasm", shows: "no lint on the library as the web gets it", run: |_| wasm::clippy() },
    Step { name: "wasm", shows: "the library builds for the web", run: |_| wasm::build(Effort::Full) },
    Step { name: "types", shows: "strict TypeScript: package, page, browser tests", run: |_| npm::build() },
    Step { name: "package", shows: "the npm package holds what it should, within its size budget", run: |_| package() },
    Step { name: "browser", shows: "package and page in a real headless browser, on WebGPU", run: in_browser },
    Step { name: "models", shows: "docs/models.md says what was measured", run: |options| models::run(options.sweep) },
    Step { name: LM_EVAL, shows: "lm-evaluation-harness gets the numbers of its own models", run: |_| lm_eval::run() },
];

/// Installs gigabytes, so it runs where it is named and in a sweep; what it found is recorded, and the Rust tests hold the
/// library to it every day.
const LM_EVAL: &str = "lm-eval";

pub(crate) fn main(options: &Options) -> Result<()> {
    if options.list {
        for step in STEPS {
            println!("{:<12} {}", step.name, step.shows);
        }
        return Ok(());
    }
    if options.update {
        return models::update();
    }
    let steps = choose(&options.only, options.sweep)?;
    let mut done: Vec<(&str, Duration, Option<anyhow::Error>)> = Vec::new();
    for (i, step) in steps.iter().enumerate() {
        println!("==> [{}/{}] {}: {}", i + 1, steps.len(), step.name, step.shows);
        let start = Instant::now();
        let error = (step.run)(options).err();
        let failed = error.is_some();
        done.push((step.name, start.elapsed(), error));
        if failed {
            break;
        }
    }
    summarise(&steps, &done)
}

fn choose(only: &[String], sweep: bool) -> Result<Vec<&'static Step>> {
    let names: Vec<&str> = STEPS.iter().map(|step| step.name).collect();
    if let Some(unknown) = only.iter().find(|name| !names.contains(&name.as_str())) {
        bail!("no step is called {unknown:?}; there are {}", names.join(", "));
    }
    let everyday = |step: &&Step| sweep || step.name != LM_EVAL;
    let named = |step: &&Step| only.iter().any(|name| name == step.name);
    Ok(STEPS.iter().filter(|step| if only.is_empty() { everyday(step) } else { named(step) }).collect())
}

/// Prints how each step went, and the count; an error where one failed.
fn summarise(steps: &[&Step], done: &[(&str, Duration, Option<anyhow::Error>)]) -> Result<()> {
    println!();
    for step in steps {
        match done.iter().find(|(name, ..)| *name == step.name) {
            Some((name, took, None)) => println!("passed   {name:<12} {:>7.1} s", took.as_secs_f64()),
            Some((name, took, Some(error))) => println!("FAILED   {name:<12} {:>7.1} s  {error:#}", took.as_secs_f64()),
            None => println!("not run  {}", step.name),
        }
    }
    let n_failed = done.iter().filter(|(.., error)| error.is_some()).count();
    let n_passed = done.len() - n_failed;
    let n_not_run = steps.len() - done.len();
    let not_run = if n_not_run > 0 { format!(", {n_not_run} not run") } else { String::new() };
    println!("{n_passed} passed, {n_failed} failed{not_run}");
    match done.iter().find(|(.., error)| error.is_some()) {
        Some((name, ..)) => bail!("step {name} failed; alone: cargo xtask test --only {name}"),
        None => Ok(()),
    }
}

/// The active toolchain's cargo, in the root.
fn cargo(arguments: &[&str]) -> Command {
    // The name under which cargo runs this program, so that both are of one toolchain.
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsStr::new("cargo").to_owned());
    let mut command = Command::new(cargo);
    command.current_dir(paths::root()).args(arguments);
    command
}

/// The active toolchain's rustfmt or clippy; where it came without, that of the compiler that builds for the web.
fn component(verb: &str) -> Result<Command> {
    if process::ask(&mut cargo(&[verb, "--version"])).is_some() {
        return Ok(cargo(&[verb]));
    }
    println!("the active toolchain has no `cargo {verb}`; taking that of the compiler for the web");
    let mut command = toolchain::ensure()?.cargo();
    command.current_dir(paths::root()).arg(verb);
    Ok(command)
}

fn format() -> Result<()> {
    process::run(component("fmt")?.args(["--all", "--check"]))
}

fn clippy() -> Result<()> {
    process::run(component("clippy")?.args(["--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"]))
}

fn rust() -> Result<()> {
    process::run(cargo(&["test", "--workspace"]).envs(browser::graphics()?))
}

fn docs() -> Result<()> {
    let mut cargo = cargo(&["doc", "--quiet", "--workspace", "--no-deps", "--document-private-items"]);
    process::run(cargo.env("RUSTDOCFLAGS", "-D warnings"))
}

fn package() -> Result<()> {
    pkg::build(Effort::Full)?;
    pkg::check_files()?;
    pkg::check_budget(pkg::report_size()?)
}

fn in_browser(options: &Options) -> Result<()> {
    pkg::build(Effort::Full)?;
    let chromium = browser::ensure()?;
    let address = serve::start(0, serve::test_site())?;
    let mut playwright = npm::script("test:browser");
    playwright.env("HEADWATER_CHROMIUM", chromium).env("HEADWATER_URL", format!("http://{address}/"));
    if options.sweep {
        playwright.env("HEADWATER_SWEEP", "1");
    }
    process::run(&mut playwright)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_chosen_by_name_and_stay_in_order() {
        let names = |only: &[&str]| {
            let only: Vec<String> = only.iter().map(|name| (*name).to_owned()).collect();
            choose(&only, false).map(|steps| steps.iter().map(|step| step.name).collect::<Vec<_>>())
        };
        assert_eq!(names(&[]).unwrap().len(), STEPS.len() - 1);
        assert_eq!(choose(&[], true).unwrap().len(), STEPS.len());
        assert_eq!(names(&["lm-eval"]).unwrap(), ["lm-eval"]);
        assert_eq!(names(&["wasm", "format"]).unwrap(), ["format", "wasm"]);
        let error = names(&["speling"]).unwrap_err().to_string();
        assert!(error.contains("speling") && error.contains("clippy-wasm"), "{error}");
    }

    #[test]
    fn a_failure_is_named_in_the_end() {
        let steps = choose(&[], true).unwrap();
        let took = Duration::from_secs(1);
        assert!(summarise(&steps, &steps.iter().map(|step| (step.name, took, None)).collect::<Vec<_>>()).is_ok());
        let done = [("format", took, None), ("clippy", took, Some(anyhow::anyhow!("a lint")))];
        let error = summarise(&steps, &done).unwrap_err().to_string();
        assert!(error.contains("step clippy failed"), "{error}");
    }
}
