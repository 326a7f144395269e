//! A model out of the flags, and the world that its engine lives in.

use std::hash::{BuildHasher, RandomState};
use std::time::{SystemTime, UNIX_EPOCH};

use headwater::engine::{BackendChoice, Engine, Environment, LoadOptions};
use headwater::error::Result;
use headwater::format::Checkpoint;

use crate::args::{Backend, Common};
use crate::source;

/// Opens the model's files and checks their headers.
pub(crate) async fn open(common: &Common) -> Result<Checkpoint> {
    Checkpoint::open(source::open(&common.model)?).await
}

/// What the flags say about loading.
pub(crate) fn options(common: &Common) -> LoadOptions {
    LoadOptions {
        backend: match common.backend {
            Backend::Gpu => BackendChoice::Gpu,
            Backend::Cpu => BackendChoice::Cpu,
        },
        context: common.context,
        exact: common.exact,
        kv_format: None,
        architecture: common.architecture.clone(),
    }
}

/// Loads the model.
pub(crate) async fn load(common: &Common) -> Result<Engine> {
    Engine::load(open(common).await?, &options(common), environment(), &mut |_| Ok(())).await
}

fn environment() -> Environment {
    Environment {
        now_secs: Box::new(|| SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())),
        // The standard library seeds its hash maps from the system's randomness.
        seed: Box::new(|| RandomState::new().hash_one(0) as u32),
        yield_now: Box::new(|| Box::pin(async {})),
    }
}
