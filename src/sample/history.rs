//! What was said so far: what penalties look at.

use std::collections::BTreeMap;

use super::choose::Count;

/// The ids of prompt and reply, and how often each occurs in the last of them.
#[derive(Clone, Debug)]
pub struct History {
    ids: Vec<u32>,
    prompt: usize,
    /// How many of the last ids count.
    window: usize,
    counts: BTreeMap<u32, Count>,
}

impl History {
    /// After a prompt; all ids count unless `window` says how many of the last.
    pub fn new(prompt: &[u32], window: Option<usize>) -> Self {
        let window = window.unwrap_or(usize::MAX);
        let mut history = Self { ids: prompt.to_vec(), prompt: prompt.len(), window, counts: BTreeMap::new() };
        if window == usize::MAX {
            prompt.iter().for_each(|id| history.counts.entry(*id).or_default().in_prompt = true);
        } else {
            history.count_window();
        }
        history
    }

    /// All ids, of the prompt and of the reply.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// Counts a generated id.
    pub fn push(&mut self, id: u32) {
        self.ids.push(id);
        if self.window < self.ids.len() {
            self.count_window();
        } else {
            let count = self.counts.entry(id).or_default();
            count.generated = count.generated.saturating_add(1);
        }
    }

    fn count_window(&mut self) {
        self.counts.clear();
        let first = self.ids.len().saturating_sub(self.window);
        for (index, id) in self.ids.iter().enumerate().skip(first) {
            let count = self.counts.entry(*id).or_default();
            match index < self.prompt {
                true => count.in_prompt = true,
                false => count.generated = count.generated.saturating_add(1),
            }
        }
    }

    /// Each id that counts.
    pub fn counts(&self) -> impl Iterator<Item = (u32, Count)> {
        self.counts.iter().map(|(id, count)| (*id, *count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(history: &History) -> Vec<(u32, bool, u32)> {
        history.counts().map(|(id, count)| (id, count.in_prompt, count.generated)).collect()
    }

    #[test]
    fn all_ids_count_without_a_window() {
        let mut history = History::new(&[5, 5, 7], None);
        history.push(7);
        history.push(7);
        history.push(9);
        assert_eq!(counts(&history), [(5, true, 0), (7, true, 2), (9, false, 1)]);
        assert_eq!(history.ids(), [5, 5, 7, 7, 7, 9]);
    }

    #[test]
    fn a_window_forgets_what_left_it() {
        let mut history = History::new(&[5, 6, 7], Some(2));
        assert_eq!(counts(&history), [(6, true, 0), (7, true, 0)]);
        history.push(5);
        assert_eq!(counts(&history), [(5, false, 1), (7, true, 0)]);
        history.push(5);
        assert_eq!(counts(&history), [(5, false, 2)]);
        let mut none = History::new(&[5], Some(0));
        none.push(5);
        assert_eq!(counts(&none), []);
    }
}
