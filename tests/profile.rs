//! Times of kernels: every launch of a step is told once, by what it is of, and the step has done what it does untimed.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

mod common;
#[path = "common/synthetic.rs"]
mod synthetic;

use headwater::cpu::Cpu;
use headwater::error::ErrorKind;
use headwater::gpu::{Gpu, Teams};
use headwater::graph::{Backend, KvFormat, Row, StateSlots, Step};
use headwater::model::{plan, read_weights};
use pollster::block_on;
use synthetic::{Shape, synthetic};

fn gpu(shape: &Shape, teams: Teams) -> Gpu {
    let checkpoint = synthetic(shape, 7);
    let plan = plan(&checkpoint).unwrap();
    let mut gpu = block_on(Gpu::new(&common::device(teams), &plan, KvFormat::F32, 2)).unwrap();
    block_on(read_weights(&checkpoint, &plan, &mut gpu, &mut |_, _| Ok(()))).unwrap();
    gpu
}

#[test]
fn every_launch_is_told_and_the_step_is_done() {
    let shape = Shape { n_layers: 2, ..Shape::default() };
    let row = |position: u32| Row { token: position % 7, position, sequence: 0, segment: 0 };
    let rows: Vec<Row> = (0..21).map(row).collect();
    let (prompt, next) = rows.split_at(20);
    let (pages, states) = ([vec![1, 0]], [StateSlots::default()]);
    for (teams, product, products) in
        [(Teams::Workgroup, "matvec", "matmul"), (Teams::Invocation, "matvec_alone", "matmul_blocks")]
    {
        let (timed, plain) = (gpu(&shape, teams), gpu(&shape, teams));
        for (rows, output, kernel) in [(prompt, 19, products), (next, 0, product)] {
            let step = Step { rows, pages: &pages, states: &states, outputs: &[output] };
            let before = timed.counters().dispatches;
            let times = block_on(timed.profile(&step)).unwrap();
            let dispatches: u32 = times.iter().map(|time| time.dispatches).sum();
            assert_eq!(u64::from(dispatches), timed.counters().dispatches - before);
            assert!(times.iter().any(|time| time.kernel == kernel && time.format.is_some() && time.shape.is_some()));
            assert!(times.iter().map(|time| time.secs).sum::<f64>() > 0.0, "{times:?}");
            assert!(times.is_sorted_by(|a, b| a.secs >= b.secs), "{times:?}");
            block_on(plain.forward(&step)).unwrap();
        }
        // Keys and values of what was timed are there.
        let rows = [row(21)];
        let step = Step { rows: &rows, pages: &pages, states: &states, outputs: &[0] };
        assert_eq!(block_on(timed.forward(&step)).unwrap(), block_on(plain.forward(&step)).unwrap());
    }
}

#[test]
fn what_cannot_be_timed_is_refused() {
    let checkpoint = synthetic(&Shape::default(), 7);
    let cpu = Cpu::new(&plan(&checkpoint).unwrap(), KvFormat::F32, 1).unwrap();
    let rows = [Row::default()];
    let step = Step { rows: &rows, pages: &[vec![0]], states: &[StateSlots::default()], outputs: &[0] };
    let error = block_on(cpu.profile(&step)).unwrap_err();
    assert_eq!((error.kind(), error.place().as_str()), (ErrorKind::InvalidArgument, "profile"));
    let gpu = gpu(&Shape::default(), Teams::Workgroup);
    let bad = Step { pages: &[vec![9]], ..step };
    assert_eq!(block_on(gpu.profile(&bad)).unwrap_err().kind(), ErrorKind::InvalidArgument);
}
