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

    /// The place of a name that is asked for after another one: where it was the last time, no search is needed.
    #[inline]
    pub fn find_after(&mut self, before: Slot, name: &str) -> Option<Slot> {
        let guess = self.follows.get(before as usize).copied().filter(|slot| self.is_at(*slot, name));
        if guess.is_some() {
            return guess;
        }
        let found = self.find(name)?;
        if let Some(follows) = self.follows.get_mut(before as usize) {
            *follows = found;
        }
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
        // As they came, backwards, backwards as learnt; with a stranger before each.
        let forwards: Vec<(Slot, &String)> = (0..).zip(&all).collect();
        let backwards: Vec<(Slot, &String)> = forwards.iter().copied().rev().collect();
        for order in [&forwards, &backwards, &backwards] {
            let mut before = Slot::MAX;
            for (place, name) in order {
                assert_eq!(names.find_after(before, "stranger"), None);
                assert_eq!(names.find_after(before, name), Some(*place));
                before = *place;
            }
        }
        assert_eq!((names.find("n"), names.find("")), (None, None));
        assert!(!names.is_at(1_000, ""));
        assert_eq!(names.len(), 1_000);
    }
}
