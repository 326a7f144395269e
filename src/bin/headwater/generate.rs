//! `headwater generate`: a reply, as it comes or as JSON.

use std::cell::Cell;
use std::path::Path;

use headwater::engine::{FinishReason, GenerateRequest, Grammar, Piece, Prompt, Stops};
use headwater::error::{At, Error, ErrorKind, Result};
use serde_json::{Value, json};

use crate::args::{GenerateArgs, PromptArgs};
use crate::output::{print, print_json, print_line};
use crate::{model, source};

pub(crate) async fn run(args: &GenerateArgs) -> Result<()> {
    let mut request = GenerateRequest {
        max_tokens: args.max_tokens,
        temperature: args.temperature,
        top_k: args.top_k,
        top_p: args.top_p,
        min_p: args.min_p,
        seed: args.seed,
        stop: (!args.stop.is_empty()).then(|| Stops::Many(args.stop.clone())),
        ignore_eos: args.ignore_eos,
        speculation: args.speculation.clone(),
        json: args.constraint.json_schema.as_deref().map(schema).transpose()?,
        regex: args.constraint.regex.clone(),
        grammar: args.constraint.grammar.as_deref().map(grammar).transpose()?,
        ..GenerateRequest::new(prompt(&args.prompt)?)
    };
    let engine = model::load(&args.common).await?;
    request.adapter = model::adapter(&engine, &args.common, &args.adapter).await?;
    let streams = !args.common.json;
    let (mut printed, gone) = (Ok(()), Cell::new(false));
    let mut sink = |piece: &Piece| {
        if streams && !gone.get() {
            // What it thinks is shown, but is no part of the answer that standard output carries.
            eprint!("{}", piece.reasoning);
            printed = print(&piece.text);
            gone.set(printed.is_err());
        }
    };
    let result = engine.generate(&request, &|| gone.get(), &mut sink).await;
    printed?;
    let result = result?;
    if streams {
        return print_line("");
    }
    print_json(&json!({
        "text": result.text,
        "reasoning": result.reasoning,
        "tool_calls": result.tool_calls,
        "tokens": result.tokens,
        "prompt_tokens": result.usage.prompt_tokens,
        "finish_reason": match result.finish_reason {
            FinishReason::Stop => "stop",
            FinishReason::Length => "length",
            FinishReason::ToolCalls => "tool_calls",
        },
        "constraint_complete": result.constraint_complete,
        "seed": result.seed,
        "timings": {
            "first_token_secs": result.timings.first_token_secs,
            "prefill_secs": result.timings.prefill_secs,
            "decode_secs": result.timings.decode_secs,
            "tokens_per_second": result.timings.tokens_per_second,
        },
        "speculation": result.speculation,
    }))
}

fn prompt(args: &PromptArgs) -> Result<Prompt> {
    if let Some(path) = &args.messages {
        return Prompt::from_json(&text(path)?).at(|| path.display().to_string());
    }
    Ok(match (&args.prompt, &args.ids) {
        (Some(words), _) => Prompt::Text(words.clone()),
        (None, ids) => Prompt::Ids(ids.clone().unwrap_or_default()),
    })
}

fn text(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|error| source::failed(path, error))
}

fn grammar(path: &Path) -> Result<Grammar> {
    let is_gbnf = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gbnf"));
    let text = text(path)?;
    Ok(if is_gbnf { Grammar::Gbnf { gbnf: text } } else { Grammar::Lark(text) })
}

fn schema(path: &Path) -> Result<Value> {
    let not_json = |error: serde_json::Error| Error::new(ErrorKind::InvalidArgument, format!("not JSON: {error}"));
    serde_json::from_str(&text(path)?).map_err(not_json).at(|| path.display().to_string())
}
