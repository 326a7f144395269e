//! The one error type. A kind for programs, a place for people, the cause kept.
//!
//! The kinds are a closed set, the same in TypeScript (`pkg/src/errors.ts`); a test compares the two.

use std::fmt;

/// What went wrong, as a program can branch on it.
macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident => $retry:literal,)*) => {
        /// The closed set of error kinds.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum ErrorKind { $($(#[$doc])* $name,)* }

        impl ErrorKind {
            /// Every kind, in the order of their declaration.
            pub const ALL: &'static [ErrorKind] = &[$(ErrorKind::$name,)*];

            /// The name, the same in Rust, JSON and TypeScript.
            pub fn name(self) -> &'static str {
                match self { $(ErrorKind::$name => stringify!($name),)* }
            }

            /// Whether the same call may succeed later without any change by the caller.
            pub fn retryable(self) -> bool {
                match self { $(ErrorKind::$name => $retry,)* }
            }
        }
    };
}

kinds! {
    /// A connection failed.
    Network => true,
    /// A server answered with a status that is not success.
    HttpStatus => true,
    /// A transfer stood still.
    Stalled => true,
    /// The other origin does not allow this page to read its answer.
    CorsBlocked => false,
    /// A token is needed.
    AuthRequired => false,
    /// The repository's terms have not been accepted.
    Gated => false,
    /// The caller's own policy or lock file refuses the model: its licence, size, host, or that it cannot be verified.
    PolicyRefused => false,
    /// No such model, file or revision.
    NotFound => false,
    /// A signed address is no longer valid.
    SignedUrlExpired => true,
    /// The bytes do not have the hash they should have.
    IntegrityMismatch => false,
    /// The bytes do not have the length they should have.
    SizeMismatch => false,
    /// The source changed while it was being read.
    RevisionChanged => true,
    /// The device's storage has no room.
    QuotaExceeded => false,
    /// What had been stored is gone.
    StorageLost => true,
    /// Another tab holds the storage.
    StorageBusy => true,
    /// This browser or context has no storage.
    StorageUnavailable => false,
    /// Not a model, or a format, architecture or number type that is not supported; the message names it.
    UnsupportedFormat => false,
    /// A GGUF file that breaks the format's rules.
    MalformedGguf => false,
    /// A safetensors file, or its index, that breaks the format's rules.
    MalformedSafetensors => false,
    /// A tokenizer that breaks its format's rules.
    MalformedTokenizer => false,
    /// A model whose configuration or tensors do not fit its architecture.
    MalformedModel => false,
    /// A chat template that does not parse, or that raised.
    TemplateError => false,
    /// A chat template past its limits (size, depth, steps, output).
    TemplateLimit => false,
    /// A JSON Schema, regex or grammar with a part that is not supported.
    SchemaUnsupported => false,
    /// A JSON Schema, regex or grammar past its limits.
    SchemaLimit => false,
    /// Some other public limit was passed; the message names it.
    LimitExceeded => false,
    /// An option or argument that is unknown, of the wrong type or out of range.
    InvalidArgument => false,
    /// No WebGPU (or Vulkan, Metal, Direct3D) adapter.
    GpuUnavailable => false,
    /// The adapter lacks something that was asked for.
    GpuFeatureMissing => false,
    /// The GPU has no room.
    GpuOutOfMemory => false,
    /// The GPU went away.
    DeviceLost => true,
    /// The browser refuses the GPU to this page until it is reloaded.
    GpuBlocked => false,
    /// The GPU did not answer in time.
    GpuTimeout => true,
    /// Logits that are not numbers.
    BadLogits => false,
    /// The context has no room for the prompt or for the next token.
    ContextFull => false,
    /// The caller's signal ended the work.
    Aborted => false,
    /// Output that had to be complete was cut by a length limit.
    Truncated => false,
    /// The worker is gone.
    WorkerGone => true,
    /// The engine trapped; a new one is needed.
    EnginePoisoned => true,
    /// A content security policy keeps the engine from running.
    CspBlocked => false,
    /// The model was disposed of.
    Disposed => false,
    /// A file could not be read or written.
    Io => false,
    /// A fault of ours.
    Internal => false,
}

/// An error: its kind, words that name what and where, and the cause where there is one.
#[derive(Debug)]
pub struct Error(Box<Inner>);

#[derive(Debug)]
struct Inner {
    kind: ErrorKind,
    message: String,
    at: Vec<String>,
    source: Option<Box<dyn std::error::Error + 'static>>,
}

/// The library's result.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error of `kind`, in words for people.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Error(Box::new(Inner { kind, message: message.into(), at: Vec::new(), source: None }))
    }

    /// Adds the place (a file, a tensor, a key); outer places are added later.
    #[must_use]
    pub fn at(mut self, place: impl Into<String>) -> Self {
        self.0.at.push(place.into());
        self
    }

    /// Keeps the cause.
    #[must_use]
    pub fn caused_by(mut self, source: impl std::error::Error + 'static) -> Self {
        self.0.source = Some(Box::new(source));
        self
    }

    /// The kind, for programs.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The words without the place.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The place, outermost first (`model.gguf: blk.0.attn_q.weight`); empty when there is none.
    pub fn place(&self) -> String {
        self.0.at.iter().rev().cloned().collect::<Vec<_>>().join(": ")
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for place in self.0.at.iter().rev() {
            write!(f, "{place}: ")?;
        }
        f.write_str(&self.0.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref()
    }
}

/// Adds a place to the error of a result.
pub trait At<T> {
    /// See [`Error::at`]; the words are made only when there is an error.
    fn at(self, place: impl FnOnce() -> String) -> Result<T>;
}

impl<T> At<T> for Result<T> {
    fn at(self, place: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| error.at(place()))
    }
}
