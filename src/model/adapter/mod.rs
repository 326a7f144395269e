//! Low-rank adapters (LoRA, arXiv 2106.09685; rsLoRA, arXiv 2312.03732; DoRA, arXiv 2402.09353): which matrices of a
//! model they change, where their numbers lie, and the order of the rows.
//!
//! Both kinds of files become a list of [`Module`]s; what follows does not know where one came from.

mod experts;
mod gguf;
mod peft;
mod read;
mod targets;

pub use read::read_adapter;

use std::collections::BTreeMap;

use super::locate::Stride;
use super::{Architecture, Plan};
use crate::error::{At, Error, ErrorKind, Result};
use crate::format::{Checkpoint, Dialect, TensorInfo};
use crate::graph::{Delta, RopePairs, WeightId};
use crate::quant::FormatId;
use targets::{Target, targets};

/// Largest rank.
pub const MAX_RANK: usize = 256;

/// How an adapter changes a matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdapterKind {
    /// `W + B A`.
    Lora,
    /// `W + B A`, its rows brought to lengths of their own.
    Dora,
}

/// An adapter understood: what it does to a model's matrices, and where its numbers lie.
#[derive(Clone, Debug)]
pub struct AdapterPlan {
    /// Its own name, where the file has one.
    pub name: Option<String>,
    /// What it says that it was made for.
    pub base_model: Option<String>,
    /// How it changes matrices.
    pub kind: AdapterKind,
    /// What it does to each weight.
    pub deltas: Vec<Delta>,
    /// For each delta, where from.
    parts: Vec<Part>,
    modules: Vec<Module>,
}

impl AdapterPlan {
    /// The largest rank.
    pub fn rank(&self) -> usize {
        self.deltas.iter().map(|delta| delta.rank).max().unwrap_or(0)
    }
}

/// A pair of matrices as a file has it.
#[derive(Clone, Debug)]
struct Module {
    /// The matrix it changes, as the file calls it.
    target: String,
    /// `(experts * rank, cols)`: those of one expert after those of another.
    a: TensorInfo,
    /// `(rows, rank * experts)`: the experts' first columns, then their second ones.
    b: TensorInfo,
    /// `(rows)`: the lengths that DoRA gives to the rows.
    magnitude: Option<TensorInfo>,
    /// Of each expert.
    rank: usize,
    /// How many matrices it changes: the experts of a layer, or one.
    experts: usize,
    /// Factor on `B A`.
    scaling: f32,
}

/// What an adapter does to one weight.
#[derive(Clone, Debug)]
struct Part {
    weight: WeightId,
    /// Of one of those that are stacked.
    rows: usize,
    cols: usize,
    order: Order,
    /// One, but for experts that have a module each.
    sources: Vec<PartSource>,
}

/// The rows of a module that are one weight's.
#[derive(Clone, Copy, Debug)]
struct PartSource {
    module: usize,
    /// Which of the stacked, where the module is of one.
    expert: Option<usize>,
    /// Of the module's rows.
    from: Stride,
    /// What B is multiplied by as it is read.
    factor: f32,
}

/// How the rows of a file of an adapter lie in the weight that the model has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Same,
    /// In each run of so many rows, `i` of the first half goes to `2 i`, of the second to `2 i + 1`.
    Interleave(usize),
    /// The reverse.
    Part(usize),
}

/// What an adapter's file says, before it meets a model.
struct AdapterFile {
    name: Option<String>,
    base_model: Option<String>,
    modules: Vec<Module>,
}

/// Checks an adapter against a model. Reads no number of either.
///
/// Fails with `UnsupportedFormat` (naming key or tensor) where the adapter asks for what is not computed here or for
/// matrices that cannot be changed, with `MalformedModel` where its tensors do not fit the model or each other, with
/// `LimitExceeded` past [`MAX_RANK`].
pub fn plan_adapter(plan: &Plan, adapter: &Checkpoint) -> Result<AdapterPlan> {
    let architecture = Architecture::find(plan.architecture)?;
    let dialect = adapter.metadata.dialect;
    let file = match dialect {
        Dialect::Gguf => gguf::read(adapter, architecture)?,
        Dialect::Hub => peft::read(adapter, &plan.hyper)?,
    };
    let targets = targets(plan, architecture, dialect);
    let mut sources: BTreeMap<WeightId, Vec<PartSource>> = BTreeMap::new();
    for (index, module) in file.modules.iter().enumerate() {
        let target = find(&targets, module).map_err(|error| made_for(error, file.base_model.as_deref()))?;
        for (weight, from) in &target.weights {
            let Some(declared) = plan.graph.weights.get(weight.0) else { continue };
            let before = sources.entry(*weight).or_default();
            let same =
                |other: &&PartSource| other.expert.is_none_or(|expert| target.expert.is_none_or(|e| e == expert));
            if let Some(other) = before.iter().find(same).and_then(|other| file.modules.get(other.module)) {
                let problem = format!("{} changes the same matrix, {}", other.target, declared.name);
                return Err(malformed(problem).at(module.target.as_str()));
            }
            if declared.stacked > 1 && module.magnitude.is_some() {
                return Err(unsupported("lengths of rows (DoRA) of experts").at(module.target.as_str()));
            }
            before.push(PartSource { module: index, expert: target.expert, from: *from, factor: 1.0 });
        }
    }
    let (mut deltas, mut parts) = (vec![], vec![]);
    for (weight, mut sources) in sources {
        let Some(declared) = plan.graph.weights.get(weight.0) else { continue };
        let modules = || sources.iter().filter_map(|source| file.modules.get(source.module));
        let Some(first) = modules().next() else { continue };
        let gain = first.magnitude.is_some();
        let same = |of: &dyn Fn(&Module) -> FormatId| {
            let format = of(first);
            if modules().all(|module| of(module) == format) { format } else { FormatId::F32 }
        };
        let shared = modules().all(|module| module.scaling == first.scaling);
        // What a factor or a gain multiplies is rounded, so that it is kept as it is computed.
        let b = if gain || !shared { FormatId::F32 } else { same(&|module| kept(&module.b)) };
        deltas.push(Delta {
            weight,
            stacked: declared.stacked,
            rank: modules().map(|module| module.rank).max().unwrap_or(1),
            formats: [same(&|module| kept(&module.a)), b],
            factor: if gain || !shared { 1.0 } else { first.scaling },
            gain,
        });
        if !shared {
            for source in &mut sources {
                source.factor = file.modules.get(source.module).map_or(1.0, |module| module.scaling);
            }
        }
        parts.push(Part {
            weight,
            rows: declared.rows.checked_div(declared.stacked).unwrap_or(0),
            cols: declared.cols,
            order: order(plan, dialect, &declared.name),
            sources,
        });
    }
    let dora = deltas.iter().any(|delta| delta.gain);
    let kind = if dora { AdapterKind::Dora } else { AdapterKind::Lora };
    Ok(AdapterPlan { name: file.name, base_model: file.base_model, kind, deltas, parts, modules: file.modules })
}

/// Formats of plain floats stay what they are, others become f32.
fn kept(tensor: &TensorInfo) -> FormatId {
    match tensor.format {
        floats @ (FormatId::F16 | FormatId::Bf16) => floats,
        _ => FormatId::F32,
    }
}

/// The matrix that a module changes, shapes compared.
fn find<'a>(targets: &'a BTreeMap<String, Target>, module: &Module) -> Result<&'a Target> {
    let target = targets.get(&module.target).ok_or_else(|| {
        unsupported("this model has no matrix of that name that an adapter could change").at(module.target.as_str())
    })?;
    let rank = module.rank.saturating_mul(module.experts);
    check_shape(&module.a, &[rank, target.cols])?;
    check_shape(&module.b, &[target.rows, rank])?;
    if let Some(magnitude) = &module.magnitude {
        check_shape(magnitude, &[target.rows])?;
    }
    Ok(target)
}

fn check_shape(tensor: &TensorInfo, expected: &[usize]) -> Result<()> {
    let cols = expected.last().copied().unwrap_or(0);
    // GGUF cannot tell a matrix of one row from a vector.
    let row = matches!(expected, [1, _]) && tensor.shape == [cols];
    if tensor.shape != expected && !row {
        return Err(
            malformed(format!("shape {:?} where {expected:?} is needed", tensor.shape)).at(tensor.name.as_str())
        );
    }
    let rows = expected.iter().rev().skip(1).product::<usize>();
    let bytes = tensor.format.row_bytes(cols).and_then(|bytes| bytes.checked_mul(rows));
    match bytes.is_some_and(|bytes| bytes as u64 == tensor.size_bytes) {
        true => Ok(()),
        false => Err(malformed(format!("{} bytes are not {expected:?}", tensor.size_bytes)).at(tensor.name.as_str())),
    }
}

/// Adds what the adapter was made for to an error about a matrix that does not fit.
fn made_for(error: Error, base_model: Option<&str>) -> Error {
    let Some(base_model) = base_model else { return error };
    let words = format!("{}; the adapter was made for {base_model:?}", error.message());
    Error::new(error.kind(), words).at(error.place())
}

/// Architectures whose queries and keys llama.cpp's converter permutes, so that the pairs of a rotation are neighbours.
const PERMUTED: &[&str] = &["llama", "mistral", "mixtral", "smollm3"];
/// The matrices that are.
const PERMUTED_PARTS: &[&str] = &["attn_q.weight", "attn_k.weight"];

/// Where the rows of a weight of `plan` lie in an adapter of the other dialect.
fn order(plan: &Plan, adapter: Dialect, weight: &str) -> Order {
    let part = weight.rsplit_once('.').and_then(|(stem, _)| stem.rsplit_once('.')).map(|(layer, _)| layer);
    let part = part.and_then(|layer| weight.strip_prefix(layer)?.strip_prefix('.'));
    let permuted = PERMUTED.contains(&plan.architecture) && part.is_some_and(|part| PERMUTED_PARTS.contains(&part));
    let adjacent = plan.hyper.ropes.first().is_some_and(|rope| rope.pairs == RopePairs::Adjacent);
    match (permuted, adapter, adjacent) {
        (true, Dialect::Hub, true) => Order::Interleave(plan.hyper.head_dim),
        (true, Dialect::Gguf, false) => Order::Part(plan.hyper.head_dim),
        _ => Order::Same,
    }
}

impl Order {
    /// The row of the file that is row `row` of the weight.
    fn source(self, row: usize) -> usize {
        let within = |head: usize, place: fn(usize, usize) -> usize| {
            let (start, inner) = (row.checked_rem(head).map(|inner| row.saturating_sub(inner)), row.checked_rem(head));
            start.zip(inner).map_or(row, |(start, inner)| start.saturating_add(place(inner, head / 2)))
        };
        match self {
            Order::Same => row,
            Order::Interleave(head) => {
                within(head, |inner, half| (inner % 2).saturating_mul(half).saturating_add(inner / 2))
            }
            Order::Part(head) => within(head, |inner, half| {
                let (pair, second) = (inner.checked_rem(half).unwrap_or(0), inner >= half);
                pair.saturating_mul(2).saturating_add(usize::from(second))
            }),
        }
    }
}

/// Makes modules of tensors that were told apart by what they change and by their part in it.
struct Pairing {
    found: BTreeMap<String, [Option<TensorInfo>; 3]>,
}

/// A tensor's part in a module.
#[derive(Clone, Copy)]
enum Role {
    A = 0,
    B = 1,
    Magnitude = 2,
}

impl Pairing {
    fn new() -> Self {
        Self { found: BTreeMap::new() }
    }

    fn add(&mut self, target: &str, role: Role, tensor: &TensorInfo) -> Result<()> {
        let slot = self.found.entry(target.to_owned()).or_default().get_mut(role as usize);
        match slot.and_then(|slot| slot.replace(tensor.clone())) {
            None => Ok(()),
            Some(twice) => Err(malformed(format!("{} is the same matrix", twice.name)).at(tensor.name.as_str())),
        }
    }

    /// The modules; `whole` makes the name of what a module changes, and how many matrices that is, of its own name and of
    /// its A and B; `scaling` is told the former and its rank, `partner` makes the name of the tensor that lacks.
    fn modules(
        self,
        whole: impl Fn(String, &TensorInfo, &TensorInfo) -> (String, usize),
        scaling: impl Fn(&str, usize) -> Result<f32>,
        partner: impl Fn(&str, &str) -> String,
    ) -> Result<Vec<Module>> {
        if self.found.is_empty() {
            return Err(malformed("the adapter has no matrices"));
        }
        let pair = |(target, [a, b, magnitude]): (String, [Option<TensorInfo>; 3])| {
            let missing = |letter| malformed("the tensor is missing").at(partner(&target, letter));
            let (a, b) = (a.ok_or_else(|| missing("A"))?, b.ok_or_else(|| missing("B"))?);
            // The rank is the number of columns of B, which every kind of file tells.
            let (target, experts) = whole(target, &a, &b);
            let rank = match b.shape.as_slice() {
                [_, rank] if rank.checked_rem(experts) == Some(0) => rank.checked_div(experts).unwrap_or(0),
                [_, rank] => {
                    let problem = format!("{rank} columns for {experts} experts");
                    return Err(malformed(problem).at(b.name.as_str()));
                }
                other => return Err(malformed(format!("shape {other:?}, a matrix is needed")).at(b.name.as_str())),
            };
            if !(1..=MAX_RANK).contains(&rank) {
                let problem = format!("rank {rank}; supported are 1 to {MAX_RANK}");
                return Err(Error::new(ErrorKind::LimitExceeded, problem).at(b.name.as_str()));
            }
            let scaling = scaling(&target, rank).at(|| target.clone())?;
            Ok(Module { target, a, b, magnitude, rank, experts, scaling })
        };
        self.found.into_iter().map(pair).collect()
    }
}

fn malformed(problem: impl Into<String>) -> Error {
    Error::new(ErrorKind::MalformedModel, problem)
}

fn unsupported(problem: impl Into<String>) -> Error {
    Error::new(ErrorKind::UnsupportedFormat, problem)
}

#[cfg(test)]
mod tests {
    use super::Order;

    #[test]
    fn rows_are_permuted_as_the_converter_does_it() {
        // numpy: np.arange(12).reshape(2, 2, 3).swapaxes(1, 2).reshape(12): two heads of six rows.
        let permuted = [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11];
        let found: Vec<usize> = (0..12).map(|row| Order::Interleave(6).source(row)).collect();
        assert_eq!(found, permuted);
        let back: Vec<usize> = (0..12).map(|row| permuted[Order::Part(6).source(row)]).collect();
        assert_eq!(back, (0..12).collect::<Vec<_>>());
    }
}
