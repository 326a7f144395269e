//! How much of a prompt is computed at once: as much as takes a twentieth of a second by what earlier chunks took, so that
//! pages stay smooth, a device's watchdog quiet and an abort quick. What is computed does not depend on it: every kernel adds
//! up a row in the same order whatever other rows come with it.

use std::collections::VecDeque;

use crate::error::Result;
use crate::graph::Backend;
use crate::source::LocalFuture;

/// Seconds that a chunk should take at most.
const MOST_SECS: f64 = 0.05;

/// Rows of the smallest chunk. Fewer would save little: kernels make tiles of up to 32 rows, and each launch costs something.
const LEAST: usize = 16;

/// Rows of the first chunk on a device of which nothing is known.
const FIRST: usize = 32;

/// Chunks under way at once: one computes while the next is put together.
const AHEAD: usize = 2;

/// See the module.
pub(super) struct Pace {
    /// Of the next chunk, a power of two.
    rows: usize,
    under_way: VecDeque<Chunk>,
    /// When the last chunk was done that was waited for.
    done_secs: f64,
}

struct Chunk {
    rows: usize,
    began_secs: f64,
    done: LocalFuture<'static, Result<()>>,
}

impl Default for Pace {
    fn default() -> Self {
        Self { rows: FIRST, under_way: VecDeque::new(), done_secs: 0.0 }
    }
}

impl Pace {
    /// Rows of the next chunk, `most` at most, as soon as there is room for it.
    pub(super) async fn next(&mut self, now_secs: &dyn Fn() -> f64, most: usize) -> Result<usize> {
        while self.under_way.len() >= AHEAD {
            let Some(Chunk { rows, began_secs, done }) = self.under_way.pop_front() else { break };
            done.await?;
            let now = now_secs();
            self.learn(rows, now - began_secs.max(self.done_secs));
            self.done_secs = now;
        }
        Ok(self.rows.min(most.max(1)))
    }

    /// A chunk of `rows` rows was submitted, which began at `began_secs`; with `last` nothing of its prompt follows, and what
    /// it takes is not waited for.
    pub(super) fn submitted(
        &mut self,
        backend: &dyn Backend,
        (rows, began_secs): (usize, f64),
        now_secs: &dyn Fn() -> f64,
        last: bool,
    ) {
        if last {
            // When somebody asks again, these will have been done for long.
            self.under_way.clear();
            return;
        }
        match backend.done() {
            Some(done) => self.under_way.push_back(Chunk { rows, began_secs, done }),
            None => self.learn(rows, now_secs() - began_secs),
        }
    }

    /// So many rows took so long. Nothing is learnt from small ones, whose time is that of larger ones too.
    fn learn(&mut self, rows: usize, secs: f64) {
        if rows < LEAST {
            return;
        }
        let fits = if secs > 0.0 { rows as f64 * (MOST_SECS / secs) } else { f64::INFINITY };
        // It grows step by step, and only from what was tried: the first run of a kernel says little of the next.
        self.rows = match fits >= 2.0 * rows as f64 {
            true => self.rows.max(2 * rows),
            false => 1 << (fits as usize).max(LEAST).ilog2(),
        };
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail so")]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::super::fake::{Call, Fake, loaded};
    use super::super::reply::Job;
    use super::*;

    /// Rows of the chunks of prompts of those lengths, on a device that takes so long for a row and goes through 128 at most.
    fn chunks(row_secs: f64, beside: bool, prompts: &[u32]) -> Vec<Vec<usize>> {
        let fake = Fake::new(100..200);
        fake.rows.set(128);
        fake.row_secs.set(row_secs);
        fake.beside.set(beside);
        let loaded = loaded(&fake);
        let of_prompt = |len: &u32| {
            let ids: Vec<u32> = (0..*len).map(|i| i + 1000 * len % 997).collect();
            let mut reply = pin!(async { Job::of(&ids, 1.0, 1.0).run(&loaded, &|| false, &mut |_| {}).await });
            while reply.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() {
                // Whoever waits is late.
                fake.clock.set(fake.clock.get() + 1e-6);
            }
            let rows = |call: &Call| if let Call::Prefill(_, rows, _) = call { Some(*rows) } else { None };
            fake.calls().0.iter().filter_map(rows).collect()
        };
        prompts.iter().map(of_prompt).collect()
    }

    #[test]
    fn chunks_take_as_long_as_they_may() {
        // As fast as one likes: they grow to all that a step takes. The next prompt begins with what was learnt.
        assert_eq!(chunks(0.0, false, &[250, 150]), [vec![32, 64, 128, 26], vec![128, 22]]);
        // 50 ms are 45 rows, or 9, of which 16 are computed; a device beside us has two under way before it tells.
        assert_eq!(chunks(0.0011, false, &[140]), [vec![32, 32, 32, 32, 12]]);
        assert_eq!(chunks(0.0055, false, &[70, 40]), [vec![32, 16, 16, 6], vec![16, 16, 8]]);
        assert_eq!(chunks(0.0055, true, &[100]), [vec![32, 32, 16, 16, 4]]);
        assert_eq!(chunks(1e-5, true, &[250]), [vec![32, 32, 64, 64, 58]]);
    }

    #[test]
    fn what_was_slow_once_is_tried_again() {
        let mut pace = Pace::default();
        pace.learn(32, 9.0);
        assert_eq!(pace.rows, LEAST);
        for rows in [32, 64, 128] {
            pace.learn(pace.rows, 1e-3);
            assert_eq!(pace.rows, rows);
        }
        // The end of a prompt says nothing.
        pace.learn(3, 9.0);
        pace.learn(16, 1e-3);
        assert_eq!(pace.rows, 128);
        pace.learn(128, 0.0501);
        assert_eq!(pace.rows, 64);
    }
}
