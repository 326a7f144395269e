//! The free list of pages. A page is either in the list or with exactly one owner.

use crate::error::{Error, ErrorKind, Result};

/// Hands out page indices `0 .. total` and takes them back.
#[derive(Debug)]
pub struct Pool {
    total: usize,
    /// Free pages; the next one to hand out is the last.
    free: Vec<u32>,
    /// Whether a page is in the free list, so that one handed back twice is not handed out twice.
    is_free: Vec<bool>,
}

impl Pool {
    /// A pool of `total` pages, all free, handed out from 0 upwards.
    pub fn new(total: usize) -> Result<Self> {
        let count = u32::try_from(total)
            .map_err(|_| Error::new(ErrorKind::LimitExceeded, format!("{total} pages of keys and values")))?;
        Ok(Self { total, free: (0..count).rev().collect(), is_free: vec![true; total] })
    }

    /// Pages in all.
    pub fn total(&self) -> usize {
        self.total
    }

    /// Pages that nobody owns.
    pub fn free_pages(&self) -> usize {
        self.free.len()
    }

    /// Adds `count` pages to `pages`: all of them, or none and `ContextFull`.
    pub fn take(&mut self, count: usize, pages: &mut Vec<u32>) -> Result<()> {
        let Some(rest) = self.free.len().checked_sub(count) else {
            return Err(Error::new(
                ErrorKind::ContextFull,
                format!(
                    "{count} more pages of keys and values are needed, {} of {} are free",
                    self.free.len(),
                    self.total
                ),
            ));
        };
        for page in self.free.drain(rest..).rev() {
            if let Some(is_free) = self.is_free.get_mut(page as usize) {
                *is_free = false;
            }
            pages.push(page);
        }
        Ok(())
    }

    /// Takes pages back. One that is free already, or that never was of this pool, is a fault of ours.
    pub fn give_back(&mut self, pages: impl IntoIterator<Item = u32>) -> Result<()> {
        for page in pages {
            match self.is_free.get_mut(page as usize) {
                Some(is_free) if !*is_free => *is_free = true,
                _ => return Err(Error::new(ErrorKind::Internal, format!("page {page} was handed back but not out"))),
            }
            self.free.push(page);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Pool;
    use crate::error::ErrorKind;

    #[test]
    fn pages_come_and_go_and_none_is_lost() {
        let mut pool = Pool::new(5).expect("five pages");
        let (mut first, mut second) = (Vec::new(), Vec::new());
        pool.take(2, &mut first).expect("two of five");
        pool.take(3, &mut second).expect("three of three");
        assert_eq!((first.as_slice(), second.as_slice()), ([0, 1].as_slice(), [2, 3, 4].as_slice()));
        pool.give_back(second).expect("they were out");
        assert_eq!((pool.free_pages(), pool.total()), (3, 5));
    }

    #[test]
    fn too_many_are_refused_whole() {
        let mut pool = Pool::new(2).expect("two pages");
        let mut pages = Vec::new();
        let error = pool.take(3, &mut pages).expect_err("three of two");
        assert_eq!(error.kind(), ErrorKind::ContextFull);
        assert!(error.message().contains("3 more pages") && error.message().contains("2 of 2"), "{error}");
        assert_eq!((pages.len(), pool.free_pages()), (0, 2));
    }

    #[test]
    fn a_page_is_not_taken_back_twice() {
        let mut pool = Pool::new(2).expect("two pages");
        let mut pages = Vec::new();
        pool.take(1, &mut pages).expect("one of two");
        pool.give_back(pages.clone()).expect("it was out");
        assert_eq!(pool.give_back(pages).expect_err("it is in").kind(), ErrorKind::Internal);
        assert_eq!(pool.give_back([9]).expect_err("never of this pool").kind(), ErrorKind::Internal);
        assert_eq!(pool.free_pages(), 2);
    }
}
