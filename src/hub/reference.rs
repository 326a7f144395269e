//! References to models: `hf:owner/repo@revision:Q4_K_M`, the same without `hf:` for a mirror, or an address.

use super::DEFAULT_ENDPOINT;
use super::address::{Address, decode};
use crate::error::{At, Error, ErrorKind, Result};

/// Longest part of a reference.
const MAX_PART_BYTES: usize = 200;

/// Which of a repository's models is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pick {
    /// The only one.
    Any,
    /// The one whose file names carry this tag (`Q4_K_M`).
    Tag(String),
    /// This file, or the model in this folder.
    Path(String),
}

/// Where a model is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reference {
    /// A repository on a hub.
    Repo {
        /// Whether the reference itself names the hub (`hf:`); otherwise an endpoint has to be given beside it.
        names_hub: bool,
        /// `owner/name`.
        repo: String,
        /// A branch, tag or commit; the main branch where there is none.
        revision: Option<String>,
        /// Which model of it.
        pick: Pick,
    },
    /// A folder with `config.json` on any server.
    Folder(Address),
    /// One GGUF file on any server.
    File(Address),
}

impl Reference {
    /// Reads a reference. Fails with `InvalidArgument` in words that say what is missing.
    pub fn parse(text: &str) -> Result<Reference> {
        let place = || text.split(['?', '#']).next().unwrap_or_default().chars().take(MAX_PART_BYTES).collect();
        if text.contains("://") {
            return at_address(Address::parse(text)?);
        }
        match text.strip_prefix("hf:") {
            Some(rest) => repo(rest, true).at(place),
            None => repo(text, false).at(place),
        }
    }

    /// Whether a text can only be a reference: whoever has files of that name need not look for them.
    pub fn is_unmistakable(text: &str) -> bool {
        text.starts_with("hf:") || text.contains("://")
    }

    /// The reference in its one form.
    pub fn to_text(&self) -> String {
        match self {
            Reference::Repo { names_hub, repo, revision, pick } => {
                let hub = if *names_hub { "hf:" } else { "" };
                let revision = revision.as_ref().map_or(String::new(), |name| format!("@{}", name.replace('/', "%2F")));
                let pick = match pick {
                    Pick::Any => String::new(),
                    Pick::Tag(tag) => format!(":{tag}"),
                    Pick::Path(path) => format!("/{path}"),
                };
                format!("{hub}{repo}{revision}{pick}")
            }
            Reference::Folder(address) | Reference::File(address) => address.shown(),
        }
    }
}

/// `owner/name[@revision][:tag | /path]`.
fn repo(text: &str, names_hub: bool) -> Result<Reference> {
    let form = "a reference has the form owner/name, owner/name@revision, owner/name:Q4_K_M or owner/name/path/to/file";
    let (owner, rest) = text.split_once('/').ok_or_else(|| invalid(form))?;
    let (name, rest) = rest.split_at(rest.find(['@', ':', '/']).unwrap_or(rest.len()));
    for part in [owner, name] {
        if !is_name(part) {
            return Err(invalid(format!("{part:?} is no name of an owner or a repository; {form}")));
        }
    }
    let (revision, rest) = match rest.strip_prefix('@') {
        None => (None, rest),
        Some(rest) => {
            let (revision, rest) = rest.split_at(rest.find([':', '/']).unwrap_or(rest.len()));
            let decoded = decode(revision).filter(|name| is_revision(name));
            (Some(decoded.ok_or_else(|| invalid(format!("{revision:?} is no revision")))?), rest)
        }
    };
    let pick = if let Some(tag) = rest.strip_prefix(':') {
        if !is_name(tag) {
            return Err(invalid(format!("{tag:?} is no tag such as Q4_K_M")));
        }
        Pick::Tag(tag.to_owned())
    } else if let Some(path) = rest.strip_prefix('/').filter(|path| !path.is_empty()) {
        check_path(path.trim_end_matches('/'))?;
        Pick::Path(path.trim_end_matches('/').to_owned())
    } else {
        Pick::Any
    };
    Ok(Reference::Repo { names_hub, repo: format!("{owner}/{name}"), revision, pick })
}

/// An address: a page of the default hub means its repository, so that it is pinned and verified like any other.
fn at_address(address: Address) -> Result<Reference> {
    if address.origin() == DEFAULT_ENDPOINT {
        let path = decode(address.path().trim_matches('/')).unwrap_or_default();
        let parts: Vec<&str> = path.split('/').collect();
        if let [owner, name, rest @ ..] = parts.as_slice() {
            let at = match rest {
                [] => String::new(),
                ["resolve" | "blob" | "raw" | "tree", revision] => format!("@{revision}"),
                ["resolve" | "blob" | "raw" | "tree", revision, file @ ..] => format!("@{revision}/{}", file.join("/")),
                _ => return Err(invalid("this is no page of a model").at(address.shown())),
            };
            return repo(&format!("{owner}/{name}{at}"), true).at(|| address.shown());
        }
    }
    let is_file = address.path().to_ascii_lowercase().ends_with(".gguf");
    Ok(if is_file { Reference::File(address) } else { Reference::Folder(address) })
}

fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= MAX_PART_BYTES
        && !text.starts_with(['.', '-'])
        && !text.contains("..")
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

fn is_revision(text: &str) -> bool {
    text.split('/').all(is_name) && text.len() <= MAX_PART_BYTES
}

/// Fails where a path of a repository could lead out of it, or is no plain path at all.
pub(super) fn check_path(path: &str) -> Result<()> {
    let plain = |part: &str| !part.is_empty() && part != "." && part != "..";
    let odd = |letter: char| letter.is_control() || matches!(letter, '\\' | ':' | '*' | '?' | '"' | '<' | '>' | '|');
    if path.len() > 1024 || !path.split('/').all(plain) || path.contains(odd) {
        let shown: String = path.chars().take(MAX_PART_BYTES).flat_map(char::escape_debug).collect();
        return Err(invalid(format!("\"{shown}\" is no path of a file inside a repository")));
    }
    Ok(())
}

fn invalid(words: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidArgument, words)
}

#[cfg(test)]
mod tests {
    use super::{Pick, Reference};

    fn repo(text: &str) -> (bool, String, Option<String>, Pick) {
        match Reference::parse(text).unwrap() {
            Reference::Repo { names_hub, repo, revision, pick } => (names_hub, repo, revision, pick),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_form_is_read_and_written_back() {
        let some = |text: &str| Some(text.to_owned());
        let tag = |text: &str| Pick::Tag(text.to_owned());
        let path = |text: &str| Pick::Path(text.to_owned());
        let cases = [
            ("hf:Qwen/Qwen3-0.6B-GGUF:Q8_0", (true, "Qwen/Qwen3-0.6B-GGUF", None, tag("Q8_0"))),
            ("hf:o/n", (true, "o/n", None, Pick::Any)),
            ("o/n@main", (false, "o/n", some("main"), Pick::Any)),
            ("hf:o/n@v1.0:Q4_K_M", (true, "o/n", some("v1.0"), tag("Q4_K_M"))),
            ("hf:o/n@refs%2Fpr%2F3/a/b.gguf", (true, "o/n", some("refs/pr/3"), path("a/b.gguf"))),
            ("hf:o/n/sub/model.gguf", (true, "o/n", None, path("sub/model.gguf"))),
        ];
        for (text, (names_hub, name, revision, pick)) in cases {
            assert_eq!(repo(text), (names_hub, name.to_owned(), revision, pick), "{text}");
            assert_eq!(Reference::parse(text).unwrap().to_text(), text);
        }
    }

    #[test]
    fn pages_of_the_default_hub_mean_their_repositories() {
        let page = "https://huggingface.co/o/n/blob/main/model-Q4_0.gguf?download=true";
        assert_eq!(
            repo(page),
            (true, "o/n".to_owned(), Some("main".to_owned()), Pick::Path("model-Q4_0.gguf".to_owned()))
        );
        assert_eq!(repo("https://huggingface.co/o/n").1, "o/n");
        assert!(matches!(Reference::parse("https://a.example/m/model.GGUF").unwrap(), Reference::File(_)));
        assert!(matches!(Reference::parse("https://a.example/m/").unwrap(), Reference::Folder(_)));
    }

    #[test]
    fn what_is_no_reference_is_refused() {
        for bad in [
            "",
            "hf:",
            "gpt2",
            "hf:gpt2",
            "hf:/n",
            "hf:o/",
            "hf:../n",
            "hf:o/n@",
            "hf:o/n@a b",
            "hf:o/n:",
            "hf:o/n:a/b",
            "hf:o/n/../x",
            "hf:o/n//x",
            "hf:o/n/a\\b",
            "hf:o/n/c:d",
            "o/n@..%2F..",
            "https://user:pw@h.example/x.gguf",
            "http://h.example/x.gguf",
            "https://huggingface.co/o/n/discussions/1",
            "file:///etc/passwd",
        ] {
            let error = Reference::parse(bad).expect_err(bad);
            assert_eq!(error.kind(), crate::error::ErrorKind::InvalidArgument, "{bad}");
            assert!(!error.to_string().contains("pw"), "{error}");
        }
    }
}
