//! Short lists, a list a place, one after another in memory: walking thousands of them touches few pages.
//!
//! A list that grows and is not the last one moves to the end; what it leaves behind is reclaimed when it is most of all.

/// Lists of `T`, by place.
#[derive(Clone, Debug)]
pub struct Runs<T> {
    items: Vec<T>,
    spans: Vec<Span>,
    /// Items that belong to no list any more.
    dead: usize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Span {
    start: usize,
    length: usize,
}

impl<T> Default for Runs<T> {
    fn default() -> Self {
        Self { items: Vec::new(), spans: Vec::new(), dead: 0 }
    }
}

impl<T: Clone> Runs<T> {
    /// The list of a place; empty where there is none.
    #[must_use]
    pub fn get(&self, place: usize) -> &[T] {
        let Span { start, length } = self.spans.get(place).copied().unwrap_or_default();
        self.items.get(start..start + length).unwrap_or_default()
    }

    /// The list of a place, to be changed.
    pub fn get_mut(&mut self, place: usize) -> &mut [T] {
        let Span { start, length } = self.spans.get(place).copied().unwrap_or_default();
        self.items.get_mut(start..start + length).unwrap_or_default()
    }

    /// Make the list of a place at least so long, with copies of `with`.
    pub fn lengthen(&mut self, place: usize, length: usize, with: T) {
        if self.spans.len() <= place {
            self.spans.resize(place + 1, Span::default());
        }
        let Some(&Span { mut start, length: before }) = self.spans.get(place) else { return };
        if before >= length {
            return;
        }
        if start + before != self.items.len() {
            let moved = self.items.len();
            self.items.extend_from_within(start..start + before);
            self.dead += before;
            start = moved;
        }
        self.items.resize(start + length, with);
        if let Some(span) = self.spans.get_mut(place) {
            *span = Span { start, length };
        }
        if self.dead > self.items.len() / 2 {
            self.compact();
        }
    }

    fn compact(&mut self) {
        let mut items = Vec::with_capacity(self.items.len() - self.dead);
        for span in &mut self.spans {
            let start = items.len();
            items.extend_from_slice(self.items.get(span.start..span.start + span.length).unwrap_or_default());
            span.start = start;
        }
        (self.items, self.dead) = (items, 0);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Runs;

    proptest! {
        #[test]
        fn they_hold_what_as_many_vectors_would(steps in prop::collection::vec((0usize..6, 0usize..9, any::<u8>()), 0..60)) {
            let mut runs = Runs::default();
            let mut plain = vec![Vec::new(); 6];
            for (place, length, value) in steps {
                runs.lengthen(place, length, value);
                if plain[place].len() < length {
                    plain[place].resize(length, value);
                }
                if let Some(first) = runs.get_mut(place).first_mut() {
                    *first = first.wrapping_add(1);
                }
                if let Some(first) = plain[place].first_mut() {
                    *first = first.wrapping_add(1);
                }
                for (place, plain) in plain.iter().enumerate() {
                    prop_assert_eq!(runs.get(place), plain.as_slice());
                }
                prop_assert!(runs.items.len() <= 2 * plain.iter().map(Vec::len).sum::<usize>() + 1);
            }
        }
    }
}
