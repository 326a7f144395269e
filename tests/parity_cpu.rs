//! The CPU backend against the references: logits, greedy continuations, hidden states.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

mod common;

use common::parity::Parity;
use common::{CASES, Goldens, LONGROPE, Report, Sequence, nmse, open, pages_for};
use headwater::cpu::Cpu;
use headwater::error::Result;
use headwater::graph::{Backend, KvFormat, Row, StateSlots, Step};
use headwater::model::{Plan, PlanOptions, plan, plan_with, read_weights};

/// What the references' own rounding leaves, squared and relative: they differ from each other by 2e-5 in logits of a
/// deviation of 2.5.
const NMSE: f64 = 1e-11;

/// With activations rounded to 16 bits, which costs 7.5e-8 at most.
const ROUNDED_NMSE: f64 = 1e-7;

const PARITY: Parity<'static> =
    Parity { load: &|files, options, kv, pages| Box::new(load(files, options, kv, pages)), nmse: NMSE, chunks: 0.0 };

/// Every day's activations.
const ROUNDED: Parity<'static> = Parity {
    load: &|files, options, kv, pages| Box::new(make(Cpu::rounding, files, options, kv, pages)),
    nmse: ROUNDED_NMSE,
    chunks: 0.0,
};

type Make = fn(&Plan, KvFormat, usize) -> Result<Cpu>;

fn load(files: &[&str], options: &PlanOptions, kv: KvFormat, n_pages: usize) -> Cpu {
    make(Cpu::new, files, options, kv, n_pages)
}

fn make(make: Make, files: &[&str], options: &PlanOptions, kv: KvFormat, n_pages: usize) -> Cpu {
    let checkpoint = open(files);
    let plan = plan_with(&checkpoint, options).unwrap_or_else(|error| panic!("{files:?}: {error}"));
    let mut cpu = make(&plan, kv, n_pages).unwrap();
    pollster::block_on(read_weights(&checkpoint, &plan, &mut cpu, &mut |_, _| Ok(()))).unwrap();
    cpu
}

#[test]
fn logits_and_continuations_equal_the_goldens() {
    PARITY.exact("cpu-exact");
}

#[test]
fn the_context_chooses_among_rotations() {
    PARITY.by_context();
}

/// Models that choose experts: where another one is chosen, logits have nothing to do with each other.
const EXPERTS: &[&str] = &["mixtral", "moe", "MOE", "gpt-oss", "llama4", "deepseek"];

#[test]
fn blocks_of_keys_and_values_cost_what_they_may() {
    let experts = |name: &str| EXPERTS.iter().any(|part| name.contains(part));
    PARITY.blocks(|name| !name.contains("transformers 5") && !experts(name));
}

#[test]
fn everyday_precision_costs_little() {
    ROUNDED.everyday("cpu-everyday");
}

#[test]
fn tiny_assistant_answers_as_its_reference_does() {
    PARITY.replies();
}

#[test]
fn rounded_activations_cost_almost_nothing() {
    ROUNDED.exact("cpu-rounded");
    ROUNDED.replies();
}

/// Forced decoding: at every position of every prompt and continuation, the id that floats would choose.
#[test]
fn rounded_activations_choose_as_floats_do() {
    let (mut positions, mut same, mut models) = (0_usize, 0_usize, 0);
    for case in CASES {
        let quantize = case.files.iter().any(|file| file.ends_with(".safetensors")).then(|| "q4_k".to_owned());
        let options = PlanOptions { quantize, ..PlanOptions::default() };
        let goldens = Goldens::read(case.goldens);
        let pages = pages_for(&goldens);
        let [floats, rounded] =
            [Cpu::new as Make, Cpu::rounding].map(|how| make(how, case.files, &options, KvFormat::F16, pages));
        for prompt in &goldens.prompts {
            let ids: Vec<u32> = prompt.ids.iter().chain(&prompt.greedy).copied().collect();
            let [expected, found] = [&floats, &rounded].map(|cpu| Sequence::new(cpu).all_logits(&ids, 128));
            let vocab = expected.len() / ids.len();
            for (expected, found) in expected.chunks_exact(vocab).zip(found.chunks_exact(vocab)) {
                let best = |logits: &[f32]| (0..vocab).max_by(|a, b| logits[*a].total_cmp(&logits[*b]));
                positions += 1;
                same += usize::from(best(expected) == best(found));
            }
        }
        models += 1;
    }
    println!("{same} of {positions} positions in {models} models");
    assert!(positions > 2000 && same as f64 >= 0.998 * positions as f64, "{same} of {positions}");
}

#[test]
fn hidden_states_equal_the_goldens() {
    let mut report = Report::default();
    for case in CASES {
        let goldens = Goldens::read(case.goldens);
        let Some(golden) = goldens.tensor("short", "hidden") else { continue };
        let cpu = load(case.files, &PlanOptions::default(), KvFormat::F32, pages_for(&goldens));
        let ids = &goldens.prompts.iter().find(|prompt| prompt.name == "short").unwrap().ids;
        let rows: Vec<Row> = ids
            .iter()
            .zip(0..)
            .map(|(token, position)| Row { token: *token, position, sequence: 0, segment: 0 })
            .collect();
        let outputs: Vec<u32> = (0..rows.len() as u32).collect();
        let pages = [(0..cpu.n_pages() as u32).collect()];
        let n_layers = plan(&open(case.files)).unwrap().hyper.n_layers;
        // The reference counts the last layer after the final norm.
        let mut states = vec!["token_embd".to_owned()];
        states.extend((0..n_layers - 1).map(|layer| format!("blk.{layer}.ffn_residual")));
        states.push("output_norm".into());
        let mut hidden = vec![];
        let mut seen = 0;
        cpu.trace(
            &Step { rows: &rows, pages: &pages, states: &[StateSlots::default()], outputs: &outputs },
            &mut |name, _, value| {
                if states.iter().any(|state| state == name) {
                    hidden.extend_from_slice(value);
                    seen += 1;
                }
            },
        )
        .unwrap();
        assert_eq!(seen, states.len(), "{}: states seen", case.name);
        report.at_most(format!("{}, hidden states, NMSE", case.name), nmse(&hidden, golden), NMSE);
    }
    report.finish();
}

#[test]
fn both_layouts_of_a_configuration_give_the_same_model() {
    // R1's distills were written by one version of transformers, so they have one layout.
    for case in CASES.iter().chain([&LONGROPE]).filter(|case| !case.name.starts_with("r1-")) {
        let Some(config) = case.files.first().filter(|file| file.ends_with("/config.json")) else { continue };
        let newer = config.replace("config.json", "config.v5.json=config.json");
        let mut files = case.files.to_vec();
        files[0] = &newer;
        let (hub, newer) = (plan(&open(case.files)).unwrap(), plan(&open(&files)).unwrap());
        assert_eq!(hub.hyper, newer.hyper, "{}", case.name);
        assert_eq!(hub.graph, newer.graph, "{}", case.name);
    }
}
