//! One at a time, first come first served: whoever holds the turn holds the value.
//!
//! The value itself travels to the next in line, so a caller that gives up while waiting (or in the middle of its
//! work) can neither keep it nor lose it.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use futures_channel::oneshot;

use crate::error::{Error, ErrorKind, Result};

/// A value that callers use in the order in which they asked.
pub(super) struct Turns<T> {
    line: Rc<Line<T>>,
}

struct Line<T> {
    /// The value while nobody has it.
    resting: RefCell<Option<T>>,
    waiting: RefCell<VecDeque<oneshot::Sender<Turn<T>>>>,
}

/// Holds the value and, when dropped, passes it on.
struct Turn<T> {
    value: Option<T>,
    line: Rc<Line<T>>,
}

impl<T> Turns<T> {
    pub(super) fn new(value: T) -> Self {
        let line = Line { resting: RefCell::new(Some(value)), waiting: RefCell::default() };
        Self { line: Rc::new(line) }
    }

    /// Waits for the turn, then works with the value.
    pub(super) async fn take<R>(&self, work: impl AsyncFnOnce(&mut T) -> Result<R>) -> Result<R> {
        let resting = self.line.resting.borrow_mut().take();
        let mut turn = match resting {
            Some(value) => Turn { value: Some(value), line: self.line.clone() },
            None => {
                let (sender, receiver) = oneshot::channel();
                self.line.waiting.borrow_mut().push_back(sender);
                receiver.await.map_err(|_| lost())?
            }
        };
        match &mut turn.value {
            Some(value) => work(value).await,
            None => Err(lost()),
        }
    }
}

fn lost() -> Error {
    Error::new(ErrorKind::Internal, "the turn was lost")
}

impl<T> Drop for Turn<T> {
    fn drop(&mut self) {
        let Some(value) = self.value.take() else { return };
        let mut turn = Turn { value: Some(value), line: self.line.clone() };
        loop {
            let next = self.line.waiting.borrow_mut().pop_front();
            let Some(next) = next else { break };
            match next.send(turn) {
                Ok(()) => return,
                Err(refused) => turn = refused,
            }
        }
        *self.line.resting.borrow_mut() = turn.value.take();
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::future::Future;
    use std::pin::{Pin, pin};
    use std::task::{Context, Poll, Waker};

    use super::Turns;
    use crate::error::{Error, ErrorKind, Result};

    fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    /// Ready at the second poll.
    async fn pause() {
        let mut paused = false;
        std::future::poll_fn(|_| if std::mem::replace(&mut paused, true) { Poll::Ready(()) } else { Poll::Pending })
            .await
    }

    #[test]
    fn callers_come_in_the_order_of_their_asking() {
        let turns = Turns::new(Vec::new());
        let visit = |name: u32| {
            turns.take(async move |visits: &mut Vec<u32>| {
                visits.push(name);
                pause().await;
                visits.push(name);
                Ok(visits.clone())
            })
        };
        let (mut first, mut second, mut third) = (pin!(visit(1)), pin!(visit(2)), pin!(visit(3)));
        assert!(poll(first.as_mut()).is_pending());
        assert!(poll(second.as_mut()).is_pending());
        assert!(poll(third.as_mut()).is_pending());
        assert!(poll(first.as_mut()).is_ready());
        assert!(poll(third.as_mut()).is_pending(), "it is the second's turn");
        assert!(poll(second.as_mut()).is_pending());
        assert!(poll(second.as_mut()).is_ready());
        assert!(poll(third.as_mut()).is_pending());
        match poll(third.as_mut()) {
            Poll::Ready(Ok(visits)) => assert_eq!(visits, [1, 1, 2, 2, 3, 3]),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn one_that_gives_up_does_not_hold_up_the_line() {
        let turns = Turns::new(0);
        let add = || {
            turns.take(async |count: &mut u32| {
                pause().await;
                *count += 1;
                Ok(*count)
            })
        };
        let mut last = pin!(add());
        {
            let (mut working, mut waiting) = (pin!(add()), pin!(add()));
            assert!(poll(working.as_mut()).is_pending());
            assert!(poll(waiting.as_mut()).is_pending());
            assert!(poll(last.as_mut()).is_pending());
        }
        assert!(poll(last.as_mut()).is_pending());
        assert!(matches!(poll(last.as_mut()), Poll::Ready(Ok(1))));
    }

    #[test]
    fn an_error_passes_the_turn_on() {
        let turns = Turns::new(RefCell::new(0));
        let mut failing = pin!(turns.take(async |_| -> Result<()> { Err(Error::new(ErrorKind::Aborted, "enough")) }));
        assert!(matches!(poll(failing.as_mut()), Poll::Ready(Err(error)) if error.kind() == ErrorKind::Aborted));
        let mut next = pin!(turns.take(async |_| Ok(5)));
        assert!(matches!(poll(next.as_mut()), Poll::Ready(Ok(5))));
    }
}
