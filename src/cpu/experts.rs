//! Mixtures of experts: the choice of a token's experts, and products by the chosen ones' matrices.

use super::product::product;
use super::weights::Weights;
use crate::graph::{GroupScore, RouterScore, Routing, WeightId};

/// Numbers and weights of the chosen experts `(tokens, 2 * used)` from scores `(tokens, experts)`.
pub(super) fn route(scores: &[f32], bias: Option<&[f32]>, spec: &Routing) -> Vec<f32> {
    scores.chunks_exact(spec.experts).flat_map(|scores| route_token(scores, bias, spec)).collect()
}

fn route_token(scores: &[f32], bias: Option<&[f32]>, spec: &Routing) -> Vec<f32> {
    let values: Vec<f32> = match spec.score {
        RouterScore::Softmax => softmax(scores),
        RouterScore::SoftmaxOfChosen => scores.to_vec(),
        RouterScore::Sigmoid => scores.iter().map(|score| 1.0 / (1.0 + (-score).exp())).collect(),
    };
    let mut choice = values.clone();
    for (choice, bias) in choice.iter_mut().zip(bias.unwrap_or_default()) {
        *choice += bias;
    }
    let mut allowed: Vec<usize> = (0..spec.experts).collect();
    if let Some(groups) = spec.groups {
        let size = spec.experts / groups.count;
        let ranked_by = |group: &[f32]| match groups.by {
            GroupScore::Best => group[largest(group)[0]],
            GroupScore::TwoBest => largest(group)[..2].iter().map(|&expert| group[expert]).sum(),
        };
        let scores: Vec<f32> = choice.chunks_exact(size).map(ranked_by).collect();
        let best = &largest(&scores)[..groups.used];
        allowed.retain(|expert| best.contains(&(expert / size)));
    }
    let candidates: Vec<f32> = allowed.iter().map(|&expert| choice[expert]).collect();
    let chosen: Vec<usize> = largest(&candidates)[..spec.used].iter().map(|&index| allowed[index]).collect();

    let mut weights: Vec<f32> = chosen.iter().map(|&expert| values[expert]).collect();
    if spec.score == RouterScore::SoftmaxOfChosen {
        weights = softmax(&weights);
    }
    let sum = if spec.normalise { weights.iter().sum::<f32>() + 1e-20 } else { 1.0 };
    let weights = weights.iter().map(|weight| weight / sum * spec.scale);
    chosen.iter().map(|&expert| expert as f32).chain(weights).collect()
}

fn softmax(scores: &[f32]) -> Vec<f32> {
    let max = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weights: Vec<f32> = scores.iter().map(|score| (score - max).exp()).collect();
    let sum: f32 = weights.iter().sum();
    weights.iter().map(|weight| weight / sum).collect()
}

/// Indices from the largest number to the smallest, the lower index among equals first.
fn largest(numbers: &[f32]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..numbers.len()).collect();
    order.sort_by(|&a, &b| numbers[b].total_cmp(&numbers[a]));
    order
}

/// Numbers of several rows, and how many a row has.
pub(super) type Rows<'a> = (&'a [f32], usize);

/// What [`expert_matmul`] multiplies by: `stacked` matrices `(rows, cols)` one above another.
pub(super) struct Experts<'a> {
    pub(super) weight: WeightId,
    pub(super) stacked: usize,
    pub(super) cols: usize,
    /// `(stacked * rows)`.
    pub(super) bias: Option<&'a [f32]>,
    /// Whether results are multiplied by the route's weights.
    pub(super) weighted: bool,
}

/// `y[t, s] = f * (W x[t, s] + b)` by the matrix of the expert that slot `s` of token `t` is routed to, or number `s`.
pub(super) fn expert_matmul(
    weights: &Weights,
    experts: &Experts<'_>,
    x: Rows<'_>,
    route: Option<Rows<'_>>,
) -> Vec<f32> {
    let Experts { weight, stacked, cols, bias, weighted } = *experts;
    let ((x, x_width), rows) = (x, weights.n_rows(weight) / stacked);
    let (tokens, slots) = (x.len() / x_width, route.map_or(stacked, |(_, width)| width / 2));
    let mut users: Vec<Vec<(usize, f32)>> = vec![vec![]; stacked];
    for place in 0..tokens * slots {
        let (expert, factor) = match route {
            None => (place % slots, 1.0),
            Some((route, width)) => {
                let at = place / slots * width + place % slots;
                (route[at] as usize, if weighted { route[at + slots] } else { 1.0 })
            }
        };
        users[expert].push((place, factor));
    }
    let mut y = vec![0.0; tokens * slots * rows];
    for (expert, users) in users.iter().enumerate().filter(|(_, users)| !users.is_empty()) {
        let of_user = |(place, _): &(usize, f32)| {
            let part = if x_width == cols { place / slots } else { *place };
            &x[part * cols..][..cols]
        };
        let x: Vec<f32> = users.iter().flat_map(of_user).copied().collect();
        let first = expert * rows;
        let products = product(weights, weight, first..first + rows, &x, cols);
        for ((place, factor), products) in users.iter().zip(products.chunks_exact(rows)) {
            for (r, (y, product)) in y[place * rows..].iter_mut().zip(products).enumerate() {
                *y = factor * (product + bias.map_or(0.0, |bias| bias[first + r]));
            }
        }
    }
    y
}

/// `y[t, s, c] = x[t, s, order[e, c]]`, `cols` columns of each slot, rows of `width` in all.
pub(super) fn gather(
    (x, x_width): (&[f32], usize),
    route: Option<(&[f32], usize)>,
    order: &[f32],
    (cols, width): (usize, usize),
) -> Vec<f32> {
    let mut y = Vec::with_capacity(x.len() / x_width * width);
    for (token, x) in x.chunks_exact(x_width).enumerate() {
        for slot in 0..width / cols {
            let expert = route.map_or(0, |(route, width)| route[token * width + slot] as usize);
            let x = if x_width == cols { x } else { &x[slot * cols..][..cols] };
            y.extend(order[expert * cols..][..cols].iter().map(|column| x[*column as usize]));
        }
    }
    y
}

/// The sum of `parts` equal parts of each row of `x (tokens, width)`.
pub(super) fn sum_parts(x: &[f32], width: usize, parts: usize) -> Vec<f32> {
    let part = width / parts;
    let mut y = Vec::with_capacity(x.len() / parts);
    for row in x.chunks_exact(width) {
        y.extend((0..part).map(|c| row.iter().skip(c).step_by(part).sum::<f32>()));
    }
    y
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Groups;

    const SCORES: [f32; 8] = [0.3, -1.2, 2.0, 0.9, -0.4, 1.1, 0.0, 1.9];

    fn routing(score: RouterScore) -> Routing {
        Routing { experts: 8, used: 3, score, groups: None, normalise: false, scale: 1.0 }
    }

    /// Every subset of experts, judged by the definition: its members' choice scores are the largest that groups allow.
    fn expected(bias: Option<&[f32; 8]>, spec: &Routing) -> (Vec<usize>, Vec<f64>) {
        let score = |expert: usize| f64::from(SCORES[expert]);
        let all: f64 = (0..8).map(|expert| score(expert).exp()).sum();
        let value = |expert: usize| match spec.score {
            RouterScore::Softmax => score(expert).exp() / all,
            RouterScore::SoftmaxOfChosen => score(expert),
            RouterScore::Sigmoid => 1.0 / (1.0 + (-score(expert)).exp()),
        };
        let choice = |expert: usize| value(expert) + bias.map_or(0.0, |bias| f64::from(bias[expert]));
        let members = |subset: u32, count: usize| (0..count).filter(move |member| subset >> member & 1 == 1);
        let best = |count: usize, used: usize, worth: &dyn Fn(usize) -> f64| {
            let subsets = (0u32..1 << count).filter(|subset| subset.count_ones() as usize == used);
            let total = |subset: &u32| members(*subset, count).map(worth).sum::<f64>();
            subsets.max_by(|a, b| total(a).total_cmp(&total(b))).unwrap()
        };
        let (groups, size) = match spec.groups {
            None => (1, 8),
            Some(Groups { count, used, by }) => {
                let size = 8 / count;
                let members = if by == GroupScore::Best { 1 } else { 2 };
                let worth = |group: usize| {
                    let mut choices: Vec<f64> = (group * size..group * size + size).map(choice).collect();
                    choices.sort_by(|a, b| b.total_cmp(a));
                    choices[..members].iter().sum()
                };
                (best(count, used, &worth), size)
            }
        };
        let inside = |expert: usize| groups >> (expert / size) & 1 == 1;
        let worth = |expert: usize| if inside(expert) { choice(expert) } else { -1e9 };
        let mut chosen: Vec<usize> = members(best(8, spec.used, &worth), 8).collect();
        chosen.sort_by(|a, b| choice(*b).total_cmp(&choice(*a)));
        let mut weights: Vec<f64> = chosen.iter().map(|expert| value(*expert)).collect();
        if spec.score == RouterScore::SoftmaxOfChosen {
            weights.iter_mut().for_each(|weight| *weight = weight.exp());
        }
        if spec.normalise || spec.score == RouterScore::SoftmaxOfChosen {
            let sum: f64 = weights.iter().sum();
            weights.iter_mut().for_each(|weight| *weight /= sum);
        }
        weights.iter_mut().for_each(|weight| *weight *= f64::from(spec.scale));
        (chosen, weights)
    }

    #[test]
    fn routes_follow_the_definition() {
        use RouterScore::{Sigmoid, Softmax, SoftmaxOfChosen};
        let groups = |count, used, by| Some(Groups { count, used, by });
        let table = [
            routing(Softmax),
            routing(SoftmaxOfChosen),
            routing(Sigmoid),
            Routing { normalise: true, ..routing(Softmax) },
            Routing { normalise: true, scale: 2.5, ..routing(Sigmoid) },
            Routing { used: 1, scale: 16.0, ..routing(Softmax) },
            Routing { used: 8, normalise: true, ..routing(Sigmoid) },
            Routing { groups: groups(4, 2, GroupScore::Best), ..routing(Softmax) },
            Routing { groups: groups(4, 2, GroupScore::TwoBest), ..routing(Sigmoid) },
            Routing { groups: groups(2, 1, GroupScore::TwoBest), normalise: true, ..routing(Sigmoid) },
            Routing { groups: groups(8, 3, GroupScore::Best), ..routing(Softmax) },
        ];
        // The bias changes the choice: expert 1 comes in, expert 2 goes out.
        let bias = [0.0, 0.9, -0.9, 0.15, 0.2, -0.1, 0.3, 0.05];
        let mut choices = std::collections::BTreeSet::new();
        for spec in table {
            assert_eq!(spec.problem(), None);
            for bias in [None, Some(&bias)] {
                let found = route(&SCORES, bias.map(|bias| &bias[..]), &spec);
                let (chosen, weights) = expected(bias, &spec);
                let numbers: Vec<usize> = found[..spec.used].iter().map(|number| *number as usize).collect();
                assert_eq!(numbers, chosen, "{spec:?} {bias:?}");
                for (found, expected) in found[spec.used..].iter().zip(weights) {
                    assert!((f64::from(*found) - expected).abs() < 1e-6, "{spec:?} {bias:?}: {found} {expected}");
                }
                choices.insert(chosen);
            }
        }
        assert!(choices.len() >= 7, "the table tells the ways of choosing apart: {choices:?}");
    }

    #[test]
    fn equal_scores_go_to_the_lower_number() {
        let spec = Routing { normalise: true, ..routing(RouterScore::Softmax) };
        let third = 1.0 / 3.0;
        assert_eq!(route(&[0.5; 8], None, &spec), [0.0, 1.0, 2.0, third, third, third]);
    }

    #[test]
    fn routings_that_cannot_be_are_told() {
        let spec = routing(RouterScore::Softmax);
        let groups = |count, used, by| Routing { groups: Some(Groups { count, used, by }), ..spec };
        for (spec, words) in [
            (Routing { used: 9, ..spec }, "9 of 8 experts"),
            (Routing { used: 0, ..spec }, "0 of 8 experts"),
            (groups(3, 1, GroupScore::Best), "8 experts do not make 3 equal groups"),
            (groups(0, 0, GroupScore::Best), "0 equal groups"),
            (groups(4, 5, GroupScore::Best), "5 of 4 groups"),
            (groups(4, 1, GroupScore::Best), "3 experts cannot be chosen from 1 groups of 2"),
            (groups(8, 4, GroupScore::TwoBest), "groups of 1"),
        ] {
            assert!(spec.problem().is_some_and(|found| found.contains(words)), "{spec:?}: {:?}", spec.problem());
        }
    }

    #[test]
    fn parts_are_added() {
        assert_eq!(sum_parts(&[1.0, 2.0, 10.0, 20.0, 3.0, 4.0, 30.0, 40.0], 4, 2), [11.0, 22.0, 33.0, 44.0]);
    }
}
