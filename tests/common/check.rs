//! Checks that every backend is held to. Each returns what it measured; a figure past its bound is a failure.

use headwater::graph::{Backend, Decode, PAGE_TOKENS, Row, SamplerSettings, StateSlots, Step};

use super::{Goldens, Prompt, Reply, Trained, nmse};

/// A model with state keeps that of a lone sequence in its first slot.
const STATES: [StateSlots; 1] = [StateSlots { from: 0, to: 0 }];

/// What one check measured.
pub struct Finding {
    /// Which model, prompt and quantity.
    pub what: String,
    /// The figure, or the words, that were found.
    pub found: String,
    /// Whether it is within its bound.
    pub holds: bool,
}

/// Findings of all models; [`Report::finish`] shows all of them when one fails.
#[derive(Default)]
pub struct Report(Vec<Finding>);

impl Report {
    /// A figure that may be at most `bound`.
    pub fn at_most(&mut self, what: impl Into<String>, found: f64, bound: f64) {
        let holds = found <= bound;
        self.0.push(Finding { what: what.into(), found: format!("{found:.2e} (bound {bound:.0e})"), holds });
    }

    /// Ids that must be equal.
    pub fn same_ids(&mut self, what: impl Into<String>, found: &[u32], expected: &[u32]) {
        let differ = found.iter().zip(expected).position(|(a, b)| a != b);
        let differ = differ.or((found.len() != expected.len()).then(|| found.len().min(expected.len())));
        let words = match differ {
            None => format!("{} ids equal", found.len()),
            Some(at) => format!("differ at {at}: {found:?} where {expected:?} is right"),
        };
        self.0.push(Finding { what: what.into(), found: words, holds: differ.is_none() });
    }

    /// Fails, showing every finding, unless all hold; and fails when nothing was checked.
    pub fn finish(self) {
        assert!(!self.0.is_empty(), "nothing was checked");
        let line = |finding: &Finding| {
            let mark = if finding.holds { "ok  " } else { "FAIL" };
            format!("{mark} {}: {}\n", finding.what, finding.found)
        };
        let table: String = self.0.iter().map(line).collect();
        println!("{table}");
        assert!(self.0.iter().all(|finding| finding.holds), "\n{table}");
    }
}

/// A sequence of tokens at positions from 0 whose pages lie in the reverse of their order, so that nothing works
/// by chance of addresses.
pub struct Sequence<'a> {
    backend: &'a dyn Backend,
    pages: [Vec<u32>; 1],
    len: usize,
}

impl<'a> Sequence<'a> {
    pub fn new(backend: &'a dyn Backend) -> Self {
        Self { backend, pages: [(0..backend.n_pages() as u32).rev().collect()], len: 0 }
    }

    fn rows(&mut self, ids: &[u32]) -> Vec<Row> {
        let start = self.len;
        self.len += ids.len();
        assert!(self.len <= self.pages[0].len() * PAGE_TOKENS, "the test gave the backend too few pages");
        let place =
            |(i, token): (usize, &u32)| Row { token: *token, position: (start + i) as u32, sequence: 0, segment: 0 };
        ids.iter().enumerate().map(place).collect()
    }

    /// Runs ids in chunks of at most `chunk`; the logits of every one, `(ids, vocab)`.
    pub fn all_logits(&mut self, ids: &[u32], chunk: usize) -> Vec<f32> {
        let mut logits = vec![];
        for ids in ids.chunks(chunk.min(self.backend.max_rows())) {
            let rows = self.rows(ids);
            let outputs: Vec<u32> = (0..ids.len() as u32).collect();
            let step = Step { rows: &rows, pages: &self.pages, states: &STATES, outputs: &outputs };
            logits.extend(pollster::block_on(self.backend.forward(&step)).unwrap());
        }
        logits
    }

    /// Runs ids in chunks of at most `chunk`; the logits of the last one, `(vocab)`.
    pub fn last_logits(&mut self, ids: &[u32], chunk: usize) -> Vec<f32> {
        let (last, before) = ids.split_last().unwrap();
        let chunk = chunk.min(self.backend.max_rows());
        let (full, rest) = before.split_at(before.len() / chunk * chunk);
        for ids in full.chunks(chunk) {
            let rows = self.rows(ids);
            let step = Step { rows: &rows, pages: &self.pages, states: &STATES, outputs: &[] };
            assert!(self.backend.prefill(&step).unwrap().is_none(), "a step without outputs chose an id");
        }
        let rows = self.rows(&[rest, &[*last]].concat());
        let step = Step { rows: &rows, pages: &self.pages, states: &STATES, outputs: &[rows.len() as u32 - 1] };
        pollster::block_on(self.backend.forward(&step)).unwrap()
    }

    /// A whole reply of `count` ids, decoded in chains of at most `chain`, two of them under way at a time.
    pub fn reply(&mut self, settings: &SamplerSettings, prompt: &[u32], count: usize, chain: u32) -> Vec<u32> {
        self.backend.start_reply(settings, prompt, &[]).unwrap();
        let mut ids = vec![];
        let n_chunks = prompt.chunks(self.backend.max_rows()).count();
        for (index, chunk) in prompt.chunks(self.backend.max_rows()).enumerate() {
            let rows = self.rows(chunk);
            let last = rows.len() as u32 - 1;
            let outputs = if index + 1 == n_chunks { vec![last] } else { vec![] };
            let step = Step { rows: &rows, pages: &self.pages, states: &STATES, outputs: &outputs };
            if let Some(ticket) = self.backend.prefill(&step).unwrap() {
                ids.extend(pollster::block_on(self.backend.collect(ticket)).unwrap());
            }
        }
        let mut open = std::collections::VecDeque::new();
        let mut submitted = ids.len();
        while submitted < count || !open.is_empty() {
            if submitted < count && open.len() < 2 {
                let count = chain.min((count - submitted) as u32);
                let position = (prompt.len() + submitted - 1) as u32;
                let chain = Decode {
                    token: None,
                    position,
                    count,
                    pages: &self.pages[0],
                    states: STATES[0],
                    index: submitted as u32,
                };
                open.push_back(self.backend.decode(&chain).unwrap());
                submitted += count as usize;
            } else if let Some(ticket) = open.pop_front() {
                ids.extend(pollster::block_on(self.backend.collect(ticket)).unwrap());
            }
        }
        ids
    }
}

/// Pages for the longest prompt of the goldens and its continuation.
pub fn pages_for(goldens: &Goldens) -> usize {
    let longest = goldens.prompts.iter().map(|prompt| prompt.ids.len() + prompt.greedy.len()).max();
    longest.unwrap_or(0).div_ceil(PAGE_TOKENS)
}

/// Logits of every golden prompt, and after 31 more tokens fed one by one. Gives the worst error.
pub fn check_logits(backend: &dyn Backend, case: &str, goldens: &Goldens, bound: f64, report: &mut Report) -> f64 {
    let mut worst = 0.0;
    let mut check = |what: String, found: &[f32], golden: &[f32]| {
        let error = nmse(found, golden);
        report.at_most(what, error, bound);
        worst = f64::max(worst, error);
    };
    for Prompt { name, ids, greedy, .. } in &goldens.prompts {
        let mut sequence = Sequence::new(backend);
        let logits = match goldens.tensor(name, "logits") {
            Some(golden) => {
                let logits = sequence.all_logits(ids, ids.len());
                check(format!("{case}, {name}, all logits, NMSE"), &logits, golden);
                logits[logits.len() - golden.len() / ids.len()..].to_vec()
            }
            None => sequence.last_logits(ids, ids.len()),
        };
        if let Some(golden) = goldens.tensor(name, "logits_last") {
            check(format!("{case}, {name}, last logits, NMSE"), &logits, golden);
        }
        if let Some(golden) = goldens.tensor(name, "logits_step31") {
            let logits = sequence.last_logits(&greedy[..31], 1);
            check(format!("{case}, {name}, logits of step 31, NMSE"), &logits, golden);
        }
    }
    worst
}

/// Greedy continuations, up to the first step whose margin is below `margin`, decoded one by one and in chains.
pub fn check_greedy(backend: &dyn Backend, case: &str, goldens: &Goldens, margin: f32, report: &mut Report) {
    for Prompt { name, ids, greedy, margins } in &goldens.prompts {
        let safe = margins.iter().position(|found| *found < margin).unwrap_or(greedy.len());
        // A reply has one id at least; where the very first is too close to call, there is nothing to compare.
        if safe == 0 {
            continue;
        }
        for chain in [1, backend.decode_chain().max(5)] {
            let reply = Sequence::new(backend).reply(&SamplerSettings::default(), ids, safe, chain);
            report.same_ids(format!("{case}, {name}, greedy in chains of {chain}"), &reply, &greedy[..safe]);
        }
    }
}

/// A prompt in one chunk, token by token, in odd chunks and beside another sequence gives the same logits.
pub fn check_chunks(backend: &dyn Backend, case: &str, goldens: &Goldens, bound: f64, report: &mut Report) {
    let longest = goldens.prompts.iter().max_by_key(|prompt| prompt.ids.len()).unwrap();
    let whole = Sequence::new(backend).last_logits(&longest.ids, longest.ids.len());
    for chunk in [1, 7, 33] {
        let logits = Sequence::new(backend).last_logits(&longest.ids, chunk);
        report.at_most(format!("{case}, chunks of {chunk}, NMSE"), nmse(&logits, &whole), bound);
    }

    let shortest = goldens.prompts.iter().min_by_key(|prompt| prompt.ids.len()).unwrap();
    let length = shortest.ids.len().min(PAGE_TOKENS);
    let short = &shortest.ids[..length];
    let alone = Sequence::new(backend).last_logits(short, length);
    // Both sequences in one step, their rows in turns: the short one fills page 0, the long one what lies above.
    let n_pages = backend.n_pages() as u32;
    let pages = [vec![0], (1..n_pages).rev().collect()];
    let mut rows = vec![];
    for (position, (short, long)) in short.iter().zip(&longest.ids).enumerate() {
        let position = position as u32;
        rows.push(Row { token: *long, position, sequence: 1, segment: 0 });
        rows.push(Row { token: *short, position, sequence: 0, segment: 0 });
    }
    let states = [0, 1].map(|slot| StateSlots { from: slot, to: slot });
    let step = Step { rows: &rows, pages: &pages, states: &states, outputs: &[rows.len() as u32 - 1] };
    let logits = pollster::block_on(backend.forward(&step)).unwrap();
    report.at_most(format!("{case}, beside another sequence, NMSE"), nmse(&logits, &alone), bound);
}

/// A state that was gone back to gives exactly what it gave before, whatever was computed from it meanwhile; a model
/// without state has nothing to check.
pub fn check_states(backend: &dyn Backend, case: &str, goldens: &Goldens, report: &mut Report) {
    if backend.n_states() == 0 {
        return;
    }
    let ids = &goldens.prompts.iter().max_by_key(|prompt| prompt.ids.len()).unwrap().ids;
    let pages = [(0..backend.n_pages() as u32).collect()];
    let run = |range: std::ops::Range<usize>, ids: &[u32], from, to| {
        let place = |position: usize| Row { token: ids[position], position: position as u32, sequence: 0, segment: 0 };
        let rows: Vec<Row> = range.map(place).collect();
        let (states, outputs) = ([StateSlots { from, to }], [rows.len() as u32 - 1]);
        let step = Step { rows: &rows, pages: &pages, states: &states, outputs: &outputs };
        pollster::block_on(backend.forward(&step)).unwrap()
    };
    let (half, end) = (ids.len() / 2, ids.len());
    let other: Vec<u32> = ids.iter().rev().copied().collect();
    run(0..half, ids, 1, 1);
    let expected = run(half..end, ids, 1, 2);
    run(half..end, &other, 1, 0);
    run(half..half + 1, ids, 1, 3);
    let found = run(half..end, ids, 1, 0);
    report.at_most(format!("{case}, from a state that was kept, NMSE"), nmse(&found, &expected), 0.0);
    let found = run(half..end, ids, 1, 1);
    report.at_most(format!("{case}, from a state in place, NMSE"), nmse(&found, &expected), 0.0);
    let whole = Sequence::new(backend).last_logits(ids, end);
    report.at_most(format!("{case}, from a state, against all at once, NMSE"), nmse(&found, &whole), 1e-10);
    // A state that does not stand there is refused.
    let rows = [Row { token: 0, position: 3, sequence: 0, segment: 0 }];
    let step = Step { rows: &rows, pages: &pages, states: &STATES, outputs: &[] };
    assert!(backend.prefill(&step).is_err(), "{case}: a state of another position was used");
}

/// Greedy replies and top logits of the trained model; `bound` is the backend's own error of a logit.
pub fn check_replies(backend: &dyn Backend, model: &Trained, bound: f32, report: &mut Report) {
    for (index, reply) in Reply::all().iter().enumerate() {
        let logits = Sequence::new(backend).last_logits(&reply.prompt, reply.prompt.len());
        let error = reply.top.iter().map(|(id, logit)| (logits[*id as usize] - logit).abs()).fold(0.0, f32::max);
        report.at_most(
            format!("{}, prompt {index}, top logits, difference", model.name),
            f64::from(error),
            f64::from(bound + model.logits),
        );
        if reply.least_margin > model.margin + 2.0 * bound {
            let chain = backend.decode_chain();
            let settings = SamplerSettings::default();
            let ids = Sequence::new(backend).reply(&settings, &reply.prompt, reply.ids.len(), chain);
            report.same_ids(format!("{}, prompt {index}, reply", model.name), &ids, &reply.ids);
        }
    }
}
