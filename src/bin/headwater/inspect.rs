//! `headwater inspect`: what a model is, from its headers.

use headwater::engine;
use headwater::error::Result;

use crate::args::InspectArgs;
use crate::model;
use crate::output::{print_json, print_line};

pub(crate) async fn run(args: &InspectArgs) -> Result<()> {
    let info = engine::inspect(&model::open(&args.common).await?, &model::options(&args.common))?;
    if args.common.json {
        return print_json(&info);
    }
    let mut lines = vec![
        ("name", info.name),
        ("architecture", format!("{}, {} layers", info.architecture, info.layers)),
        ("parameters", info.parameters.to_string()),
        ("vocabulary", info.vocab_size.to_string()),
        ("context", info.trained_context.to_string()),
    ];
    lines.extend(info.formats.iter().map(|(format, bytes)| ("weights", format!("{format}, {bytes} bytes"))));
    lines.extend(info.files.iter().map(|file| ("file", format!("{}, {} bytes", file.name, file.size_bytes))));
    lines.push(("ends at", format!("{:?}", info.stop_ids)));
    let template = info.template.map_or("none".to_owned(), |found| format!("{}, {}", found.source, found.hash));
    lines.push(("chat template", template));
    lines.push(("licence", info.license.unwrap_or("not told".to_owned())));
    for (name, value) in lines {
        print_line(&format!("{name:<14} {value}"))?;
    }
    Ok(())
}
