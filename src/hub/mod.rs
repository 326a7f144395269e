//! The hub: find, judge, fetch, verify, keep.
//!
//! A reference becomes a manifest (one commit, its files with sizes and hashes), the licence is judged before any weight
//! byte, what is missing is fetched in ranges, and nothing is used or called stored before its hash was checked. All of
//! it is plain logic between three small traits of [`edge`]; the edges bring sockets, files and clocks.

#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::panic
    )
)]

mod address;
mod api;
mod bases;
mod blob;
mod call;
mod card;
mod client;
mod digest;
pub mod edge;
mod hosts;
mod import;
mod incoming;
mod journal;
mod keep;
mod license;
mod license_table;
mod lock;
mod manifest;
mod meter;
mod pick;
mod plain;
mod policy;
mod pull;
mod reference;
mod shelf;
mod source;
mod transfer;
mod wait;

pub use address::Address;
pub use call::{Call, Consent, Found, Pulled};
pub use card::{Card, Gate};
pub use client::{Client, Token};
pub use hosts::Hosts;
pub use incoming::Incoming;
pub use license::{Base, License, Obligation, Terms, known_terms};
pub use lock::{Lock, LockedBase, LockedFile, LockedLicense, LockedModel};
pub use manifest::{Expected, Manifest, RepoFile, resolve};
pub use meter::{Listener, Phase, Progress};
pub use pick::choose;
pub use policy::{BaseModels, LicensePolicy, OnUnknown, Policy, Verdict};
pub use pull::{Hub, STALL_SECS};
pub use reference::{Pick, Reference};
pub use shelf::{KeptModel, Listed, Shelf, Usage};
pub use wait::Patience;

/// Where `hf:` references lead.
pub const DEFAULT_ENDPOINT: &str = "https://huggingface.co";
