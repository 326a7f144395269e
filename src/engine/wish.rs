//! From a request to what guides its reply beside chance.

use super::calls;
use super::constraint;
use super::guide::{Signs, Wish};
use super::json::invalid;
use super::loaded::Loaded;
use super::output::{Choice, Reading, choice, prompt_end};
use super::request::GenerateRequest;
use crate::error::Result;
use crate::sample::Form;

/// What `request` wishes for; nothing where chance decides alone. `prompt` is the ids of its prompt.
///
/// Fails with `InvalidArgument`, `SchemaUnsupported` or `SchemaLimit`, naming the option and where in it.
pub(super) async fn of(
    request: &GenerateRequest,
    loaded: &Loaded,
    reading: Option<&Reading>,
    prompt: &[u32],
) -> Result<Option<Wish>> {
    let form = form(request, loaded, reading)?;
    let reasoning = request.reasoning.clone().unwrap_or_default();
    let budget = budget(reasoning.budget)?;
    let prefill = request.prefill.as_deref().filter(|text| !text.is_empty());
    let tokenizer = &loaded.tokenizer;

    let format = reading.map(Reading::format);
    let opened = prefill.is_none() && format.is_some_and(|format| format.opens(&prompt_end(tokenizer, prompt)));
    if form.is_none() && budget.is_none() {
        return Ok(None);
    }
    let thinks = prefill.is_none() && (opened || reasoning.enabled != Some(false));
    let words = format.filter(|_| thinks).and_then(|format| format.thinking());
    let always = words.is_some_and(|words| words.always);
    let special = |text: &str| tokenizer.encode(text, false, true);
    let opening = match words.filter(|words| words.always && !opened) {
        Some(words) => special(words.open)?,
        None => Vec::new(),
    };
    // A call has its own beginning.
    let plain = !matches!(&form, Some((option, _)) if *option == calls::OPTION);
    let constraint = match &form {
        None => None,
        Some((option, form)) => {
            let mut constraint = constraint::compile(loaded, option, form).await?;
            if let Some(prefill) = prefill {
                constraint::begin(constraint.as_mut(), option, prefill)?;
            }
            Some(constraint)
        }
    };
    Ok(Some(Wish {
        signs: words.map(|words| Signs::new(words, tokenizer)).transpose()?,
        opened: opened || always,
        opening,
        budget,
        lead: special(format.filter(|_| plain).map_or("", |format| format.lead()))?,
        constraint,
        ends: tokenizer.stop_ids().to_vec(),
        vocab: loaded.info.vocab_size,
    }))
}

/// What the text must be, and the option that says so: of calls, of an answer, or of either.
fn form(request: &GenerateRequest, loaded: &Loaded, reading: Option<&Reading>) -> Result<Option<(&'static str, Form)>> {
    let answer = constraint::form(request)?;
    let Some((reading, tools)) = reading.and_then(|reading| Some((reading, reading.tools()?))) else {
        return Ok(answer);
    };
    let choice = choice(request)?.unwrap_or(Choice::Auto);
    match answer {
        None if choice == Choice::Auto => Ok(None),
        None => Ok(Some((calls::OPTION, calls::form(reading.format(), tools, &choice, None, &loaded.tokenizer)?))),
        Some((_, form)) if choice == Choice::Auto => {
            let either = calls::form(reading.format(), tools, &choice, Some(&form), &loaded.tokenizer)?;
            Ok(Some((calls::OPTION, either)))
        }
        Some((option, _)) => Err(invalid("a reply that has to be a call is no such text").at(option)),
    }
}

fn budget(budget: Option<f64>) -> Result<Option<usize>> {
    const MOST: f64 = u32::MAX as f64;
    match budget {
        None => Ok(None),
        Some(count) if (0.0..=MOST).contains(&count) && count.fract() == 0.0 => Ok(Some(count as usize)),
        Some(count) => Err(invalid(format!("{count} is not a whole number from 0 to {MOST}")).at("reasoning.budget")),
    }
}
