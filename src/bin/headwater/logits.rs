//! `headwater logits`: the logits after every id, as a safetensors file.

use headwater::error::{Error, ErrorKind, Result};
use safetensors::Dtype;
use safetensors::tensor::{TensorView, serialize};
use serde_json::json;

use crate::args::LogitsArgs;
use crate::output::{print_json, print_line};
use crate::{model, source};

pub(crate) async fn run(args: &LogitsArgs) -> Result<()> {
    let engine = model::load(&args.common).await?;
    let adapter = model::adapter(&engine, &args.common, &args.adapter).await?;
    let logits = engine.logits_with(&args.ids, adapter.as_ref()).await?;
    let shape = [args.ids.len(), engine.info().vocab_size];
    let bytes: Vec<u8> = logits.iter().flat_map(|logit| logit.to_le_bytes()).collect();
    let internal = |error: safetensors::SafeTensorError| Error::new(ErrorKind::Internal, error.to_string());
    let tensor = TensorView::new(Dtype::F32, shape.to_vec(), &bytes).map_err(internal)?;
    let file = serialize([("logits", tensor)], None).map_err(internal)?;
    std::fs::write(&args.out, file).map_err(|error| source::failed(&args.out, error))?;
    let out = args.out.display().to_string();
    if args.common.json {
        return print_json(&json!({ "out": out, "tokens": shape[0], "vocab": shape[1] }));
    }
    print_line(&format!("{out}: logits {} x {}", shape[0], shape[1]))
}
