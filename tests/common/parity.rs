//! What the parity tests of every backend have in common: the same table of models, the same checks.

use headwater::graph::{Backend, KvFormat, PAGE_TOKENS};
use headwater::model::{PlanOptions, plan};

use super::{
    BY_CONTEXT, CASES, Figures, Goldens, LONGROPE, Report, TINY_ASSISTANT, check_chunks, check_greedy, check_logits,
    check_replies, check_states, open, pages_for,
};

/// Keys and values of 16 bits. The layers of smollm3 that do not rotate cost most.
const HALF_NMSE: f64 = 1e-5;

/// Keys and values in blocks, with what they cost at most in these models of random weights: measured, and some more.
const BLOCK_NMSE: &[(KvFormat, f64)] = &[(KvFormat::Q8_0, 3e-3), (KvFormat::Q4_0, 0.4)];

/// A backend with a model on it, from files.
pub type Load<'a> = &'a dyn Fn(&[&str], &PlanOptions, KvFormat, usize) -> Box<dyn Backend>;

/// A backend held to the references.
pub struct Parity<'a> {
    /// How it loads.
    pub load: Load<'a>,
    /// The normalised squared error of its logits, at most.
    pub nmse: f64,
    /// The same between a prompt at once and in chunks.
    pub chunks: f64,
}

impl Parity<'_> {
    fn plain(&self, files: &[&str], kv: KvFormat, n_pages: usize) -> Box<dyn Backend> {
        (self.load)(files, &PlanOptions::default(), kv, n_pages)
    }

    /// Every model with float activations and 32-bit keys and values; the figures are left under `name`.
    pub fn exact(&self, name: &'static str) {
        let mut report = Report::default();
        let mut figures = Figures::new(name);
        for case in CASES {
            let goldens = Goldens::read(case.goldens);
            let backend = self.plain(case.files, KvFormat::F32, pages_for(&goldens));
            let worst = check_logits(&*backend, case.name, &goldens, case.nmse(self.nmse), &mut report);
            figures.add(case, &plan(&open(case.files)).unwrap(), worst);
            check_greedy(&*backend, case.name, &goldens, case.margin(0.01), &mut report);
            check_chunks(&*backend, case.name, &goldens, self.chunks, &mut report);
            check_states(&*backend, case.name, &goldens, &mut report);
        }
        figures.write();
        report.finish();
    }

    /// A model whose rotation depends on the context that it is loaded for.
    pub fn by_context(&self) {
        let mut report = Report::default();
        for (context, prompts) in BY_CONTEXT {
            let goldens = Goldens::read(LONGROPE.goldens).only(prompts);
            let options = PlanOptions { context: Some(*context), ..PlanOptions::default() };
            let backend = (self.load)(LONGROPE.files, &options, KvFormat::F32, pages_for(&goldens));
            let name = format!("{}, context {context}", LONGROPE.name);
            check_logits(&*backend, &name, &goldens, self.nmse, &mut report);
            check_greedy(&*backend, &name, &goldens, 0.01, &mut report);
            check_chunks(&*backend, &name, &goldens, self.chunks, &mut report);
        }
        report.finish();
    }

    /// Some models with keys and values in blocks.
    pub fn blocks(&self, takes: impl Fn(&str) -> bool) {
        let mut report = Report::default();
        for (format, bound) in BLOCK_NMSE {
            let cases: Vec<_> = CASES.iter().filter(|case| takes(case.name)).collect();
            assert!(cases.len() >= 6, "models to try");
            for case in cases {
                let goldens = Goldens::read(case.goldens);
                let backend = self.plain(case.files, *format, pages_for(&goldens));
                let name = format!("{}, {}", case.name, format.name());
                check_logits(&*backend, &name, &goldens, case.nmse(*bound), &mut report);
            }
        }
        report.finish();
    }

    /// Every model as it runs every day, with 16-bit keys and values; the figures are left under `name`.
    pub fn everyday(&self, name: &'static str) {
        let mut report = Report::default();
        let mut figures = Figures::new(name);
        for case in CASES {
            let goldens = Goldens::read(case.goldens);
            let backend = self.plain(case.files, KvFormat::F16, pages_for(&goldens));
            let worst = check_logits(&*backend, case.name, &goldens, case.nmse(HALF_NMSE), &mut report);
            figures.add(case, &plan(&open(case.files)).unwrap(), worst);
            check_greedy(&*backend, case.name, &goldens, case.margin(0.03), &mut report);
        }
        figures.write();
        report.finish();
    }

    /// The trained model's replies.
    pub fn replies(&self) {
        let mut report = Report::default();
        for case in TINY_ASSISTANT {
            let backend = self.plain(case.files, KvFormat::F32, 512 / PAGE_TOKENS);
            check_replies(&*backend, case, 1e-3, &mut report);
        }
        report.finish();
    }
}
