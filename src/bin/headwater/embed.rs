//! `headwater embed`: texts to vectors.

use headwater::engine::EmbedRequest;
use headwater::error::Result;
use serde_json::json;

use crate::args::EmbedArgs;
use crate::output::print_json;
use crate::{lines, model};

pub(crate) async fn run(args: &EmbedArgs) -> Result<()> {
    let engine = model::load(&args.common).await?;
    let request = EmbedRequest {
        pooling: args.pooling.clone(),
        normalize: args.normalize,
        dimensions: args.dimensions,
        truncate: args.truncate,
        adapter: model::adapter(&engine, &args.common, &args.adapter).await?,
        ..EmbedRequest::new(lines::texts().collect::<Result<_>>()?)
    };
    let made = engine.embed(&request, &|| false).await?;
    if args.common.json {
        return print_json(&json!({
            "embeddings": made.rows().collect::<Vec<_>>(),
            "dimensions": made.dimensions,
            "pooling": made.pooling,
            "prompt_tokens": made.prompt_tokens,
        }));
    }
    made.rows().try_for_each(|vector| print_json(&json!({ "embedding": vector })))
}
