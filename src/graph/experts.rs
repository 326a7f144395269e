//! How a token's experts are chosen (Shazeer et al., arXiv 1701.06538), in the ways of the families that do so.

/// How scores become weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouterScore {
    /// A softmax over all experts.
    Softmax,
    /// A softmax over the chosen ones alone.
    SoftmaxOfChosen,
    /// A sigmoid of each.
    Sigmoid,
}

/// What a group of experts is ranked by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupScore {
    /// Its best expert (DeepSeek-V2, arXiv 2405.04434).
    Best,
    /// The sum of its two best (DeepSeek-V3, arXiv 2412.19437).
    TwoBest,
}

/// Experts in equal groups of neighbours, of which only the best may be chosen from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Groups {
    /// How many there are.
    pub count: usize,
    /// How many may be chosen from.
    pub used: usize,
    /// What they are ranked by.
    pub by: GroupScore,
}

/// The choice of experts for each token. The largest scores win, the lower number among equals. With a bias, it is added
/// to the scores (after softmax or sigmoid) for the choice of groups and experts, and left out of the weights.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Routing {
    /// How many there are.
    pub experts: usize,
    /// How many a token goes through.
    pub used: usize,
    /// How scores become weights.
    pub score: RouterScore,
    /// Groups of experts, where not all may be chosen from.
    pub groups: Option<Groups>,
    /// Whether the weights of the chosen ones are divided by their sum (plus 1e-20, against zeros).
    pub normalise: bool,
    /// Factor on the weights.
    pub scale: f32,
}

impl Routing {
    /// What does not fit together, if something does not.
    pub fn problem(&self) -> Option<String> {
        let Self { experts, used, groups, .. } = *self;
        if used == 0 || used > experts {
            return Some(format!("{used} of {experts} experts cannot be chosen"));
        }
        let Groups { count, used: groups_used, by } = groups?;
        if count == 0 || !experts.is_multiple_of(count) {
            return Some(format!("{experts} experts do not make {count} equal groups"));
        }
        if groups_used == 0 || groups_used > count {
            return Some(format!("{groups_used} of {count} groups of experts cannot be chosen"));
        }
        let size = experts / count;
        if used > groups_used.saturating_mul(size) {
            return Some(format!("{used} experts cannot be chosen from {groups_used} groups of {size}"));
        }
        (by == GroupScore::TwoBest && size < 2).then(|| format!("groups of {size} have no two best experts"))
    }
}
