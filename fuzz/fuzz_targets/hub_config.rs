//! Any bytes as one of the text files of a folder; the first byte says which.
#![no_main]

use headwater_fuzz::{CONFIG, TEXT_FILES, WEIGHTS, open};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((first, text)) = bytes.split_first() else { return };
    let fuzzed = TEXT_FILES[usize::from(*first) % TEXT_FILES.len()];
    let weights = if fuzzed.starts_with("model") { "a.safetensors" } else { "model.safetensors" };
    let rest = [("config.json", CONFIG), (weights, WEIGHTS)];
    let files: Vec<_> = rest.into_iter().filter(|(name, _)| *name != fuzzed).chain([(fuzzed, text)]).collect();
    open(&files);
});
