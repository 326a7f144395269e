//! `cargo xtask demo`: the demo page, served; or one question to it, answered in the terminal.

use std::process::Command;
use std::thread;

use anyhow::Result;
use clap::Args;

use crate::wasm::Effort;
use crate::{browser, paths, peers, pkg, process, serve};

#[derive(Args)]
pub(crate) struct Options {
    /// Port on 127.0.0.1
    #[arg(long, default_value_t = 8080)]
    port: u16,
    /// Ask the page this in a headless Chromium, stream the answer to standard output, and end
    #[arg(long, value_name = "TEXT")]
    ask: Option<String>,
    /// Build without optimisation, for trying a change
    #[arg(long)]
    quick: bool,
    /// Serve the tests' own pages and data at /tests/ too
    #[arg(long)]
    tests: bool,
    /// Install wllama, another engine, and serve the bench page so that it can measure beside it
    #[arg(long)]
    peers: bool,
}

pub(crate) fn main(options: &Options) -> Result<()> {
    pkg::build(if options.quick { Effort::Quick } else { Effort::Full })?;
    if let Some(question) = &options.ask {
        return ask(question);
    }
    let mut site = if options.tests { serve::test_site() } else { serve::demo_site() };
    if options.peers {
        site = site.with_peers(&peers::packages()?);
    }
    let address = serve::start(options.port, site)?;
    println!("the demo page: http://{address}/ (Ctrl-C ends)");
    if options.peers {
        println!("the bench page: http://{address}/bench.html?peers");
    }
    loop {
        thread::park();
    }
}

/// Drives the page a visitor would see.
fn ask(question: &str) -> Result<()> {
    let chromium = browser::ensure()?;
    let address = serve::start(0, serve::demo_site())?;
    process::run(
        Command::new("node")
            .current_dir(paths::root())
            .arg("tests/browser/ask.mjs")
            .arg(question)
            .env("HEADWATER_CHROMIUM", chromium)
            .env("HEADWATER_URL", format!("http://{address}/")),
    )
}
