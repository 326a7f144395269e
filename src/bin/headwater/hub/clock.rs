//! Time and chance of this machine. Sleeps end on a thread of their own, which wakes whoever waits.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::hash::{BuildHasher, RandomState};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::task::{Poll, Waker};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use headwater::hub::edge::Edge;
use headwater::source::LocalFuture;

/// The clock and its thread, which ends with it.
pub(super) struct Clock {
    alarms: Sender<(Instant, Waker)>,
}

impl Default for Clock {
    fn default() -> Self {
        let (alarms, asked) = channel::<(Instant, Waker)>();
        thread::spawn(move || {
            let mut waiting: BTreeMap<Reverse<Instant>, Vec<Waker>> = BTreeMap::new();
            loop {
                let soonest = waiting.last_key_value().map(|(at, _)| at.0.saturating_duration_since(Instant::now()));
                match asked.recv_timeout(soonest.unwrap_or(Duration::from_secs(3600))) {
                    Ok((at, waker)) => waiting.entry(Reverse(at)).or_default().push(waker),
                    Err(RecvTimeoutError::Timeout) => {
                        for waker in waiting.pop_last().into_iter().flat_map(|(_, wakers)| wakers) {
                            waker.wake();
                        }
                    }
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            }
        });
        Self { alarms }
    }
}

impl Edge for Clock {
    fn now_secs(&self) -> f64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
    }

    fn random(&self) -> f64 {
        // The standard library seeds its hash maps from the system's randomness.
        f64::from(RandomState::new().hash_one(0) as u32) / (f64::from(u32::MAX) + 1.0)
    }

    fn sleep(&self, secs: f64) -> LocalFuture<'_, ()> {
        let end = Instant::now() + Duration::from_secs_f64(secs);
        let mut told: Option<Waker> = None;
        Box::pin(poll_fn(move |context| {
            if Instant::now() >= end {
                return Poll::Ready(());
            }
            if !told.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
                told = Some(context.waker().clone());
                // The thread lives as long as this clock.
                self.alarms.send((end, context.waker().clone())).ok();
            }
            Poll::Pending
        }))
    }
}
