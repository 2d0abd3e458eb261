//! What every node of every request is judged by, a few bytes a pool: the rest is only for those who want it explained.

use super::Pool;
use crate::media::Media;
use crate::wipe::Level;

/// A pool in brief.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Brief {
    /// Bytes that are neither taken nor promised.
    pub(super) room: u64,
    /// The largest volume it could ever take at this moment, in bytes.
    pub(super) single: u64,
    /// Bytes it can hold in all.
    pub(super) capacity: u64,
    pub(super) kind: Kind,
    /// Whether no pool before it draws on the same room.
    pub(super) alone: bool,
}

impl Brief {
    /// Of the pool at a place of its node.
    #[must_use]
    pub fn of((place, pool): (usize, &Pool)) -> Self {
        Self {
            room: pool.room(),
            single: pool.largest.min(pool.capacity),
            capacity: pool.capacity,
            kind: Kind::of(pool),
            alone: usize::from(pool.shares) == place,
        }
    }
}

/// Presence, medium and level of a pool in one small number, so that what a claim thinks of it is looked up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Kind(u8);

const LEVELS: usize = Level::ALL.len() + 1;

impl Kind {
    /// How many there are; [`Kind::default`], a pool that is absent, is the first.
    pub const COUNT: usize = 1 + Media::ALL.len() * LEVELS;

    #[allow(clippy::cast_possible_truncation)] // there are fewer than 256
    fn of(pool: &Pool) -> Self {
        let level = pool.level.map_or(0, |level| 1 + level as usize);
        Self(if pool.present { (1 + pool.media as usize * LEVELS + level) as u8 } else { 0 })
    }

    pub const fn place(self) -> usize {
        self.0 as usize
    }

    /// Every medium and level of a pool that is present, with its number.
    pub fn present() -> impl Iterator<Item = (usize, Media, Option<Level>)> {
        let levels = || std::iter::once(None).chain(Level::ALL.into_iter().map(Some));
        let all = Media::ALL.into_iter().flat_map(move |media| levels().map(move |level| (media, level)));
        (1..).zip(all).map(|(place, (media, level))| (place, media, level))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_numbered_as_they_are_listed() {
        let mut pool = Pool {
            name: "p".into(),
            media: Media::Unknown,
            level: None,
            present: false,
            capacity: 1,
            free: 1,
            largest: 1,
            promised: 0,
            shares: 0,
        };
        assert_eq!(Kind::of(&pool), Kind::default());
        pool.present = true;
        for (place, media, level) in Kind::present() {
            (pool.media, pool.level) = (media, level);
            assert_eq!(Kind::of(&pool).place(), place, "{media:?} {level:?}");
        }
        assert_eq!(Kind::present().count() + 1, Kind::COUNT);
    }
}
