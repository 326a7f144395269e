//! Calls of the CPU backend that make no sense are refused before anything is computed; bad numbers are told.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

mod common;

use common::{Sequence, open};
use headwater::cpu::Cpu;
use headwater::error::{ErrorKind, Result};
use headwater::format::Checkpoint;
use headwater::graph::{Backend, Decode, KvFormat, Row, SamplerSettings, StateSlots, Step, Ticket, WeightId};
use headwater::model::{Plan, WeightSink, plan, read_weights};

const HUB: &[&str] = &["tests/data/models/llama3/config.json", "tests/data/models/llama3/model.safetensors"];

fn load(checkpoint: &Checkpoint, plan: &Plan) -> Result<Cpu> {
    let mut cpu = Cpu::new(plan, KvFormat::F32, 4)?;
    pollster::block_on(read_weights(checkpoint, plan, &mut cpu, &mut |_, _| Ok(())))?;
    Ok(cpu)
}

/// Turns every weight of one tensor to NaN on its way.
struct Poison {
    cpu: Cpu,
    weight: WeightId,
}

impl WeightSink for Poison {
    fn rows(&mut self, weight: WeightId, first_row: usize, bytes: &[u8]) -> Result<()> {
        if weight == self.weight {
            return self.cpu.rows(weight, first_row, &vec![0xff; bytes.len()]);
        }
        self.cpu.rows(weight, first_row, bytes)
    }
}

fn rows(ids: &[u32]) -> Vec<Row> {
    ids.iter().zip(0..).map(|(token, position)| Row { token: *token, position, sequence: 0, segment: 0 }).collect()
}

#[test]
fn logits_that_are_not_numbers_are_bad_logits() {
    let checkpoint = open(HUB);
    let plan = plan(&checkpoint).unwrap();
    let weight = plan.graph.weights.iter().position(|weight| weight.name == "blk.1.ffn_up.weight").unwrap();
    let mut poison = Poison { cpu: Cpu::new(&plan, KvFormat::F16, 1).unwrap(), weight: WeightId(weight) };
    pollster::block_on(read_weights(&checkpoint, &plan, &mut poison, &mut |_, _| Ok(()))).unwrap();
    let cpu = poison.cpu;

    let rows = rows(&[1, 2, 3]);
    let step = Step { rows: &rows, pages: &[vec![0]], states: &[], outputs: &[2] };
    assert_eq!(pollster::block_on(cpu.forward(&step)).unwrap_err().kind(), ErrorKind::BadLogits);
    // A chain tells it when its ids are collected, as a GPU does.
    cpu.start_reply(&SamplerSettings::default(), &[1, 2, 3], &[]).unwrap();
    let ticket = cpu.prefill(&step).unwrap().unwrap();
    assert_eq!(pollster::block_on(cpu.collect(ticket)).unwrap_err().kind(), ErrorKind::BadLogits);
}

#[test]
fn steps_that_make_no_sense_are_invalid_arguments() {
    let checkpoint = open(HUB);
    let plan = plan(&checkpoint).unwrap();
    let cpu = load(&checkpoint, &plan).unwrap();
    let row = |token, position, sequence| Row { token, position, sequence, segment: 0 };
    let one_page = vec![vec![0]];
    let cases = [
        (vec![], one_page.clone(), vec![], "0 rows"),
        (vec![row(0, 0, 0); cpu.max_rows() + 1], one_page.clone(), vec![], "129 rows"),
        (vec![row(640, 0, 0)], one_page.clone(), vec![], "the id 640 is not below 640"),
        (vec![row(u32::MAX, 0, 0)], one_page.clone(), vec![], "the id 4294967295"),
        (vec![row(0, 32, 0)], one_page.clone(), vec![], "position 32 is past the 1 pages"),
        (vec![row(0, u32::MAX, 0)], one_page.clone(), vec![], "position 4294967295"),
        (vec![row(0, 0, 1)], one_page.clone(), vec![], "sequence 1 of 1"),
        (vec![row(0, 0, 0)], vec![vec![4]], vec![], "page 4 of 4"),
        (vec![row(0, 3, 0), row(0, 3, 0)], one_page.clone(), vec![], "does not ascend"),
        (vec![row(0, 0, 0)], one_page.clone(), vec![1], "output 1 of 1"),
    ];
    let mut failures = vec![];
    for (rows, pages, outputs, words) in &cases {
        let step = Step { rows, pages, states: &[], outputs };
        for error in [pollster::block_on(cpu.forward(&step)).err(), cpu.prefill(&step).err()] {
            let found = error.map(|error| (error.kind(), error.to_string()));
            match &found {
                Some((ErrorKind::InvalidArgument, text)) if text.starts_with("step: ") && text.contains(words) => {}
                _ => failures.push(format!("..{words}.. is needed, found: {found:?}")),
            }
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
}

#[test]
fn replies_that_make_no_sense_are_refused() {
    let checkpoint = open(HUB);
    let plan = plan(&checkpoint).unwrap();
    let cpu = load(&checkpoint, &plan).unwrap();
    let kind = |result: Result<_>| result.map(|_: Ticket| ()).unwrap_err().kind();

    let error = cpu.start_reply(&SamplerSettings::default(), &[3, 640], &[]).unwrap_err();
    assert_eq!((error.kind(), error.place().as_str()), (ErrorKind::InvalidArgument, "prompt"));

    cpu.start_reply(&SamplerSettings::default(), &[], &[]).unwrap();
    let chain = Decode { token: None, position: 0, count: 1, pages: &[0], states: StateSlots::default(), index: 0 };
    assert_eq!(kind(cpu.decode(&chain)), ErrorKind::InvalidArgument, "no id to go on from");
    assert_eq!(kind(cpu.decode(&Decode { token: Some(640), ..chain })), ErrorKind::InvalidArgument);
    assert_eq!(kind(cpu.decode(&Decode { token: Some(1), pages: &[], ..chain })), ErrorKind::InvalidArgument);
    let past = Decode { token: Some(1), position: 31, count: 2, ..chain };
    assert_eq!(kind(cpu.decode(&past)), ErrorKind::InvalidArgument, "past the pages");

    let two_outputs = Step { rows: &rows(&[1, 2]), pages: &[vec![0]], states: &[], outputs: &[0, 1] };
    assert_eq!(cpu.prefill(&two_outputs).unwrap_err().kind(), ErrorKind::InvalidArgument);

    // Two tickets may be open; they are collected in order; a new reply closes what is left.
    cpu.start_reply(&SamplerSettings::default(), &[], &[]).unwrap();
    let first = cpu.decode(&Decode { token: Some(1), ..chain }).unwrap();
    let second = cpu.decode(&Decode { position: 1, ..chain }).unwrap();
    assert_eq!(kind(cpu.decode(&Decode { position: 2, ..chain })), ErrorKind::Internal, "a third ticket");
    assert!(pollster::block_on(cpu.collect(first)).is_ok());
    cpu.start_reply(&SamplerSettings::default(), &[], &[]).unwrap();
    assert_eq!(pollster::block_on(cpu.collect(second)).unwrap_err().kind(), ErrorKind::Internal);
}

#[test]
fn a_backend_without_its_weights_says_so() {
    let plan = plan(&open(HUB)).unwrap();
    let cpu = Cpu::new(&plan, KvFormat::F16, 1).unwrap();
    let step = Step { rows: &rows(&[1]), pages: &[vec![0]], states: &[], outputs: &[0] };
    let error = pollster::block_on(cpu.forward(&step)).unwrap_err();
    assert_eq!((error.kind(), error.place().as_str()), (ErrorKind::Internal, "token_embd.weight"));
}

#[test]
fn rows_that_a_weight_lacks_are_refused() {
    let plan = plan(&open(HUB)).unwrap();
    let mut cpu = Cpu::new(&plan, KvFormat::F16, 1).unwrap();
    for (first_row, len) in [(640, 128), (0, 127), (0, 641 * 128)] {
        let error = cpu.rows(WeightId(0), first_row, &vec![0; len]).unwrap_err();
        assert_eq!((error.kind(), error.place().as_str()), (ErrorKind::Internal, "token_embd.weight"));
    }
    assert_eq!(cpu.rows(WeightId(usize::MAX), 0, &[]).unwrap_err().kind(), ErrorKind::Internal);
}

#[test]
fn more_pages_than_there_is_memory_for_are_a_limit() {
    let plan = plan(&open(HUB)).unwrap();
    for n_pages in [usize::MAX, usize::MAX / 4096] {
        let error = Cpu::new(&plan, KvFormat::F32, n_pages).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::LimitExceeded, "{n_pages}");
    }
}

#[test]
fn a_reply_depends_on_its_seed_and_not_on_the_length_of_chains() {
    let checkpoint = open(HUB);
    let plan = plan(&checkpoint).unwrap();
    let cpu = load(&checkpoint, &plan).unwrap();
    let reply = |seed, chain| {
        let settings = SamplerSettings { temperature: 1.5, top_p: 0.95, seed, ..SamplerSettings::default() };
        Sequence::new(&cpu).reply(&settings, &[632, 408, 149], 40, chain)
    };
    let whole = reply(1, 40);
    assert_eq!(whole, reply(1, 1));
    assert_eq!(whole, reply(1, 7));
    assert_ne!(whole, reply(2, 40));
}

#[test]
fn penalties_see_the_prompt_and_every_id_of_the_reply() {
    let checkpoint = open(HUB);
    let plan = plan(&checkpoint).unwrap();
    let cpu = load(&checkpoint, &plan).unwrap();
    let reply = |settings| Sequence::new(&cpu).reply(&settings, &[632, 408, 149], 100, 8);
    let distinct = |ids: &[u32]| ids.iter().collect::<std::collections::BTreeSet<_>>().len();
    assert!(distinct(&reply(SamplerSettings::default())) < 100, "the model repeats itself");
    let present = reply(SamplerSettings { presence_penalty: 100.0, ..SamplerSettings::default() });
    assert_eq!(distinct(&present), 100);

    // The id that would come first is in the prompt now.
    let first = reply(SamplerSettings::default())[0];
    let settings = SamplerSettings { repetition_penalty: 100.0, ..SamplerSettings::default() };
    cpu.start_reply(&settings, &[first], &[]).unwrap();
    let rows = rows(&[632, 408, 149]);
    let step = Step { rows: &rows, pages: &[vec![0]], states: &[], outputs: &[2] };
    let ticket = cpu.prefill(&step).unwrap().unwrap();
    assert_ne!(pollster::block_on(cpu.collect(ticket)).unwrap(), [first]);
}
