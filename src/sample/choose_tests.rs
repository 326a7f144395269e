//! Draws held to the definition of each filter, and the rest of what the chooser promises.

use super::super::dry::Dry;
use super::*;

const LOGITS: [f32; 8] = [1.0, 3.0, -2.0, 3.0, 0.5, 2.5, -1.0, 2.0];

/// One draw of a reply without a prompt.
fn choose(logits: &[f32], settings: &SamplerSettings, extra: &Extra, index: u32) -> Result<u32> {
    Chooser::new(logits.len(), &[], settings.clone(), extra.clone())?.choose(logits, None, index)
}

fn settings() -> SamplerSettings {
    SamplerSettings { temperature: 0.8, ..SamplerSettings::default() }
}

/// Probabilities by the definition of each filter, written without thresholds or sorting tricks.
fn expected(logits: &[f32], settings: &SamplerSettings, extra: &Extra) -> Vec<f64> {
    let mut weights: Vec<f64> = logits.iter().map(|l| f64::from(*l / settings.temperature).exp()).collect();
    let normalise = |weights: &mut Vec<f64>| {
        let sum: f64 = weights.iter().sum();
        weights.iter_mut().for_each(|weight| *weight /= sum);
    };
    let larger = |weights: &[f64], than: f64| weights.iter().filter(|weight| **weight > than).count();
    let normal: Vec<f64> = logits.iter().map(|logit| f64::from(*logit)).collect();
    let mean = normal.iter().sum::<f64>() / normal.len() as f64;
    let deviation = (normal.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / normal.len() as f64).sqrt();
    let largest = normal.iter().copied().fold(f64::MIN, f64::max);
    let before = weights.clone();
    if settings.top_k > 0 {
        for weight in &mut weights {
            if larger(&before, *weight) >= settings.top_k as usize {
                *weight = 0.0;
            }
        }
    }
    if extra.top_n_sigma > 0.0 {
        for (weight, logit) in weights.iter_mut().zip(&normal) {
            if (largest - logit) / deviation > f64::from(extra.top_n_sigma) {
                *weight = 0.0;
            }
        }
    }
    normalise(&mut weights);
    if extra.typical_p < 1.0 {
        let entropy: f64 = weights.iter().filter(|p| **p > 0.0).map(|p| -p * p.ln()).sum();
        let far = |p: f64| (-p.ln() - entropy).abs();
        let before = weights.clone();
        for weight in &mut weights {
            let nearer: f64 = before.iter().filter(|p| **p > 0.0 && far(**p) < far(*weight) - 1e-9).sum();
            if nearer >= f64::from(extra.typical_p) {
                *weight = 0.0;
            }
        }
    }
    normalise(&mut weights);
    let before = weights.clone();
    for weight in &mut weights {
        let mass: f64 = before.iter().filter(|other| **other > *weight).sum();
        if mass >= f64::from(settings.top_p) && mass > 0.0 {
            *weight = 0.0;
        }
    }
    normalise(&mut weights);
    let max = weights.iter().copied().fold(0.0, f64::max);
    for weight in &mut weights {
        if *weight < f64::from(settings.min_p) * max {
            *weight = 0.0;
        }
    }
    normalise(&mut weights);
    let Some(xtc) = extra.xtc else { return weights };
    let likely = |p: f64| p >= f64::from(xtc.threshold);
    let kept = weights.iter().copied().filter(|p| likely(*p)).fold(1.0, f64::min);
    let mut without: Vec<f64> = weights.iter().map(|p| if likely(*p) && *p > kept { 0.0 } else { *p }).collect();
    normalise(&mut without);
    let share = f64::from(xtc.probability);
    weights.iter().zip(without).map(|(with, without)| with * (1.0 - share) + without * share).collect()
}

#[test]
fn draws_follow_the_distribution_of_every_filter() {
    let none = Extra::default;
    let base = [
        ("temperature", settings()),
        ("hot", SamplerSettings { temperature: 3.0, ..settings() }),
        ("top_k with equals at the threshold", SamplerSettings { top_k: 1, ..settings() }),
        ("top_k", SamplerSettings { top_k: 3, ..settings() }),
        ("top_p", SamplerSettings { top_p: 0.7, ..settings() }),
        ("top_p of nothing", SamplerSettings { top_p: 0.0, ..settings() }),
        ("min_p", SamplerSettings { min_p: 0.2, ..settings() }),
        ("all", SamplerSettings { top_k: 5, top_p: 0.95, min_p: 0.1, ..settings() }),
    ];
    let all = SamplerSettings { top_k: 6, top_p: 0.95, min_p: 0.05, ..settings() };
    let xtc = |probability, threshold| Some(Xtc { probability, threshold });
    let further = [
        ("top_n_sigma", settings(), Extra { top_n_sigma: 0.7, ..none() }),
        ("typical", settings(), Extra { typical_p: 0.5, ..none() }),
        ("typical, nearly all", settings(), Extra { typical_p: 0.97, ..none() }),
        ("xtc, always", settings(), Extra { xtc: xtc(1.0, 0.1), ..none() }),
        ("xtc, sometimes", settings(), Extra { xtc: xtc(0.3, 0.2), ..none() }),
        ("xtc with one choice", settings(), Extra { xtc: xtc(1.0, 0.9), ..none() }),
        ("everything", all, Extra { top_n_sigma: 1.5, typical_p: 0.9, xtc: xtc(0.5, 0.15), ..none() }),
    ];
    let cases = base.map(|(name, settings)| (name, settings, none())).into_iter().chain(further);
    const DRAWS: u32 = 40_000;
    let mut failures = vec![];
    for (name, settings, extra) in cases {
        let expected = expected(&LOGITS, &settings, &extra);
        let mut counts = [0u32; LOGITS.len()];
        for draw in 0..DRAWS {
            // Seeds and indices both vary, since both feed the randomness.
            let settings = SamplerSettings { seed: draw / 16, ..settings.clone() };
            counts[choose(&LOGITS, &settings, &extra, draw % 16).unwrap() as usize] += 1;
        }
        let mut chi_square = 0.0;
        let mut freedom = 0.0f64;
        for (count, probability) in counts.iter().zip(&expected) {
            let mean = probability * f64::from(DRAWS);
            if mean == 0.0 {
                assert_eq!(*count, 0, "{name}: an id that was filtered out");
                continue;
            }
            chi_square += (f64::from(*count) - mean).powi(2) / mean;
            freedom += 1.0;
        }
        // Four standard deviations above the mean of chi-square.
        let bound = (freedom - 1.0) + 4.0 * (2.0 * (freedom - 1.0)).sqrt();
        if chi_square > bound {
            failures.push(format!("{name}: chi-square {chi_square:.2}, bound {bound:.2}, {counts:?}"));
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
}

#[test]
fn greedy_takes_the_lower_id_among_equals() {
    assert_eq!(choose(&LOGITS, &SamplerSettings::default(), &Extra::default(), 0).unwrap(), 1);
}

#[test]
fn penalties_come_before_all_else() {
    let settings = SamplerSettings {
        repetition_penalty: 2.0,
        frequency_penalty: 0.25,
        presence_penalty: 0.125,
        ..SamplerSettings::default()
    };
    let mut chooser = Chooser::new(LOGITS.len(), &[1, 2], settings, Extra::default()).unwrap();
    chooser.history.push(3);
    chooser.history.push(3);
    let changed = changed(&LOGITS, &chooser.changes());
    assert_eq!(&changed[..4], &[1.0, 1.5, -4.0, 1.5 - 0.5 - 0.125]);
    assert_eq!(&changed[4..], &LOGITS[4..]);
    assert_eq!(chooser.choose(&LOGITS, None, 0).unwrap(), 5);
}

#[test]
fn a_bias_comes_first_and_its_ids_must_be_in_the_vocabulary() {
    let extra = Extra { logit_bias: vec![(6, 100.0), (1, -100.0)], ..Extra::default() };
    let greedy = SamplerSettings { repetition_penalty: 2.0, ..SamplerSettings::default() };
    let mut chooser = Chooser::new(LOGITS.len(), &[6], greedy.clone(), extra.clone()).unwrap();
    let biased = changed(&LOGITS, &chooser.changes());
    assert_eq!((biased[6], biased[1]), (49.5, -97.0));
    assert_eq!(chooser.choose(&LOGITS, None, 0).unwrap(), 6);
    let error = Chooser::new(3, &[], greedy, extra).unwrap_err();
    assert_eq!((error.kind(), error.place().as_str()), (ErrorKind::InvalidArgument, "logitBias"));
}

#[test]
fn dry_breaks_a_loop() {
    let dry = Dry { multiplier: 2.0, base: 2.0, allowed: 1, window: 100, breakers: Default::default() };
    let extra = Extra { dry: Some(dry), ..Extra::default() };
    let mut chooser = Chooser::new(LOGITS.len(), &[1, 3, 5, 1], SamplerSettings::default(), extra).unwrap();
    // After 1 came 3, which is as likely as 1 but is penalised; of the equals the lower id remains.
    let mut ids = vec![];
    for index in 0..4 {
        ids.push(chooser.choose(&LOGITS, None, index).unwrap());
    }
    assert_ne!(ids, [1, 1, 1, 1], "greedy would loop");
}

/// The mean surprise of what is drawn comes near the target, from above and from below.
#[test]
fn mirostat_keeps_the_surprise_near_the_target() {
    let logits: Vec<f32> = (0..256).map(|i| 6.0 - 0.05 * i as f32).collect();
    let whole: f64 = logits.iter().map(|logit| f64::from(*logit).exp()).sum();
    for tau in [2.0_f32, 3.0, 4.0] {
        let extra = Extra { mirostat: Some(Mirostat { tau, eta: 0.1 }), ..Extra::default() };
        let warm = SamplerSettings { temperature: 1.0, seed: 9, ..SamplerSettings::default() };
        let mut chooser = Chooser::new(logits.len(), &[], warm, extra).unwrap();
        let mut sum = 0.0;
        for index in 0..2000 {
            let id = chooser.choose(&logits, None, index).unwrap();
            sum += f64::from(chooser.surprise);
            assert!((id as usize) < logits.len());
        }
        // The bound settles where the surprise among what it leaves is the target on average.
        let bound = sum / 2000.0;
        let kept: Vec<f64> =
            logits.iter().map(|logit| f64::from(*logit).exp() / whole).filter(|p| -p.log2() <= bound).collect();
        let left: f64 = kept.iter().sum();
        let surprise: f64 = kept.iter().map(|p| -(p / left) * (p / left).log2()).sum();
        assert!((surprise - f64::from(tau)).abs() < 0.15, "{tau}: {surprise}");
    }
}

#[test]
fn the_same_seed_and_index_give_the_same_id_and_others_do_not() {
    let ids = |seed| -> Vec<u32> {
        let settings = SamplerSettings { seed, ..settings() };
        (0..32).map(|index| choose(&LOGITS, &settings, &Extra::default(), index).unwrap()).collect()
    };
    assert_eq!(ids(5), ids(5));
    assert_ne!(ids(5), ids(6));
}

#[test]
fn tiny_temperatures_are_greedy_and_do_not_overflow() {
    let settings = SamplerSettings { temperature: 1e-38, ..settings() };
    let logits = [-1e30, 2e30, 1e30];
    let chosen = |index| choose(&logits, &settings, &Extra::default(), index).unwrap();
    assert!((0..100).all(|index| chosen(index) == 1));
}

#[test]
fn logits_that_are_not_numbers_are_refused() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let logits = [0.0, bad];
        let error = choose(&logits, &settings(), &Extra::default(), 0).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BadLogits);
        assert!(error.message().contains("id 1"), "{error}");
    }
}

#[test]
fn uniform_numbers_lie_in_the_unit_interval_and_fill_it() {
    let mut buckets = [0u32; 64];
    for seed in 0..64 {
        for index in 0..1000 {
            let u = uniform(seed, index);
            assert!((0.0..1.0).contains(&u));
            buckets[(u * 64.0) as usize] += 1;
        }
    }
    let chi_square: f64 = buckets.iter().map(|count| (f64::from(*count) - 1000.0).powi(2) / 1000.0).sum();
    assert!(chi_square < 63.0 + 4.0 * (2.0f64 * 63.0).sqrt(), "{chi_square}");
    // Fixed numbers, so that the kernel can be held to the same ones.
    assert_eq!(
        [uniform(0, 0), uniform(1, 0), uniform(1, 1)].map(|u| (u * 16_777_216.0) as u32),
        [3_194_371, 15_280_721, 2_625_959]
    );
}
