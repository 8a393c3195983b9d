//! Rows in id order, in pages that stay full when ids rise, as ids of loaders and of the service do.
//!
//! Promise: what a `BTreeMap` would answer. A B-tree that grows at its end leaves its leaves half
//! empty, which costs more than a small row. Left out: merging pages that deletions thinned out.

use std::collections::BTreeMap;
use std::ops::Bound::{self, Excluded, Included, Unbounded};

use uuid::Uuid;

use super::row::Row;

/// Rows of one page: enough to fill memory well, few enough to move on an insertion.
const PAGE_ROWS: usize = 128;

type Page = Vec<(Uuid, Row)>;

#[derive(Clone, Debug, Default)]
pub(super) struct Pages {
    /// By the least id a page may hold; a page is below the next one's.
    pages: BTreeMap<Uuid, Page>,
    len: usize,
}

impl Pages {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The key of the page an id belongs to, unless it is below all pages.
    fn page_of(&self, id: &Uuid) -> Option<Uuid> {
        self.pages.range(..=id).next_back().map(|(key, _)| *key)
    }

    pub(super) fn get(&self, id: &Uuid) -> Option<&Row> {
        let page = self.pages.get(&self.page_of(id)?)?;
        let place = page.binary_search_by_key(id, |(found, _)| *found).ok()?;
        Some(&page[place].1)
    }

    /// Inserts or replaces a row and returns the one before.
    pub(super) fn insert(&mut self, id: Uuid, row: Row) -> Option<Row> {
        let Some((key, page)) = self.page_of(&id).and_then(|key| Some((key, self.pages.get_mut(&key)?))) else {
            self.pages.insert(Uuid::nil(), new_page((id, row)));
            self.len += 1;
            return None;
        };
        let place = match page.binary_search_by_key(&id, |(found, _)| *found) {
            Ok(place) => return Some(std::mem::replace(&mut page[place].1, row)),
            Err(place) => place,
        };
        self.len += 1;
        if page.len() < PAGE_ROWS {
            page.insert(place, (id, row));
        } else if place == PAGE_ROWS {
            self.pages.insert(id, new_page((id, row)));
        } else {
            self.split(key, id, row);
        }
        None
    }

    /// Halves a full page and inserts a row into the half it belongs to.
    fn split(&mut self, key: Uuid, id: Uuid, row: Row) {
        let Some(page) = self.pages.get_mut(&key) else { return };
        let mut upper = Vec::with_capacity(PAGE_ROWS);
        upper.extend(page.drain(PAGE_ROWS / 2..));
        let first = upper[0].0;
        let half = if id < first { page } else { &mut upper };
        let place = half.partition_point(|(found, _)| *found < id);
        half.insert(place, (id, row));
        self.pages.insert(first, upper);
    }

    pub(super) fn remove(&mut self, id: &Uuid) -> Option<Row> {
        let key = self.page_of(id)?;
        let page = self.pages.get_mut(&key)?;
        let place = page.binary_search_by_key(id, |(found, _)| *found).ok()?;
        let (_, row) = page.remove(place);
        if page.is_empty() {
            self.pages.remove(&key);
        }
        self.len -= 1;
        Some(row)
    }

    /// Rows in id order, from the one after `after` on.
    pub(super) fn after(&self, after: Option<Uuid>) -> impl DoubleEndedIterator<Item = (&Uuid, &Row)> {
        let start = after.and_then(|id| self.page_of(&id)).map_or(Unbounded, Included);
        let from = after.map_or(Unbounded, Excluded);
        self.pages
            .range((start, Unbounded))
            .flat_map(move |(_, page)| part(page, from).iter().map(|(id, row)| (id, row)))
    }
}

fn new_page(first: (Uuid, Row)) -> Page {
    let mut page = Vec::with_capacity(PAGE_ROWS);
    page.push(first);
    page
}

/// The rows of a page behind a bound.
fn part(page: &Page, from: Bound<Uuid>) -> &[(Uuid, Row)] {
    let start = match from {
        Excluded(id) => page.partition_point(|(found, _)| *found <= id),
        Included(_) | Unbounded => 0,
    };
    page.get(start..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    fn row(version: u64) -> Row {
        Row { version, cells: Box::default() }
    }

    #[test]
    fn pages_answer_as_a_map_does() {
        let mut random = Random::new(7);
        let (mut pages, mut map) = (Pages::default(), BTreeMap::new());
        for step in 0..20_000u64 {
            let id = Uuid::from_u128(u128::from(random.below(4000)));
            if random.below(3) == 0 {
                assert_eq!(pages.remove(&id), map.remove(&id));
            } else {
                assert_eq!(pages.insert(id, row(step)), map.insert(id, row(step)));
            }
        }
        assert_eq!(pages.len(), map.len());
        assert!(pages.after(None).eq(map.iter()));
        assert!(pages.after(None).rev().eq(map.iter().rev()));
        for id in (0..4001).map(Uuid::from_u128) {
            assert_eq!(pages.get(&id), map.get(&id));
            assert!(pages.after(Some(id)).take(3).eq(map.range((Excluded(id), Unbounded)).take(3)));
        }
    }

    #[test]
    fn rising_ids_leave_no_gaps() {
        let mut pages = Pages::default();
        for id in 0..10 * PAGE_ROWS as u128 {
            pages.insert(Uuid::from_u128(id), row(0));
        }
        assert_eq!(pages.pages.len(), 10);
    }
}
