//! Loading: headers, then a backend with room for weights and pages, then the weights in the order of the files.
//! The one place that knows which backends there are.

use std::cell::Cell;

use sha2::{Digest, Sha256};

use super::adapters::{Adapters, Base};
use super::driver::Queue;
use super::identity::Identity;
use super::loaded::Loaded;
use super::options::{BackendChoice, Environment, LoadOptions, Phase, Progress};
use super::session::Session;
use super::stats::{Totals, Traffic};
use super::turn::Turns;
use super::{defaults, info};
use crate::chat::Template;
use crate::cpu::Cpu;
use crate::digest::hex;
use crate::error::{ErrorKind, Result};
use crate::format::Checkpoint;
use crate::gpu::{Device, Gpu, Measuring};
use crate::graph::{Backend, KvFormat, PAGE_TOKENS, WeightId};
use crate::model::{self, Plan, WeightSink};
use crate::tokenizer::Tokenizer;

/// Pages of an encoder at least: short texts share a step, as many as keep a device busy.
const ENCODER_PAGES: usize = 32;

/// What of the CPU is told as its name.
const CPU: &str = "cpu";

/// Loads a model. `progress` is told every phase; an error of its own ends the load.
pub(super) async fn load(
    checkpoint: &Checkpoint,
    options: &LoadOptions,
    environment: Environment,
    progress: &mut dyn FnMut(Progress) -> Result<()>,
) -> Result<Loaded> {
    let plan = model::plan_with(checkpoint, &options.plan())?;
    let (context, (kv, n_pages)) = (plan.context, pages(&plan, options)?);
    let tokenizer = Tokenizer::from_metadata(&checkpoint.metadata)?;
    let template = Template::from_metadata(&checkpoint.metadata, &tokenizer)?;
    let sampling = defaults::sampling(&checkpoint.metadata)?;
    let mut info = info::describe(checkpoint, &plan, &tokenizer, template.as_ref(), sampling)?;
    let weight_bytes = plan.weight_bytes();

    let mut loading = Loading {
        checkpoint,
        plan: &plan,
        kv,
        n_pages,
        exact: options.exact,
        rounds: options.rounds()?,
        measuring: Measuring {
            now_secs: environment.now_secs.as_ref(),
            kept: environment.kept.as_ref(),
            self_test: options.self_test.unwrap_or(true),
        },
        progress,
        sample: Sha256::new(),
    };
    loading.report(Phase::Inspect, 0, weight_bytes)?;
    let (backend, warning) = loading.backend(options.backend).await?;
    loading.report(Phase::Ready, weight_bytes, weight_bytes)?;
    let weights_sample = hex(&loading.sample.finalize());

    let runs = backend.info();
    let inline = runs.name == CPU;
    info.context = context;
    info.warnings.extend(warning.into_iter().chain(runs.notes));
    info.backend = Some(info::Runtime {
        name: runs.name,
        device: runs.device,
        features: runs.features,
        kv_format: kv.name().to_owned(),
    });
    // Last, because files that come while they are loaded are verified by now.
    let identity = Identity::of(checkpoint)?;
    Ok(Loaded {
        identity,
        weights_sample,
        turns: Turns::new(Session::new(backend.n_pages(), backend.n_states())?),
        queue: Queue::default(),
        backend,
        tokenizer,
        template,
        context,
        info,
        embedding: plan.embedding,
        hidden_width: info::hidden_width(&plan),
        at_once: plan.graph.bidirectional(),
        end_token: plan.hyper.end_token,
        raw_scores: plan.embedding.raw_scores,
        traffic: Traffic::of(&plan, kv),
        weight_bytes: plan.resident_bytes(),
        environment,
        inline,
        base: Base { plan, files: checkpoint.files.clone() },
        adapters: Adapters::default(),
        totals: Totals::default(),
        disposed: Cell::new(false),
    })
}

/// How keys and values are stored, and how many pages of them there are.
pub(super) fn pages(plan: &Plan, options: &LoadOptions) -> Result<(KvFormat, usize)> {
    let at_once = plan.graph.bidirectional();
    // The pages of an encoder hold one layer of one step: there is nothing to save.
    let kv = match options.kv()? {
        _ if at_once && options.kv_format.is_none() => KvFormat::F32,
        kv => kv,
    };
    Ok((kv, plan.context.div_ceil(PAGE_TOKENS).max(if at_once { ENCODER_PAGES } else { 0 })))
}

/// A load under way.
struct Loading<'a> {
    checkpoint: &'a Checkpoint,
    plan: &'a Plan,
    kv: KvFormat,
    n_pages: usize,
    exact: bool,
    /// Whether the GPU rounds activations that it decodes to bytes.
    rounds: bool,
    measuring: Measuring<'a>,
    progress: &'a mut dyn FnMut(Progress) -> Result<()>,
    /// See [`Loaded::weights_sample`].
    sample: Sha256,
}

/// Bytes of a piece of weights that are a part of the sample.
const SAMPLED: usize = 1 << 10;

/// Hands pieces on and looks at their beginnings.
struct Sampled<'a, B>(&'a mut B, Sha256);

impl<B: WeightSink> WeightSink for Sampled<'_, B> {
    fn rows(&mut self, weight: WeightId, first_row: usize, bytes: &[u8]) -> Result<()> {
        let Sampled(sink, sample) = self;
        sample.update((weight.0 as u64).to_le_bytes());
        sample.update((first_row as u64).to_le_bytes());
        sample.update(bytes.get(..SAMPLED).unwrap_or(bytes));
        sink.rows(weight, first_row, bytes)
    }
}

impl Loading<'_> {
    /// A backend with its weights, and what the user should know of the choice.
    async fn backend(&mut self, choice: BackendChoice) -> Result<(Box<dyn Backend>, Option<String>)> {
        if choice != BackendChoice::Cpu {
            match self.gpu().await {
                Err(error) if error.kind() == ErrorKind::GpuUnavailable && choice == BackendChoice::Auto => {
                    let cause =
                        std::error::Error::source(&error).map_or_else(String::new, |cause| format!(" ({cause})"));
                    return Ok((self.cpu().await?, Some(format!("the CPU is used: {error}{cause}"))));
                }
                backend => return Ok((backend?, None)),
            }
        }
        Ok((self.cpu().await?, None))
    }

    async fn gpu(&mut self) -> Result<Box<dyn Backend>> {
        let device = Device::of_thread().await?.with_rounding(self.rounds);
        self.report(Phase::Compile, 0, self.plan.weight_bytes())?;
        let gpu = Gpu::choosing(&device, self.plan, self.kv, self.n_pages, self.measuring).await?;
        self.fill(gpu).await
    }

    async fn cpu(&mut self) -> Result<Box<dyn Backend>> {
        let make = if self.exact { Cpu::new } else { Cpu::rounding };
        self.fill(make(self.plan, self.kv, self.n_pages)?).await
    }

    async fn fill<B: Backend + WeightSink + 'static>(&mut self, mut backend: B) -> Result<Box<dyn Backend>> {
        let (checkpoint, plan) = (self.checkpoint, self.plan);
        let mut sampled = Sampled(&mut backend, Sha256::new());
        let report = &mut |loaded_bytes, total_bytes| self.report(Phase::Weights, loaded_bytes, total_bytes);
        model::read_weights(checkpoint, plan, &mut sampled, report).await?;
        self.sample = sampled.1;
        Ok(Box::new(backend))
    }

    fn report(&mut self, phase: Phase, loaded_bytes: u64, total_bytes: u64) -> Result<()> {
        let file = self.file_at(loaded_bytes);
        (self.progress)(Progress { phase, file, loaded_bytes, total_bytes })
    }

    /// The file that is being read after `loaded_bytes` of tensors.
    fn file_at(&self, loaded_bytes: u64) -> String {
        let mut end = 0_u64;
        let current = self.checkpoint.tensors.iter().find(|tensor| {
            end = end.saturating_add(tensor.size_bytes);
            end > loaded_bytes
        });
        let index = current.or(self.checkpoint.tensors.last()).map_or(0, |tensor| tensor.file);
        self.checkpoint.files.get(index).map(|file| file.name().to_owned()).unwrap_or_default()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail so")]
mod tests {
    use std::rc::Rc;

    use pollster::block_on;

    use super::*;
    use crate::gpu::{Kept, Memory, spoil};
    use crate::graph::{Row, StateSlots, Step};
    use crate::source::MemorySource;

    fn loaded(backend: BackendChoice) -> Result<Loaded> {
        loaded_with(backend, Box::new(|| 0.0), Box::new(crate::gpu::Forgets))
    }

    fn loaded_with(backend: BackendChoice, now_secs: Box<dyn Fn() -> f64>, kept: Box<dyn Kept>) -> Result<Loaded> {
        let options = LoadOptions { backend, exact: true, context: Some(64), ..LoadOptions::default() };
        loaded_by(&options, now_secs, kept)
    }

    fn loaded_by(options: &LoadOptions, now_secs: Box<dyn Fn() -> f64>, kept: Box<dyn Kept>) -> Result<Loaded> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/www/models/tiny-assistant/tiny-assistant-q8_0.gguf");
        let file = MemorySource::new("tiny.gguf", std::fs::read(path).expect("a file"));
        let checkpoint = block_on(Checkpoint::open(vec![Rc::new(file)]))?;
        let environment = Environment {
            now_secs,
            seed: Box::new(|| 0),
            yield_now: Box::new(|| Box::pin(async {})),
            grammars: Box::<crate::sample::NativeGrammars>::default(),
            kept,
        };
        block_on(load(&checkpoint, options, environment, &mut |_| Ok(())))
    }

    fn logits(loaded: &Loaded) -> Vec<f32> {
        let row = |position: u32| Row { token: 40 + position * 7, position, sequence: 0, segment: 0 };
        let rows: Vec<Row> = (0..12).map(row).collect();
        let step = |rows, outputs| {
            let step = Step { rows, pages: &[vec![0]], states: &[StateSlots::default()], outputs };
            block_on(loaded.backend.forward(&step)).unwrap()
        };
        let prompt = step(&rows[..11], &[10]);
        [prompt, step(&rows[11..], &[0])].concat()
    }

    fn close(found: &[f32], expected: &[f32]) -> bool {
        let square = |x: f32| f64::from(x).powi(2);
        let error: f64 = found.iter().zip(expected).map(|(a, b)| square(a - b)).sum();
        error / expected.iter().copied().map(square).sum::<f64>() < 1e-5
    }

    /// Loads on a device whose driver is wrong so. Gives what is used of the device and the warnings about it.
    fn with_wrong(wrong: fn(&str, String) -> String) -> (Vec<String>, Vec<String>) {
        let expected = logits(&loaded(BackendChoice::Cpu).unwrap());
        spoil(wrong);
        let loaded = loaded(BackendChoice::Auto).unwrap();
        assert!(close(&logits(&loaded), &expected));
        let backend = loaded.info.backend.clone().unwrap();
        let warned = loaded.info.warnings.iter().filter(|warning| warning.contains("wrong numbers"));
        ([vec![backend.name], backend.features].concat(), warned.cloned().collect())
    }

    fn replaced(source: &str, right: &str, wrong: &str) -> String {
        assert!(source.contains(right), "nothing to spoil");
        source.replace(right, wrong)
    }

    /// How often a load on a device that nobody has opened looks at the clock, what is used of it, and what is kept then.
    fn first_load(text: Option<String>) -> (usize, Vec<String>, Option<String>) {
        let load = move || {
            let (looks, kept) = (Rc::new(Cell::new(0)), Rc::new(Memory::default()));
            *kept.0.borrow_mut() = text;
            let clock = Rc::clone(&looks);
            // Each look is a second later, so that all kernels are slow.
            let clock = Box::new(move || {
                clock.set(clock.get() + 1);
                f64::from(clock.get())
            });
            let loaded = loaded_with(BackendChoice::Gpu, clock, Box::new(Rc::clone(&kept))).unwrap();
            let text = kept.0.borrow().clone();
            (looks.get() as usize, loaded.info.backend.unwrap().features, text)
        };
        std::thread::spawn(load).join().unwrap()
    }

    #[test]
    fn what_was_measured_once_is_not_measured_again() {
        let (looks, features, text) = first_load(None);
        assert!(looks > 0 && !features.contains(&"invocations alone".to_owned()));
        let text = text.expect("what was measured is kept");
        assert_eq!(first_load(Some(text.clone())), (0, features.clone(), Some(text.clone())));
        // What is kept is used, not only read.
        let other = text.replace("Workgroup", "Invocation");
        let (looks, used, _) = first_load(Some(other));
        assert!(looks == 0 && used.contains(&"invocations alone".to_owned()), "{used:?}");
        // Damaged, it is measured anew and kept.
        assert_eq!(first_load(Some(text[1..].to_owned())), first_load(None));
    }

    #[test]
    fn activations_are_rounded_where_that_is_asked_for_and_it_is_told() {
        let of = |activations: Option<&str>| {
            let options = LoadOptions {
                backend: BackendChoice::Gpu,
                activations: activations.map(str::to_owned),
                context: Some(64),
                ..LoadOptions::default()
            };
            let loaded = loaded_by(&options, Box::new(|| 0.0), Box::new(crate::gpu::Forgets)).unwrap();
            let told = loaded.info.backend.as_ref().and_then(info::Runtime::activations);
            let logits = logits(&loaded);
            let (prompt, decoded) = logits.split_at(logits.len() / 2);
            (told, prompt.to_vec(), decoded.to_vec())
        };
        let (plain, rounded) = (of(None), of(Some("int8")));
        assert_eq!((plain.0, rounded.0), (None, Some("int8")));
        // Prefilling is by floats, decoding differs by the rounding alone.
        assert_eq!(plain.1, rounded.1);
        assert!(plain.2 != rounded.2);
        let square = |x: f32| f64::from(x).powi(2);
        let error: f64 = plain.2.iter().zip(&rounded.2).map(|(a, b)| square(a - b)).sum();
        let error = error / plain.2.iter().copied().map(square).sum::<f64>();
        assert!(error < 1e-3, "{error}");
    }

    #[test]
    fn kernels_that_are_right_are_used_as_they_are() {
        let (features, warnings) = with_wrong(|_, source| source);
        assert_eq!((features[0].as_str(), features[1].as_str(), warnings.len()), ("gpu", "subgroups", 0));
    }

    #[test]
    fn wrong_subgroups_are_left_out() {
        let (features, warnings) = with_wrong(|_, source| source.replace("= subgroupAdd(value)", "= 1.1 * value"));
        assert_eq!((features[0].as_str(), features.contains(&"subgroups".to_owned())), ("gpu", false));
        assert_eq!(warnings.len(), 1, "{warnings:?}");
    }

    #[test]
    fn wrong_products_by_workgroups_are_made_by_invocations() {
        let (features, warnings) = with_wrong(|kernel, source| match kernel {
            "matvec" => replaced(&source, "group += WG", "group += 2u * WG"),
            _ => source,
        });
        assert!(features.contains(&"invocations alone".to_owned()), "{features:?}");
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        // Prefilling alone, and a source that does not compile.
        let spoiled = |kernel: &str, source: String| if kernel == "matmul" { "fn".to_owned() } else { source };
        std::thread::spawn(move || {
            spoil(spoiled);
            let loaded = loaded(BackendChoice::Gpu).unwrap();
            assert!(loaded.info.backend.unwrap().features.contains(&"invocations alone".to_owned()));
        })
        .join()
        .unwrap();
    }

    #[test]
    fn kernels_are_trusted_unseen_where_the_caller_says_so() {
        let expected = logits(&loaded(BackendChoice::Cpu).unwrap());
        spoil(|kernel, source| match kernel {
            "attention" | "attention_shared" => replaced(&source, "key_words;", "key_words + 1u;"),
            _ => source,
        });
        let by = |self_test| {
            let options = LoadOptions { exact: true, context: Some(64), self_test, ..LoadOptions::default() };
            loaded_by(&options, Box::new(|| 0.0), Box::new(crate::gpu::Forgets)).unwrap()
        };
        let trusting = by(Some(false));
        assert_eq!((trusting.info.backend.clone().unwrap().name.as_str(), trusting.info.warnings.len()), ("gpu", 0));
        assert!(!close(&logits(&trusting), &expected), "nothing was wrong");
        assert_eq!(by(Some(true)).info.backend.unwrap().name, "cpu");
    }

    #[test]
    fn the_processor_computes_where_no_kernels_are_right() {
        let wrong = |kernel: &str, source: String| match kernel {
            "attention" | "attention_shared" => replaced(&source, "key_words;", "key_words + 1u;"),
            _ => source,
        };
        let (features, warnings) = with_wrong(wrong);
        assert_eq!((features[0].as_str(), warnings.len()), ("cpu", 1), "{warnings:?}");
        let error = loaded(BackendChoice::Gpu).err().expect("nothing is right");
        assert_eq!(error.kind(), ErrorKind::GpuUnavailable);
    }
}
