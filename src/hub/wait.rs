//! Waiting on one thread: for several futures at once, and not for ever.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Poll, Waker};

use super::edge::Edge;
use crate::error::{Error, ErrorKind, Result};

/// How often waiting looks up: whether the caller gave up, whether nothing moves.
const TICK_SECS: f64 = 0.25;

/// What may end a wait: the caller, or that nothing happened for too long. Clones share it.
#[derive(Clone)]
pub struct Patience {
    pub(super) edge: Rc<dyn Edge>,
    pub(super) aborted: Rc<dyn Fn() -> bool>,
    pub(super) stall_secs: f64,
}

impl Patience {
    /// Waits for a future; fails with `Aborted`, or with `Stalled` after the time in which something should have come.
    pub(super) async fn wait<T>(&self, future: impl Future<Output = T>) -> Result<T> {
        let mut future = std::pin::pin!(future);
        let mut waited_secs = 0.0;
        loop {
            self.check()?;
            let mut tick = self.edge.sleep(TICK_SECS);
            let done = poll_fn(|context| match future.as_mut().poll(context) {
                Poll::Ready(value) => Poll::Ready(Some(value)),
                Poll::Pending => tick.as_mut().poll(context).map(|()| None),
            });
            if let Some(value) = done.await {
                return Ok(value);
            }
            waited_secs += TICK_SECS;
            if waited_secs >= self.stall_secs {
                let words = format!("nothing came for {} seconds", self.stall_secs);
                return Err(Error::new(ErrorKind::Stalled, words));
            }
        }
    }

    /// Sleeps, unless the caller gives up.
    pub(super) async fn sleep(&self, secs: f64) -> Result<()> {
        let mut left_secs = secs;
        while left_secs > 0.0 {
            self.check()?;
            self.edge.sleep(left_secs.min(TICK_SECS)).await;
            left_secs -= TICK_SECS;
        }
        self.check()
    }

    /// Fails with `Aborted` once the caller gave up.
    pub(super) fn check(&self) -> Result<()> {
        match (self.aborted)() {
            true => Err(Error::new(ErrorKind::Aborted, "ended by the caller's signal")),
            false => Ok(()),
        }
    }
}

/// Fewer bytes a second are no transfer: a gigabyte would take weeks.
const SLOW_BYTES_PER_SEC: f64 = 256.0;
/// Whoever was away for so many times as long as a stall takes was asleep: nothing is told of the line.
const ASLEEP: f64 = 4.0;

/// Tells an answer that trickles from one that comes.
pub(super) struct Pace {
    since_secs: f64,
    bytes: f64,
}

impl Pace {
    pub(super) fn new(patience: &Patience) -> Self {
        Self { since_secs: patience.edge.now_secs(), bytes: 0.0 }
    }

    /// Counts bytes that came; fails with `Stalled` where hardly any did for as long as a stall takes.
    pub(super) fn count(&mut self, bytes: usize, patience: &Patience) -> Result<()> {
        self.bytes += bytes as f64;
        let secs = patience.edge.now_secs() - self.since_secs;
        if secs < patience.stall_secs {
            return Ok(());
        }
        let came = std::mem::replace(self, Self::new(patience)).bytes;
        if came < SLOW_BYTES_PER_SEC * secs && secs < ASLEEP * patience.stall_secs {
            return Err(Error::new(ErrorKind::Stalled, format!("{came} bytes came in {secs:.0} seconds")));
        }
        Ok(())
    }
}

/// Tells whoever waits that something changed.
#[derive(Default)]
pub(super) struct Bell {
    rung: Cell<u64>,
    waiting: RefCell<Vec<Waker>>,
}

impl Bell {
    pub(super) fn ring(&self) {
        self.rung.set(self.rung.get().wrapping_add(1));
        self.waiting.take().into_iter().for_each(Waker::wake);
    }

    /// Waits for the next ring.
    pub(super) async fn wait(&self) {
        let heard = self.rung.get();
        poll_fn(|context| {
            if self.rung.get() != heard {
                return Poll::Ready(());
            }
            self.waiting.borrow_mut().push(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

/// Runs two futures side by side until both have ended.
pub(super) async fn both<A, B>(first: impl Future<Output = A>, second: impl Future<Output = B>) -> (A, B) {
    let (mut first, mut second) = (std::pin::pin!(first), std::pin::pin!(second));
    let (mut a, mut b) = (None, None);
    poll_fn(|context| {
        if a.is_none()
            && let Poll::Ready(value) = first.as_mut().poll(context)
        {
            a = Some(value);
        }
        if b.is_none()
            && let Poll::Ready(value) = second.as_mut().poll(context)
        {
            b = Some(value);
        }
        match (a.take(), b.take()) {
            (Some(first), Some(second)) => Poll::Ready((first, second)),
            (first, second) => {
                (a, b) = (first, second);
                Poll::Pending
            }
        }
    })
    .await
}

/// Runs all futures side by side until each has ended.
pub(super) async fn all<'a, T>(futures: Vec<Pin<Box<dyn Future<Output = T> + 'a>>>) -> Vec<T> {
    let mut slots: Vec<_> = futures.into_iter().map(|future| (Some(future), None)).collect();
    poll_fn(|context| {
        let mut pending = false;
        for (future, value) in &mut slots {
            if let Some(running) = future {
                match running.as_mut().poll(context) {
                    Poll::Ready(done) => (*future, *value) = (None, Some(done)),
                    Poll::Pending => pending = true,
                }
            }
        }
        if pending { Poll::Pending } else { Poll::Ready(()) }
    })
    .await;
    slots.into_iter().filter_map(|(_, value)| value).collect()
}
