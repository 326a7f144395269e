//! `headwater rerank`: documents by how well they answer a query.

use headwater::engine::RerankRequest;
use headwater::error::Result;
use serde_json::json;

use crate::args::RerankArgs;
use crate::output::print_json;
use crate::{lines, model};

pub(crate) async fn run(args: &RerankArgs) -> Result<()> {
    let engine = model::load(&args.common).await?;
    let request = RerankRequest {
        top_k: args.top_k,
        truncate: args.truncate,
        adapter: model::adapter(&engine, &args.common, &args.adapter).await?,
        ..RerankRequest::new(args.query.clone(), lines::texts().collect::<Result<_>>()?)
    };
    let ranking = engine.rerank(&request, &|| false).await?;
    if args.common.json {
        return print_json(&json!({ "results": ranking.results, "prompt_tokens": ranking.prompt_tokens }));
    }
    ranking.results.iter().try_for_each(print_json)
}
