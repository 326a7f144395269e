//! Where keys and values live between steps: pages from a pool, the sequence of tokens that they stand for, and the
//! states of models with recurrence.
//!
//! A page holds the keys and values of [`PAGE_TOKENS`](crate::graph::PAGE_TOKENS) consecutive positions in every layer.
//! This folder only keeps the books (which page belongs to whom); the numbers themselves never leave the backend.

mod pool;
mod sequence;
mod states;

pub use pool::Pool;
pub use sequence::Sequence;
pub use states::States;
