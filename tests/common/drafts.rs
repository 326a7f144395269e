//! Replies on a backend, by chains and by drafts: rows of one batch that are the next ids of one sequence.

use headwater::graph::{Backend, Batch, BatchRow, Decode, Row, SamplerSettings, StateSlots, Step};
use pollster::block_on;

/// Pages of a backend that four replies share.
pub const N_PAGES: usize = 24;

/// A reply: its prompt, how its ids are chosen, and the pages that it has.
pub struct Reply {
    pub prompt: Vec<u32>,
    pub sampler: SamplerSettings,
    pub pages: Vec<u32>,
}

/// Replies of different lengths and kinds, in pages that lie across each other.
pub fn replies(vocab: usize) -> Vec<Reply> {
    let samplers = [
        SamplerSettings::default(),
        SamplerSettings { temperature: 0.9, top_k: 40, top_p: 0.95, seed: 5, ..SamplerSettings::default() },
        SamplerSettings {
            temperature: 0.7,
            min_p: 0.02,
            repetition_penalty: 1.3,
            presence_penalty: 0.4,
            frequency_penalty: 0.2,
            seed: 77,
            ..SamplerSettings::default()
        },
        SamplerSettings { repetition_penalty: 1.5, ..SamplerSettings::default() },
    ];
    let reply = |(at, sampler): (usize, SamplerSettings)| Reply {
        prompt: (0..7 + 29 * at).map(|i| ((i * 37 + 11 * (at + 1)) % vocab) as u32).collect(),
        sampler,
        pages: (0..N_PAGES as u32 / 4).rev().map(|page| page * 4 + at as u32).collect(),
    };
    samplers.into_iter().enumerate().map(reply).collect()
}

/// Computes the prompt and chooses the first id.
pub fn begin(backend: &dyn Backend, reply: &Reply) -> u32 {
    backend.start_reply(&reply.sampler, &reply.prompt, &[]).expect("a reply");
    let row = |(position, &token)| Row { token, position, sequence: 0, segment: 0 };
    let rows: Vec<Row> = (0u32..).zip(&reply.prompt).map(row).collect();
    let outputs = [rows.len() as u32 - 1];
    let pages = std::slice::from_ref(&reply.pages);
    let step = Step { rows: &rows, pages, states: &[StateSlots::default()], outputs: &outputs };
    let ticket = backend.prefill(&step).expect("prefill").expect("an output");
    block_on(backend.collect(ticket)).expect("an id")[0]
}

/// The ids of a reply that is alone.
pub fn alone(backend: &dyn Backend, reply: &Reply, chains: &[u32]) -> Vec<u32> {
    let mut ids = vec![begin(backend, reply)];
    for count in chains {
        let position = (reply.prompt.len() + ids.len() - 1) as u32;
        let (index, states) = (ids.len() as u32, StateSlots::default());
        let chain = Decode { token: None, position, count: *count, pages: &reply.pages, states, index };
        let ticket = backend.decode(&chain).expect("decode");
        ids.extend(block_on(backend.collect(ticket)).expect("ids"));
    }
    ids
}

/// The last of a reply's ids and those that are expected after it, as rows of one batch in the reply's own pages: the ids
/// that they give.
fn verify(backend: &dyn Backend, reply: &Reply, ids: &[u32], draft: &[u32]) -> Vec<u32> {
    let tokens: Vec<u32> = ids.last().into_iter().chain(draft).copied().collect();
    backend.start_place(2, &reply.sampler, &reply.prompt, ids).expect("a place");
    let (position, index) = ((reply.prompt.len() + ids.len() - 1) as u32, ids.len() as u32);
    let row = |(at, token): (u32, &u32)| BatchRow {
        token: *token,
        position: position + at,
        pages: &reply.pages,
        index: index + at,
        place: 2,
    };
    let rows: Vec<BatchRow<'_>> = (0..).zip(&tokens).map(row).collect();
    block_on(backend.prepare_batches(rows.len())).expect("room");
    let ticket = backend.decode_batch(&Batch { rows: &rows, count: 1, goes_on: false }).expect("a batch");
    block_on(backend.collect(ticket)).expect("ids")
}

/// Replies that are made by drafts, right ones and wrong ones, have the ids that chains give them.
pub fn same_drafts(backend: &dyn Backend, vocab: usize) {
    block_on(backend.prepare_batches(1)).expect("room");
    // Drafts of different lengths, across pages and past their ends, wrong from a place on or right.
    let drafts = [(3, 3), (7, 7), (7, 2), (3, 0), (1, 1), (7, 6), (5, 5), (7, 7), (2, 1), (7, 7)];
    for reply in replies(vocab).iter().filter(|reply| !reply.sampler.penalises()) {
        let expected = alone(backend, reply, &[16; 4]);
        let mut ids = vec![begin(backend, reply)];
        for (len, right) in drafts {
            let mut draft = expected[ids.len()..][..len].to_vec();
            draft.iter_mut().skip(right).for_each(|id| *id = (*id + 1) % vocab as u32);
            let made = verify(backend, reply, &ids, &draft);
            assert_eq!(made.len(), len + 1);
            assert_eq!(made[..=right], expected[ids.len()..][..=right], "{right} of {len} after {}", ids.len());
            ids.extend(&made[..=right]);
        }
        // A chain goes on from there.
        backend.start_reply(&reply.sampler, &reply.prompt, &ids).expect("a reply");
        let (position, index) = ((reply.prompt.len() + ids.len() - 1) as u32, ids.len() as u32);
        let states = StateSlots::default();
        let chain = Decode { token: ids.last().copied(), position, count: 8, pages: &reply.pages, states, index };
        ids.extend(block_on(backend.collect(backend.decode(&chain).expect("decode"))).expect("ids"));
        assert_eq!(ids, expected[..ids.len()]);
    }
}
