//! Servers with the demo's model, a store, and the program between them.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::repository::sha256;
use crate::server::Servers;

pub(crate) const MODEL: &str = "www/models/tiny-assistant/tiny-assistant-q8_0.gguf";
pub(crate) const REFERENCE: &str = "tiny/assistant:Q8_0";
pub(crate) const TOKEN: &str = "hf_secretofthetests";
/// What may be fetched again of the file that was open.
pub(crate) const AGAIN: u64 = 4 << 20;

pub(crate) fn read(path: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).expect("a file of the project")
}

/// Servers with the demo's model, and a store that is empty.
pub(crate) struct Lab {
    pub(crate) servers: Servers,
    pub(crate) store: PathBuf,
}

impl Lab {
    pub(crate) fn new(name: &str) -> Self {
        let store = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("pull-{name}"));
        if store.exists() {
            std::fs::remove_dir_all(&store).expect("an old store");
        }
        let servers = Servers::start();
        servers.put("tiny/assistant", "tiny-assistant-Q8_0.gguf", read(MODEL));
        servers.put(
            "tiny/assistant",
            "README.md",
            b"---\nlicense: apache-2.0\nbase_model: o/n\n---\n# Tiny\n".to_vec(),
        );
        Self { servers, store }
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_headwater"));
        command.current_dir(env!("CARGO_MANIFEST_DIR")).args(args).arg("--json");
        command.args(["--endpoint", &format!("http://{}", self.servers.hub), "--allow-host", &self.servers.cdn]);
        command.arg("--store").arg(&self.store).env_remove("HF_TOKEN").stdin(Stdio::null());
        command
    }

    /// The object that a command prints, whether it succeeded or not.
    pub(crate) fn run(&self, args: &[&str]) -> Value {
        let output = self.command(args).output().expect("the program");
        let (text, words) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        for secret in [TOKEN, "verysecret"] {
            assert!(!text.contains(secret) && !words.contains(secret), "{secret} is told: {text}{words}");
        }
        assert!(!words.contains("panicked"), "{words}");
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{args:?}: {error}: {text}{words}"))
    }

    pub(crate) fn pulls(&self, args: &[&str]) -> Value {
        let told = self.run(&[&["pull", REFERENCE], args].concat());
        assert_eq!(told["files"][0]["sha256"], json!(sha256(&read(MODEL))), "{told}");
        assert_eq!(self.kept(), Some(read(MODEL)));
        told
    }

    pub(crate) fn fails(&self, args: &[&str], kind: &str, words: &str) {
        let told = self.run(args);
        assert_eq!(told["error"]["kind"], kind, "{told}");
        assert!(told["error"]["message"].as_str().expect("words").contains(words), "{told}");
    }

    /// The content of the model's file, if it is said to be kept.
    pub(crate) fn kept(&self) -> Option<Vec<u8>> {
        let listed = self.run(&["store", "list"]);
        let model = listed["models"].as_array().expect("models").first()?;
        let name = format!("sha256-{}", model["files"][0]["sha256"].as_str().expect("a hash"));
        let files = walk(&self.store);
        let path = files.iter().find(|path| path.ends_with(&name)).expect("a listed model's file");
        Some(std::fs::read(path).expect("bytes"))
    }
}

pub(crate) fn walk(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}
