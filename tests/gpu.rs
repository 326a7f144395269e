//! The GPU backend against the CPU interpreter on shapes made to be awkward, and its exact counts.

#[path = "common/synthetic.rs"]
mod synthetic;

use std::cell::RefCell;
use std::mem::ManuallyDrop;

use headwater::cpu::Cpu;
use headwater::gpu::{Device, DeviceOptions, FUSIONS, Gpu, Teams};
use headwater::graph::{
    Backend, Change, Counters, Decode, HeldChoice, KvFormat, PAGE_TOKENS, Row, SamplerSettings, StateSlots, Step, Top,
    TopAsk,
};
use headwater::model::{Plan, WeightSink, plan, read_weights};
use headwater::quant::FormatId;
use pollster::block_on;
use synthetic::{Mixture, Shape, representatives, synthetic};

/// Both backends compute in float32; only the order of additions differs.
const NMSE: f64 = 1e-10;

fn load(shape: &Shape, sink: &mut dyn FnMut(&Plan) -> Box<dyn WeightSinkBackend>) -> Box<dyn WeightSinkBackend> {
    let checkpoint = synthetic(shape, 7);
    let plan = plan(&checkpoint).expect("a valid model");
    let mut backend = sink(&plan);
    block_on(read_weights(&checkpoint, &plan, backend.sink(), &mut |_, _| Ok(()))).expect("weights");
    backend
}

trait WeightSinkBackend: Backend {
    fn sink(&mut self) -> &mut dyn WeightSink;
}

impl WeightSinkBackend for Cpu {
    fn sink(&mut self) -> &mut dyn WeightSink {
        self
    }
}

impl WeightSinkBackend for Gpu {
    fn sink(&mut self) -> &mut dyn WeightSink {
        self
    }
}

const N_PAGES: usize = 16;

const WORKGROUPS: DeviceOptions =
    DeviceOptions { subgroups: true, teams: Some(Teams::Workgroup), max_binding_bytes: None };

const ALONE: DeviceOptions = DeviceOptions { teams: Some(Teams::Invocation), ..WORKGROUPS };

/// Everything that kernels are made for.
const DIALECTS: [DeviceOptions; 3] = [WORKGROUPS, DeviceOptions { subgroups: false, ..WORKGROUPS }, ALONE];

/// A device with those options, opened once a thread: most of a test's time is the compiling of pipelines, and models of
/// one device share them.
fn device(options: DeviceOptions) -> Device {
    thread_local!(static OPEN: RefCell<Vec<(DeviceOptions, ManuallyDrop<Device>)>> = const { RefCell::new(vec![]) });
    OPEN.with_borrow_mut(|open| {
        if let Some((_, device)) = open.iter().find(|(known, _)| *known == options) {
            return device.counted_anew();
        }
        let device = block_on(Device::open(options)).expect("an adapter; software Vulkan will do");
        open.push((options, ManuallyDrop::new(device.clone())));
        device
    })
}

fn cpu(shape: &Shape) -> Box<dyn WeightSinkBackend> {
    load(shape, &mut |plan| Box::new(Cpu::new(plan, KvFormat::F32, N_PAGES).expect("room")))
}

fn gpu(shape: &Shape, options: DeviceOptions, kv: KvFormat, without: &[&str]) -> Box<dyn WeightSinkBackend> {
    let device = device(options);
    load(shape, &mut |plan| Box::new(block_on(Gpu::without(&device, plan, kv, N_PAGES, without)).expect("a model")))
}

fn tokens(count: usize, vocab: usize) -> Vec<u32> {
    (0..count).map(|i| ((i * 37 + 11) % vocab) as u32).collect()
}

/// Pages in an order that is not theirs.
fn pages(count: usize) -> Vec<u32> {
    (0..count as u32).rev().collect()
}

/// All logits of one sequence, in chunks of `chunk` rows.
fn logits(backend: &dyn Backend, tokens: &[u32], chunk: usize) -> Vec<f32> {
    let pages = [pages(tokens.len().div_ceil(PAGE_TOKENS))];
    let mut logits = vec![];
    for (index, part) in tokens.chunks(chunk).enumerate() {
        let first = (index * chunk) as u32;
        let rows: Vec<Row> =
            (first..).zip(part).map(|(position, &token)| Row { token, position, sequence: 0, segment: 0 }).collect();
        let outputs: Vec<u32> = (0..part.len() as u32).collect();
        logits.extend(
            block_on(backend.forward(&Step {
                rows: &rows,
                pages: &pages,
                states: &[StateSlots::default()],
                outputs: &outputs,
            }))
            .expect("logits"),
        );
    }
    logits
}

fn nmse(found: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let error: f64 = found.iter().zip(expected).map(|(a, b)| f64::from(a - b).powi(2)).sum();
    error / expected.iter().map(|b| f64::from(*b).powi(2)).sum::<f64>()
}

/// Greedy ids: a prefill, then chains of `chain` steps, the first two open at once.
fn greedy(backend: &dyn Backend, sampler: &SamplerSettings, prompt: &[u32], chain: u32, count: u32) -> Vec<u32> {
    let table = pages((prompt.len() + count as usize + 1).div_ceil(PAGE_TOKENS));
    backend.start_reply(sampler, prompt, &[]).expect("a reply");
    let rows: Vec<Row> =
        (0u32..).zip(prompt).map(|(position, &token)| Row { token, position, sequence: 0, segment: 0 }).collect();
    let mut ids = vec![];
    for (index, part) in rows.chunks(backend.max_rows()).enumerate() {
        let last = index == rows.len().div_ceil(backend.max_rows()) - 1;
        let output = [part.len() as u32 - 1];
        let outputs = if last { &output[..] } else { &[] };
        let step = Step { rows: part, pages: std::slice::from_ref(&table), states: &[StateSlots::default()], outputs };
        if let Some(ticket) = backend.prefill(&step).expect("prefill") {
            ids.extend(block_on(backend.collect(ticket)).expect("an id"));
        }
    }
    let mut open = std::collections::VecDeque::new();
    let mut made = 1;
    while made < count || !open.is_empty() {
        if made < count && open.len() < 2 {
            let count = chain.min(count - made);
            let position = prompt.len() as u32 + made - 1;
            let decode =
                Decode { token: None, position, count, pages: &table, states: StateSlots::default(), index: made };
            open.push_back(backend.decode(&decode).expect("decode"));
            made += count;
        } else if let Some(ticket) = open.pop_front() {
            ids.extend(block_on(backend.collect(ticket)).expect("ids"));
        }
    }
    ids
}

/// A mixture of experts.
const EXPERTS: Mixture = Mixture { count: 8, used: 3, ffn_dim: 40, bias: false, keys: &[] };

fn with_experts(experts: Mixture) -> Shape {
    Shape { architecture: "qwen3moe", dim: 72, n_heads: 3, n_kv_heads: 1, experts: Some(experts), ..Shape::default() }
}

/// Every way of choosing experts.
fn routings() -> Vec<Mixture> {
    use headwater::format::Value;
    const SIGMOID: (&str, Value) = ("expert_gating_func", Value::Integer(2));
    const PLAIN: (&str, Value) = ("expert_weights_norm", Value::Bool(false));
    const GROUPS: (&str, Value) = ("expert_group_count", Value::Integer(4));
    const GROUPS_USED: (&str, Value) = ("expert_group_used_count", Value::Integer(2));
    const SCALE: (&str, Value) = ("expert_weights_scale", Value::Number(2.5));
    const TABLE: &[&[(&str, Value)]] = &[
        &[],
        &[PLAIN],
        &[("expert_gating_func", Value::Integer(3))],
        &[SIGMOID, SCALE],
        &[SIGMOID, PLAIN, GROUPS, GROUPS_USED],
        &[SIGMOID, SCALE, GROUPS, GROUPS_USED],
    ];
    let with = |bias| move |keys: &&'static [(&'static str, Value)]| Mixture { bias, keys, ..EXPERTS };
    let mut routings: Vec<Mixture> = TABLE.iter().map(with(false)).chain(TABLE.iter().map(with(true))).collect();
    routings.extend([
        Mixture { used: 1, ..EXPERTS },
        Mixture { used: 8, ..EXPERTS },
        Mixture { count: 300, used: 7, ffn_dim: 8, ..EXPERTS },
    ]);
    routings
}

fn shapes() -> Vec<Shape> {
    let mut shapes = vec![];
    for format in representatives() {
        shapes.push(Shape::of(format));
    }
    shapes.extend([
        // Rotations of neighbours, no norms of queries and keys, an odd number of blocks in a row, one key head.
        Shape {
            architecture: "llama",
            format: FormatId::Q4_0,
            dim: 96,
            ffn_dim: 160,
            n_kv_heads: 1,
            tied: true,
            ..Shape::default()
        },
        // Rows that are no multiple of any tile, a vocabulary of one more than a workgroup.
        Shape { dim: 72, head_dim: 8, ffn_dim: 88, vocab: 257, n_heads: 3, n_kv_heads: 3, ..Shape::default() },
        // Rows that are no whole groups of eight, in the stream, inside the feed-forward block and in the vocabulary.
        Shape { format: FormatId::F16, dim: 70, ffn_dim: 173, vocab: 161, tied: true, ..Shape::default() },
        Shape {
            format: FormatId::Bf16,
            dim: 65,
            ffn_dim: 172,
            n_heads: 3,
            n_kv_heads: 3,
            vocab: 163,
            ..Shape::default()
        },
        Shape { dim: 79, ffn_dim: 81, ..Shape::default() },
        // Heads of every awkward width, seven and five query heads to a key head.
        Shape { head_dim: 20, n_heads: 7, n_kv_heads: 1, ..Shape::default() },
        Shape { head_dim: 24, n_heads: 10, n_kv_heads: 2, dim: 120, ..Shape::default() },
        Shape { head_dim: 40, n_heads: 5, n_kv_heads: 1, ..Shape::default() },
        Shape { head_dim: 80, n_heads: 4, n_kv_heads: 4, format: FormatId::Bf16, dim: 88, ..Shape::default() },
        // Heads as wide as the model, wider than a workgroup.
        Shape {
            format: FormatId::Q8_0,
            dim: 256,
            head_dim: 256,
            n_heads: 2,
            n_kv_heads: 1,
            ffn_dim: 320,
            ..Shape::default()
        },
        with_experts(EXPERTS),
    ]);
    shapes
}

#[test]
fn logits_and_ids_equal_the_interpreters() {
    let mut failures = vec![];
    for shape in shapes() {
        let ids = tokens(45, shape.vocab);
        let cpu = cpu(&shape);
        let expected = logits(&*cpu, &ids, 45);
        let prompt = tokens(150, shape.vocab);
        let settings = SamplerSettings::default();
        let expected_ids = greedy(&*cpu, &settings, &prompt, 1, 24);
        for options in DIALECTS {
            let gpu = gpu(&shape, options, KvFormat::F32, &[]);
            for chunk in [45, 7, 1] {
                let found = nmse(&logits(&*gpu, &ids, chunk), &expected);
                println!("{shape:?} {options:?} chunks of {chunk}: {found:.1e}");
                if found.is_nan() || found > NMSE {
                    failures.push(format!("{shape:?} {options:?} chunks of {chunk}: {found:.1e}"));
                }
            }
            for chain in [8, 3] {
                if greedy(&*gpu, &settings, &prompt, chain, 24) != expected_ids {
                    failures.push(format!("{shape:?} {options:?} ids in chains of {chain}"));
                }
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn what_chunks_a_prompt_comes_in_changes_no_bit() {
    for options in [WORKGROUPS, ALONE] {
        let shapes = [Shape::default(), with_experts(EXPERTS)];
        let of_shapes = shapes.iter().map(|shape| gpu(shape, options, KvFormat::F16, &[]));
        let of_files =
            FILES.iter().map(|(files, _)| Box::new(gpu_of(files, &device(options), &[])) as Box<dyn WeightSinkBackend>);
        for (index, gpu) in of_shapes.chain(of_files).enumerate() {
            let ids = tokens(100, 60);
            let whole = logits(&*gpu, &ids, 100);
            for chunk in [64, 16, 6] {
                assert!(logits(&*gpu, &ids, chunk) == whole, "model {index} {options:?} in chunks of {chunk}");
            }
        }
    }
}

#[test]
fn experts_are_chosen_as_the_interpreter_does() {
    let mut failures = vec![];
    for experts in routings() {
        let shape = Shape { n_layers: 1, ..with_experts(experts) };
        let ids = tokens(20, shape.vocab);
        let expected = logits(&*cpu(&shape), &ids, 20);
        for options in [WORKGROUPS, ALONE] {
            let gpu = gpu(&shape, options, KvFormat::F32, &[]);
            // A chunk, then single rows.
            for chunk in [20, 1] {
                let found = nmse(&logits(&*gpu, &ids, chunk), &expected);
                println!("{experts:?} {options:?} chunks of {chunk}: {found:.1e}");
                if found.is_nan() || found > NMSE {
                    failures.push(format!("{experts:?} {options:?} chunks of {chunk}: {found:.1e}"));
                }
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn sampling_chooses_the_interpreters_ids() {
    let shape = Shape { vocab: 700, ..Shape::default() };
    let (cpu, gpu) = (cpu(&shape), gpu(&shape, WORKGROUPS, KvFormat::F32, &[]));
    let prompt = tokens(20, shape.vocab);
    let base = SamplerSettings { temperature: 1.0, ..SamplerSettings::default() };
    let table = [
        base.clone(),
        SamplerSettings { top_k: 5, ..base.clone() },
        SamplerSettings { top_p: 0.7, ..base.clone() },
        SamplerSettings { min_p: 0.1, ..base.clone() },
        SamplerSettings { top_k: 40, top_p: 0.9, min_p: 0.02, temperature: 0.6, ..base.clone() },
        SamplerSettings { repetition_penalty: 1.3, frequency_penalty: 0.4, presence_penalty: 0.3, ..base.clone() },
        SamplerSettings { repetition_penalty: 1.8, temperature: 0.0, ..base },
    ];
    let mut ids = 0;
    let mut equal = 0;
    for settings in table {
        for seed in 0..12 {
            let settings = SamplerSettings { seed, ..settings.clone() };
            let (a, b) = (greedy(&*cpu, &settings, &prompt, 1, 16), greedy(&*gpu, &settings, &prompt, 8, 16));
            assert_eq!(b, greedy(&*gpu, &settings, &prompt, 5, 16), "the same seed, the same ids: {settings:?}");
            // A draw that falls on the border between two ids may differ, and the text goes another way from there.
            let same = a.iter().zip(&b).take_while(|(a, b)| a == b).count();
            ids += (same + 1).min(16);
            equal += same;
        }
    }
    assert!(equal * 200 >= ids * 199, "{equal} of {ids}");
}

/// What is told of logits that stay on the device is what they are, before and after single ones were changed.
#[test]
fn the_largest_of_held_logits_are_told() {
    let shape = Shape { vocab: 1700, ..Shape::default() };
    let gpu = gpu(&shape, WORKGROUPS, KvFormat::F32, &[]);
    let prompt = tokens(9, shape.vocab);
    let row = |(token, position): (&u32, u32)| Row { token: *token, position, sequence: 0, segment: 0 };
    let rows: Vec<Row> = prompt.iter().zip(0..).map(row).collect();
    let pages = [pages(1)];
    let hold = |rows: &[Row]| {
        let outputs = [rows.len() as u32 - 1];
        gpu.hold(&Step { rows, pages: &pages, states: &[], outputs: &outputs }, 0).unwrap();
    };
    // A prompt, and one row, which takes the decode program.
    for rows in [&rows[..8], &rows[8..]] {
        hold(rows);
        let odd: Vec<u32> = (0..shape.vocab as u32).step_by(3).collect();
        let mut mask = vec![0u32; shape.vocab.div_ceil(32)];
        odd.iter().for_each(|id| mask[*id as usize / 32] |= 1 << (id % 32));
        let named: Vec<u32> = (0..700).map(|index| index * 2).collect();
        let asks = [
            TopAsk { temperature: 1.0, mask: None, named: &[] },
            TopAsk { temperature: 0.6, mask: Some(&mask), named: &named },
            TopAsk { temperature: 1.4, mask: Some(&mask[..4]), named: &[5] },
        ];
        let found: Vec<Top> = asks.iter().map(|ask| block_on(gpu.top(ask)).unwrap()).collect();
        let changes: Vec<Change> = (0..600).map(|id| Change { id, bias: 0.5, divisor: 1.25, less: 0.125 }).collect();
        let settings = SamplerSettings::default();
        let choice = HeldChoice { sampler: &settings, changes: &changes, mask: Some(&mask), tells: true };
        let (id, told) = block_on(gpu.choose(&choice)).unwrap();
        let all = block_on(gpu.held()).unwrap();
        let close = |a: f32, b: f32| assert!((a - b).abs() <= 1e-4 * b.abs().max(1.0), "{a} {b}");
        let same = |found: &Top, ask: &TopAsk<'_>| {
            let wanted = Top::of(&all, ask).unwrap();
            assert_eq!((&found.largest, found.bound, found.count), (&wanted.largest, wanted.bound, wanted.count));
            assert_eq!((&found.named, found.max), (&wanted.named, wanted.max));
            close(found.sum, wanted.sum);
            close(found.mean, wanted.mean);
            close(found.variance, wanted.variance);
        };
        found.iter().zip(&asks).for_each(|(found, ask)| same(found, ask));
        same(&told.unwrap(), &TopAsk { temperature: 1.0, mask: None, named: &[id] });
        let changed = |id: u32| changes.get(id as usize).map_or(all[id as usize], |change| change.of(all[id as usize]));
        let best = odd.iter().copied().max_by(|a, b| changed(*a).total_cmp(&changed(*b)).then(b.cmp(a)));
        assert_eq!(Some(id), best);
    }
    assert!(block_on(gpu.held()).is_err(), "none are held any more");
}

#[test]
fn every_fusion_changes_nothing() {
    for shape in [Shape::default(), with_experts(EXPERTS)] {
        let ids = tokens(40, shape.vocab);
        let expected = logits(&*cpu(&shape), &ids, 40);
        let settings = SamplerSettings::default();
        let expected_ids = greedy(&*cpu(&shape), &settings, &ids, 1, 10);
        let all = FUSIONS.iter().map(|fusion| fusion.name).collect();
        for without in FUSIONS.iter().map(|fusion| vec![fusion.name]).chain([all]) {
            for options in [WORKGROUPS, ALONE] {
                let gpu = gpu(&shape, options, KvFormat::F32, &without);
                let found = nmse(&logits(&*gpu, &ids, 40), &expected);
                assert!(found <= NMSE, "{options:?} without {without:?}: {found:.1e}");
                assert_eq!(greedy(&*gpu, &settings, &ids, 4, 10), expected_ids, "{options:?} without {without:?}");
            }
        }
    }
}

#[test]
fn matrices_larger_than_a_binding_are_split() {
    for format in representatives() {
        let shape = Shape { vocab: 3000, ..Shape::of(format) };
        let ids = tokens(33, shape.vocab);
        let expected = logits(&*cpu(&shape), &ids, 33);
        // Keys and values of a layer are the largest thing that is not split: 16 pages of 2 x 32 x 32 half floats.
        let small = DeviceOptions { max_binding_bytes: Some(16 * 1024), ..WORKGROUPS };
        assert!(
            block_on(Gpu::new(&device(small), &plan(&synthetic(&shape, 7)).expect("plan"), KvFormat::F32, N_PAGES))
                .is_err()
        );
        for options in [WORKGROUPS, ALONE] {
            let options = DeviceOptions { max_binding_bytes: Some(70_000), ..options };
            let gpu = gpu(&shape, options, KvFormat::F16, &[]);
            let found = nmse(&logits(&*gpu, &ids, 33), &expected);
            assert!(found < 1e-5, "{format:?} {options:?}: {found:.1e}");
        }
    }
}

/// The smallest binding that WebGPU promises, and an embedding table that is larger and has an odd number of rows.
#[test]
fn a_tensor_larger_than_a_binding_is_split() {
    const BINDING_BYTES: u64 = 128 << 20;
    let shape = Shape { format: FormatId::F16, dim: 512, vocab: 135_001, n_layers: 1, tied: true, ..Shape::default() };
    assert!((shape.dim * shape.vocab * 2) as u64 > BINDING_BYTES);
    let ids = tokens(3, shape.vocab);
    let expected = logits(&*cpu(&shape), &ids, 3);
    let options = DeviceOptions { max_binding_bytes: Some(BINDING_BYTES), ..WORKGROUPS };
    let gpu = gpu(&shape, options, KvFormat::F32, &[]);
    for chunk in [3, 1] {
        let found = nmse(&logits(&*gpu, &ids, chunk), &expected);
        assert!(found <= NMSE, "chunks of {chunk}: {found:.1e}");
    }
}

#[test]
fn experts_may_lie_in_several_shards() {
    // 272 rows a shard: experts of 80 rows lie across two.
    let shape = Shape { vocab: 300, ..with_experts(EXPERTS) };
    let ids = tokens(33, shape.vocab);
    let options = DeviceOptions { max_binding_bytes: Some(80_000), ..WORKGROUPS };
    let expected = logits(&*cpu(&shape), &ids, 33);
    for without in [&[][..], &["gate|up with activation(gate) * up", "sum of experts into their product"]] {
        let gpu = gpu(&shape, options, KvFormat::F16, without);
        let found = nmse(&logits(&*gpu, &ids, 33), &expected);
        assert!(found < 1e-5, "without {without:?}: {found:.1e}");
    }
}

#[test]
fn keys_and_values_of_sixteen_bits_stay_close() {
    let shape = Shape::default();
    let ids = tokens(100, shape.vocab);
    let expected = logits(&*cpu(&shape), &ids, 100);
    let found = nmse(&logits(&*gpu(&shape, WORKGROUPS, KvFormat::F16, &[]), &ids, 100), &expected);
    assert!(found > 0.0 && found < 1e-5, "{found:.1e}");
}

#[test]
fn several_sequences_in_one_step_equal_each_alone() {
    let shape = Shape::default();
    let gpu = gpu(&shape, WORKGROUPS, KvFormat::F32, &[]);
    let (a, b) = (tokens(40, shape.vocab), tokens(35, 97));
    let (alone_a, alone_b) = (logits(&*gpu, &a, 40), logits(&*gpu, &b, 35));
    let pages = [vec![4, 9], vec![2, 1]];
    let rows_of = |ids: &[u32], sequence| {
        (0u32..)
            .zip(ids.to_vec())
            .map(move |(position, token)| Row { token, position, sequence, segment: 0 })
            .collect::<Vec<_>>()
    };
    let rows: Vec<Row> = rows_of(&a, 0).into_iter().chain(rows_of(&b, 1)).collect();
    let outputs = [74, 39, 40];
    let found = block_on(gpu.forward(&Step {
        rows: &rows,
        pages: &pages,
        states: &[StateSlots::default()],
        outputs: &outputs,
    }))
    .expect("logits");
    let vocab = shape.vocab;
    let expected = [&alone_b[34 * vocab..], &alone_a[39 * vocab..], &alone_b[..vocab]].concat();
    assert!(nmse(&found, &expected) <= NMSE);
}

#[test]
fn a_decoded_token_costs_what_it_should() {
    let shape = Shape { n_layers: 3, tied: true, ..Shape::default() };
    costs(&shape, 6);
    // However many experts there are.
    for (count, used) in [(4, 1), (64, 6)] {
        costs(&Shape { n_layers: 3, tied: true, ..with_experts(Mixture { count, used, ..EXPERTS }) }, 8);
    }
}

/// Asserts what a chain of decode steps costs, with so many dispatches a layer.
fn costs(shape: &Shape, dispatches: u64) {
    let gpu = gpu(shape, WORKGROUPS, KvFormat::F16, &[]);
    let chain = gpu.decode_chain();
    let prompt = tokens(10, shape.vocab);
    greedy(&*gpu, &SamplerSettings::default(), &prompt, chain, 1 + chain);
    let before = gpu.counters();
    let table = pages(N_PAGES);
    let mut ids = 0;
    for index in 0..4 {
        let position = 11 + chain + index * chain;
        let decode =
            Decode { token: None, position, count: chain, pages: &table, states: StateSlots::default(), index };
        let ticket = gpu.decode(&decode).expect("decode");
        ids += block_on(gpu.collect(ticket)).expect("ids").len() as u64;
    }
    let after = gpu.counters();
    let spent = |count: fn(&Counters) -> u64| count(&after) - count(&before);
    assert_eq!(ids, 4 * u64::from(chain));
    assert_eq!(spent(|c| c.passes), ids);
    assert_eq!(spent(|c| c.submits), 4);
    assert_eq!(spent(|c| c.writes), 4);
    assert!(spent(|c| c.write_bytes) <= 4 * 1024);
    assert_eq!(spent(|c| c.read_bytes), 4 * ids);
    assert_eq!(spent(|c| c.buffers) + spent(|c| c.bind_groups) + spent(|c| c.pipelines), 0);
    // Those of the layers, and embedding, head, choice.
    assert_eq!(spent(|c| c.dispatches), ids * (dispatches * shape.n_layers as u64 + 3));
}

/// Files of the tests, and the dispatches of a token that is decoded.
const FILES: &[(&[&str], u64)] = &[
    // Five in each of three layers that convolve, six in the one that attends, and embedding, head, choice.
    (&["gguf/lfm2-Q4_0.gguf"], 3 * 5 + 6 + 3),
    // Eight for the gated delta rule in three layers, six for gated attention in one, nine for experts in each.
    (&["models/qwen3-next/config.json", "models/qwen3-next/model.safetensors"], 3 * 8 + 6 + 4 * 9 + 3),
    // Eleven for latent attention in both layers, two for the dense block, six for experts.
    (&["models/deepseek-v3/config.json", "models/deepseek-v3/model.safetensors"], 2 * 11 + 2 + 6 + 3),
];

/// A model of files.
fn files_of(files: &[&str]) -> (headwater::format::Checkpoint, Plan) {
    let source = |file: &&str| {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(file);
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        let bytes = std::fs::read(&path).expect("a file");
        std::rc::Rc::new(headwater::source::MemorySource::new(name, bytes))
            as std::rc::Rc<dyn headwater::source::Source>
    };
    let sources = files.iter().map(source).collect();
    let checkpoint = block_on(headwater::format::Checkpoint::open(sources)).expect("a model");
    let plan = plan(&checkpoint).expect("a valid model");
    (checkpoint, plan)
}

/// The same on a device.
fn gpu_of(files: &[&str], device: &Device, without: &[&str]) -> Gpu {
    let (checkpoint, plan) = files_of(files);
    let mut gpu = block_on(Gpu::without(device, &plan, KvFormat::F32, N_PAGES, without)).expect("a model");
    block_on(read_weights(&checkpoint, &plan, &mut gpu, &mut |_, _| Ok(()))).expect("weights");
    gpu
}

#[test]
fn a_decoded_token_of_a_hybrid_costs_what_it_should() {
    let device = device(WORKGROUPS);
    let (prompt, settings) = (tokens(10, 600), SamplerSettings::default());
    for (files, dispatches) in FILES {
        let (checkpoint, plan) = files_of(files);
        let mut cpu = Cpu::new(&plan, KvFormat::F32, N_PAGES).expect("room");
        block_on(read_weights(&checkpoint, &plan, &mut cpu, &mut |_, _| Ok(()))).expect("weights");
        let expected = greedy(&cpu, &settings, &prompt, 1, 30);
        for without in [vec![]].into_iter().chain(FUSIONS.iter().map(|fusion| vec![fusion.name])) {
            let gpu = gpu_of(files, &device, &without);
            assert_eq!(greedy(&gpu, &settings, &prompt, 8, 30), expected, "{files:?} without {without:?}");
            if !without.is_empty() {
                continue;
            }
            let before = gpu.counters();
            let (pages, states) = (pages(N_PAGES), StateSlots { from: 0, to: 1 });
            let decode = Decode { token: None, position: 39, count: 8, pages: &pages, states, index: 30 };
            assert_eq!(block_on(gpu.collect(gpu.decode(&decode).expect("decode"))).expect("ids").len(), 8);
            let after = gpu.counters();
            let spent = |count: fn(&Counters) -> u64| count(&after) - count(&before);
            let counts = (spent(|c| c.passes), spent(|c| c.submits), spent(|c| c.writes), spent(|c| c.read_bytes));
            assert_eq!(counts, (8, 1, 1, 4 * 8), "keeping the state before the chain costs nothing");
            assert_eq!(spent(|c| c.buffers) + spent(|c| c.bind_groups) + spent(|c| c.pipelines), 0);
            assert_eq!(spent(|c| c.dispatches), 8 * dispatches, "{files:?}");
        }
    }
}

#[test]
fn weights_that_are_not_numbers_are_told_and_do_no_harm() {
    let shape = Shape::default();
    let spoiled = synthetic::checkpoint(&shape, &mut |name, _, dims| {
        let weight = if name == "blk.1.ffn_down.weight" { f32::NAN } else { 0.01 };
        (0..dims.iter().product::<usize>()).flat_map(|_| weight.to_le_bytes()).collect()
    });
    let device = device(WORKGROUPS);
    let plan_of = plan(&spoiled).expect("a valid model");
    let mut gpu = block_on(Gpu::new(&device, &plan_of, KvFormat::F32, N_PAGES)).expect("a model");
    block_on(read_weights(&spoiled, &plan_of, &mut gpu, &mut |_, _| Ok(()))).expect("weights");
    let table = [pages(N_PAGES)];
    let rows = [Row { token: 1, position: 0, sequence: 0, segment: 0 }];
    for _ in 0..2 {
        gpu.start_reply(&SamplerSettings::default(), &[1], &[]).expect("a reply");
        let step = Step { rows: &rows, pages: &table, states: &[StateSlots::default()], outputs: &[0] };
        let ticket = gpu.prefill(&step).expect("prefill").expect("a ticket");
        let error = block_on(gpu.collect(ticket)).expect_err("no id comes of that");
        assert_eq!(error.kind(), headwater::error::ErrorKind::BadLogits);
    }
    let error =
        block_on(gpu.forward(&Step { rows: &rows, pages: &table, states: &[StateSlots::default()], outputs: &[0] }))
            .expect_err("no logits either");
    assert_eq!(error.kind(), headwater::error::ErrorKind::BadLogits);
    let bad_id = [Row { token: shape.vocab as u32, position: 0, sequence: 0, segment: 0 }];
    let error = gpu
        .prefill(&Step { rows: &bad_id, pages: &table, states: &[StateSlots::default()], outputs: &[] })
        .expect_err("an id out of range");
    assert_eq!(error.kind(), headwater::error::ErrorKind::InvalidArgument);
}
