//! Which parts of a grammar are lexemes.
//!
//! A lexer takes the longest lexeme, a grammar any reading. They agree where no letter that may follow a lexeme could go on with
//! it, or with another that begins alike. Parts of a grammar without recursion are tried as lexemes, the largest first; those
//! that break the rule are taken apart, and it is looked at anew, until it holds. Single letters never break it. What may
//! follow is computed as for any parser by tables (Aho et al., "Compilers", 4.4.2); where it is hard to say how a lexeme could
//! go on, all of its letters count.

use std::collections::{BTreeMap, BTreeSet};

use super::node::{Grammar, Letters, Node};

/// A grammar over lexemes.
pub(super) struct Divided {
    /// Rules by their place; those that lexemes took the place of are not there.
    pub(super) rules: BTreeMap<usize, Part>,
    pub(super) root: Part,
    /// Without recursion.
    pub(super) lexemes: Vec<Node>,
}

/// A part of a rule.
#[derive(Clone, Debug)]
pub(super) enum Part {
    /// The lexeme at a place, and whether there may be none.
    Lexeme(usize, bool),
    All(Vec<Part>),
    Any(Vec<Part>),
    Times(Box<Part>, u32, Option<u32>),
    Rule(usize),
}

/// Divides a grammar.
pub(super) fn divide(grammar: &Grammar) -> Divided {
    let flat = flattened(grammar);
    let mut apart = BTreeSet::new();
    loop {
        let mut work = Work { grammar, flat: &flat, apart: &apart, rules: BTreeMap::new(), lexemes: Vec::new() };
        let root = work.part(&Node::Rule(grammar.root));
        let divided = Divided { rules: work.rules, root, lexemes: work.lexemes };
        let broken = broken(&divided);
        if broken.is_empty() {
            return divided;
        }
        apart.extend(broken);
    }
}

/// Each rule without names of others, where it has no recursion and stays small.
fn flattened(grammar: &Grammar) -> Vec<Option<Node>> {
    /// Parts of one lexeme, at most: large ones are rules.
    const MOST: usize = 500;
    fn flat(node: &Node, done: &[Option<Node>], size: &mut usize) -> Option<Node> {
        *size += 1;
        let each = |nodes: &[Node], size: &mut usize| -> Option<Vec<Node>> {
            nodes.iter().map(|node| flat(node, done, size)).collect()
        };
        let made = match node {
            Node::One(_) => node.clone(),
            Node::All(nodes) => Node::All(each(nodes, size)?),
            Node::Any(nodes) => Node::Any(each(nodes, size)?),
            Node::Times(inner, least, most) => Node::Times(Box::new(flat(inner, done, size)?), *least, *most),
            Node::Rule(index) => flat(done.get(*index)?.as_ref()?, done, size)?,
        };
        (*size <= MOST).then_some(made)
    }
    let mut done = vec![None; grammar.rules.len()];
    loop {
        let found: Vec<(usize, Node)> = (0..)
            .zip(&grammar.rules)
            .filter(|(index, _)| done.get(*index).is_some_and(Option::is_none))
            .filter_map(|(index, rule)| Some((index, flat(rule, &done, &mut 0)?)))
            .collect();
        if found.is_empty() {
            return done;
        }
        for (index, node) in found {
            if let Some(slot) = done.get_mut(index) {
                *slot = Some(node);
            }
        }
    }
}

struct Work<'a> {
    grammar: &'a Grammar,
    flat: &'a [Option<Node>],
    /// What is no lexeme.
    apart: &'a BTreeSet<Node>,
    rules: BTreeMap<usize, Part>,
    lexemes: Vec<Node>,
}

impl Work<'_> {
    fn flat(&self, node: &Node) -> Option<Node> {
        Some(match node {
            Node::One(_) => node.clone(),
            Node::All(nodes) => Node::All(nodes.iter().map(|node| self.flat(node)).collect::<Option<_>>()?),
            Node::Any(nodes) => Node::Any(nodes.iter().map(|node| self.flat(node)).collect::<Option<_>>()?),
            Node::Times(inner, least, most) => Node::Times(Box::new(self.flat(inner)?), *least, *most),
            Node::Rule(index) => self.flat.get(*index)?.clone()?,
        })
    }

    fn part(&mut self, node: &Node) -> Part {
        if let Some(flat) = self.flat(node).filter(|flat| !self.apart.contains(flat) && Seen::of(flat).any) {
            let empty = Seen::of(&flat).empty;
            let place = self.lexemes.iter().position(|other| *other == flat).unwrap_or_else(|| {
                self.lexemes.push(flat);
                self.lexemes.len() - 1
            });
            return Part::Lexeme(place, empty);
        }
        match node {
            Node::One(_) => Part::All(Vec::new()),
            Node::All(nodes) => Part::All(nodes.iter().map(|node| self.part(node)).collect()),
            Node::Any(nodes) => Part::Any(nodes.iter().map(|node| self.part(node)).collect()),
            Node::Times(inner, least, most) => Part::Times(Box::new(self.part(inner)), *least, *most),
            Node::Rule(index) => {
                if !self.rules.contains_key(index) {
                    // There while its own body is looked at, which may name it.
                    self.rules.insert(*index, Part::All(Vec::new()));
                    let body = self.grammar.rules.get(*index).map(|rule| self.part(rule));
                    self.rules.extend(body.map(|body| (*index, body)));
                }
                Part::Rule(*index)
            }
        }
    }
}

/// What is known of the texts of a part.
#[derive(Clone, Default, PartialEq)]
struct Seen {
    /// Nothing is one of them.
    empty: bool,
    /// There are others.
    any: bool,
    first: Letters,
    /// Letters by which one of them could become the beginning of a longer one.
    more: Letters,
    /// All letters.
    all: Letters,
}

impl Seen {
    /// Of a part without names.
    fn of(node: &Node) -> Self {
        match node {
            Node::One(letters) => Self { any: true, first: letters.clone(), all: letters.clone(), ..Self::default() },
            Node::All(nodes) => {
                nodes.iter().fold(Self { empty: true, ..Self::default() }, |before, node| before.then(&Self::of(node)))
            }
            Node::Any(nodes) => {
                let seen: Vec<Self> = nodes.iter().map(Self::of).collect();
                seen.iter().skip(1).fold(seen.first().cloned().unwrap_or_default(), |before, one| before.or(one))
            }
            Node::Times(inner, least, most) => {
                let one = Self::of(inner);
                let clear = !one.more.meets(&one.first) && !one.empty;
                let exact = *most == Some(*least) || *most == Some(1) && *least == 1;
                let more = match (clear, exact) {
                    (true, true) => one.more.clone(),
                    (true, false) => one.more.with(&one.first),
                    (false, _) => one.all.clone(),
                };
                let none = *most == Some(0);
                let any = one.any && !none;
                Self { empty: *least == 0 || one.empty, any, more, ..one }
            }
            Node::Rule(_) => Self::default(),
        }
    }

    fn then(&self, next: &Self) -> Self {
        let all = self.all.with(&next.all);
        let own_more = if self.empty { self.more.with(&self.first) } else { self.more.clone() };
        let clear = !own_more.meets(&next.first);
        let more = match (clear, next.empty) {
            (false, _) => all.clone(),
            (true, false) => next.more.clone(),
            (true, true) => next.more.with(&own_more).with(&next.first),
        };
        Self {
            empty: self.empty && next.empty,
            any: self.any || next.any,
            first: if self.empty { self.first.with(&next.first) } else { self.first.clone() },
            more,
            all,
        }
    }

    fn or(&self, other: &Self) -> Self {
        let all = self.all.with(&other.all);
        let clear = !self.first.meets(&other.first);
        Self {
            empty: self.empty || other.empty,
            any: self.any || other.any,
            first: self.first.with(&other.first),
            more: if clear { self.more.with(&other.more) } else { all.clone() },
            all,
        }
    }
}

/// The lexemes that may take what is another's.
fn broken(divided: &Divided) -> Vec<Node> {
    let seen: Vec<Seen> = divided.lexemes.iter().map(Seen::of).collect();
    let follow = Follow::of(divided, &seen);
    let single = |index: usize| matches!(divided.lexemes.get(index), Some(Node::One(_)));
    let breaks = |index: usize| {
        let Some(own) = seen.get(index).filter(|_| !single(index)) else { return false };
        seen.iter().zip(&follow.after).enumerate().any(|(other, (theirs, after))| match other == index {
            true => own.more.meets(after),
            false => own.first.meets(&theirs.first) && own.all.meets(after),
        })
    };
    divided.lexemes.iter().enumerate().filter(|(index, _)| breaks(*index)).map(|(_, node)| node.clone()).collect()
}

/// What may come after each lexeme.
struct Follow<'a> {
    seen: &'a [Seen],
    /// Of each rule: whether it may be empty, and its first letters.
    begins: BTreeMap<usize, (bool, Letters)>,
    /// After each rule.
    ends: BTreeMap<usize, Letters>,
    after: Vec<Letters>,
}

impl<'a> Follow<'a> {
    fn of(divided: &Divided, seen: &'a [Seen]) -> Self {
        let after = vec![Letters::default(); seen.len()];
        let begins = divided.rules.keys().map(|index| (*index, Default::default())).collect();
        let mut follow = Self { seen, begins, ends: BTreeMap::new(), after };
        loop {
            let begins: BTreeMap<usize, (bool, Letters)> =
                divided.rules.iter().map(|(index, rule)| (*index, follow.begin(rule))).collect();
            if begins == follow.begins {
                break;
            }
            follow.begins = begins;
        }
        loop {
            let before = (follow.ends.clone(), follow.after.clone());
            follow.end(&divided.root, &Letters::default());
            for (index, rule) in &divided.rules {
                let after = follow.ends.get(index).cloned().unwrap_or_default();
                follow.end(rule, &after);
            }
            if before == (follow.ends.clone(), follow.after.clone()) {
                return follow;
            }
        }
    }

    fn begin(&self, part: &Part) -> (bool, Letters) {
        match part {
            Part::Lexeme(index, empty) => {
                (*empty, self.seen.get(*index).map(|seen| seen.first.clone()).unwrap_or_default())
            }
            Part::Rule(index) => self.begins.get(index).cloned().unwrap_or_default(),
            Part::Times(inner, least, _) => {
                let (empty, first) = self.begin(inner);
                (empty || *least == 0, first)
            }
            Part::Any(parts) => parts.iter().fold((false, Letters::default()), |(empty, first), part| {
                let (also, more) = self.begin(part);
                (empty || also, first.with(&more))
            }),
            Part::All(parts) => parts.iter().rev().fold((true, Letters::default()), |(empty, first), part| {
                let (also, more) = self.begin(part);
                if also { (empty, more.with(&first)) } else { (false, more) }
            }),
        }
    }

    /// Notes that `after` may come behind a part.
    fn end(&mut self, part: &Part, after: &Letters) {
        match part {
            Part::Lexeme(index, _) => {
                if let Some(letters) = self.after.get_mut(*index) {
                    *letters = letters.with(after);
                }
            }
            Part::Rule(index) => {
                let letters = self.ends.entry(*index).or_default();
                *letters = letters.with(after);
            }
            Part::Times(inner, ..) => {
                let (_, again) = self.begin(inner);
                self.end(inner, &after.with(&again));
            }
            Part::Any(parts) => parts.iter().for_each(|part| self.end(part, after)),
            Part::All(parts) => {
                let mut after = after.clone();
                for part in parts.iter().rev() {
                    self.end(part, &after);
                    let (empty, first) = self.begin(part);
                    after = if empty { first.with(&after) } else { first };
                }
            }
        }
    }
}
