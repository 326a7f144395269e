//! The project's own commands, run as `cargo xtask <command>`: demo, test, bench, pkg, fuzz.
//!
//! Each brings what it needs (the wasm compiler, npm packages, a browser), says so before it does, and does it once.
//! Machines with nothing but cargo and npm are the ones it is written for.

#![forbid(unsafe_code)]
#![warn(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bench;
mod browser;
mod demo;
mod fuzz;
mod lm_eval;
mod models;
mod npm;
mod packages;
mod paths;
mod peers;
mod pkg;
mod process;
mod python;
mod serve;
mod split;
mod stamp;
mod synthetic;
mod sysroot;
mod test;
mod toolchain;
mod wasm;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Headwater's own commands.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build what is missing and serve the demo page on this machine; --ask answers in the terminal
    Demo(demo::Options),
    /// Everything that continuous integration checks, in the same order
    Test(test::Options),
    /// Measure decoding and prefill, native and (--browser) in a headless browser
    Bench(bench::Options),
    /// Build the npm package: wasm, JavaScript, types; report its size and fail above the budget
    Pkg(pkg::Options),
    /// Run the fuzz targets with cargo-fuzz
    Fuzz(fuzz::Options),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Demo(options) => demo::main(&options),
        Command::Test(options) => test::main(&options),
        Command::Bench(options) => bench::main(&options),
        Command::Pkg(options) => pkg::main(&options),
        Command::Fuzz(options) => fuzz::main(&options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
