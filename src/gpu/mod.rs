//! The GPU backend: lowers a graph once for decoding and once for prefilling, then replays. The only folder that names
//! wgpu.

mod adapter;
mod batch;
mod buffers;
mod check;
mod choose;
mod device;
mod footprint;
mod fuse;
mod kept;
mod lower;
mod making;
mod pipelines;
mod planes;
mod program;
mod readback;
mod rope;
mod run;
pub mod shader;
mod sizes;
pub mod stage;
mod state;

#[cfg(test)]
pub(crate) use check::tests::spoil;
#[cfg(test)]
pub(crate) use kept::tests::Memory;

pub use crate::kernel::Teams;
pub use choose::Measuring;
pub use device::{Device, DeviceOptions};
pub use footprint::footprint;
pub use fuse::{FUSIONS, Fusion};
pub use kept::{Forgets, Kept};
pub use run::Gpu;
