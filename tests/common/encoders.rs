//! Goldens of encoders: hidden states of texts and pairs, embeddings, scores; and the checks that every backend is held to.

use headwater::graph::{Backend, PAGE_TOKENS, Row, Step};
use serde_json::Value;

use super::goldens::{ids, json};
use super::{Goldens, Report, nmse, root};

/// An encoder with goldens.
pub struct Encoder {
    /// Its folder under `tests/data/models`.
    pub name: &'static str,
    /// What pools its embeddings, in the goldens.
    pub pooling: &'static str,
}

/// Every encoder (and the decoder for embeddings) that every backend is held to.
pub const ENCODERS: &[Encoder] = &[
    Encoder { name: "bert-minilm", pooling: "mean" },
    Encoder { name: "bert-bge-cls", pooling: "cls" },
    Encoder { name: "modernbert", pooling: "mean" },
    Encoder { name: "nomic-bert", pooling: "mean" },
    Encoder { name: "xlm-roberta", pooling: "cls" },
    Encoder { name: "qwen3-embedding", pooling: "last" },
];

/// The model that judges pairs.
pub const RERANKER: &str = "bert-reranker";

/// The files of a model, with the configuration of either layout.
pub fn files(name: &str, config: &str) -> Vec<String> {
    let folder = format!("tests/data/models/{name}");
    let mut files = vec![format!("{folder}/{config}=config.json")];
    for file in
        ["model.safetensors", "tokenizer.json", "tokenizer_config.json", "modules.json", "1_Pooling/config.json"]
    {
        if root().join(&folder).join(file).exists() {
            files.push(format!("{folder}/{file}={file}"));
        }
    }
    files
}

/// One text of the goldens.
pub struct Text {
    pub text: String,
    pub ids: Vec<u32>,
}

/// The texts of a model's goldens.
pub fn texts(name: &str) -> Vec<Text> {
    let file = json(&format!("tests/data/models/{name}/goldens.json"));
    let read = |text: &Value| Text { text: text["text"].as_str().unwrap().to_owned(), ids: ids(&text["ids"]) };
    file["texts"].as_array().unwrap().iter().map(read).collect()
}

/// A query, a document, their ids and segments, and the logit.
pub struct Judged {
    pub query: String,
    pub passage: String,
    pub ids: Vec<u32>,
    pub segments: Vec<u32>,
    pub logit: f32,
    pub sigmoid: f32,
}

/// The pairs of the reranker's goldens.
pub fn judged() -> Vec<Judged> {
    let file = json(&format!("tests/data/models/{RERANKER}/goldens.json"));
    let read = |pair: &Value| Judged {
        query: pair["query"].as_str().unwrap().to_owned(),
        passage: pair["passage"].as_str().unwrap().to_owned(),
        ids: ids(&pair["ids"]),
        segments: ids(&pair["type_ids"]),
        logit: pair["logit"].as_f64().unwrap() as f32,
        sigmoid: pair["sigmoid"].as_f64().unwrap() as f32,
    };
    file["pairs"].as_array().unwrap().iter().map(read).collect()
}

/// The pair of `bert-minilm`: its texts, its ids and its segments.
pub fn pair() -> ((String, String), Vec<u32>, Vec<u32>) {
    let pair = &json("tests/data/models/bert-minilm/goldens.json")["pair"];
    let text = |index: usize| pair["text"][index].as_str().unwrap().to_owned();
    ((text(0), text(1)), ids(&pair["ids"]), ids(&pair["type_ids"]))
}

/// The rows of several texts, the pages of each in turn from the last one down.
pub fn pack(backend: &dyn Backend, texts: &[(&[u32], &[u32])]) -> (Vec<Row>, Vec<Vec<u32>>) {
    let mut free = (0..backend.n_pages() as u32).rev();
    let (mut rows, mut pages) = (vec![], vec![]);
    for (sequence, (ids, segments)) in (0u32..).zip(texts) {
        pages.push(free.by_ref().take(ids.len().div_ceil(PAGE_TOKENS)).collect());
        rows.extend((0u32..).zip(*ids).map(|(position, token)| {
            let segment = segments.get(position as usize).copied().unwrap_or(0);
            Row { token: *token, position, sequence, segment }
        }));
    }
    (rows, pages)
}

/// Hidden states of all rows of texts in one step.
pub fn hidden(backend: &dyn Backend, texts: &[(&[u32], &[u32])]) -> Vec<f32> {
    let (rows, pages) = pack(backend, texts);
    let outputs: Vec<u32> = (0..rows.len() as u32).collect();
    pollster::block_on(backend.hidden(&Step { rows: &rows, pages: &pages, states: &[], outputs: &outputs })).unwrap()
}

/// Pages for all texts of the goldens at once.
pub const PAGES: usize = 16;

/// Hidden states of every text alone, and of all texts packed into one step, which must be the same numbers to `packed`.
/// Gives the worst NMSE of a text.
pub fn check_hidden(backend: &dyn Backend, encoder: &Encoder, (bound, packed): (f64, f64), report: &mut Report) -> f64 {
    let goldens = Goldens::tensors(&format!("tests/data/models/{}/goldens", encoder.name));
    let texts = texts(encoder.name);
    let (mut singles, mut worst) = (vec![], 0f64);
    for (index, text) in texts.iter().enumerate() {
        let golden = goldens.tensor(&index.to_string(), "hidden").unwrap();
        let found = hidden(backend, &[(&text.ids, &[])]);
        let error = nmse(&found, golden);
        worst = worst.max(error);
        report.at_most(format!("{}, text {index}, hidden states, NMSE", encoder.name), error, bound);
        singles.extend(found);
    }
    let all: Vec<(&[u32], &[u32])> = texts.iter().map(|text| (text.ids.as_slice(), [].as_slice())).collect();
    let n_rows: usize = texts.iter().map(|text| text.ids.len()).sum();
    if n_rows <= backend.max_rows() {
        let found = hidden(backend, &all);
        report.at_most(
            format!("{}, all texts in one step, NMSE to singles", encoder.name),
            nmse(&found, &singles),
            packed,
        );
    }
    if encoder.name == "bert-minilm" {
        let (_, ids, segments) = pair();
        let found = hidden(backend, &[(&ids, &segments)]);
        let golden = goldens.tensor("pair", "hidden").unwrap();
        report.at_most("bert-minilm, pair, hidden states, NMSE", nmse(&found, golden), bound);
        let without = hidden(backend, &[(&ids, &[])]);
        assert!(nmse(&without, golden) > 1e-4, "segments change nothing");
    }
    worst
}

/// The scores of every pair alone, and of all pairs in one step. Gives the NMSE of the former.
pub fn check_scores(backend: &dyn Backend, bound: f32, report: &mut Report) -> f64 {
    let pairs = judged();
    let all: Vec<(&[u32], &[u32])> = pairs.iter().map(|pair| (pair.ids.as_slice(), pair.segments.as_slice())).collect();
    let score = |texts: &[(&[u32], &[u32])]| {
        let (rows, pages) = pack(backend, texts);
        let firsts = rows.iter().enumerate().filter(|(_, row)| row.position == 0);
        let outputs: Vec<u32> = firsts.map(|(index, _)| index as u32).collect();
        pollster::block_on(backend.forward(&Step { rows: &rows, pages: &pages, states: &[], outputs: &outputs }))
            .unwrap()
    };
    let together = score(&all);
    let mut found = vec![];
    for (index, (pair, text)) in pairs.iter().zip(&all).enumerate() {
        let alone = score(&[*text]);
        assert_eq!(alone.len(), 1);
        found.push(alone[0]);
        let error = (alone[0] - pair.logit).abs().max((together[index] - pair.logit).abs());
        report.at_most(format!("{RERANKER}, pair {index}, logit, difference"), f64::from(error), f64::from(bound));
    }
    nmse(&found, &pairs.iter().map(|pair| pair.logit).collect::<Vec<f32>>())
}
