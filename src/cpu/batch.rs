//! Chains for several sequences at once: one step has a row of each, so that a weight is decoded once for all of them.

use super::Cpu;
use crate::error::{Error, ErrorKind, Result};
use crate::graph::{BAD_LOGITS, Batch, BatchRow, MAX_BATCH, Row, Step};
use crate::sample::Chooser;

/// The replies that batches have, and what was chosen last.
#[derive(Default)]
pub(super) struct Places {
    choosers: [Option<Chooser>; MAX_BATCH],
    /// Of each row of the last batch.
    last: Vec<u32>,
}

impl Places {
    pub(super) fn start(&mut self, place: u32, chooser: Chooser) -> Result<()> {
        let slot = self.choosers.get_mut(place as usize).ok_or_else(|| no_place(place))?;
        *slot = Some(chooser);
        Ok(())
    }

    /// The next id of a reply, [`BAD_LOGITS`] where there is none.
    fn choose(&mut self, place: u32, logits: &[f32], index: u32) -> Result<u32> {
        let chooser = self.choosers.get_mut(place as usize).and_then(Option::as_mut).ok_or_else(|| no_place(place))?;
        match chooser.choose(logits, None, index) {
            Err(error) if error.kind() == ErrorKind::BadLogits => Ok(BAD_LOGITS),
            chosen => chosen,
        }
    }
}

fn no_place(place: u32) -> Error {
    Error::new(ErrorKind::InvalidArgument, format!("no reply was started in place {place}"))
}

impl Cpu {
    /// The ids of a batch, `(rows, count)`.
    pub(super) fn batch(&self, batch: &Batch<'_>) -> Result<Vec<u32>> {
        let rows = batch.rows;
        if rows.is_empty() || rows.len() > MAX_BATCH || batch.count == 0 {
            let words = format!("a batch of {} sequences and {} steps", rows.len(), batch.count);
            return Err(Error::new(ErrorKind::InvalidArgument, words));
        }
        let mut tokens: Vec<u32> = match batch.goes_on {
            true => self.state.borrow().places.last.clone(),
            false => rows.iter().map(|row| row.token).collect(),
        };
        if tokens.len() != rows.len() {
            let words = format!("{} rows go on from {}", rows.len(), tokens.len());
            return Err(Error::new(ErrorKind::InvalidArgument, words));
        }
        let mut ids = vec![Vec::new(); rows.len()];
        for step in 0..batch.count {
            tokens = self.batch_step(rows, &tokens, step)?;
            ids.iter_mut().zip(&tokens).for_each(|(of_row, id): (&mut Vec<u32>, _)| of_row.push(*id));
        }
        self.state.borrow_mut().places.last = tokens;
        Ok(ids.concat())
    }

    /// One step: the id after each of `tokens`. Rows that came to nothing before have nothing to go on from.
    fn batch_step(&self, rows: &[BatchRow<'_>], tokens: &[u32], step: u32) -> Result<Vec<u32>> {
        let live = || rows.iter().zip(tokens).filter(|(_, token)| **token != BAD_LOGITS);
        let row = |(sequence, (row, token)): (u32, (&BatchRow<'_>, &u32))| Row {
            token: *token,
            // A position past u32 is past every page, so the step's check refuses it.
            position: row.position.saturating_add(step),
            sequence,
            segment: 0,
        };
        let step_rows: Vec<Row> = (0..).zip(live()).map(row).collect();
        let pages: Vec<Vec<u32>> = live().map(|(row, _)| row.pages.to_vec()).collect();
        let mut logits = Vec::new();
        if !step_rows.is_empty() {
            let outputs: Vec<u32> = (0..).take(step_rows.len()).collect();
            logits = match self
                .trace(&Step { rows: &step_rows, pages: &pages, states: &[], outputs: &outputs }, &mut |_, _, _| {})
            {
                // One row's fault is not that of the others.
                Err(error) if error.kind() == ErrorKind::BadLogits => self.apart(&step_rows, &pages)?,
                logits => logits?,
            };
        }
        let mut logits = logits.chunks_exact(self.graph.vocab().max(1));
        let state = &mut *self.state.borrow_mut();
        let mut id = |(row, token): (&BatchRow<'_>, &u32)| match (*token, logits.next()) {
            (BAD_LOGITS, _) | (_, None) => Ok(BAD_LOGITS),
            (_, Some(logits)) => state.places.choose(row.place, logits, row.index.wrapping_add(step)),
        };
        rows.iter().zip(tokens).map(&mut id).collect()
    }

    /// The logits of each row by itself, which are no numbers where they cannot be computed.
    fn apart(&self, rows: &[Row], pages: &[Vec<u32>]) -> Result<Vec<f32>> {
        let mut all = Vec::new();
        for (row, pages) in rows.iter().zip(pages) {
            let alone = [Row { sequence: 0, ..*row }];
            let step = Step { rows: &alone, pages: std::slice::from_ref(pages), states: &[], outputs: &[0] };
            match self.trace(&step, &mut |_, _, _| {}) {
                Err(error) if error.kind() == ErrorKind::BadLogits => {
                    all.extend(std::iter::repeat_n(f32::NAN, self.graph.vocab()));
                }
                logits => all.extend(logits?),
            }
        }
        Ok(all)
    }
}
