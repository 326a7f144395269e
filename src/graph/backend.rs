//! What a backend promises: to run a [`Graph`](super::Graph) over steps, and to chain decode steps without the caller.

use serde::Serialize;

use super::{AdapterId, AdapterUse, Delta, DeltaValues, HeldChoice, SamplerSettings, StateSlots, Step, Top, TopAsk};
use crate::error::{Error, ErrorKind, Result};
use crate::source::LocalFuture;

/// What runs the model.
#[derive(Clone, Debug, Default)]
pub struct BackendInfo {
    /// `"webgpu"` (in browsers), `"gpu"` (natively) or `"cpu"`.
    pub name: String,
    /// The adapter's own name, where it tells one.
    pub device: String,
    /// What is used of the device: `f16`, `subgroups`, ...
    pub features: Vec<String>,
    /// What users should know of it.
    pub notes: Vec<String>,
}

/// Exact counts since the backend was made. Tests assert them, benchmarks print them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Counters {
    /// Kernel launches.
    pub dispatches: u64,
    /// Compute passes.
    pub passes: u64,
    /// Queue submits.
    pub submits: u64,
    /// Uploads by `write_buffer`.
    pub writes: u64,
    /// Bytes of those uploads.
    pub write_bytes: u64,
    /// Bytes mapped for reading.
    pub read_bytes: u64,
    /// Times that all logits of a place were read to choose one id.
    pub full_reads: u64,
    /// Buffers made.
    pub buffers: u64,
    /// Bytes of those buffers.
    pub buffer_bytes: u64,
    /// Bind groups made.
    pub bind_groups: u64,
    /// Pipelines made.
    pub pipelines: u64,
}

/// Bytes that a backend takes for a model, before anything is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    /// All weights.
    pub weight_bytes: u64,
    /// Keys and values, and states.
    pub kv_bytes: u64,
    /// What passes between the operations of a step.
    pub activation_bytes: u64,
    /// Everything else: rotary tables, what weights are uploaded through, the books of steps and replies.
    pub other_bytes: u64,
    /// The largest piece that cannot be split.
    pub largest_bytes: u64,
}

impl Footprint {
    /// All of it.
    pub fn total_bytes(&self) -> u64 {
        [self.weight_bytes, self.kv_bytes, self.activation_bytes, self.other_bytes]
            .into_iter()
            .fold(0, u64::saturating_add)
    }
}

/// Time that the launches of one kernel took in a step, by the device's own clock.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct KernelTime {
    /// The kernel.
    pub kernel: String,
    /// How its matrix is stored, where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
    /// Rows and columns of that matrix, or of the part of it that one launch takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shape: Option<[usize; 2]>,
    /// Launches.
    pub dispatches: u32,
    /// What they took in all, in seconds.
    pub secs: f64,
}

/// A chain of decode steps for one sequence, each feeding its id to the next.
#[derive(Clone, Copy, Debug)]
pub struct Decode<'a> {
    /// The token at `position`, or `None` to go on from the id that the last step on this backend chose.
    pub token: Option<u32>,
    /// Position of the first token of the chain.
    pub position: u32,
    /// How many ids to make.
    pub count: u32,
    /// Pages that hold all positions up to `position + count - 1`.
    pub pages: &'a [u32],
    /// Where the first step finds the state, and where every step leaves it; nothing looks at it where the graph keeps
    /// none.
    pub states: StateSlots,
    /// Index, among the generated tokens of this reply, of the first id of the chain (feeds the randomness).
    pub index: u32,
}

/// A chain of decode steps for several sequences at once, each feeding its ids to itself alone.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// The sequences, at least one and no more than [`Backend::max_batch`].
    pub rows: &'a [BatchRow<'a>],
    /// How many ids to make for each.
    pub count: u32,
    /// Whether each row's first token is the last id of the same row of the last batch on this backend; the tokens of the
    /// rows are not looked at then.
    pub goes_on: bool,
}

/// One sequence of a [`Batch`].
#[derive(Clone, Copy, Debug)]
pub struct BatchRow<'a> {
    /// The token at `position`.
    pub token: u32,
    /// Position of the first token of the chain.
    pub position: u32,
    /// Pages that hold all positions up to `position + count - 1`.
    pub pages: &'a [u32],
    /// Index, among the generated tokens of its reply, of the first id of the chain.
    pub index: u32,
    /// The place that [`Backend::start_place`] made ready for its reply.
    pub place: u32,
}

/// Sequences of a batch, at most: a kernel keeps a sum for each of them.
pub const MAX_BATCH: usize = 8;

/// Stands for an id where the logits were not numbers.
pub const BAD_LOGITS: u32 = u32::MAX;

/// A submitted chain whose ids have not been collected yet.
#[derive(Debug)]
pub struct Ticket(pub u64);

/// Runs one graph with its weights. Single-threaded, methods take `&self`; at most two tickets are open at a time and
/// they are collected in order.
pub trait Backend {
    /// What this is.
    fn info(&self) -> BackendInfo;

    /// Largest number of rows of one step; longer prompts come in chunks. Where rows see those after them, a text cannot: there
    /// it is as many as the pages hold.
    fn max_rows(&self) -> usize;

    /// Pages for keys and values that there are room for.
    fn n_pages(&self) -> usize;

    /// Slots for the state of sequences; 0 where the graph keeps none.
    fn n_states(&self) -> usize;

    /// Chain length worth submitting at once.
    fn decode_chain(&self) -> u32;

    /// Runs a step and reads back what the graph ends in for its outputs, `(outputs, output_width)`: logits, hidden states or
    /// scores.
    fn forward<'a>(&'a self, step: &'a Step<'a>) -> LocalFuture<'a, Result<Vec<f32>>>;

    /// Runs a step and reads back the final hidden states of its outputs, `(outputs, dim)`.
    fn hidden<'a>(&'a self, step: &'a Step<'a>) -> LocalFuture<'a, Result<Vec<f32>>>;

    /// Runs a step with one output whose logits stay where they are until [`Backend::choose`] or [`Backend::held`]; nothing else
    /// is submitted in between. `index` is that of the id after it among those of its reply.
    fn hold(&self, step: &Step<'_>, index: u32) -> Result<()>;

    /// Chooses an id of the held logits: the one that the sampler would choose of the changed ones that take part, if there were
    /// no others. They stay as they were, for [`Backend::top`] and [`Backend::held`], except where the backend makes logits on
    /// this side: there all can be had for nothing, and changes, telling and `top` are refused. The reply that was started last is to be started again.
    fn choose<'a>(&'a self, choice: &'a HeldChoice<'a>) -> LocalFuture<'a, Result<(u32, Option<Top>)>>;

    /// The largest of the held logits, which stay.
    fn top<'a>(&'a self, ask: &'a TopAsk<'a>) -> LocalFuture<'a, Result<Top>>;

    /// The held logits, `(vocab)`; none are held any more.
    fn held(&self) -> LocalFuture<'_, Result<Vec<f32>>>;

    /// Starts a reply, or goes on with one: how ids are chosen from now on, the ids of the prompt, and those of the reply
    /// so far (for the penalties).
    fn start_reply(&self, sampler: &SamplerSettings, prompt: &[u32], reply: &[u32]) -> Result<()>;

    /// Runs a step whose logits stay where they are. With one output its next id (generated token 0) is chosen and
    /// a ticket for that single id comes back; without outputs the step only fills pages.
    fn prefill(&self, step: &Step<'_>) -> Result<Option<Ticket>>;

    /// Becomes ready once everything is done that was submitted before this call; nothing where the backend works while it
    /// is called.
    fn done(&self) -> Option<LocalFuture<'static, Result<()>>> {
        None
    }

    /// Submits a chain of decode steps.
    fn decode(&self, chain: &Decode<'_>) -> Result<Ticket>;

    /// Sequences that one batch can have. Where it is one, there are no batches.
    fn max_batch(&self) -> usize;

    /// Makes what batches of so many rows need, if that is not there yet. What a backend that never batches does without is
    /// made here.
    ///
    /// Fails with `GpuOutOfMemory` where there is no room for it.
    fn prepare_batches(&self, rows: usize) -> LocalFuture<'_, Result<()>>;

    /// Makes place `place`, below [`Backend::max_batch`], ready for a reply of a batch, as [`Backend::start_reply`] does
    /// for one that is alone. Batches must have been prepared.
    fn start_place(&self, place: u32, sampler: &SamplerSettings, prompt: &[u32], reply: &[u32]) -> Result<()>;

    /// Submits a chain for several sequences. Each has the ids that it would have alone. All use no adapter.
    fn decode_batch(&self, batch: &Batch<'_>) -> Result<Ticket>;

    /// Gives one page the keys and values of another, before whatever is submitted next.
    fn copy_page(&self, from: u32, to: u32) -> Result<()>;

    /// Bytes that keys and values of one position take in [`Backend::read_page`].
    fn position_bytes(&self) -> usize;

    /// Keys and values of the first `positions` of a page: for each layer all keys, then all values, as this kind of backend
    /// stores them.
    fn read_page(&self, page: u32, positions: usize) -> LocalFuture<'_, Result<Vec<u8>>>;

    /// Gives the first `positions` of a page what [`Backend::read_page`] gave, before whatever is submitted next.
    fn write_page(&self, page: u32, positions: usize, bytes: &[u8]) -> Result<()>;

    /// The ids of a ticket, for a batch `(rows, count)`. Where logits were not numbers, fails with `BadLogits`; in a batch
    /// such a row has [`BAD_LOGITS`] for an id instead, and the others are as they should be.
    fn collect(&self, ticket: Ticket) -> LocalFuture<'_, Result<Vec<u32>>>;

    /// Makes room for an adapter, and everything that steps with it need; its numbers come through
    /// [`Backend::fill_adapter`]. Steps under way are not touched.
    ///
    /// Fails with `GpuOutOfMemory` or `LimitExceeded` where there is no room.
    fn add_adapter<'a>(&'a self, deltas: &'a [Delta]) -> LocalFuture<'a, Result<AdapterId>>;

    /// Takes the numbers of delta `index` of an adapter.
    fn fill_adapter(&self, id: AdapterId, index: usize, values: &DeltaValues<'_>) -> Result<()>;

    /// Frees an adapter. `NotFound` where there is no such. Steps go on without one if it was in use.
    fn remove_adapter(&self, id: AdapterId) -> Result<()>;

    /// All steps from now on use this adapter, or none. `NotFound` where there is no such.
    fn use_adapter(&self, adapter: Option<AdapterUse>) -> Result<()>;

    /// Runs a step as [`Backend::forward`] does, each launch by itself and timed, and tells what each kernel took on
    /// matrices of one kind, the longest first.
    ///
    /// Fails with `InvalidArgument` where kernels are not launched, and with `GpuFeatureMissing` where the device tells no
    /// times.
    fn profile<'a>(&'a self, _step: &'a Step<'a>) -> LocalFuture<'a, Result<Vec<KernelTime>>> {
        let error = Error::new(ErrorKind::InvalidArgument, "kernels are timed on a GPU only").at("profile");
        Box::pin(async move { Err(error) })
    }

    /// The counts so far.
    fn counters(&self) -> Counters;
}
