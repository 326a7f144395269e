//! Embeddings: texts to vectors, pooled from the final hidden states as the model's files say or as the caller wants.

use serde::Deserialize;

use super::adapters::AdapterChoice;
use super::json::{self, invalid};
use super::loaded::Loaded;
use super::pack::{self, Read, Text, Wanted, Work};
use super::session::Session;
use crate::error::{Error, ErrorKind, Result};
use crate::graph::AdapterUse;
use crate::model::{Embedding, Pooling};

/// Texts of one call, at most.
pub const MAX_TEXTS: usize = 65_536;

/// One text or several.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, expecting = "a text or an array of texts is needed")]
pub enum Texts {
    /// One.
    One(String),
    /// Several.
    Many(Vec<String>),
}

impl Texts {
    /// As a list.
    pub(super) fn list(&self) -> &[String] {
        match self {
            Texts::One(text) => std::slice::from_ref(text),
            Texts::Many(texts) => texts,
        }
    }
}

/// A request for embeddings. What is absent is as the model's files say.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EmbedRequest {
    /// What is to be embedded. Instructions or prefixes that the model wants are a part of it; special tokens written in
    /// it are text.
    pub texts: Texts,
    /// `"mean"`, `"cls"` or `"last"`.
    pub pooling: Option<String>,
    /// Whether a vector is divided by its length.
    pub normalize: Option<bool>,
    /// Only so many of the first elements (Matryoshka, arXiv 2205.13147); normalised after they are taken.
    pub dimensions: Option<f64>,
    /// Whether a text that is too long loses its end; without, it is an error.
    #[serde(default)]
    pub truncate: bool,
    /// A resident adapter to embed with.
    pub adapter: Option<AdapterChoice>,
}

impl EmbedRequest {
    /// A request with every option absent.
    pub fn new(texts: Vec<String>) -> Self {
        Self {
            texts: Texts::Many(texts),
            pooling: None,
            normalize: None,
            dimensions: None,
            truncate: false,
            adapter: None,
        }
    }

    /// Reads a request of the package's interface. `InvalidArgument` names what is unknown or wrong.
    pub fn from_json(text: &str) -> Result<Self> {
        json::options(text, &[])
    }

    /// Checks every option, for a model whose states are `width` wide.
    pub(super) fn settings(&self, own: &Embedding, width: usize) -> Result<Settings> {
        let texts = self.texts.list().len();
        if !(1..=MAX_TEXTS).contains(&texts) {
            return Err(invalid(format!("{texts} texts are outside 1 ..= {MAX_TEXTS}")).at("texts"));
        }
        let pooling = match &self.pooling {
            None => own.pooling,
            Some(name) => Pooling::by_name(name).ok_or_else(|| {
                let known: Vec<&str> = Pooling::ALL.iter().map(|(name, _)| *name).collect();
                invalid(format!("{name:?} is none of {}", known.join(", "))).at("pooling")
            })?,
        };
        let dimensions = match self.dimensions {
            None => width,
            Some(count) if (1.0..=width as f64).contains(&count) && count.fract() == 0.0 => count as usize,
            Some(count) => {
                return Err(invalid(format!("{count} is not a whole number from 1 to {width}")).at("dimensions"));
            }
        };
        Ok(Settings { pooling, normalize: self.normalize.unwrap_or(own.normalize), dimensions })
    }
}

/// A request's options, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Settings {
    pooling: Pooling,
    normalize: bool,
    dimensions: usize,
}

/// Vectors of one call.
#[derive(Clone, Debug, PartialEq)]
pub struct Embeddings {
    /// Elements of one vector.
    pub dimensions: usize,
    /// All vectors, `(texts, dimensions)`, in the order of the texts.
    pub values: Vec<f32>,
    /// How they were pooled.
    pub pooling: &'static str,
    /// Ids of all texts together.
    pub prompt_tokens: usize,
}

impl Embeddings {
    /// The vectors one by one.
    pub fn rows(&self) -> impl Iterator<Item = &[f32]> {
        self.values.chunks_exact(self.dimensions.max(1))
    }
}

/// The ids of a text as the model is to see it.
pub(super) fn encode(
    loaded: &Loaded,
    text: &str,
    settings: Settings,
    truncate: bool,
    place: impl Fn() -> String,
) -> Result<Text> {
    let wanted = match settings.pooling {
        Pooling::Mean => Wanted::All,
        Pooling::Cls => Wanted::First,
        Pooling::Last => Wanted::Last,
    };
    let tokenizer = &loaded.tokenizer;
    let mut body = tokenizer.encode(text, false, false)?;
    let mut end = None;
    let around = tokenizer.around(&[]);
    if let Some(token) = loaded.end_token {
        let missing = || Error::new(ErrorKind::UnsupportedFormat, format!("the vocabulary has no {token}"));
        end = Some(tokenizer.id(token).ok_or_else(missing)?).filter(|id| around.last() != Some(id));
    }
    let room = loaded.context.saturating_sub(around.len()).saturating_sub(end.iter().len());
    if body.len() > room {
        if !truncate {
            let words = format!(
                "the text has {} tokens and the context has room for {room}; `truncate` takes the beginning",
                body.len()
            );
            return Err(Error::new(ErrorKind::ContextFull, words).at(place()));
        }
        body.truncate(room);
    }
    let mut ids = tokenizer.around(&body);
    ids.extend(end);
    if ids.is_empty() {
        return Err(invalid("the text is empty").at(place()));
    }
    Ok(Text { ids, wanted, ..Text::default() })
}

/// Runs the texts and pools what comes of them.
pub(super) async fn run(
    loaded: &Loaded,
    session: &mut Session,
    texts: &[Text],
    settings: Settings,
    adapter: Option<AdapterUse>,
    aborted: &dyn Fn() -> bool,
) -> Result<Embeddings> {
    let dimensions = settings.dimensions;
    // Sums in double precision, so that the length of a text costs no digits.
    let mut sums = vec![0f64; texts.len().saturating_mul(dimensions)];
    let mut take = |text: usize, row: &[f32]| {
        let sum = sums.iter_mut().skip(text.saturating_mul(dimensions)).take(dimensions);
        sum.zip(row).for_each(|(sum, element)| *sum += f64::from(*element));
    };
    let work = Work { read: Read::Hidden, most_outputs: usize::MAX, adapter, aborted };
    pack::run(loaded, session, texts, work, &mut take).await?;
    for (sum, text) in sums.chunks_exact_mut(dimensions.max(1)).zip(texts) {
        let count = if settings.pooling == Pooling::Mean { text.ids.len().max(1) as f64 } else { 1.0 };
        let length = sum.iter().map(|element| element * element).sum::<f64>().sqrt() / count;
        // A vector of zeros has no direction and stays what it is.
        let divisor = if settings.normalize && length > 0.0 { count * length } else { count };
        sum.iter_mut().for_each(|element| *element /= divisor);
    }
    Ok(Embeddings {
        dimensions,
        values: sums.iter().map(|element| *element as f32).collect(),
        pooling: settings.pooling.name(),
        prompt_tokens: texts.iter().map(|text| text.ids.len()).sum(),
    })
}

#[cfg(test)]
mod tests {
    use super::EmbedRequest;
    use crate::error::ErrorKind;
    use crate::model::{Embedding, Pooling};

    const OWN: Embedding = Embedding { pooling: Pooling::Cls, normalize: false, max_tokens: None, raw_scores: false };

    #[test]
    fn what_is_absent_is_the_models_own() {
        let settings = EmbedRequest::from_json(r#"{"texts": "x"}"#).expect("valid").settings(&OWN, 8).expect("valid");
        assert_eq!((settings.pooling, settings.normalize, settings.dimensions), (Pooling::Cls, false, 8));
        let json = r#"{"texts": ["x"], "pooling": "mean", "normalize": true, "dimensions": 4}"#;
        let settings = EmbedRequest::from_json(json).expect("valid").settings(&OWN, 8).expect("valid");
        assert_eq!((settings.pooling, settings.normalize, settings.dimensions), (Pooling::Mean, true, 4));
    }

    #[test]
    fn what_cannot_be_honoured_is_named() {
        for (json, place, words) in [
            (r#"{"texts": []}"#, "texts", "0 texts are outside 1 ..="),
            (r#"{"texts": "x", "pooling": "max"}"#, "pooling", "\"max\" is none of mean, cls, last"),
            (r#"{"texts": "x", "dimensions": 9}"#, "dimensions", "9 is not a whole number from 1 to 8"),
            (r#"{"texts": "x", "dimensions": 0}"#, "dimensions", "0 is not"),
            (r#"{"texts": "x", "dimensions": 2.5}"#, "dimensions", "2.5 is not"),
            (r#"{"texts": 3}"#, "texts", "a text or an array of texts"),
            (r#"{"texts": "x", "colour": 1}"#, "colour", "colour"),
            (r#"{"texts": "x", "normalize": 1}"#, "normalize", "boolean"),
        ] {
            let settings = EmbedRequest::from_json(json).and_then(|request| request.settings(&OWN, 8));
            let error = settings.expect_err(json);
            assert_eq!((error.kind(), error.place().as_str()), (ErrorKind::InvalidArgument, place), "{json}");
            assert!(error.message().contains(words), "{json}: {error}");
        }
    }
}
