//! Pages by the prefix of tokens that they end: a tree whose nodes are pages, so that sequences which begin alike share
//! what they have in common, and what nobody reads stays until its room is needed.
//!
//! A node is found by the node before it and by its own tokens, compared and not hashed: the number of the node before it
//! stands for the whole prefix, and numbers are not used twice. So two prefixes can never be taken for each other. Below
//! the root are trees for each use of an adapter, since the same tokens have other keys and values under another.
//!
//! Only the last page of a path may have fewer tokens than a page holds. Pages that sequences read are pinned, with
//! everything before them; of the others the one least recently used goes first, ends before beginnings.

use std::collections::BTreeMap;

use super::Pool;
use crate::error::{Error, ErrorKind, Result};
use crate::graph::{AdapterUse, PAGE_TOKENS};

/// How many ids two lists have in common at their beginning.
pub fn common_prefix(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// A node's number.
pub(super) type NodeId = u64;

struct Node {
    /// The node before it, or the number of a root.
    parent: NodeId,
    children: Vec<NodeId>,
    tokens: Vec<u32>,
    page: u32,
    /// Sequences that read it.
    users: usize,
    /// When it was last of use.
    used: u64,
}

/// All pages of a model: free, kept for a prefix, or a sequence's own.
pub struct Pages {
    pool: Pool,
    nodes: BTreeMap<NodeId, Node>,
    /// The first nodes under each use of an adapter, and the number that stands for what is before them.
    roots: Vec<(Option<AdapterUse>, NodeId, Vec<NodeId>)>,
    next: NodeId,
    clock: u64,
}

/// What the tree has of a list of ids.
pub(super) struct Found {
    /// Full pages, from the first position on.
    pub(super) full: Vec<NodeId>,
    /// A page that begins with what follows them, and how many of its tokens.
    pub(super) tail: Option<(NodeId, usize)>,
}

impl Pages {
    /// `total` pages, all free.
    pub fn new(total: usize) -> Result<Self> {
        Ok(Self { pool: Pool::new(total)?, nodes: BTreeMap::new(), roots: Vec::new(), next: 0, clock: 0 })
    }

    /// Pages that can be had: free ones, and those of prefixes that nobody reads.
    pub fn free_pages(&self) -> usize {
        self.pool.free_pages().saturating_add(self.nodes.values().filter(|node| node.users == 0).count())
    }

    /// Pages that can be had without forgetting anything.
    pub fn unused_pages(&self) -> usize {
        self.pool.free_pages()
    }

    /// Adds `count` pages to `pages`, forgetting prefixes where it must: all of them, or none and `ContextFull`.
    pub fn take(&mut self, count: usize, pages: &mut Vec<u32>) -> Result<()> {
        if self.free_pages() >= count {
            while self.pool.free_pages() < count && self.evict()? {}
        }
        self.pool.take(count, pages)
    }

    /// Takes pages back that were taken and are in no tree.
    pub fn give_back(&mut self, pages: impl IntoIterator<Item = u32>) -> Result<()> {
        self.pool.give_back(pages)
    }

    /// Forgets all prefixes that nobody reads.
    pub fn clear(&mut self) -> Result<()> {
        while self.evict()? {}
        Ok(())
    }

    /// How many of the first of `ids` are kept.
    pub fn held(&self, adapter: Option<AdapterUse>, ids: &[u32]) -> usize {
        let found = self.find(adapter, ids);
        found.full.len().saturating_mul(PAGE_TOKENS).saturating_add(found.tail.map_or(0, |(_, tokens)| tokens))
    }

    /// How many of the pages that can be had a sequence of `ids` takes: all but those that others read. What is kept and read
    /// by nobody saves work and no page, for it can be had only until somebody reads it.
    pub fn taken_by(&self, adapter: Option<AdapterUse>, ids: &[u32]) -> usize {
        let found = self.find(adapter, ids);
        let is_read = |id: &&NodeId| self.nodes.get(id).is_some_and(|node| node.users > 0);
        ids.len().div_ceil(PAGE_TOKENS).saturating_sub(found.full.iter().filter(is_read).count())
    }

    /// The pages that are kept of `ids`, in order, with how many of their tokens.
    pub fn kept(&self, adapter: Option<AdapterUse>, ids: &[u32]) -> Vec<(u32, usize)> {
        let found = self.find(adapter, ids);
        let full = found.full.into_iter().map(|id| (id, PAGE_TOKENS));
        full.chain(found.tail).filter_map(|(id, tokens)| Some((self.page(id).ok()?, tokens))).collect()
    }

    /// Forgets the end that was not used for the longest time. Gives whether there was one.
    fn evict(&mut self) -> Result<bool> {
        let idle = self.nodes.iter().filter(|(_, node)| node.users == 0 && node.children.is_empty());
        let Some((&oldest, _)) = idle.min_by_key(|(_, node)| node.used) else { return Ok(false) };
        let page = self.remove(oldest)?;
        self.pool.give_back([page])?;
        Ok(true)
    }

    fn node(&self, id: NodeId) -> Result<&Node> {
        self.nodes.get(&id).ok_or_else(unknown)
    }

    fn node_mut(&mut self, id: NodeId) -> Result<&mut Node> {
        self.nodes.get_mut(&id).ok_or_else(unknown)
    }

    pub(super) fn page(&self, id: NodeId) -> Result<u32> {
        self.node(id).map(|node| node.page)
    }

    /// How many tokens a node has.
    pub(super) fn tokens(&self, id: NodeId) -> Result<usize> {
        self.node(id).map(|node| node.tokens.len())
    }

    /// Whether a node is in nobody's way: no sequence reads it and nothing follows it.
    pub(super) fn is_idle(&self, id: NodeId) -> Result<bool> {
        self.node(id).map(|node| node.users == 0 && node.children.is_empty())
    }

    /// A sequence more reads these.
    pub(super) fn pin(&mut self, ids: &[NodeId]) -> Result<()> {
        self.clock += 1;
        let used = self.clock;
        for id in ids {
            let node = self.node_mut(*id)?;
            (node.users, node.used) = (node.users.saturating_add(1), used);
        }
        Ok(())
    }

    /// A sequence less reads these.
    pub(super) fn unpin(&mut self, ids: &[NodeId]) -> Result<()> {
        self.clock += 1;
        let used = self.clock;
        for id in ids {
            let node = self.node_mut(*id)?;
            (node.users, node.used) = (node.users.checked_sub(1).ok_or_else(unknown)?, used);
        }
        Ok(())
    }

    /// The number that stands before the first page.
    pub(super) fn root(&mut self, adapter: Option<AdapterUse>) -> NodeId {
        if let Some((_, id, _)) = self.roots.iter().find(|(of, ..)| *of == adapter) {
            return *id;
        }
        self.roots.retain(|(.., first)| !first.is_empty());
        let id = self.number();
        self.roots.push((adapter, id, Vec::new()));
        id
    }

    fn number(&mut self) -> NodeId {
        self.next += 1;
        self.next
    }

    fn children(&self, parent: NodeId) -> &[NodeId] {
        let root = || self.roots.iter().find(|(_, id, _)| *id == parent).map(|(.., first)| first.as_slice());
        self.nodes.get(&parent).map(|node| node.children.as_slice()).or_else(root).unwrap_or_default()
    }

    fn children_mut(&mut self, parent: NodeId) -> Result<&mut Vec<NodeId>> {
        if let Some(node) = self.nodes.get_mut(&parent) {
            return Ok(&mut node.children);
        }
        self.roots.iter_mut().find(|(_, id, _)| *id == parent).map(|(.., first)| first).ok_or_else(unknown)
    }

    /// What is kept of `ids`.
    pub(super) fn find(&self, adapter: Option<AdapterUse>, ids: &[u32]) -> Found {
        let mut found = Found { full: Vec::new(), tail: None };
        let root = self.roots.iter().find(|(of, ..)| *of == adapter);
        let Some(mut parent) = root.map(|(_, id, _)| *id) else { return found };
        let mut rest = ids;
        loop {
            let common = |id: &NodeId| {
                let tokens = self.nodes.get(id).map_or(&[][..], |node| &node.tokens);
                (common_prefix(tokens, rest), *id)
            };
            let Some((len, id)) = self.children(parent).iter().map(common).max() else { return found };
            if len < PAGE_TOKENS {
                found.tail = (len > 0).then_some((id, len));
                return found;
            }
            found.full.push(id);
            parent = id;
            rest = rest.get(len..).unwrap_or_default();
        }
    }

    /// Whether a page with exactly these tokens follows `parent`.
    pub(super) fn has(&self, parent: NodeId, tokens: &[u32]) -> bool {
        self.children(parent).iter().filter_map(|id| self.nodes.get(id)).any(|node| node.tokens == tokens)
    }

    /// Keeps a page for the tokens after `parent`, unless that is done already; then the page is free. Gives the node that
    /// has them.
    pub(super) fn insert(&mut self, parent: NodeId, tokens: &[u32], page: u32) -> Result<NodeId> {
        let siblings = self.children(parent).to_vec();
        for id in siblings {
            let node = self.node(id)?;
            if node.tokens.starts_with(tokens) {
                self.pool.give_back([page])?;
                return Ok(id);
            }
            // What only begins like this says nothing that this does not.
            if tokens.starts_with(&node.tokens) && self.is_idle(id)? {
                let page = self.remove(id)?;
                self.pool.give_back([page])?;
            }
        }
        let id = self.number();
        self.clock += 1;
        let node = Node { parent, children: Vec::new(), tokens: tokens.to_vec(), page, users: 0, used: self.clock };
        self.nodes.insert(id, node);
        self.children_mut(parent)?.push(id);
        Ok(id)
    }

    /// Takes a node out, whose page is the caller's then.
    pub(super) fn remove(&mut self, id: NodeId) -> Result<u32> {
        let node = self.nodes.remove(&id).ok_or_else(unknown)?;
        self.children_mut(node.parent)?.retain(|child| *child != id);
        Ok(node.page)
    }
}

fn unknown() -> Error {
    Error::new(ErrorKind::Internal, "a page that is kept for nothing")
}
