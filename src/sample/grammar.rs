//! Constraints natively: the crate `headwater-grammar`, in this program.

use std::cell::RefCell;

use headwater_grammar::{self as grammar, Fault, FaultKind, Follower};

use super::constraint::{Constraint, Form, Grammars, Mask};
use crate::error::{Error, ErrorKind, Result};
use crate::source::LocalFuture;
use crate::tokenizer::Tokenizer;

/// Compiles in this program; the vocabulary is made ready at the first request that needs it.
#[derive(Default)]
pub struct NativeGrammars(RefCell<Option<grammar::Grammars>>);

fn error(fault: Fault) -> Error {
    let kind = match fault.kind {
        FaultKind::Unsupported => ErrorKind::SchemaUnsupported,
        FaultKind::Limit => ErrorKind::SchemaLimit,
    };
    Error::new(kind, fault.message)
}

impl NativeGrammars {
    fn follow(&self, tokenizer: &Tokenizer, form: &Form) -> Result<Box<dyn Constraint>> {
        let mut made = self.0.borrow_mut();
        let grammars = match &mut *made {
            Some(grammars) => grammars,
            None => {
                let words = tokenizer.words()?;
                let vocabulary = grammar::Vocabulary { bytes: words.bytes, lengths: words.lengths, ends: words.ends };
                made.insert(grammar::Grammars::new(&vocabulary).map_err(error)?)
            }
        };
        let form = match form {
            Form::Json(text) => grammar::Form::Json(text.clone()),
            Form::Regex(text) => grammar::Form::Regex(text.clone()),
            Form::Lark(text) => grammar::Form::Lark(text.clone()),
            Form::Gbnf(text) => grammar::Form::Gbnf(text.clone()),
        };
        Ok(Box::new(Native(grammars.compile(&form).map_err(error)?)))
    }
}

impl Grammars for NativeGrammars {
    fn compile<'a>(&'a self, tokenizer: &'a Tokenizer, form: &'a Form) -> LocalFuture<'a, Result<Box<dyn Constraint>>> {
        Box::pin(async move { self.follow(tokenizer, form) })
    }
}

struct Native(Follower);

impl Constraint for Native {
    fn fork(&self) -> Result<Box<dyn Constraint>> {
        Ok(Box::new(Self(self.0.fork())))
    }

    fn mask(&mut self) -> Result<Mask> {
        self.0.mask().map(Mask).map_err(error)
    }

    fn accept(&mut self, id: u32) -> Result<()> {
        self.0.accept(id).map_err(error)
    }

    fn accept_text(&mut self, text: &str) -> Result<bool> {
        self.0.accept_text(text).map_err(error)
    }

    fn forced(&mut self) -> Result<Vec<u8>> {
        Ok(self.0.forced())
    }

    fn usable(&mut self, ids: &[u32]) -> Result<usize> {
        self.0.usable(ids).map_err(error)
    }

    fn complete(&mut self) -> Result<bool> {
        Ok(self.0.complete())
    }

    fn ended(&mut self) -> Result<bool> {
        Ok(self.0.ended())
    }
}
