//! What was measured of a device, kept from load to load by the host: a short text that may be lost, damaged, or another
//! device's, and is then as good as none.

use serde::{Deserialize, Serialize};

use super::device::Device;
use crate::kernel::Teams;
use crate::source::LocalFuture;

/// Keeps a short text from load to load, as long as it likes.
pub trait Kept {
    /// The text that was kept last, if it still is.
    fn read(&self) -> LocalFuture<'_, Option<String>>;

    /// Keeps a text in the place of the one before.
    fn write(&self, text: String) -> LocalFuture<'_, ()>;
}

/// Keeps nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Forgets;

impl Kept for Forgets {
    fn read(&self) -> LocalFuture<'_, Option<String>> {
        Box::pin(async { None })
    }

    fn write(&self, _: String) -> LocalFuture<'_, ()> {
        Box::pin(async {})
    }
}

/// Devices that are kept, and bytes of a text that is looked at.
const MOST: (usize, usize) = (8, 16 << 10);

/// What was measured of a device by a version of the engine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    engine: String,
    device: String,
    teams: Teams,
}

impl Record {
    fn of(device: &Device, teams: Teams) -> Self {
        Self { engine: env!("CARGO_PKG_VERSION").into(), device: device.identity().into(), teams }
    }
}

/// The records of a text; none where it is not ours.
fn records(text: Option<String>) -> Vec<Record> {
    let text = text.filter(|text| text.len() <= MOST.1).unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_default()
}

/// What is kept of a device for this version of the engine.
pub(super) async fn recall(device: &Device, kept: &dyn Kept) -> Option<Teams> {
    let records = records(kept.read().await);
    records
        .iter()
        .map(|record| record.teams)
        .zip(&records)
        .find_map(|(teams, record)| (*record == Record::of(device, teams)).then_some(teams))
}

/// Keeps what was measured of a device, beside what is kept of others.
pub(super) async fn keep(device: &Device, teams: Teams, kept: &dyn Kept) {
    let own = Record::of(device, teams);
    let others = records(kept.read().await).into_iter().filter(|record| record.device != own.device);
    let all: Vec<Record> = std::iter::once(own.clone()).chain(others).take(MOST.0).collect();
    if let Ok(text) = serde_json::to_string(&all) {
        kept.write(text).await;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail so")]
pub(crate) mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use pollster::block_on;

    use super::*;
    use crate::gpu::DeviceOptions;

    /// Keeps in memory.
    #[derive(Default)]
    pub(crate) struct Memory(pub(crate) RefCell<Option<String>>);

    impl Kept for Rc<Memory> {
        fn read(&self) -> LocalFuture<'_, Option<String>> {
            Box::pin(async { self.0.borrow().clone() })
        }

        fn write(&self, text: String) -> LocalFuture<'_, ()> {
            *self.0.borrow_mut() = Some(text);
            Box::pin(async {})
        }
    }

    #[test]
    fn only_what_this_engine_measured_of_this_device_is_recalled() {
        let device = block_on(Device::open(DeviceOptions::default())).expect("software Vulkan will do");
        let kept = Rc::new(Memory::default());
        assert_eq!(block_on(recall(&device, &kept)), None);
        block_on(keep(&device, Teams::Invocation, &kept));
        assert_eq!(block_on(recall(&device, &kept)), Some(Teams::Invocation));
        block_on(keep(&device, Teams::Workgroup, &kept));
        assert_eq!(block_on(recall(&device, &kept)), Some(Teams::Workgroup));
        let good = kept.0.borrow().clone().unwrap();
        assert_eq!(records(Some(good.clone())).len(), 1);
        let version = env!("CARGO_PKG_VERSION");
        let long = " ".repeat(MOST.1) + &good;
        let bad = [
            good.replace("Dialect", "Another"),
            good.replace(&format!("\"{version}\""), "\"0.0.0\""),
            good.replace("Workgroup", "Nobody"),
            good.replace("engine", "motor"),
            good[..good.len() - 3].to_owned(),
            "[]".to_owned(),
            long,
        ];
        for text in bad {
            assert_ne!(text, good);
            *kept.0.borrow_mut() = Some(text.clone());
            assert_eq!(block_on(recall(&device, &kept)), None, "{text}");
        }
        // What is kept of other devices stays, the oldest goes.
        for other in 0..MOST.0 + 3 {
            let mut all = records(kept.0.borrow().clone());
            all.insert(0, Record { device: format!("device {other}"), ..Record::of(&device, Teams::Invocation) });
            *kept.0.borrow_mut() = Some(serde_json::to_string(&all).unwrap());
        }
        block_on(keep(&device, Teams::Invocation, &kept));
        let all = records(kept.0.borrow().clone());
        assert_eq!((all.len(), all[1].device.as_str()), (MOST.0, "device 10"));
        assert_eq!(block_on(recall(&device, &kept)), Some(Teams::Invocation));
    }
}
