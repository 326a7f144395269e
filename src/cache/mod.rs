//! Where keys and values live between steps: pages from a pool, the prefixes of tokens that they are kept for, the
//! sequences that read and extend them, and the states of models with recurrence.
//!
//! A page holds the keys and values of [`PAGE_TOKENS`](crate::graph::PAGE_TOKENS) consecutive positions in every layer.
//! This folder only keeps the books (which page belongs to whom); the numbers themselves never leave the backend.

mod pages;
mod pool;
mod sequence;
mod states;

pub use pages::{Pages, common_prefix};
pub use pool::Pool;
pub use sequence::{PageCopy, Sequence};
pub use states::States;
