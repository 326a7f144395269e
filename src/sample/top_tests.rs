//! Ids chosen by the largest logits held to those that all logits lead to.

use super::*;
use crate::graph::{SamplerSettings, TopAsk};
use crate::sample::choose::uniform;
use crate::sample::{Dry, Extra, Mirostat, Xtc};

const VOCAB: usize = 4000;

/// Logits like a model's: few large ones, many small ones, a bell's shape by the sum of four draws.
fn logits(seed: u32) -> Vec<f32> {
    let bell = |id: u32| (0..4).map(|part| uniform(seed, 4 * id + part)).sum::<f32>() - 2.0;
    (0..VOCAB as u32)
        .map(|id| 4.0 * bell(id) + if id % 97 == seed % 97 { 9.0 * uniform(id, seed) } else { 0.0 })
        .collect()
}

fn penalties(base: &SamplerSettings) -> SamplerSettings {
    SamplerSettings { repetition_penalty: 1.3, frequency_penalty: 0.2, presence_penalty: 0.4, ..base.clone() }
}

/// Settings, and how many of a hundred ids they must be certain of.
fn table() -> Vec<(SamplerSettings, Extra, usize)> {
    let base = SamplerSettings { temperature: 0.8, ..SamplerSettings::default() };
    let off = Extra::default;
    let bias = vec![(3, 4.0), (97, -100.0), (1500, 11.5)];
    let dry = Dry { multiplier: 1.0, base: 1.75, allowed: 1, window: 100, breakers: Default::default() };
    vec![
        (SamplerSettings { top_k: 40, ..base.clone() }, Extra { typical_p: 0.7, ..off() }, 100),
        (
            SamplerSettings { top_k: 90, top_p: 0.9, ..penalties(&base) },
            Extra { xtc: Some(Xtc { probability: 0.5, threshold: 0.1 }), ..off() },
            100,
        ),
        (
            SamplerSettings { top_p: 0.8, ..base.clone() },
            Extra { xtc: Some(Xtc { probability: 1.0, threshold: 0.05 }), ..off() },
            90,
        ),
        (
            SamplerSettings { min_p: 0.05, ..penalties(&base) },
            Extra { logit_bias: bias.clone(), dry: Some(dry), ..off() },
            100,
        ),
        (base.clone(), Extra { top_n_sigma: 1.0, ..off() }, 95),
        (penalties(&base), Extra { top_n_sigma: 0.7, logit_bias: bias.clone(), ..off() }, 90),
        (base.clone(), Extra { mirostat: Some(Mirostat { tau: 3.0, eta: 0.1 }), ..off() }, 60),
        (penalties(&base), Extra { mirostat: Some(Mirostat { tau: 2.0, eta: 0.3 }), logit_bias: bias, ..off() }, 60),
        // Every id takes part in these, or may.
        (SamplerSettings { top_k: 1000, ..base.clone() }, Extra { top_n_sigma: 50.0, ..off() }, 0),
        (base.clone(), Extra { typical_p: 0.9, ..off() }, 0),
        (SamplerSettings { temperature: 3.0, top_p: 0.999, ..base }, off(), 0),
    ]
}

/// Both choosers in step over replies of a hundred ids; `certain` ids are told and equal, and where the sums are as wrong as a
/// device's may be, they are equal still.
#[test]
fn what_is_certain_is_what_all_logits_lead_to() {
    for (row, (settings, extra, least)) in table().into_iter().enumerate() {
        for (masked, error) in [(false, 0.0), (false, 2e-5), (true, -2e-5)] {
            let prompt: Vec<u32> = (0..300).map(|index| index * 7 % 1100).collect();
            let mut full = Chooser::new(VOCAB, &prompt, settings.clone(), extra.clone()).unwrap();
            let mut sparse = full.clone();
            let mut certain = 0;
            for index in 0..100 {
                let logits = logits(index);
                let mask =
                    masked.then(|| Mask::all_but(VOCAB, &(0..2000).map(|at| at * 2 + index % 2).collect::<Vec<_>>()));
                let changes = sparse.changes();
                let named: Vec<u32> = changes.iter().map(|change| change.id).collect();
                let words = mask.as_ref().map(|Mask(words)| words.as_slice());
                let mut top =
                    Top::of(&logits, &TopAsk { temperature: settings.temperature, mask: words, named: &named })
                        .unwrap();
                assert_eq!(top.largest.len(), 256);
                (top.sum, top.variance) = (top.sum * (1.0 + error), top.variance * (1.0 - error));
                let told = sparse.choose_of(&top, &changes, mask.as_ref(), index).unwrap();
                let id = full.choose(&logits, mask.as_ref(), index).unwrap();
                if let Some(told) = told {
                    assert_eq!(told, id, "row {row}, id {index}, masked {masked}");
                    assert!((sparse.surprise - full.surprise).abs() < 1e-5);
                    certain += 1;
                }
                sparse.surprise = full.surprise;
                sparse.push(id);
            }
            assert!(certain >= least, "row {row}, masked {masked}: certain of {certain}");
        }
    }
}

#[test]
fn what_lies_outside_is_not_guessed() {
    let settings = SamplerSettings { temperature: 1.0, ..SamplerSettings::default() };
    let flat = vec![0.5_f32; VOCAB];
    let ask = TopAsk { temperature: 1.0, mask: None, named: &[] };
    let top = Top::of(&flat, &ask).unwrap();
    assert_eq!((top.largest.len(), top.bound, top.has(1)), (0, 0.5, false));
    let mut chooser = Chooser::new(VOCAB, &[], settings, Extra { top_n_sigma: 1.0, ..Extra::default() }).unwrap();
    assert_eq!(chooser.choose_of(&top, &[], None, 0).unwrap(), None);
    // The largest was pushed below what is not told.
    let mut steep: Vec<f32> = (0..VOCAB).map(|id| -(id as f32) / 100.0).collect();
    steep[VOCAB - 1] = 50.0;
    let changes = [Change { bias: -100.0, ..Change::none(VOCAB as u32 - 1) }];
    let top = Top::of(&steep, &TopAsk { named: &[VOCAB as u32 - 1], ..ask }).unwrap();
    assert_eq!(chooser.choose_of(&top, &changes, None, 0).unwrap(), None, "the sum says nothing any more");
    // No id may come at all.
    let none = Mask(vec![0; VOCAB / 32]);
    assert!(Top::of(&flat, &TopAsk { mask: Some(&none.0), ..ask }).is_none());
}
