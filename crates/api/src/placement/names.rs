//! Names of nodes and their places, asked for every node of every request: all text in one piece, and a table of places
//! beside it.

use std::hash::BuildHasher;

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use super::Slot;

/// Names, each with its place; none ever goes.
#[derive(Debug, Default)]
pub struct Names {
    text: Vec<u8>,
    /// Where each name stands in the text.
    spans: Vec<Span>,
    /// Spans too, so that a look-up need not go through the slot to find the name.
    table: HashTable<(Span, Slot)>,
    hasher: RandomState,
    /// Which name was asked for after each the last time: a scheduler walks its nodes in much the same order again.
    follows: Vec<Slot>,
}

/// Where a walk over names is. A scheduler names its nodes either in much the same order as the last time, or as its workers
/// bring them, each from a row of its own.
#[derive(Debug)]
struct Walk {
    /// The last name that was found.
    before: Slot,
    /// How often more what followed the last time may be wrong in turn; at 0 it is not asked any more.
    luck: u8,
    /// The last name of each row.
    rows: [Slot; Walk::ROWS],
    /// The row that is given up for a new one.
    oldest: usize,
    /// How often more no row may go on in turn; at 0 they are not asked any more.
    patience: u8,
}

impl Walk {
    const LUCK: u8 = 8;
    /// As many as kube-scheduler has workers by default.
    const ROWS: usize = 16;
    const PATIENCE: u8 = 64;
}

impl Default for Walk {
    fn default() -> Self {
        let none = Slot::MAX - 1;
        Self { before: none, luck: Self::LUCK, rows: [none; Self::ROWS], oldest: 0, patience: Self::PATIENCE }
    }
}

#[derive(Clone, Copy, Debug)]
struct Span {
    start: u32,
    length: u32,
}

impl Names {
    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether the name at a place is this one.
    #[must_use]
    #[inline]
    pub fn is_at(&self, slot: Slot, name: &str) -> bool {
        self.spans.get(slot as usize).is_some_and(|span| span.of(&self.text) == name.as_bytes())
    }

    /// The place of a name.
    #[must_use]
    #[inline]
    pub fn find(&self, name: &str) -> Option<Slot> {
        let name = name.as_bytes();
        self.table.find(self.hasher.hash_one(name), |(span, _)| span.of(&self.text) == name).map(|(_, slot)| *slot)
    }

    /// The places of names that are asked for one after another: most are guessed by where those before them are, and need no
    /// search.
    pub fn find_all<'a>(&mut self, names: impl Iterator<Item = &'a str>) -> Vec<Option<Slot>> {
        let mut walk = Walk::default();
        names.map(|name| self.find_next(&mut walk, name)).collect()
    }

    #[inline]
    fn find_next(&mut self, walk: &mut Walk, name: &str) -> Option<Slot> {
        let before = walk.before;
        if walk.luck > 0 {
            let guess = self.follows.get(before as usize).copied().filter(|slot| self.is_at(*slot, name));
            if guess.is_some() {
                walk.luck = Walk::LUCK;
                walk.before = guess.unwrap_or(before);
                return guess;
            }
            walk.luck -= 1;
        }
        let found = self.find_beside(walk, name)?;
        if walk.luck > 0
            && let Some(follows) = self.follows.get_mut(before as usize)
        {
            *follows = found;
        }
        walk.before = found;
        Some(found)
    }

    /// Next in one of the rows that are being walked, or anywhere.
    fn find_beside(&self, walk: &mut Walk, name: &str) -> Option<Slot> {
        if walk.luck == 0 && walk.patience > 0 {
            for last in &mut walk.rows {
                if self.is_at(last.wrapping_add(1), name) {
                    *last = last.wrapping_add(1);
                    walk.patience = Walk::PATIENCE;
                    return Some(*last);
                }
            }
            walk.patience -= 1;
        }
        let found = self.find(name)?;
        walk.rows[walk.oldest] = found;
        walk.oldest = (walk.oldest + 1) % Walk::ROWS;
        Some(found)
    }

    /// The place of a name, given to it now where it has none.
    pub fn place(&mut self, name: &str) -> Slot {
        if let Some(slot) = self.find(name) {
            return slot;
        }
        let slot = Slot::try_from(self.spans.len()).unwrap_or(Slot::MAX);
        let all = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
        let span = Span { start: all(self.text.len()), length: all(name.len()) };
        self.text.extend_from_slice(name.as_bytes());
        self.spans.push(span);
        self.follows.push(slot + 1);
        let Self { text, spans: _, table, hasher, follows: _ } = self;
        let hash = |span: Span| hasher.hash_one(span.of(text));
        table.insert_unique(hash(span), (span, slot), |(span, _)| hash(*span));
        slot
    }
}

impl Span {
    #[inline]
    fn of(self, text: &[u8]) -> &[u8] {
        let start = self.start as usize;
        text.get(start..start + self.length as usize).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::{Names, Slot};

    #[test]
    fn every_name_keeps_its_place() {
        let mut names = Names::default();
        let all: Vec<String> = (0..1_000).map(|i| format!("n{i}")).collect();
        assert_eq!(names.find("n0"), None);
        for (place, name) in (0..).zip(&all) {
            assert_eq!(names.place(name), place);
        }
        for (place, name) in (0..).zip(&all) {
            assert_eq!((names.find(name), names.place(name)), (Some(place), place));
            assert!(names.is_at(place, name) && !names.is_at(place, "n") && !names.is_at(place + 1, name));
        }
        // As they came, backwards, backwards as learnt, mixed as workers do, and without any order; with a stranger at times.
        let forwards: Vec<usize> = (0..all.len()).collect();
        let backwards: Vec<usize> = forwards.iter().copied().rev().collect();
        let mixed = |rows: usize| -> Vec<usize> {
            let length = all.len() / rows;
            (0..all.len()).map(|i| (i % rows) * length + i / rows).collect()
        };
        let without: Vec<usize> = (0..all.len()).map(|i| i * 387 % all.len()).collect();
        let orders =
            [&forwards, &backwards, &backwards, &mixed(2), &mixed(10), &forwards, &mixed(50), &without, &without];
        for order in orders {
            let asked = order.iter().flat_map(|i| (i % 7 == 0).then_some("stranger").into_iter().chain([&*all[*i]]));
            let found: Vec<Slot> = names.find_all(asked.clone()).into_iter().flatten().collect();
            let expected: Vec<Slot> = order.iter().map(|i| Slot::try_from(*i).unwrap()).collect();
            assert_eq!(found, expected);
            let strangers = names.find_all(asked).iter().filter(|slot| slot.is_none()).count();
            assert_eq!(strangers, all.len().div_ceil(7));
        }
        assert_eq!((names.find("n"), names.find("")), (None, None));
        assert!(!names.is_at(1_000, ""));
        assert_eq!(names.len(), 1_000);
    }
}
