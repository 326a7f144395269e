//! The CPU backend against the references: logits, greedy continuations, hidden states.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

mod common;

use common::{
    CASES, Goldens, Report, TINY_ASSISTANT, check_chunks, check_greedy, check_logits, check_replies, nmse, open,
    pages_for,
};
use headwater::cpu::Cpu;
use headwater::graph::{Backend, KvFormat, PAGE_TOKENS, Row, Step};
use headwater::model::{plan, read_weights};

/// What the references' own rounding leaves, squared and relative: they differ from each other by 2e-5 in logits of a
/// deviation of 2.5.
const NMSE: f64 = 1e-11;

fn load(files: &[&str], kv: KvFormat, n_pages: usize) -> Cpu {
    let checkpoint = open(files);
    let plan = plan(&checkpoint).unwrap_or_else(|error| panic!("{files:?}: {error}"));
    let mut cpu = Cpu::new(&plan, kv, n_pages).unwrap();
    pollster::block_on(read_weights(&checkpoint, &plan, &mut cpu, &mut |_, _| Ok(()))).unwrap();
    cpu
}

#[test]
fn logits_and_continuations_equal_the_goldens() {
    let mut report = Report::default();
    for case in CASES {
        let goldens = Goldens::read(case.goldens);
        let cpu = load(case.files, KvFormat::F32, pages_for(&goldens));
        check_logits(&cpu, case.name, &goldens, NMSE, &mut report);
        check_greedy(&cpu, case.name, &goldens, 0.01, &mut report);
        check_chunks(&cpu, case.name, &goldens, 0.0, &mut report);
    }
    report.finish();
}

#[test]
fn half_precision_keys_and_values_cost_little() {
    let mut report = Report::default();
    for case in CASES {
        let goldens = Goldens::read(case.goldens);
        let cpu = load(case.files, KvFormat::F16, pages_for(&goldens));
        check_logits(&cpu, case.name, &goldens, 1e-6, &mut report);
        check_greedy(&cpu, case.name, &goldens, 0.03, &mut report);
    }
    report.finish();
}

#[test]
fn hidden_states_equal_the_goldens() {
    let mut report = Report::default();
    for case in CASES {
        let goldens = Goldens::read(case.goldens);
        let Some(golden) = goldens.tensor("short", "hidden") else { continue };
        let cpu = load(case.files, KvFormat::F32, pages_for(&goldens));
        let ids = &goldens.prompts.iter().find(|prompt| prompt.name == "short").unwrap().ids;
        let rows: Vec<Row> =
            ids.iter().zip(0..).map(|(token, position)| Row { token: *token, position, sequence: 0 }).collect();
        let outputs: Vec<u32> = (0..rows.len() as u32).collect();
        let pages = [(0..cpu.n_pages() as u32).collect()];
        let mut hidden = vec![];
        let mut widths = vec![];
        cpu.trace(&Step { rows: &rows, pages: &pages, outputs: &outputs }, &mut |name, width, value| {
            // The reference counts the last layer after the final norm.
            if ["token_embd", "blk.0.ffn_residual", "output_norm"].contains(&name) {
                hidden.extend_from_slice(value);
                widths.push(width);
            }
        })
        .unwrap();
        assert_eq!(widths.len(), 3, "{}: states seen", case.name);
        report.at_most(format!("{}, hidden states, NMSE", case.name), nmse(&hidden, golden), NMSE);
    }
    report.finish();
}

#[test]
fn tiny_assistant_answers_as_its_reference_does() {
    let mut report = Report::default();
    for case in TINY_ASSISTANT {
        let cpu = load(case.files, KvFormat::F32, 512 / PAGE_TOKENS);
        check_replies(&cpu, case, 1e-3, &mut report);
    }
    report.finish();
}
