//! llama.cpp's GBNF as a grammar in llguidance's dialect of Lark.
//!
//! GBNF knows no tokens of its own: rules go down to single letters, and every way to read a text counts. Lark has lexemes, the
//! longest of which is taken. So a part of a grammar becomes a lexeme only where that makes no difference (`lexemes.rs`);
//! everything else stays rules over single letters, which are right and slower.

mod lexemes;
mod node;
mod parse;
mod write;

use crate::{Fault, FaultKind};

/// Letters, names and operators of a grammar once it is read, at most.
const MAX_NODES: usize = 20_000;
/// Parentheses within parentheses, at most.
const MAX_DEPTH: usize = 64;
/// Largest number in braces, as in llama.cpp.
const MAX_REPEAT: u32 = 2000;

/// The grammar in Lark's notation.
pub(crate) fn to_lark(gbnf: &str) -> Result<String, Fault> {
    let grammar = parse::parse(gbnf)?;
    Ok(write::write(&lexemes::divide(&grammar)))
}

fn limit(message: String) -> Fault {
    Fault { kind: FaultKind::Limit, message }
}

#[cfg(test)]
mod tests;
