//! Several sequences decoded together: each has the ids that it has alone, and a step costs what one row's does.

mod common;
#[path = "common/synthetic.rs"]
mod synthetic;

use common::TEAMS;
use headwater::cpu::Cpu;
use headwater::gpu::{Device, DeviceOptions, Gpu, Teams};
use headwater::graph::{
    BAD_LOGITS, Backend, Batch, BatchRow, Counters, Decode, KvFormat, PAGE_TOKENS, Row, SamplerSettings, StateSlots,
    Step,
};
use headwater::model::{WeightSink, plan, read_weights};
use headwater::quant::FormatId;
use pollster::block_on;
use synthetic::{Mixture, Shape, synthetic};

const N_PAGES: usize = 24;

fn fill<B: WeightSink>(shape: &Shape, make: impl FnOnce(&headwater::model::Plan) -> B) -> B {
    let checkpoint = synthetic(shape, 7);
    let plan = plan(&checkpoint).expect("a valid model");
    let mut backend = make(&plan);
    block_on(read_weights(&checkpoint, &plan, &mut backend, &mut |_, _| Ok(()))).expect("weights");
    backend
}

fn of(teams: Teams) -> DeviceOptions {
    DeviceOptions { teams: Some(teams), ..DeviceOptions::default() }
}

fn gpu(shape: &Shape, options: DeviceOptions, kv: KvFormat) -> Gpu {
    on(block_on(Device::open(options)).expect("an adapter; software Vulkan will do"), shape, kv)
}

fn gpu_on(shape: &Shape, with: impl FnOnce(Device) -> Device, kv: KvFormat) -> Gpu {
    on(with(block_on(Device::open(DeviceOptions::default())).expect("an adapter")), shape, kv)
}

fn on(device: Device, shape: &Shape, kv: KvFormat) -> Gpu {
    fill(shape, |plan| block_on(Gpu::new(&device, plan, kv, N_PAGES)).expect("a model"))
}

fn cpu(shape: &Shape) -> Cpu {
    fill(shape, |plan| Cpu::new(plan, KvFormat::F16, N_PAGES).expect("room"))
}

/// A reply: its prompt, how its ids are chosen, and the pages that it has.
struct Reply {
    prompt: Vec<u32>,
    sampler: SamplerSettings,
    pages: Vec<u32>,
}

/// Replies of different lengths and kinds, in pages that lie across each other.
fn replies(vocab: usize) -> Vec<Reply> {
    let samplers = [
        SamplerSettings::default(),
        SamplerSettings { temperature: 0.9, top_k: 40, top_p: 0.95, seed: 5, ..SamplerSettings::default() },
        SamplerSettings {
            temperature: 0.7,
            min_p: 0.02,
            repetition_penalty: 1.3,
            presence_penalty: 0.4,
            frequency_penalty: 0.2,
            seed: 77,
            ..SamplerSettings::default()
        },
        SamplerSettings { repetition_penalty: 1.5, ..SamplerSettings::default() },
    ];
    let reply = |(at, sampler): (usize, SamplerSettings)| Reply {
        prompt: (0..7 + 29 * at).map(|i| ((i * 37 + 11 * (at + 1)) % vocab) as u32).collect(),
        sampler,
        pages: (0..N_PAGES as u32 / 4).rev().map(|page| page * 4 + at as u32).collect(),
    };
    samplers.into_iter().enumerate().map(reply).collect()
}

/// Computes the prompt and chooses the first id.
fn begin(backend: &dyn Backend, reply: &Reply) -> u32 {
    backend.start_reply(&reply.sampler, &reply.prompt, &[]).expect("a reply");
    let row = |(position, &token)| Row { token, position, sequence: 0, segment: 0 };
    let rows: Vec<Row> = (0u32..).zip(&reply.prompt).map(row).collect();
    let outputs = [rows.len() as u32 - 1];
    let pages = std::slice::from_ref(&reply.pages);
    let step = Step { rows: &rows, pages, states: &[StateSlots::default()], outputs: &outputs };
    let ticket = backend.prefill(&step).expect("prefill").expect("an output");
    block_on(backend.collect(ticket)).expect("an id")[0]
}

/// The ids of a reply that is alone.
fn alone(backend: &dyn Backend, reply: &Reply, chains: &[u32]) -> Vec<u32> {
    let mut ids = vec![begin(backend, reply)];
    for count in chains {
        let position = (reply.prompt.len() + ids.len() - 1) as u32;
        let (index, states) = (ids.len() as u32, StateSlots::default());
        let chain = Decode { token: None, position, count: *count, pages: &reply.pages, states, index };
        let ticket = backend.decode(&chain).expect("decode");
        ids.extend(block_on(backend.collect(ticket)).expect("ids"));
    }
    ids
}

/// One chain of replies that have some ids already; `places` are those that they were started in.
fn together(
    backend: &dyn Backend,
    replies: &[&Reply],
    ids: &mut [Vec<u32>],
    places: &[u32],
    count: u32,
    goes_on: bool,
) {
    let rows: Vec<BatchRow<'_>> = replies
        .iter()
        .zip(ids.iter().zip(places))
        .map(|(reply, (ids, place))| BatchRow {
            token: if goes_on { 0 } else { *ids.last().expect("an id") },
            position: (reply.prompt.len() + ids.len() - 1) as u32,
            pages: &reply.pages,
            index: ids.len() as u32,
            place: *place,
        })
        .collect();
    let ticket = backend.decode_batch(&Batch { rows: &rows, count, goes_on }).expect("a batch");
    let made = block_on(backend.collect(ticket)).expect("ids");
    assert_eq!(made.len(), replies.len() * count as usize);
    ids.iter_mut().zip(made.chunks_exact(count as usize)).for_each(|(ids, made)| ids.extend(made));
}

fn same_ids(backend: &dyn Backend, vocab: usize) {
    let replies = replies(vocab);
    let chains = [3, 3, 5, 2];
    let expected: Vec<Vec<u32>> = replies.iter().map(|reply| alone(backend, reply, &chains)).collect();

    block_on(backend.prepare_batches(replies.len())).expect("room");
    let mut ids: Vec<Vec<u32>> = replies.iter().map(|reply| vec![begin(backend, reply)]).collect();
    let places = [3, 0, 7, 1];
    for ((reply, ids), place) in replies.iter().zip(&ids).zip(places) {
        backend.start_place(place, &reply.sampler, &reply.prompt, ids).expect("a place");
    }
    let all: Vec<&Reply> = replies.iter().collect();
    together(backend, &all, &mut ids, &places, 3, false);
    together(backend, &all, &mut ids, &places, 3, true);
    // Two go on without the others, in another order, by the program for two.
    block_on(backend.prepare_batches(2)).expect("room");
    let (some, some_places) = ([all[2], all[1]], [places[2], places[1]]);
    let mut of_some = vec![ids[2].clone(), ids[1].clone()];
    together(backend, &some, &mut of_some, &some_places, 5, false);
    (ids[2], ids[1]) = (of_some[0].clone(), of_some[1].clone());
    let last = [all[0], all[3]];
    let mut of_last = vec![ids[0].clone(), ids[3].clone()];
    together(backend, &last, &mut of_last, &[places[0], places[3]], 5, false);
    (ids[0], ids[3]) = (of_last[0].clone(), of_last[1].clone());
    together(backend, &all, &mut ids, &places, 2, false);
    assert_eq!(ids, expected);
}

/// The last of a reply's ids and those that are expected after it, as rows of one batch in the reply's own pages: the ids
/// that they give.
fn verify(backend: &dyn Backend, reply: &Reply, ids: &[u32], draft: &[u32]) -> Vec<u32> {
    let tokens: Vec<u32> = ids.last().into_iter().chain(draft).copied().collect();
    backend.start_place(2, &reply.sampler, &reply.prompt, ids).expect("a place");
    let (position, index) = ((reply.prompt.len() + ids.len() - 1) as u32, ids.len() as u32);
    let row = |(at, token): (u32, &u32)| BatchRow {
        token: *token,
        position: position + at,
        pages: &reply.pages,
        index: index + at,
        place: 2,
    };
    let rows: Vec<BatchRow<'_>> = (0..).zip(&tokens).map(row).collect();
    block_on(backend.prepare_batches(rows.len())).expect("room");
    let ticket = backend.decode_batch(&Batch { rows: &rows, count: 1, goes_on: false }).expect("a batch");
    block_on(backend.collect(ticket)).expect("ids")
}

fn same_drafts(backend: &dyn Backend, vocab: usize) {
    block_on(backend.prepare_batches(1)).expect("room");
    // Drafts of different lengths, across pages and past their ends, wrong from a place on or right.
    let drafts = [(3, 3), (7, 7), (7, 2), (3, 0), (1, 1), (7, 6), (5, 5), (7, 7), (2, 1), (7, 7)];
    for reply in replies(vocab).iter().filter(|reply| !reply.sampler.penalises()) {
        let expected = alone(backend, reply, &[16; 4]);
        let mut ids = vec![begin(backend, reply)];
        for (len, right) in drafts {
            let mut draft = expected[ids.len()..][..len].to_vec();
            draft.iter_mut().skip(right).for_each(|id| *id = (*id + 1) % vocab as u32);
            let made = verify(backend, reply, &ids, &draft);
            assert_eq!(made.len(), len + 1);
            assert_eq!(made[..=right], expected[ids.len()..][..=right], "{right} of {len} after {}", ids.len());
            ids.extend(&made[..=right]);
        }
        // A chain goes on from there.
        backend.start_reply(&reply.sampler, &reply.prompt, &ids).expect("a reply");
        let (position, index) = ((reply.prompt.len() + ids.len() - 1) as u32, ids.len() as u32);
        let states = StateSlots::default();
        let chain = Decode { token: ids.last().copied(), position, count: 8, pages: &reply.pages, states, index };
        ids.extend(block_on(backend.collect(backend.decode(&chain).expect("decode"))).expect("ids"));
        assert_eq!(ids, expected[..ids.len()]);
    }
}

fn mixture() -> Shape {
    let experts = Mixture { count: 8, used: 3, ffn_dim: 40, bias: false, keys: &[] };
    Shape { architecture: "qwen3moe", dim: 72, n_heads: 3, n_kv_heads: 1, experts: Some(experts), ..Shape::default() }
}

#[test]
fn rows_of_a_batch_have_the_ids_that_they_have_alone() {
    let quantised = |format| Shape { format, dim: 96, ffn_dim: 160, ..Shape::default() };
    for shape in [Shape { tied: true, ..Shape::default() }, quantised(FormatId::Q4_0), quantised(FormatId::Q8_0)] {
        same_ids(&cpu(&shape), shape.vocab);
        for teams in TEAMS {
            same_ids(&gpu(&shape, of(teams), KvFormat::F16), shape.vocab);
            same_ids(
                &gpu_on(&shape, |device| device.with_teams(teams).with_rounding(true), KvFormat::F16),
                shape.vocab,
            );
        }
    }
    let plain = DeviceOptions { subgroups: false, ..of(Teams::Workgroup) };
    same_ids(&gpu(&Shape::default(), plain, KvFormat::Q8_0), Shape::default().vocab);
}

#[test]
fn rows_of_one_sequence_have_the_ids_of_a_chain() {
    let quantised = |format| Shape { format, dim: 96, ffn_dim: 160, ..Shape::default() };
    for shape in [Shape { tied: true, ..Shape::default() }, quantised(FormatId::Q4_0), mixture()] {
        same_drafts(&cpu(&shape), shape.vocab);
        for teams in TEAMS {
            same_drafts(&gpu(&shape, of(teams), KvFormat::F16), shape.vocab);
        }
    }
    let shape = quantised(FormatId::Q8_0);
    for kv in [KvFormat::Q8_0, KvFormat::F16] {
        same_drafts(&gpu_on(&shape, |device| device.with_rounding(true), kv), shape.vocab);
    }
    let plain = DeviceOptions { subgroups: false, ..of(Teams::Workgroup) };
    same_drafts(&gpu(&Shape::default(), plain, KvFormat::F32), Shape::default().vocab);
}

#[test]
fn a_step_of_a_batch_costs_what_one_row_does() {
    let shape = Shape { n_layers: 3, tied: true, ..Shape::default() };
    let gpu = gpu(&shape, of(Teams::Workgroup), KvFormat::F16);
    let replies = replies(shape.vocab);
    let (chain, states) = (gpu.decode_chain(), StateSlots::default());
    let spent = |before: Counters, count: fn(&Counters) -> u64| count(&gpu.counters()) - count(&before);

    let first = begin(&gpu, &replies[0]);
    let before = gpu.counters();
    let position = replies[0].prompt.len() as u32;
    let one = Decode { token: Some(first), position, count: chain, pages: &replies[0].pages, states, index: 1 };
    block_on(gpu.collect(gpu.decode(&one).expect("decode"))).expect("ids");
    let dispatches = spent(before, |c| c.dispatches);

    let mut ids: Vec<Vec<u32>> = replies.iter().map(|reply| vec![begin(&gpu, reply)]).collect();
    block_on(gpu.prepare_batches(replies.len())).expect("room");
    let before = gpu.counters();
    block_on(gpu.prepare_batches(3)).expect("nothing to do");
    assert_eq!(gpu.counters(), before, "batches are prepared once");
    for ((reply, ids), place) in replies.iter().zip(&ids).zip(0..) {
        gpu.start_place(place, &reply.sampler, &reply.prompt, ids).expect("a place");
    }
    let all: Vec<&Reply> = replies.iter().collect();
    together(&gpu, &all, &mut ids, &[0, 1, 2, 3], chain, false);
    let before = gpu.counters();
    together(&gpu, &all, &mut ids, &[0, 1, 2, 3], chain, true);
    assert_eq!(spent(before, |c| c.dispatches), dispatches);
    assert_eq!((spent(before, |c| c.writes), spent(before, |c| c.submits)), (1, 1));
    assert_eq!(spent(before, |c| c.passes), u64::from(chain));
    assert_eq!(spent(before, |c| c.read_bytes), 4 * 4 * u64::from(chain));
    assert!(spent(before, |c| c.write_bytes) <= 1024);
    assert_eq!(spent(before, |c| c.buffers + c.bind_groups + c.pipelines), 0);
}

#[test]
fn what_a_batch_cannot_be_is_refused() {
    let shape = Shape::default();
    let on_gpu = Box::new(gpu(&shape, of(Teams::Workgroup), KvFormat::F16)) as Box<dyn Backend>;
    for backend in [Box::new(cpu(&shape)), on_gpu] {
        block_on(backend.prepare_batches(1)).expect("room");
        assert!(block_on(backend.prepare_batches(9)).is_err() || backend.info().name == "cpu", "there are no such");
        let (settings, pages) = (SamplerSettings::default(), [0, 1]);
        backend.start_place(0, &settings, &[1], &[]).expect("a place");
        assert!(backend.start_place(8, &settings, &[1], &[]).is_err(), "there are eight places");
        let row = BatchRow { token: 1, position: 0, pages: &pages, index: 1, place: 0 };
        let refused =
            |rows: &[BatchRow<'_>], count, goes_on| backend.decode_batch(&Batch { rows, count, goes_on }).is_err();
        assert!(refused(&[], 1, false) && refused(&[row; 9], 1, false) && refused(&[row], 0, false));
        assert!(refused(&[BatchRow { token: shape.vocab as u32, ..row }], 1, false), "a token that there is not");
        assert!(refused(&[BatchRow { position: 2 * PAGE_TOKENS as u32, ..row }], 1, false), "past the pages");
        assert!(refused(&[BatchRow { pages: &[N_PAGES as u32], ..row }], 1, false), "a page that there is not");
        assert!(refused(&[BatchRow { place: 5, ..row }], 1, false), "a place without a reply");
        assert!(refused(&[row], 1, true), "nothing to go on from");
        let ticket = backend.decode_batch(&Batch { rows: &[row], count: 1, goes_on: false }).expect("a batch");
        assert_ne!(block_on(backend.collect(ticket)).expect("an id"), [BAD_LOGITS]);
    }
}

#[test]
fn experts_are_chosen_row_by_row() {
    let shape = mixture();
    same_ids(&cpu(&shape), shape.vocab);
    for teams in TEAMS {
        same_ids(&gpu(&shape, of(teams), KvFormat::F16), shape.vocab);
    }
}

#[test]
fn a_page_is_copied_whole() {
    let shape = Shape::default();
    let on_gpu = |kv| Box::new(gpu(&shape, of(Teams::Workgroup), kv)) as Box<dyn Backend>;
    for backend in [Box::new(cpu(&shape)), on_gpu(KvFormat::F16), on_gpu(KvFormat::Q8_0)] {
        let reply = Reply { pages: vec![0, 1], ..replies(shape.vocab).remove(1) };
        let expected = alone(&*backend, &reply, &[4]);
        let first = begin(&*backend, &reply);
        backend.copy_page(0, 5).expect("a page");
        backend.copy_page(1, 9).expect("a page");
        // The originals are written over.
        let other = Reply { pages: vec![0, 1], ..replies(shape.vocab).remove(0) };
        begin(&*backend, &other);
        backend.start_reply(&reply.sampler, &reply.prompt, &[first]).expect("a reply");
        let (position, states) = (reply.prompt.len() as u32, StateSlots::default());
        let chain = Decode { token: Some(first), position, count: 4, pages: &[5, 9], states, index: 1 };
        let ids = block_on(backend.collect(backend.decode(&chain).expect("decode"))).expect("ids");
        assert_eq!(ids, expected[1..]);
        assert!(backend.copy_page(0, N_PAGES as u32).is_err());
    }
}
