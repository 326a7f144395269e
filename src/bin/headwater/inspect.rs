//! `headwater inspect`: what a model is, from its headers.

use headwater::engine::{self, Info, Kind};
use headwater::error::Result;

use crate::args::InspectArgs;
use crate::model;
use crate::output::{print_json, print_line};

/// What the model is for.
fn kind(info: &Info) -> String {
    let embeddings =
        info.pooling.as_ref().map(|pooling| format!("{} elements, pooling {pooling}", info.embedding_size));
    match info.kind {
        Kind::Generator => "continues texts".to_owned(),
        Kind::Embedder => format!("embeddings, {}", embeddings.unwrap_or_default()),
        Kind::Reranker => "judges pairs of texts".to_owned(),
    }
}

pub(crate) async fn run(args: &InspectArgs) -> Result<()> {
    let info = engine::inspect(&model::open(&args.common).await?, &model::options(&args.common))?;
    if args.common.json {
        return print_json(&info);
    }
    let kind = kind(&info);
    let mut lines = vec![
        ("name", info.name),
        ("architecture", format!("{}, {} layers", info.architecture, info.layers)),
        ("kind", kind),
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
