//! The hub's answers as its documentation has them (`tests/data/hub`): a revision with everything that is told of a model, and
//! a listing with folders, files of git, large files, and what only newer hubs tell.
//!
//! Shapes: <https://huggingface.co/docs/hub/api>, <https://huggingface.co/docs/huggingface.js/hub/interfaces/ListFileEntry>,
//! <https://huggingface.co/docs/huggingface_hub/package_reference/hf_api#huggingface_hub.ModelInfo>. Names and numbers are our own.

use headwater::error::ErrorKind;
use headwater::hub::Expected;

use crate::world::Fault;
use crate::{Lab, call};

const REVISION: &str = include_str!("../data/hub/revision.json");
const TREE: &str = include_str!("../data/hub/tree.json");
const REPO: &str = "acme/Llama-3.2-1B-Instruct-GGUF";

fn lab() -> Lab {
    let lab = Lab::new();
    lab.servers.rule(|seen, _| {
        match seen.url.contains("/tree/067b946cf014b7c697f3654f621d577a3e3afd1c?recursive=true") {
            true => Some(Fault::Status(200, vec![], TREE)),
            false => seen.url.contains("/revision/main").then_some(Fault::Status(200, vec![], REVISION)),
        }
    });
    lab
}

#[test]
fn what_the_hub_documents_is_understood() {
    let lab = lab();
    let found = pollster::block_on(lab.hub.find(&format!("{REPO}:Q4_K_M"), &call())).expect("found");
    let license = &found.license;
    assert_eq!(found.manifest.commit, "067b946cf014b7c697f3654f621d577a3e3afd1c");
    assert_eq!((license.id.as_deref(), license.gated), (Some("llama3.2"), true));
    assert_eq!(license.base_models, ["meta-llama/Llama-3.2-1B-Instruct"]);
    assert_eq!(
        (license.base_relation.as_deref(), license.attribution.as_deref()),
        (Some("quantized"), Some("Built with Llama"))
    );
    let hash = "6f85a640a97cf2bf5b8e764087b1e83da0fdb51d7c9fab7d0fece9385611df83".to_owned();
    let files: Vec<_> = found.files.iter().map(|file| (file.path.as_str(), file.size_bytes, &file.expected)).collect();
    assert_eq!(files, [("Llama-3.2-1B-Instruct-Q4_K_M.gguf", 807_694_464, &Expected::Sha256(hash))]);
    // Folders are no files; what git keeps has git's own hash.
    let listed: Vec<_> = found.manifest.files.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(listed, [".gitattributes", "README.md", "Llama-3.2-1B-Instruct-Q4_K_M.gguf", "original/params.json"]);
    let readme = &found.manifest.files[1];
    assert_eq!(readme.expected, Expected::GitBlob("3a5c2a1f1f2a0b9d5c6f4e7c8b1a0d9e8f7c6b5a".to_owned()));
    assert_eq!(lab.servers.seen.borrow().len(), 2, "the card and the licence need no request of their own");
}

#[test]
fn a_tag_that_is_not_there_is_told_with_those_that_are() {
    let lab = lab();
    let error = pollster::block_on(lab.hub.find(&format!("{REPO}:Q8_0"), &call())).err().expect("no such file");
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("Llama-3.2-1B-Instruct-Q4_K_M"), "{error}");
}
