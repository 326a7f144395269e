//! What a caller chooses about a plan.

use crate::error::{Error, ErrorKind, Result};

/// The context that is made ready where the caller asks for none and the model would allow more, in tokens: keys and
/// values of a long one can outweigh the model.
pub const DEFAULT_CONTEXT: usize = 4096;

/// Options of [`plan_with`](super::plan_with).
#[derive(Clone, Debug, Default)]
pub struct PlanOptions {
    /// Tokens that prompt and reply may have together; the model's own length, at most [`DEFAULT_CONTEXT`], when absent.
    pub context: Option<usize>,
    /// The architecture that the files are read as, in the place of the one that they name.
    pub architecture: Option<String>,
    /// The format that matrices of floats are quantised to while they are read, by its name (`"q4_k"`).
    pub quantize: Option<String>,
}

impl PlanOptions {
    /// Tokens of context, for a model that was made for `trained` and whose authors cut texts at `cut`. Fails with
    /// `InvalidArgument` outside of `2 ..= trained`.
    pub(super) fn context_of(&self, trained: usize, cut: Option<usize>) -> Result<usize> {
        match self.context {
            None => Ok(trained.min(DEFAULT_CONTEXT).min(cut.unwrap_or(usize::MAX))),
            Some(context) if (2..=trained).contains(&context) => Ok(context),
            Some(context) => {
                let problem = format!("{context} is outside 2 ..= {trained}");
                Err(Error::new(ErrorKind::InvalidArgument, problem).at("context"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{DEFAULT_CONTEXT, PlanOptions};

    #[test]
    fn a_context_is_the_callers_or_what_the_model_allows() {
        let of = |context, trained| PlanOptions { context, ..PlanOptions::default() }.context_of(trained, None);
        assert_eq!(of(Some(64), 512).unwrap(), 64);
        assert_eq!(of(None, 512).unwrap(), 512);
        assert_eq!(of(None, 100_000).unwrap(), DEFAULT_CONTEXT);
        assert_eq!(PlanOptions::default().context_of(512, Some(256)).unwrap(), 256);
        for context in [1, 513] {
            let error = of(Some(context), 512).unwrap_err().to_string();
            assert_eq!(error, format!("context: {context} is outside 2 ..= 512"));
        }
    }
}
