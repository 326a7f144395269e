//! Any bytes as the weights of a folder.
#![no_main]

use headwater_fuzz::{CONFIG, open};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| open(&[("config.json", CONFIG), ("model.safetensors", bytes)]));
