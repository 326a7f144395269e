//! `headwater fit`: whether a model fits this machine, reading no weight.

use headwater::engine::{self, Choice, DeviceLimits, Verdict};
use headwater::error::{Error, ErrorKind, Result};
use headwater::gpu::{Device, DeviceOptions};

use crate::args::{Backend, FitArgs};
use crate::model;
use crate::output::{print_json, print_line};

const GIB: f64 = (1u64 << 30) as f64;

pub(crate) async fn run(args: &FitArgs) -> Result<()> {
    let options = model::options(&args.common);
    let binding_bytes = match args.common.backend {
        Backend::Gpu => Some(Device::open(DeviceOptions::default()).await?.max_binding_bytes()),
        Backend::Cpu => None,
    };
    let memory_bytes = match args.memory {
        Some(gib) if gib > 0.0 && gib < 1e6 => Some((gib * GIB) as u64),
        Some(gib) => {
            return Err(Error::new(ErrorKind::InvalidArgument, format!("{gib} is no size in GiB")).at("memory"));
        }
        None => available_memory(),
    };
    let limits = DeviceLimits { binding_bytes, memory_bytes, cpu_memory_bytes: None };
    let looked = model::look(&args.common).await?;
    let mut report = engine::fit(&looked.checkpoint, &options, limits)?;
    if let Some((hub, found)) = &looked.found {
        report.consider(found.size_bytes(), found.others());
        match hub.check_room_for(found).await {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::QuotaExceeded => {
                report.verdict = Verdict::No;
                report.notes.push(error.message().to_owned());
            }
            Err(error) => return Err(error),
        }
    }
    if args.memory.is_none() && memory_bytes.is_some() {
        report
            .notes
            .push("the memory is what this machine has free; a graphics card with its own may have less".into());
    }
    if args.common.json {
        return print_json(&report);
    }
    print_line(match report.verdict {
        Verdict::Fits => "fits",
        Verdict::Tight => "tight",
        Verdict::No => "no",
    })?;
    let context = format!("keys and values of {} tokens", report.context);
    for (name, bytes) in [
        ("weights", report.weight_bytes),
        (context.as_str(), report.kv_bytes),
        ("activations", report.activation_bytes),
        ("other", report.other_bytes),
        ("together", report.total_bytes),
        ("largest buffer", report.largest_buffer_bytes),
    ] {
        print_line(&format!("{name:<36} {bytes:>16} bytes"))?;
    }
    for (name, bytes) in [("memory", limits.memory_bytes), ("largest binding", limits.binding_bytes)] {
        if let Some(bytes) = bytes {
            print_line(&format!("{name:<36} {bytes:>16} bytes"))?;
        }
    }
    for choice in &report.choices {
        print_line(&format!("would fit: {}, {} bytes together", in_words(choice), choice.total_bytes))?;
    }
    for note in &report.notes {
        print_line(&format!("note: {note}"))?;
    }
    Ok(())
}

/// A choice as its flags.
fn in_words(Choice { options, reference, .. }: &Choice) -> String {
    let context = options.context.map(|tokens| tokens.to_string());
    let flags = [
        ("--kv", options.kv_format),
        ("--context", context.as_deref()),
        ("--quantize", options.quantize),
        ("--backend", options.backend),
        ("the files of", reference.as_deref()),
    ];
    let given: Vec<String> = flags.iter().filter_map(|(flag, value)| Some(format!("{flag} {}", (*value)?))).collect();
    given.join(" ")
}

/// What Linux says is free; other systems have no such file.
fn available_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}
