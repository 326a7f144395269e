//! `headwater`: the engine at the command line. An edge like the browser's: files, clock, chance and the executor are
//! chosen here, everything else is the library.
#![forbid(unsafe_code)]

mod args;
mod bench;
mod embed;
mod fit;
mod generate;
mod hub;
mod inspect;
mod lines;
mod logits;
mod model;
mod output;
mod pull;
mod rerank;
mod score;
mod source;
mod store;
mod tokenize;

use std::process::ExitCode;

use clap::Parser;
use headwater::error::{Error, ErrorKind, Result};

use args::{Cli, Command};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        // Whoever reads JSON reads it for misspelt flags too; whether it was asked for is known without parsing.
        Err(error) if error.use_stderr() && std::env::args_os().any(|arg| arg == "--json") => {
            let words = error.render().to_string();
            let words = words.trim().strip_prefix("error: ").unwrap_or(words.trim()).to_owned();
            return output::fail(&Error::new(ErrorKind::InvalidArgument, words), true);
        }
        Err(error) => error.exit(),
    };
    match pollster::block_on(run(&cli.command)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => output::fail(&error, cli.command.json()),
    }
}

async fn run(command: &Command) -> Result<()> {
    match command {
        Command::Generate(args) => generate::run(args).await,
        Command::Logits(args) => logits::run(args).await,
        Command::Embed(args) => embed::run(args).await,
        Command::Rerank(args) => rerank::run(args).await,
        Command::Score(args) => score::run(args).await,
        Command::Tokenize(args) => tokenize::run(args).await,
        Command::Inspect(args) => inspect::run(args).await,
        Command::Fit(args) => fit::run(args).await,
        Command::Bench(args) => bench::run(args).await,
        Command::Pull(args) => pull::run(args).await,
        Command::Store(args) => store::run(args).await,
    }
}
