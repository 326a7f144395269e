//! `headwater tokenize`: texts to ids, a line of JSON each.

use headwater::error::Result;
use headwater::tokenizer::Tokenizer;
use serde_json::json;

use crate::args::TokenizeArgs;
use crate::output::print_json;
use crate::{lines, model};

pub(crate) async fn run(args: &TokenizeArgs) -> Result<()> {
    let tokenizer = Tokenizer::from_metadata(&model::open(&args.common).await?.metadata)?;
    for text in lines::texts() {
        let ids = tokenizer.encode(&text?, args.add_special, !args.plain)?;
        let text = tokenizer.decode(&ids, false)?;
        print_json(&json!({ "ids": ids, "text": text }))?;
    }
    Ok(())
}
