//! What a reply's text must be, as ids: the promise of whatever follows a text and tells which ids may come next.
//!
//! Natively that is the crate `headwater-grammar` itself; on the web the same crate in a module of its own.

use crate::error::Result;
use crate::source::LocalFuture;
use crate::tokenizer::Tokenizer;

/// What a text must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Form {
    /// JSON that is valid under this schema, as its text.
    Json(String),
    /// A match of this regular expression, from its first letter to its last.
    Regex(String),
    /// A sentence of this grammar, in llguidance's dialect of Lark.
    Lark(String),
    /// A sentence of this grammar, in llama.cpp's GBNF.
    Gbnf(String),
}

/// Compiles forms for the vocabulary of one model.
pub trait Grammars {
    /// Follows a text of this form from its beginning. `tokenizer` is always the same one.
    ///
    /// Fails with `SchemaUnsupported` for what is wrong, cannot be met or is not supported, `SchemaLimit` past a limit; on
    /// the web also with what loading the module fails with.
    fn compile<'a>(&'a self, tokenizer: &'a Tokenizer, form: &'a Form) -> LocalFuture<'a, Result<Box<dyn Constraint>>>;
}

/// Follows one text. Fails with `SchemaLimit` where that takes too much work.
pub trait Constraint {
    /// Another one at the same place.
    fn fork(&self) -> Result<Box<dyn Constraint>>;

    /// The ids that may come next; those that end a reply where the text may end.
    fn mask(&mut self) -> Result<Mask>;

    /// Goes on by an id that the mask allows.
    fn accept(&mut self, id: u32) -> Result<()>;

    /// Goes on by a text. False if it cannot come here; nothing else is to be asked then.
    fn accept_text(&mut self, text: &str) -> Result<bool>;

    /// The bytes that must come next. An id that is no text, where a grammar forces one, begins with the byte 0xff.
    fn forced(&mut self) -> Result<Vec<u8>>;

    /// How many of these ids, which a tokenizer made of forced bytes, can be taken whatever comes after them.
    fn usable(&mut self, ids: &[u32]) -> Result<usize>;

    /// Whether the text could end here.
    fn complete(&mut self) -> Result<bool>;

    /// Whether the text must end here.
    fn ended(&mut self) -> Result<bool>;
}

/// A set of ids, a bit each, the lowest first; ids past its end are not in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mask(pub Vec<u32>);

impl Mask {
    /// All ids below `vocab` but these.
    pub fn all_but(vocab: usize, ids: &[u32]) -> Self {
        let mut mask = Self(vec![u32::MAX; vocab.div_ceil(32)]);
        for id in ids {
            if let Some(word) = mask.0.get_mut(*id as usize / 32) {
                *word &= !(1 << (id % 32));
            }
        }
        mask
    }

    /// Adds an id.
    pub fn add(&mut self, id: u32) {
        let place = id as usize / 32;
        if self.0.len() <= place {
            self.0.resize(place.saturating_add(1), 0);
        }
        if let Some(word) = self.0.get_mut(place) {
            *word |= 1 << (id % 32);
        }
    }

    /// Whether an id is in it.
    pub fn allows(&self, id: u32) -> bool {
        self.0.get(id as usize / 32).is_some_and(|word| word >> (id % 32) & 1 == 1)
    }

    /// Its ids, ascending.
    pub fn ids(&self) -> impl Iterator<Item = u32> {
        (0_u32..).zip(&self.0).flat_map(|(place, word)| {
            let mut left = *word;
            std::iter::from_fn(move || {
                let bit = (left != 0).then(|| left.trailing_zeros())?;
                left &= left.wrapping_sub(1);
                Some(place.wrapping_mul(32).wrapping_add(bit))
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Mask;

    #[test]
    fn a_mask_is_a_set_of_ids() {
        let mut mask = Mask::default();
        for id in [64, 3, 31, 32, 3] {
            mask.add(id);
        }
        assert_eq!(mask.ids().collect::<Vec<_>>(), [3, 31, 32, 64]);
        assert!(mask.allows(31) && !mask.allows(30) && !mask.allows(9999));
        let rest = Mask::all_but(40, &[2, 33]);
        assert!(rest.allows(1) && rest.allows(39) && !rest.allows(2) && !rest.allows(33));
    }
}
