//! Embeddings and rankings through the engine: from texts to vectors and scores, options, and what models refuse.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

mod common;

use common::encoders::{ENCODERS, RERANKER, files, judged, texts};
use common::{Figures, Goldens, Report, nmse, open};
use headwater::engine::{
    BackendChoice, EmbedRequest, Engine, Environment, GenerateRequest, Kind, LoadOptions, Prompt, RerankRequest,
};
use headwater::error::{Error, ErrorKind};
use headwater::format::Checkpoint;
use headwater::model::plan;
use pollster::block_on;

fn environment() -> Environment {
    common::environment(0)
}

fn load_files(files: &[&str], backend: BackendChoice, context: Option<usize>) -> Engine {
    let options = LoadOptions { backend, context, exact: true, ..LoadOptions::default() };
    block_on(Engine::load(open(files), &options, environment(), &mut |_| Ok(()))).unwrap()
}

fn load(name: &str, backend: BackendChoice) -> Engine {
    let files = files(name, "config.json");
    load_files(&files.iter().map(String::as_str).collect::<Vec<_>>(), backend, None)
}

fn never() -> bool {
    false
}

fn embed(engine: &Engine, request: &EmbedRequest) -> Vec<Vec<f32>> {
    let made = block_on(engine.embed(request, &never)).unwrap();
    made.rows().map(<[f32]>::to_vec).collect()
}

fn texts_of(name: &str) -> Vec<String> {
    texts(name).into_iter().map(|text| text.text).collect()
}

/// Embeddings of all texts at once equal the goldens; of each text alone they are the same numbers up to `apart`.
fn check_embeddings(name: &'static str, backend: BackendChoice, bound: f64, apart: f64, report: &mut Report) {
    let mut figures = Figures::new(name);
    for encoder in ENCODERS {
        let engine = load(encoder.name, backend);
        let info = engine.info();
        assert_eq!((info.kind, info.pooling.as_deref()), (Kind::Embedder, Some(encoder.pooling)), "{}", encoder.name);
        let texts = texts_of(encoder.name);
        let goldens = Goldens::tensors(&format!("tests/data/models/{}/goldens", encoder.name));
        let together = embed(&engine, &EmbedRequest::new(texts.clone())).concat();
        assert_eq!(together.len(), texts.len() * info.embedding_size);
        let golden = goldens.tensor("", "embeddings").unwrap();
        let error = nmse(&together, golden);
        report.at_most(format!("{}, embeddings, NMSE", encoder.name), error, bound);
        let files = files(encoder.name, "config.json");
        let plan = plan(&open(&files.iter().map(String::as_str).collect::<Vec<_>>())).unwrap();
        figures.add_encoder(encoder.name, "model.safetensors", &plan, error);
        let alone: Vec<Vec<f32>> =
            texts.iter().flat_map(|text| embed(&engine, &EmbedRequest::new(vec![text.clone()]))).collect();
        report.at_most(format!("{}, one by one, NMSE", encoder.name), nmse(&alone.concat(), &together), apart);
    }
    figures.write();
}

#[test]
fn embeddings_on_the_cpu_equal_the_goldens() {
    let mut report = Report::default();
    check_embeddings("embeddings-cpu", BackendChoice::Cpu, 1e-11, 0.0, &mut report);
    report.finish();
}

#[test]
fn embeddings_on_the_gpu_equal_the_goldens() {
    let mut report = Report::default();
    check_embeddings("embeddings-gpu", BackendChoice::Gpu, 1e-10, 1e-12, &mut report);
    report.finish();
}

#[test]
fn a_gguf_file_embeds_as_its_reference_does() {
    let goldens = Goldens::tensors("tests/data/gguf/bert-minilm-F16");
    let golden = goldens.tensor("", "embeddings").unwrap();
    let of_hub = Goldens::tensors("tests/data/models/bert-minilm/goldens");
    for backend in [BackendChoice::Cpu, BackendChoice::Gpu] {
        let engine = load_files(&["tests/data/gguf/bert-minilm-F16.gguf"], backend, None);
        assert_eq!((engine.info().kind, engine.info().pooling.as_deref()), (Kind::Embedder, Some("mean")));
        let found = embed(&engine, &EmbedRequest::new(texts_of("bert-minilm"))).concat();
        let mut report = Report::default();
        // llama.cpp's own rounding is 2e-4 of a vector of length one; the weights' rounding to f16 is in both.
        report.at_most("llama.cpp's embeddings, NMSE", nmse(&found, golden), 1e-7);
        report.at_most(
            "the unrounded model's embeddings, NMSE",
            nmse(&found, of_hub.tensor("", "embeddings").unwrap()),
            1e-6,
        );
        report.finish();
    }
}

#[test]
fn rankings_equal_the_goldens() {
    let pairs = judged();
    for backend in [BackendChoice::Cpu, BackendChoice::Gpu] {
        let engine = load(RERANKER, backend);
        assert_eq!((engine.info().kind, engine.info().pooling), (Kind::Reranker, None));
        let query = &pairs[0].query;
        let of_query: Vec<_> = pairs.iter().filter(|pair| pair.query == *query).collect();
        assert!(of_query.len() > 1);
        let documents = of_query.iter().map(|pair| pair.passage.clone()).collect();
        let request = RerankRequest::new(query.clone(), documents);
        let ranking = block_on(engine.rerank(&request, &never)).unwrap();
        assert_eq!(ranking.results.len(), of_query.len());
        assert!(ranking.results.windows(2).all(|two| two[0].logit >= two[1].logit && two[0].score >= two[1].score));
        for ranked in &ranking.results {
            assert!((ranked.logit - of_query[ranked.index].logit).abs() < 1e-5, "{ranked:?}");
            assert!((ranked.score - of_query[ranked.index].sigmoid).abs() < 1e-6, "{ranked:?}");
        }
        let best = RerankRequest { top_k: Some(1.0), ..request };
        assert_eq!(block_on(engine.rerank(&best, &never)).unwrap().results, ranking.results[..1]);
        for pair in &pairs {
            let request = RerankRequest::new(pair.query.clone(), vec![pair.passage.clone()]);
            let logit = block_on(engine.rerank(&request, &never)).unwrap().results[0].logit;
            assert!((logit - pair.logit).abs() < 1e-5, "{logit} {}", pair.logit);
        }
    }
}

#[test]
fn scores_are_logits_where_the_authors_say_so() {
    let files = files(RERANKER, "config.json");
    for key in ["sentence_transformers.activation_fn", "sbert_ce_default_activation_function"] {
        let mut checkpoint = open(&files.iter().map(String::as_str).collect::<Vec<_>>());
        let value = headwater::format::Value::Text("torch.nn.modules.linear.Identity".into());
        checkpoint.metadata.values.insert(key.into(), value);
        let options = LoadOptions { backend: BackendChoice::Cpu, ..LoadOptions::default() };
        let engine = block_on(Engine::load(checkpoint, &options, environment(), &mut |_| Ok(()))).unwrap();
        let request = RerankRequest::new("a".into(), vec!["b".into()]);
        let ranked = block_on(engine.rerank(&request, &never)).unwrap().results[0];
        assert_eq!(ranked.score, ranked.logit);
    }
}

#[test]
fn options_do_what_they_say() {
    let engine = load("bert-minilm", BackendChoice::Cpu);
    let plain = EmbedRequest::new(vec!["A short sentence.".into(), "Another one, a little longer.".into()]);
    let length = |vector: &[f32]| vector.iter().map(|x| f64::from(x * x)).sum::<f64>().sqrt();
    let whole = embed(&engine, &plain);
    assert!(whole.iter().all(|vector| (length(vector) - 1.0).abs() < 1e-6));

    let long = embed(&engine, &EmbedRequest { normalize: Some(false), ..plain.clone() });
    for (long, whole) in long.iter().zip(&whole) {
        let scaled: Vec<f32> = long.iter().map(|x| x / length(long) as f32).collect();
        assert!((length(long) - 1.0).abs() > 0.1 && nmse(&scaled, whole) < 1e-12);
    }
    let short = embed(&engine, &EmbedRequest { dimensions: Some(10.0), ..plain.clone() });
    for (short, whole) in short.iter().zip(&whole) {
        let head: Vec<f32> = whole[..10].iter().map(|x| x / length(&whole[..10]) as f32).collect();
        assert!(short.len() == 10 && nmse(short, &head) < 1e-12);
    }
    // Pooling is what its name says: the mean of the states, the first, the last.
    let states = |pooling: &str| {
        embed(&engine, &EmbedRequest { pooling: Some(pooling.into()), normalize: Some(false), ..plain.clone() })
    };
    let (mean, cls, last) = (states("mean"), states("cls"), states("last"));
    assert_eq!(mean, long);
    let goldens = Goldens::tensors("tests/data/models/bert-minilm/goldens");
    let hidden = goldens.tensor("0", "hidden").unwrap();
    assert!(nmse(&cls[0], &hidden[..72]) < 1e-11 && nmse(&last[0], &hidden[hidden.len() - 72..]) < 1e-11);
}

/// Texts of every length up to the context, so that steps are filled in every way.
#[test]
fn packing_changes_nothing() {
    for name in ["bert-minilm", "qwen3-embedding"] {
        let engine = load(name, BackendChoice::Cpu);
        let texts: Vec<String> = (0..90).map(|words| "so many words ".repeat(words * 7 % 31 + 1)).collect();
        let pooling = Some("mean".to_owned());
        let request = EmbedRequest { pooling: pooling.clone(), truncate: true, ..EmbedRequest::new(texts.clone()) };
        let together = embed(&engine, &request);
        for (text, together) in texts.iter().zip(&together) {
            let request =
                EmbedRequest { pooling: pooling.clone(), truncate: true, ..EmbedRequest::new(vec![text.clone()]) };
            assert_eq!(embed(&engine, &request)[0], *together, "{name}: {} bytes", text.len());
        }
    }
}

fn fault<T>(result: Result<T, Error>) -> (ErrorKind, String) {
    match result {
        Ok(_) => panic!("it worked"),
        Err(error) => (error.kind(), error.to_string()),
    }
}

#[test]
fn a_model_says_what_it_can_do_when_it_is_asked_for_something_else() {
    let text = || GenerateRequest::new(Prompt::Text("x".into()));
    let pairs = RerankRequest::new("x".into(), vec!["y".into()]);
    let texts = EmbedRequest::new(vec!["x".into()]);
    let encoder = load("bert-minilm", BackendChoice::Cpu);
    let judge = load(RERANKER, BackendChoice::Cpu);
    let decoder_files = ["www/models/tiny-assistant/tiny-assistant-q8_0.gguf"];
    let decoder = load_files(&decoder_files, BackendChoice::Cpu, None);
    assert_eq!((decoder.info().kind, decoder.info().pooling.as_deref()), (Kind::Generator, Some("last")));
    let cases = [
        (fault(block_on(encoder.generate(&text(), &never, &mut |_| ()))), "cannot continue texts; it can: embed"),
        (fault(block_on(encoder.logits(&[1]))), "cannot continue texts"),
        (fault(block_on(encoder.rerank(&pairs, &never))), "cannot rank documents; it can: embed"),
        (fault(block_on(judge.embed(&texts, &never))), "cannot make embeddings; it can: rerank"),
        (fault(block_on(judge.generate(&text(), &never, &mut |_| ()))), "it can: rerank"),
        (fault(block_on(decoder.rerank(&pairs, &never))), "cannot rank documents; it can: generate, embed"),
    ];
    for ((kind, words), named) in cases {
        assert!(kind == ErrorKind::InvalidArgument && words.contains(named), "{kind:?}: {words}");
    }
    assert_eq!(block_on(decoder.embed(&texts, &never)).unwrap().dimensions, decoder.info().embedding_size);
}

#[test]
fn a_text_that_is_too_long_is_an_error_or_is_cut() {
    let engine = load("bert-minilm", BackendChoice::Cpu);
    assert_eq!(engine.info().context, 128);
    let long = "word ".repeat(400);
    let request = EmbedRequest::new(vec!["short".into(), long.clone()]);
    let (kind, words) = fault(block_on(engine.embed(&request, &never)));
    assert!(kind == ErrorKind::ContextFull && words.contains("texts: item 1"), "{words}");
    assert!(words.contains("room for 126"), "{words}");
    let made = block_on(engine.embed(&EmbedRequest { truncate: true, ..request }, &never)).unwrap();
    assert_eq!(made.values.len(), 2 * 72);
    // What is cut is the end, and what the model wants around a text stays around it.
    let cut = embed(&engine, &EmbedRequest { truncate: true, ..EmbedRequest::new(vec![long.clone()]) });
    let ids = engine.tokenize(&long, false, false).unwrap();
    let fitting = engine.detokenize(&ids[..126]).unwrap();
    assert_eq!(embed(&engine, &EmbedRequest::new(vec![fitting])), cut);

    let judge = load(RERANKER, BackendChoice::Cpu);
    let request = RerankRequest::new("a query".into(), vec!["short".into(), long]);
    let (kind, words) = fault(block_on(judge.rerank(&request, &never)));
    assert!(kind == ErrorKind::ContextFull && words.contains("documents: item 1"), "{words}");
    let ranking = block_on(judge.rerank(&RerankRequest { truncate: true, ..request }, &never)).unwrap();
    assert_eq!(ranking.results.len(), 2);
}

#[test]
fn embedding_leaves_a_conversation_as_it_was() {
    let decoder = load_files(&["www/models/tiny-assistant/tiny-assistant-q8_0.gguf"], BackendChoice::Cpu, Some(256));
    let request = GenerateRequest { max_tokens: Some(5.0), ..GenerateRequest::new(Prompt::Text("Once upon a".into())) };
    let reply = || block_on(decoder.generate(&request, &never, &mut |_| ())).unwrap();
    let first = reply();
    let texts = EmbedRequest::new((0..20).map(|count| "a fox ".repeat(count + 1)).collect());
    let one = embed(&decoder, &texts);
    let again = reply();
    assert_eq!(first.tokens, again.tokens);
    assert!(again.usage.cached_tokens > 0, "its pages were free, so the sequence stays");
    assert_eq!(embed(&decoder, &texts), one);
    // An abort between steps leaves all pages free for what comes.
    let (kind, _) = fault(block_on(decoder.embed(&texts, &|| true)));
    assert_eq!(kind, ErrorKind::Aborted);
    assert_eq!(embed(&decoder, &texts), one);
    assert_eq!(reply().tokens, first.tokens);
}

#[test]
fn an_adapter_is_used_where_it_is_asked_for() {
    let base = [
        "tests/data/models/llama3/config.json",
        "tests/data/models/llama3/model.safetensors",
        "tests/data/models/llama3/tokenizer.json",
        "tests/data/models/llama3/tokenizer_config.json",
    ];
    for backend in [BackendChoice::Cpu, BackendChoice::Gpu] {
        let engine = load_files(&base, backend, None);
        let reply = || {
            let request = GenerateRequest { max_tokens: Some(4.0), ..GenerateRequest::new(Prompt::Text("The".into())) };
            block_on(engine.generate(&request, &never, &mut |_| ())).unwrap().tokens
        };
        let first = reply();
        let sources = ["adapter_config.json", "adapter_model.safetensors"]
            .map(|file| common::source(&format!("tests/data/lora/llama3-plain/{file}")));
        let adapter = block_on(Checkpoint::open_adapter(sources.to_vec())).unwrap();
        block_on(engine.load_adapter(&adapter, Some("own"), &never)).unwrap();
        let texts = EmbedRequest::new(vec!["A short sentence.".into(), "And another.".into()]);
        let plain = embed(&engine, &texts);
        let with = |choice: &str| {
            let request = format!(r#"{{"texts": ["A short sentence.", "And another."], "adapter": {choice}}}"#);
            block_on(engine.embed(&EmbedRequest::from_json(&request).unwrap(), &never)).map(|made| made.values)
        };
        let adapted = with(r#""own""#).unwrap();
        assert!(nmse(&adapted, &plain.concat()) > 1e-4);
        assert_eq!(with(r#"{"name": "own", "scale": 0}"#).unwrap(), plain.concat());
        assert_eq!(fault(with(r#""other""#)).0, ErrorKind::NotFound);
        // What was computed with it is not gone on from without it.
        assert_eq!(with(r#""own""#).unwrap(), adapted);
        assert_eq!(reply(), first);
        assert_eq!(embed(&engine, &texts), plain);
    }
}

/// Models that keep a state take their texts one after another.
#[test]
fn a_model_with_a_state_embeds_texts_one_by_one() {
    let folder = "tests/data/models/lfm2";
    let files = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
        .map(|file| format!("{folder}/{file}"));
    let files: Vec<&str> = files.iter().map(String::as_str).collect();
    let goldens = Goldens::read(&format!("{folder}/goldens"));
    let prompts = std::fs::read_to_string(common::root().join(folder).join("goldens.json")).unwrap();
    let prompts: serde_json::Value = serde_json::from_str(&prompts).unwrap();
    let short = prompts["prompts"].as_array().unwrap().iter().find(|prompt| prompt["name"] == "short").unwrap();
    let text = short["text"].as_str().unwrap().to_owned();
    let golden = goldens.tensor("short", "hidden").unwrap();
    for backend in [BackendChoice::Cpu, BackendChoice::Gpu] {
        let engine = load_files(&files, backend, None);
        let width = engine.info().embedding_size;
        let texts = vec!["Something before.".to_owned(), text.clone(), "Something after.".to_owned()];
        let request = EmbedRequest { normalize: Some(false), ..EmbedRequest::new(texts) };
        let found = embed(&engine, &request);
        let last = &golden[golden.len() - width..];
        assert!(nmse(&found[1], last) < 1e-9, "{}", nmse(&found[1], last));
    }
}

/// A text of one id is as long as a step of a reply, whose program keeps no final states.
#[test]
fn a_text_of_one_id_has_an_embedding() {
    let found = [BackendChoice::Cpu, BackendChoice::Gpu].map(|backend| {
        let engine = load_files(&["www/models/tiny-assistant/tiny-assistant-q8_0.gguf"], backend, Some(64));
        let made = block_on(engine.embed(&EmbedRequest::new(vec!["a".to_owned()]), &never)).unwrap();
        assert_eq!(made.prompt_tokens, 1);
        made.rows().map(<[f32]>::to_vec).collect::<Vec<_>>().concat()
    });
    assert!(nmse(&found[1], &found[0]) < 1e-9, "{}", nmse(&found[1], &found[0]));
}
