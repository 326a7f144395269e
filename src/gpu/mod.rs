//! The GPU backend: lowers a graph once for decoding and once for prefilling, then replays. The only folder that names
//! wgpu.

mod buffers;
mod device;
pub mod lower;
mod planes;
mod program;
mod readback;
mod rope;
mod run;
pub mod shader;

pub use device::{Device, DeviceOptions};
pub use run::Gpu;
