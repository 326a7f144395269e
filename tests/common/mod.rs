//! What several integration tests share: fixtures, goldens, devices, error measures.

#![allow(dead_code, unused_imports, unreachable_pub, reason = "each test binary uses its own part")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests fail as tests do")]

mod cases;
mod check;
pub mod drafts;
pub mod encoders;
mod figures;
mod goldens;
pub mod orders;
pub mod parity;

pub use cases::{BY_CONTEXT, CASES, Case, LONGROPE, TINY_ASSISTANT, Trained};
pub use check::{Report, Sequence, check_chunks, check_greedy, check_logits, check_replies, check_states, pages_for};
pub use figures::Figures;
pub use goldens::{Goldens, Prompt, Reply};

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use headwater::engine::Environment;
use headwater::error::Error;
use headwater::format::Checkpoint;
use headwater::gpu::{Device, Forgets, Teams};
use headwater::sample::NativeGrammars;
use headwater::source::{MemorySource, Source};
use serde_json::{Value as Json, json};

/// Who makes an output on a GPU: devices choose by measuring, tests ask for each.
pub const TEAMS: [Teams; 2] = [Teams::Workgroup, Teams::Invocation];

/// The device of this thread, on which models are made so.
pub fn device(teams: Teams) -> Device {
    let device = pollster::block_on(Device::of_thread()).expect("an adapter; software Vulkan will do");
    device.with_teams(teams)
}

/// What the engine needs of the world, here always the same.
pub fn environment(seed: u32) -> Environment {
    Environment {
        now_secs: Box::new(|| 0.0),
        seed: Box::new(move || seed),
        yield_now: Box::new(|| Box::pin(async {})),
        grammars: Box::<NativeGrammars>::default(),
        kept: Box::new(Forgets),
    }
}

/// The project's folder.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A file of the project in memory.
pub fn source(file: &str) -> Rc<dyn Source> {
    let (path, name) = match file.split_once('=') {
        Some((path, name)) => (root().join(path), name.to_owned()),
        None => (root().join(file), PathBuf::from(file).file_name().unwrap().to_string_lossy().into_owned()),
    };
    let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    Rc::new(MemorySource::new(name, bytes))
}

/// Opens files of the project as a model.
pub fn open(files: &[&str]) -> Checkpoint {
    let sources = files.iter().map(|file| source(file)).collect();
    pollster::block_on(Checkpoint::open(sources)).unwrap_or_else(|error| panic!("{files:?}: {error}"))
}

/// A tensor of a safetensors file: type, shape, bytes.
pub type Tensor = (String, Vec<usize>, Vec<u8>);

/// Opens a folder that is written on the spot.
pub fn open_folder(config: &Json, tensors: &BTreeMap<String, Tensor>) -> Result<Checkpoint, Error> {
    let (mut header, mut body) = (serde_json::Map::new(), vec![]);
    for (name, (dtype, shape, data)) in tensors {
        let offsets = [body.len(), body.len() + data.len()];
        header.insert(name.clone(), json!({ "dtype": dtype, "shape": shape, "data_offsets": offsets }));
        body.extend(data);
    }
    let header = serde_json::to_vec(&header).unwrap();
    let weights = [(header.len() as u64).to_le_bytes().to_vec(), header, body].concat();
    let files: Vec<Rc<dyn Source>> = vec![
        Rc::new(MemorySource::new("config.json", serde_json::to_vec(config).unwrap())),
        Rc::new(MemorySource::new("model.safetensors", weights)),
    ];
    pollster::block_on(Checkpoint::open(files))
}

/// The squared error relative to the squared size of what is expected.
pub fn nmse(found: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(found.len(), expected.len(), "lengths");
    let square = |x: f64| x * x;
    let pairs = || found.iter().zip(expected).map(|(a, b)| (f64::from(*a), f64::from(*b)));
    let error: f64 = pairs().map(|(a, b)| square(a - b)).sum();
    error / pairs().map(|(_, b)| square(b)).sum::<f64>()
}

/// The largest absolute difference.
pub fn max_difference(found: &[f32], expected: &[f32]) -> f32 {
    found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}
