//! `headwater inspect`: what a model is, from its headers.

use headwater::engine::{self, Info, Kind};
use headwater::error::{Error, ErrorKind, Result};

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
    let model::Looked { checkpoint, origin, .. } = model::look(&args.common).await?;
    let info = engine::look(&checkpoint, &model::options(&args.common))?;
    if args.common.json {
        let internal = |error: serde_json::Error| Error::new(ErrorKind::Internal, error.to_string());
        let mut told = serde_json::to_value(&info).map_err(internal)?;
        if let (Some(origin), Some(told)) = (origin, told.as_object_mut()) {
            told.insert("origin".to_owned(), origin);
        }
        return print_json(&told);
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
    let text = |value: &serde_json::Value| value.as_str().map(str::to_owned);
    let card = origin.as_ref().and_then(|origin| text(&origin["license"]["id"]));
    lines.push(("licence", card.or(info.license).unwrap_or("not told".to_owned())));
    if let Some(origin) = origin {
        lines.extend(["hub", "repo", "commit"].map(|key| (key, text(&origin[key]).unwrap_or_default())));
        for file in origin["files"].as_array().into_iter().flatten() {
            lines.push((
                "content",
                format!("{}, {}", text(&file["path"]).unwrap_or_default(), text(&file["expected"]).unwrap_or_default()),
            ));
        }
        if let Some(shown) = text(&origin["license"]["attribution"]) {
            lines.push(("to be shown", shown));
        }
    }
    for (name, value) in lines {
        print_line(&format!("{name:<14} {value}"))?;
    }
    Ok(())
}
