//! The hub between servers, a store and a clock in memory: what it fetches, what it refuses, what it keeps, and that it
//! loses nothing when any one call fails.
#![allow(clippy::expect_used, reason = "a test says what it expects by failing")]

mod documented;
mod faults;
mod incoming;
mod keeping;
mod nth;
mod refusals;
#[path = "../common/repository.rs"]
mod repository;
mod world;

use std::rc::Rc;

use headwater::error::Result;
use headwater::hub::{Call, Hub, Policy, Pulled, Token};
use world::{Clock, Disk, HUB, Memory, Servers, TOKEN, Wire};

/// Servers, a store, and a hub between them.
pub(crate) struct Lab {
    pub(crate) servers: Rc<Servers>,
    pub(crate) memory: Rc<Memory>,
    pub(crate) clock: Rc<Clock>,
    pub(crate) hub: Hub,
}

impl Lab {
    pub(crate) fn new() -> Self {
        let (servers, memory) = (Rc::new(Servers::default()), Rc::new(Memory::default()));
        let clock = Rc::clone(&servers.clock);
        let hub = Hub::new(Rc::new(Wire(Rc::clone(&servers))), Rc::new(Disk(Rc::clone(&memory))), clock.clone());
        Self { servers, memory, clock, hub }
    }

    /// A repository with one GGUF file of so many bytes, a card and an Apache licence.
    pub(crate) fn with_gguf(len: usize) -> Self {
        let lab = Self::new();
        lab.servers.put("o/n", "m-Q8_0.gguf", world::weights(1, len));
        lab.servers.put("o/n", "README.md", b"---\nlicense: apache-2.0\n---\n".to_vec());
        lab
    }

    pub(crate) fn pull(&self, reference: &str, call: &Call) -> Result<Pulled> {
        pollster::block_on(self.hub.pull(reference, call))
    }

    /// Whether everything that a pulled model has is what the servers have.
    pub(crate) fn is_right(&self, pulled: &Pulled, repo: &str) -> bool {
        let files = self.servers.files.borrow();
        pulled.sources.iter().all(|source| {
            let len = usize::try_from(source.size_bytes()).expect("a small file");
            let bytes = pollster::block_on(source.read(0, len)).expect("a kept file");
            files[repo].get(source.name()) == Some(&bytes)
        })
    }
}

/// A call at the mirror, with a token and the CDN declared.
pub(crate) fn call() -> Call {
    Call {
        endpoint: Some(HUB.to_owned()),
        token: Some(Token::new(TOKEN).expect("a token")),
        policy: Policy { hosts: vec!["cdn.example".to_owned()], ..Policy::default() },
        ..Call::default()
    }
}

pub(crate) const MIB: usize = 1 << 20;
