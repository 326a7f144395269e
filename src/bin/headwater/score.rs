//! `headwater score`: how likely a model finds continuations, a line of JSON each.

use headwater::engine::{ScoreItem, ScoreRequest};
use headwater::error::Result;
use serde_json::json;

use crate::args::ScoreArgs;
use crate::output::print_json;
use crate::{lines, model};

pub(crate) async fn run(args: &ScoreArgs) -> Result<()> {
    let engine = model::load(&args.common).await?;
    let items = lines::read::<ScoreItem>().collect::<Result<_>>()?;
    let request = ScoreRequest {
        add_special: Some(!args.no_special),
        stride: args.stride,
        adapter: model::adapter(&engine, &args.common, &args.adapter).await?,
        ..ScoreRequest::new(items)
    };
    engine.score(&request, &|| false).await?.iter().try_for_each(|score| {
        print_json(&json!({
            "logprob": score.logprob,
            "is_greedy": score.is_greedy,
            "perplexity": score.perplexity,
            "tokens": score.tokens,
            "token_logprobs": score.token_logprobs,
        }))
    })
}
