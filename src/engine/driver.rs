//! Who computes: nobody in particular. The work on replies is one future, and whoever waits for anything of the model
//! polls it on. So a caller that is polled no more, or dropped, holds nobody up; and when the last one goes, the work goes
//! with it.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use super::live::{LetterBox, Live, Order};
use super::loaded::Loaded;
use super::schedule::{Round, Waiting, again};
use super::session::Session;
use crate::cache::common_prefix;
use crate::error::{Error, Result};
use crate::graph::AdapterUse;
use crate::source::LocalFuture;

/// Times that callers are given to fetch what came for them, before the work goes on without those that did not.
pub(super) const PATIENCE: usize = 2;

/// Replies that wait for their turn, and the work on those that have it.
#[derive(Default)]
pub(super) struct Queue {
    waiting: RefCell<Waiting>,
    /// How much was asked for so far.
    asked: Cell<u64>,
    /// The numbers of calls that are no replies; replies that were asked for later wait for them.
    before: RefCell<BTreeSet<u64>>,
    /// Whether there is work for the driver.
    busy: Cell<bool>,
    /// Replies whose callers have not heard enough.
    wanted: RefCell<Vec<std::rc::Weak<LetterBox>>>,
    running: RefCell<Option<LocalFuture<'static, ()>>>,
    polled: Cell<bool>,
    callers: Cell<u64>,
    wakers: Arc<Wakers>,
    /// What callers have done so far, see [`LetterBox::new`].
    heard: Rc<Cell<u64>>,
}

/// Wakes all callers.
#[derive(Default)]
struct Wakers(Mutex<BTreeMap<u64, Waker>>);

impl Wake for Wakers {
    fn wake(self: Arc<Self>) {
        let wakers = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        wakers.into_values().for_each(Waker::wake);
    }
}

/// A caller, while it waits.
struct Caller<'a> {
    queue: &'a Queue,
    number: u64,
}

impl Drop for Caller<'_> {
    fn drop(&mut self) {
        let left = self.queue.callers.get().saturating_sub(1);
        self.queue.callers.set(left);
        self.queue.wakers.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.number);
        if left == 0 {
            let abandoned = self.queue.running.borrow_mut().take();
            drop(abandoned);
        }
    }
}

/// Keeps later replies back.
struct Before<'a> {
    queue: &'a Queue,
    number: u64,
}

impl Drop for Before<'_> {
    fn drop(&mut self) {
        self.queue.before.borrow_mut().remove(&self.number);
    }
}

impl Queue {
    fn number(&self) -> u64 {
        let number = self.asked.get() + 1;
        self.asked.set(number);
        number
    }

    /// Asks for a reply. It must be finished by whoever asked.
    pub(super) fn ask(&self, order: Order) -> Rc<LetterBox> {
        let letters = Rc::new(LetterBox::new(self.heard.clone()));
        self.waiting.borrow_mut().push_back(Live::new(self.number(), order, letters.clone()));
        self.wanted.borrow_mut().push(Rc::downgrade(&letters));
        self.busy.set(true);
        letters
    }

    /// The next reply, if it may come now.
    pub(super) fn next(&self, may_come: impl Fn(&Live) -> bool) -> Option<Live> {
        let mut waiting = self.waiting.borrow_mut();
        waiting.retain(|live| live.letters.done().is_none());
        let first = self.before.borrow().first().copied().unwrap_or(u64::MAX);
        waiting.pop_front_if(|live| live.number < first && may_come(live))
    }

    /// A reply that had its turn is the first to have it again.
    pub(super) fn put_back(&self, live: Live) {
        let mut waiting = self.waiting.borrow_mut();
        let at = waiting.iter().position(|other| other.number > live.number).unwrap_or(waiting.len());
        waiting.insert(at, live);
    }

    /// The most that a waiting reply begins with of `ids`, if any does.
    pub(super) fn longest_prefix(&self, adapter: Option<AdapterUse>, ids: &[u32]) -> Option<usize> {
        let waiting = self.waiting.borrow();
        let alike = waiting.iter().filter(|live| live.order.adapter == adapter);
        alike.map(|live| common_prefix(&live.ids(), ids)).max().filter(|common| *common > 0)
    }

    /// Whether callers wait for a reply, or may do so again.
    fn is_wanted(&self) -> bool {
        let mut wanted = self.wanted.borrow_mut();
        wanted.retain(|letters| letters.upgrade().is_some_and(|letters| letters.done().is_none()));
        !wanted.is_empty()
    }

    fn enter(&self) -> Caller<'_> {
        self.callers.set(self.callers.get() + 1);
        Caller { queue: self, number: self.number() }
    }

    /// Does what can be done now.
    fn poll(&self, loaded: &Rc<Loaded>) {
        if self.polled.replace(true) {
            return;
        }
        let running = self.running.borrow_mut().take();
        let begin = || self.busy.get().then(|| Box::pin(drive(loaded.clone())) as LocalFuture<'static, ()>);
        if let Some(mut running) = running.or_else(begin) {
            let waker = Waker::from(self.wakers.clone());
            if running.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
                *self.running.borrow_mut() = Some(running);
            }
        }
        self.polled.set(false);
    }
}

/// Waits for `work` and drives replies meanwhile.
pub(super) async fn waiting_for<R>(loaded: &Rc<Loaded>, work: impl Future<Output = R>) -> R {
    let queue = &loaded.queue;
    let caller = queue.enter();
    let mut work = pin!(work);
    poll_fn(|context| {
        let (waker, heard) = (context.waker().clone(), queue.heard.get());
        queue.wakers.0.lock().unwrap_or_else(PoisonError::into_inner).insert(caller.number, waker);
        if let Poll::Ready(done) = work.as_mut().poll(context) {
            return Poll::Ready(done);
        }
        queue.poll(loaded);
        let outcome = work.as_mut().poll(context);
        if outcome.is_pending() && queue.heard.get() != heard {
            // The schedule may have waited for just that.
            context.waker().wake_by_ref();
        }
        outcome
    })
    .await
}

/// Waits until what was left of replies is put away, unless others are under way.
pub(super) async fn settled(loaded: &Rc<Loaded>) {
    if !loaded.queue.is_wanted() {
        poll_fn(|_| if loaded.queue.busy.get() && !loaded.queue.is_wanted() { Poll::Pending } else { Poll::Ready(()) })
            .await;
    }
}

/// Has the model to itself, after the replies that were asked for before and before those that are asked for later.
pub(super) async fn alone<R>(loaded: &Rc<Loaded>, work: impl AsyncFnOnce(&mut Session) -> Result<R>) -> Result<R> {
    let queue = &loaded.queue;
    let before = Before { queue, number: queue.number() };
    queue.before.borrow_mut().insert(before.number);
    let turn = loaded.turns.take(async |session| {
        session.settle(loaded.backend.as_ref()).await?;
        work(session).await
    });
    waiting_for(loaded, turn).await
}

/// Works until nothing is left to do.
async fn drive(loaded: Rc<Loaded>) {
    let queue = &loaded.queue;
    while queue.busy.get() {
        let turn = loaded.turns.take(async |session| {
            let worked = work(&loaded, session).await;
            if let Err(error) = &worked {
                session.fail_all(error);
            }
            worked
        });
        if let Err(error) = turn.await {
            fail_waiting(queue, &error);
        }
        if queue.waiting.borrow().is_empty() {
            queue.busy.set(false);
        }
    }
}

fn fail_waiting(queue: &Queue, error: &Error) {
    let waiting = std::mem::take(&mut *queue.waiting.borrow_mut());
    waiting.into_iter().for_each(|mut live| live.fail(again(error)));
}

async fn work(loaded: &Loaded, session: &mut Session) -> Result<()> {
    session.settle(loaded.backend.as_ref()).await?;
    session.on_device = super::session::OnDevice::default();
    loop {
        let round = session.round(loaded).await?;
        match round {
            Round::Done => return Ok(()),
            // A submit that nobody waits for has taken the thread for a while, and on a backend that works inline all do.
            Round::Submitted => (loaded.environment.yield_now)().await,
            Round::Collected if loaded.inline => (loaded.environment.yield_now)().await,
            Round::Collected => {}
            Round::Waits => for_callers().await,
        }
        let mut polls = 0;
        poll_fn(|context| {
            polls += 1;
            if polls > PATIENCE || session.lives.iter().all(|live| live.letters.is_empty()) {
                return Poll::Ready(());
            }
            context.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }
}

/// Waits until a caller comes back.
async fn for_callers() {
    let mut waited = false;
    poll_fn(|_| if std::mem::replace(&mut waited, true) { Poll::Ready(()) } else { Poll::Pending }).await;
}
