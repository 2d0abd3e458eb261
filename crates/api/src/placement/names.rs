//! Names of nodes and their places, asked for every node of every request: all text in one piece, and a table of places
//! beside it.

use std::hash::BuildHasher;

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use super::Slot;

/// Names, each with its place; none ever goes.
#[derive(Debug, Default)]
pub struct Names {
    text: String,
    /// Where each name ends.
    ends: Vec<usize>,
    table: HashTable<Slot>,
    hasher: RandomState,
}

impl Names {
    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.ends.len()
    }

    /// The name at a place; empty where there is none.
    #[must_use]
    #[inline]
    pub fn at(&self, slot: Slot) -> &str {
        name_at(&self.text, &self.ends, slot)
    }

    /// The place of a name.
    #[must_use]
    #[inline]
    pub fn find(&self, name: &str) -> Option<Slot> {
        self.table.find(self.hasher.hash_one(name), |slot| self.at(*slot) == name).copied()
    }

    /// The place of a name, given to it now where it has none.
    pub fn place(&mut self, name: &str) -> Slot {
        if let Some(slot) = self.find(name) {
            return slot;
        }
        let slot = Slot::try_from(self.ends.len()).unwrap_or(Slot::MAX);
        self.text.push_str(name);
        self.ends.push(self.text.len());
        let Self { text, ends, table, hasher } = self;
        table.insert_unique(hasher.hash_one(name), slot, |slot| hasher.hash_one(name_at(text, ends, *slot)));
        slot
    }
}

fn name_at<'a>(text: &'a str, ends: &[usize], slot: Slot) -> &'a str {
    let slot = slot as usize;
    let start = slot.checked_sub(1).and_then(|before| ends.get(before)).copied().unwrap_or(0);
    ends.get(slot).and_then(|end| text.get(start..*end)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::Names;

    #[test]
    fn every_name_keeps_its_place() {
        let mut names = Names::default();
        let all: Vec<String> = (0..1_000).map(|i| format!("n{i}")).collect();
        assert_eq!(names.find("n0"), None);
        for (place, name) in (0..).zip(&all) {
            assert_eq!(names.place(name), place);
        }
        for (place, name) in (0..).zip(&all) {
            assert_eq!((names.find(name), names.place(name), names.at(place)), (Some(place), place, name.as_str()));
        }
        assert_eq!((names.find("n"), names.find(""), names.at(1_000)), (None, None, ""));
        assert_eq!(names.len(), 1_000);
    }
}
