//! Keys and values in blocks of eight and four bits: the GPU against the interpreter, which keeps the same blocks, at every
//! way of cutting heads into blocks; and heads that cannot be cut.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

mod common;
#[path = "common/synthetic.rs"]
mod synthetic;

use common::nmse;
use headwater::cpu::Cpu;
use headwater::error::ErrorKind;
use headwater::gpu::{Device, Gpu};
use headwater::graph::{Backend, KvFormat, Row, StateSlots, Step};
use headwater::model::{WeightSink, plan, read_weights};
use pollster::block_on;
use synthetic::{Shape, synthetic};

const N_PAGES: usize = 4;
const BLOCKS: [KvFormat; 2] = [KvFormat::Q8_0, KvFormat::Q4_0];
/// A number beside a border between two codes may fall on either side of it; measured at most 1.8e-9 in eight
/// bits and 3.4e-7 in four.
const NMSE: f64 = 1e-4;

fn shape(head_dim: usize) -> Shape {
    Shape { head_dim, ..Shape::default() }
}

/// The logits of 100 rows, in three steps.
fn logits<B: Backend + WeightSink>(shape: &Shape, make: impl FnOnce(&headwater::model::Plan) -> B) -> Vec<f32> {
    let checkpoint = synthetic(shape, 7);
    let plan = plan(&checkpoint).unwrap();
    let mut backend = make(&plan);
    block_on(read_weights(&checkpoint, &plan, &mut backend, &mut |_, _| Ok(()))).unwrap();
    let row = |position: u32| Row { token: (position * 37 + 11) % 160, position, sequence: 0, segment: 0 };
    let rows: Vec<Row> = (0..100).map(row).collect();
    let (pages, outputs) = ([(0..N_PAGES as u32).rev().collect::<Vec<u32>>()], (0..33).collect::<Vec<u32>>());
    let step = |rows: &[Row]| {
        let outputs = &outputs[..rows.len()];
        block_on(backend.forward(&Step { rows, pages: &pages, states: &[StateSlots::default()], outputs })).unwrap()
    };
    rows.chunks(33).flat_map(step).collect()
}

#[test]
fn blocks_of_the_device_are_those_of_the_interpreter() {
    let mut failures = vec![];
    for head_dim in [64, 96, 16, 40, 8] {
        let shape = shape(head_dim);
        let exact = logits(&shape, |plan| Cpu::new(plan, KvFormat::F32, N_PAGES).unwrap());
        for kv in BLOCKS {
            let expected = logits(&shape, |plan| Cpu::new(plan, kv, N_PAGES).unwrap());
            let cost = nmse(&expected, &exact);
            for device in common::TEAMS.map(common::device) {
                let found = logits(&shape, |plan| block_on(Gpu::new(&device, plan, kv, N_PAGES)).unwrap());
                let error = nmse(&found, &expected);
                println!("heads of {head_dim}, {}: {error:.1e}; the blocks cost {cost:.1e}", kv.name());
                if error > NMSE || cost < 10.0 * error.max(1e-6) {
                    failures.push(format!("heads of {head_dim}, {}: {error:.1e} beside {cost:.1e}", kv.name()));
                }
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn heads_that_cannot_be_cut_are_refused_by_name() {
    let device = block_on(Device::of_thread()).expect("an adapter; software Vulkan will do");
    let plan = plan(&synthetic(&shape(20), 7)).unwrap();
    for kv in BLOCKS {
        let cpu = Cpu::new(&plan, kv, N_PAGES).err().unwrap();
        let gpu = block_on(Gpu::new(&device, &plan, kv, N_PAGES)).err().unwrap();
        for error in [cpu, gpu] {
            assert_eq!((error.kind(), error.place().as_str()), (ErrorKind::UnsupportedFormat, "blk.0.attn"));
            let words = format!("heads of 20 elements cannot be kept as {}", kv.name());
            assert!(error.message().contains(&words), "{error}");
        }
    }
}
